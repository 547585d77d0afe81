"""Python programs: what the interpreter is told and given to run one."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType

from timecraftd.errors import NotFoundError, PythonError
from timecraftd.model import Digest, ModuleFile

INTERPRETER = "/usr/bin/python3.11"
PACKAGES_FOLDER = "/usr/lib/python3.11/site-packages"
SOURCE_BYTES_MAX = 16 << 20


@dataclass(frozen=True, slots=True)
class Mount:
    """A directory that the guest sees."""

    host: str
    guest: str
    immutable: bool = False


@dataclass(frozen=True, slots=True)
class Program:
    """A Python program, as the interpreter in the guest gets it."""

    name: str
    """What people know it by."""
    args: tuple[str, ...]
    """Of the interpreter, without its own name."""
    mounts: tuple[Mount, ...] = ()
    source: str = ""
    """The program's text, as far as it is known, to see what it imports."""
    path: tuple[str, ...] = ()
    """Folders of modules in the guest, beside those of the interpreter and of the program itself."""


def looks_like_source(data: bytes) -> bool:
    """Whether what came by standard input is a program, and no WebAssembly as bytes or text."""
    if data.startswith(b"\0asm") or data.lstrip().startswith((b"(", b";;")) or b"\0" in data:
        return False
    try:
        return bool(data.decode().strip())
    except UnicodeDecodeError:
        return False


def script(path: str, args: Sequence[str]) -> Program:
    """A file, with its folder: `python FILE ARG...`. Raises NotFoundError."""
    absolute = os.path.abspath(path)
    if not os.path.isfile(absolute):
        reason = "is a directory" if os.path.isdir(absolute) else "there is no such file"
        raise NotFoundError(f"{path}: {reason}", "give the path of a .py file")
    folder = os.path.dirname(absolute)
    try:
        with open(absolute, encoding="utf-8", errors="replace") as file:
            source = file.read(SOURCE_BYTES_MAX)
    except OSError as error:
        raise NotFoundError(f"{path}: {error.strerror}", "give the path of a readable file") from None
    return Program(os.path.basename(path), (absolute, *args), (Mount(folder, folder),), source)


def module(name: str, args: Sequence[str]) -> Program:
    """A module of the standard library, the packages or the current directory: `python -m NAME ARG...`."""
    folder = os.getcwd()
    return Program(name, ("-m", name, *args), (Mount(folder, folder),), f"import {name}", (folder,))


def command(source: str, args: Sequence[str]) -> Program:
    """A program as text: `python -c SOURCE ARG...`."""
    return Program("-c", ("-c", source, *args), source=source)


def interactive(args: Sequence[str]) -> Program:
    """What is typed."""
    return Program("python", ("-i", "-", *args))


def data_package() -> ModuleType:
    """The package that has the interpreter. Raises PythonError."""
    try:
        import timecraft_python_guest
    except ImportError:
        raise PythonError(
            "the Python interpreter for guests isn't installed", "pip install timecraftd[python]"
        ) from None
    package: ModuleType = timecraft_python_guest
    return package


def interpreter(package: ModuleType) -> ModuleFile:
    """The interpreter that a package has."""
    return ModuleFile(package.module(), Digest(package.digests()["python.wasm"]))
