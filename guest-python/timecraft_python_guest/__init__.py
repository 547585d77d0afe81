"""CPython as a guest of Timecraft: where its module and its standard library lie.

Both are files to be read in place. Neither ever changes under a digest that was told.
"""

import os

__all__ = ["LIBRARY_MOUNT", "VERSION", "digests", "module", "stdlib"]

VERSION = "3.11.2"
"""The version of Python."""

LIBRARY_MOUNT = "/usr/lib"
"""Where the guest looks for its standard library: mount the folder of `stdlib()` there."""

_FOLDER = os.path.dirname(os.path.abspath(__file__))


def module() -> str:
    """The path of the guest, a WebAssembly module: WASI preview 1 with the sockets of WasmEdge, second version."""
    return os.path.join(_FOLDER, "python.wasm")


def stdlib() -> str:
    """The path of the standard library, a zip file of compiled modules, alone in its folder."""
    return os.path.join(_FOLDER, "lib", "python311.zip")


def digests() -> dict[str, str]:
    """SHA-256 of `python.wasm`, `python311.zip`, CPython's own tests, and `inputs`: all that they were built from."""
    with open(os.path.join(_FOLDER, "pin.txt"), encoding="ascii") as file:
        return {name: digest for digest, name in map(str.split, file)}
