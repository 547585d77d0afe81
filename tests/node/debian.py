"""Programs out of Debian's packages, for tests that need the real ones: what isn't installed is unpacked."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import pytest

from tests.e2e.guests import BUILT

APT_S = 300.0


@cache
def unpacked(*packages: str) -> Path:
    """The root of packages, kept between test runs. Skips, which in CI is a failure, if they can't be had."""
    root = BUILT / "debian" / packages[0]
    if root.exists():
        return root
    if shutil.which("apt-get") is None:
        pytest.skip(f"{', '.join(packages)}: this machine has neither them nor apt-get")
    root.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root.parent) as folder:
        os.chmod(folder, 0o755)  # apt downloads as another user if it may
        if _apt(folder, "download", *packages).returncode:
            _apt(folder, "update")  # a new machine knows of no packages
            again = _apt(folder, "download", *packages)
            if again.returncode:
                pytest.skip(f"{', '.join(packages)} can't be downloaded: {again.stderr.strip()[-500:]}")
        draft = Path(folder, "root")
        for archive in Path(folder).glob("*.deb"):
            subprocess.run(["dpkg", "-x", archive, draft], check=True)
        draft.rename(root)
    return root


def program(name: str, *packages: str) -> tuple[list[str], dict[str, str]]:
    """How to start a program, and with which environment: the installed one, else the one of packages."""
    found = shutil.which(name)
    if found:
        return [found], {}
    root = unpacked(*packages)
    libraries = sorted({str(path.parent) for path in root.rglob("*.so*") if path.is_file()})
    (found,) = [path for folder in ("bin", "usr/bin") if (path := root / folder / name).exists()]
    return [str(found)], {"LD_LIBRARY_PATH": ":".join(libraries)}


def _apt(folder: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["apt-get", "-q", *arguments], cwd=folder, capture_output=True, text=True, timeout=APT_S)
