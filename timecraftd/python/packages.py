"""Packages for Python guests: those of a virtual environment, or of a list of requirements."""

from __future__ import annotations

import glob
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable

from timecraftd.errors import PythonError
from timecraftd.python.natives import find_natives

REQUIREMENTS_BYTES_MAX = 1 << 20
INSTALL_S_MAX = 1800.0
SHOWN_MAX = 5
WITHOUT_NATIVES = ("AIOHTTP", "FROZENLIST", "MULTIDICT", "PROPCACHE", "YARL")
"""Packages that leave out what is native, if they are built from source and told so."""
_MARK = "complete"

Progress = Callable[[str], None]


def site_packages(venv: str) -> str:
    """The folder of a virtual environment's packages. Raises PythonError."""
    if not os.path.exists(os.path.join(venv, "pyvenv.cfg")):
        raise PythonError(f"--venv {venv}: isn't a virtual environment", "make one with `python3 -m venv DIR`")
    found = glob.glob(os.path.join(glob.escape(venv), "lib", "python3*", "site-packages"))
    if len(found) != 1:
        raise PythonError(f"--venv {venv}: has {len(found) or 'no'} folders of packages", "make it anew")
    return os.path.abspath(found[0])


def check_pure(source: str, own: str | None, folder: str, flag: str, cache: str) -> None:
    """Whether a guest can run a program with a folder of packages, found out once for each state of both.

    `own` is the folder of the program's own modules, `cache` a directory of ours. Raises PythonError, which names
    native modules that the program is bound to import.
    """
    stat = os.stat(folder)
    # Installing and removing packages changes their folder.
    state = f"{folder} {stat.st_ino} {stat.st_mtime_ns} {own} {source}"
    mark = os.path.join(cache, f"pure-{hashlib.sha256(os.fsencode(state)).hexdigest()}")
    if os.path.exists(mark):
        return
    natives = find_natives(source, [own, folder] if own else [folder])
    if not natives:
        os.makedirs(cache, mode=0o700, exist_ok=True)
        with open(mark, "wb"):
            return
    named = ", ".join(f"{native.package} ({native.file})" for native in natives[:SHOWN_MAX])
    more = f" and {len(natives) - SHOWN_MAX} more" if len(natives) > SHOWN_MAX else ""
    raise PythonError(
        f"{flag}: native extensions can't run in a guest, and the program imports packages that need theirs: "
        f"{named}{more}",
        "use pure-Python packages instead",
    )


def install(requirements: str, version: str, cache: str, progress: Progress) -> str:
    """A folder with the packages that a file of requirements asks for, installed once for each content of the file.

    `version` is that of the guest's Python, `cache` a directory of ours. Raises PythonError.
    """
    flag = f"--requirements {requirements}"
    try:
        with open(requirements, "rb") as file:
            content = file.read(REQUIREMENTS_BYTES_MAX + 1)
    except OSError as error:
        raise PythonError(f"{flag}: {error.strerror}", "give the path of a requirements file") from None
    if len(content) > REQUIREMENTS_BYTES_MAX:
        raise PythonError(f"{flag}: is longer than {REQUIREMENTS_BYTES_MAX} bytes", "split it")
    folder = os.path.join(cache, hashlib.sha256(version.encode() + b"\0" + content).hexdigest())
    if os.path.exists(os.path.join(folder, _MARK)):
        return os.path.join(folder, "packages")
    progress(f"installing the packages of {requirements}")
    os.makedirs(cache, mode=0o700, exist_ok=True)
    draft = tempfile.mkdtemp(prefix="draft-", dir=cache)
    try:
        packages = os.path.join(draft, "packages")
        _pip(version, ["--target", packages, "--requirement", os.path.abspath(requirements)], flag)
        with open(os.path.join(draft, _MARK), "wb"):
            pass
        if os.path.exists(folder):  # somebody else was faster, or was interrupted long ago
            shutil.rmtree(folder, ignore_errors=True)
        os.rename(draft, folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return os.path.join(folder, "packages")


def _pip(version: str, arguments: list[str], flag: str) -> None:
    command = [sys.executable, "-m", "timecraftd.python.pip", version, "install", "--quiet", "--no-compile"]
    environment = os.environ | {f"{package}_NO_EXTENSIONS": "1" for package in WITHOUT_NATIVES}
    try:
        done = subprocess.run(
            [*command, *arguments], capture_output=True, text=True, timeout=INSTALL_S_MAX, env=environment, check=False
        )
    except subprocess.TimeoutExpired:
        raise PythonError(f"{flag}: pip took more than {INSTALL_S_MAX:g} s", "try again, or use --venv") from None
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        reason = lines[-1].removeprefix("ERROR: ") if lines else f"pip ended with {done.returncode}"
        raise PythonError(f"{flag}: {reason}", "correct the file, or install into a --venv yourself")
