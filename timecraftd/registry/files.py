"""Modules as files of the user's."""

from __future__ import annotations

import os
import sys

from timecraftd.errors import ModuleError, NotFoundError
from timecraftd.units import format_size_exact

MODULE_BYTES_MAX = 1 << 30


def read_module(source: str) -> tuple[bytes, str]:
    """Bytes and name of a module from a file, or from standard input for `-`. Raises NotFoundError, ModuleError."""
    try:
        if source == "-":
            data, name = sys.stdin.buffer.read(MODULE_BYTES_MAX + 1), "stdin"
        else:
            with open(source, "rb", buffering=0) as file:
                if os.fstat(file.fileno()).st_size > MODULE_BYTES_MAX:
                    raise ModuleError(f"{source}: is bigger than {format_size_exact(MODULE_BYTES_MAX)}")
                data, name = file.read(), os.path.basename(source)
    except (FileNotFoundError, NotADirectoryError):
        raise NotFoundError(
            f"{source or repr(source)}: there is no such file", "give the path of a .wasm or .wat file"
        ) from None
    except OSError as error:
        raise ModuleError(f"{source}: {error.strerror}", "give the path of a readable .wasm or .wat file") from None
    if len(data) > MODULE_BYTES_MAX:
        raise ModuleError(f"{name}: is bigger than {format_size_exact(MODULE_BYTES_MAX)}")
    return data, name
