"""The one place in engine/ that loads the extension, and only when something is to run."""

from __future__ import annotations

from types import ModuleType

from timecraftd.errors import NativeMissingError


def load_native() -> ModuleType:
    """The extension `timecraftd._native`. Raises NativeMissingError."""
    try:
        from timecraftd import _native
    except ImportError as error:
        raise NativeMissingError(
            f"timecraftd._native: {error}", "build it with `make build`, or install a wheel for this platform"
        ) from None
    return _native
