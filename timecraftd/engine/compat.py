"""Whether a log of one runtime can be replayed exactly by another. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from timecraftd.engine.spec import Nans

# What decides the results of a guest's instructions. The version of Timecraft doesn't: the log's format has its own
# version, checked by its reader. CPU features don't, unless NaNs are native; relaxed SIMD is refused.
DECISIVE = ("engine", "engine_version", "compiler", "flags")


def nans_of(recorded: Mapping[str, object]) -> Nans:
    """How the runtime treated NaNs."""
    return "native" if "nan=native" in str(recorded.get("flags", "")).split(",") else "canonical"


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
    if nans_of(recorded) == "canonical":
        return None
    then, now = (
        f"{architecture(str(of.get('target', '')))} {of.get('cpu_features', '')}" for of in (recorded, current)
    )
    if then != now:
        return f"it was recorded with native NaNs on another kind of processor ({then}, this is {now})"
    return None
