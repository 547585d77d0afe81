"""Who asks, and what they may."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass
from enum import IntEnum


class Role(IntEnum):
    """What somebody may do; a higher role may do all that a lower one may."""

    NONE = 0
    VIEWER = 1
    """Look at everything."""
    RUNNER = 2
    """Run processes, and end those of their own."""
    OPERATOR = 3
    """Everything."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Who asks."""

    name: str
    """Such as uid:1000, cert:ci or token:ci."""
    role: Role


NOBODY = Identity("nobody", Role.NONE)
current: ContextVar[Identity] = ContextVar("identity", default=NOBODY)
"""Of the call that is being served."""
