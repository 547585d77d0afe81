"""Packs the standard library into the zip file that the guest imports from. Run by the build's own Python.

usage: stdlib.py BUILT_PYTHON ZIP EPOCH_S

Modules are compiled, under the names that they have for the guest, and stored as they are: the file is read far more
often than it is sent, and what sends it compresses.
"""

import importlib.util
import marshal
import os
import sys
import time
import zipfile
from collections.abc import Iterator

# As tracebacks name it.
GUEST_PATH = "/usr/lib/python311.zip"

SYSCONFIG = "_sysconfigdata__wasi_wasm32-wasi.py"

# Folders and modules that can't work (no processes, shared libraries, terminals or screens) or aren't for programs.
LEFT_OUT = frozenset(
    [
        "__phello__",
        "__pycache__",
        "_aix_support",
        "_bootsubprocess",
        "_osx_support",
        "ctypes",
        "curses",
        "ensurepip",
        "idlelib",
        "lib2to3",
        "msilib",
        "pydoc_data",
        "site-packages",
        "test",
        "tests",
        "tkinter",
        "turtle",
        "turtledemo",
        "venv",
        "_pydecimal",
        "_pyio",
    ]
)


def sources(folder: str) -> Iterator[tuple[str, bytes]]:
    """The modules to pack, in order: path in the library, source."""
    library = os.path.join(folder, "Lib")
    yield SYSCONFIG, settings(folder)
    for at, folders, files in os.walk(library):
        folders[:] = sorted(name for name in folders if name not in LEFT_OUT)
        for name in sorted(files):
            stem, suffix = os.path.splitext(name)
            if suffix == ".py" and stem not in LEFT_OUT:
                path = os.path.join(at, name)
                with open(path, "rb") as file:
                    yield os.path.relpath(path, library), file.read()


def settings(folder: str) -> bytes:
    """The module that `sysconfig` reads, without the paths of the build."""
    with open(os.path.join(folder, "pybuilddir.txt"), encoding="utf-8") as file:
        path = os.path.join(folder, file.read(), SYSCONFIG)
    variables: dict[str, dict[str, object]] = {}
    with open(path, encoding="utf-8") as file:
        exec(file.read(), variables)
    root = os.path.dirname(folder)
    lines = [f"    {name!r}: {plain(value, root)!r}," for name, value in sorted(variables["build_time_vars"].items())]
    return "\n".join(["build_time_vars = {", *lines, "}", ""]).encode()


def plain(value: object, root: str) -> object:
    return value.replace(root, "/build") if isinstance(value, str) else value


def compiled(path: str, source: bytes) -> bytes:
    """A module's `.pyc`, of the kind that isn't checked against a source."""
    code = compile(source, f"{GUEST_PATH}/{path}", "exec", dont_inherit=True, optimize=0)
    unchecked_hash = (1).to_bytes(4, "little")
    return importlib.util.MAGIC_NUMBER + unchecked_hash + importlib.util.source_hash(source) + marshal.dumps(code)


def pack(folder: str, to: str, epoch_s: int) -> None:
    when = time.gmtime(epoch_s)[:6]
    with zipfile.ZipFile(to, "w") as archive:
        for path, source in sources(folder):
            info = zipfile.ZipInfo(path + "c", when)
            info.external_attr = 0o644 << 16
            archive.writestr(info, compiled(path, source))


if __name__ == "__main__":
    pack(sys.argv[1], sys.argv[2], int(sys.argv[3]))
