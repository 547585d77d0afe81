"""Whether a log of one runtime can be replayed exactly by another. Pure."""

from __future__ import annotations

from collections.abc import Mapping

# What decides the results of a guest's instructions. The version of Timecraft doesn't: the log's format has its own
# version, checked by its reader. CPU features don't, as NaNs are canonical and relaxed SIMD is refused.
DECISIVE = ("engine", "engine_version", "compiler", "flags")


def architecture(target: str) -> str:
    """The processor of a target triple."""
    return target.partition("-")[0]


def incompatibility(recorded: Mapping[str, object], current: Mapping[str, object]) -> str | None:
    """Why a log recorded by one runtime can't be replayed by the current one; None if it can.

    A key that is missing on either side is a difference: what isn't known to be equal is refused.
    """
    for key in DECISIVE:
        if key not in recorded or recorded[key] != current.get(key):
            return (
                f"it was recorded with {key.replace('_', ' ')} {recorded.get(key, 'unknown')!r}, "
                f"this is {current.get(key, 'unknown')!r}"
            )
    then, now = architecture(str(recorded.get("target", ""))), architecture(str(current.get("target", "")))
    if "nan=canonical" not in str(recorded.get("flags", "")) and then != now:
        return f"it was recorded on {then or 'an unknown processor'} without canonical NaNs, this is {now}"
    return None
