"""Uploads of one thing take turns."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from weakref import WeakValueDictionary

from timecraftd.errors import StateBusyError

TURN_S = 10.0
"""How long an upload waits for another one of the same thing."""


class Turns:
    """By digest: of several uploads of one thing, one writes, and the others find it done. Belongs to a loop."""

    def __init__(self, kind: str) -> None:
        """`kind` is what is uploaded, for people."""
        self._kind = kind
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    def __contains__(self, digest: str) -> bool:
        """Whether somebody uploads it, or waits to."""
        return digest in self._locks

    @contextlib.asynccontextmanager
    async def take(self, digest: str) -> AsyncIterator[None]:
        """Nobody else uploads that thing meanwhile. Raises StateBusyError."""
        turn = self._locks.setdefault(digest, asyncio.Lock())
        try:
            async with asyncio.timeout(TURN_S):
                await turn.acquire()
        except TimeoutError:
            raise StateBusyError(f"{self._kind} {digest[:12]}: somebody uploads it", "try again") from None
        try:
            yield
        finally:
            turn.release()
