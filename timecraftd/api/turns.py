"""Uploads: those of one thing take turns, and broken ones go."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
from collections.abc import AsyncIterator
from weakref import WeakValueDictionary

from timecraftd.errors import StateBusyError, UsageError
from timecraftd.model import is_digest

PIECE_BYTES_MAX = 1 << 20
"""Of an upload in one message."""
ABANDONED_NS = 24 * 3600 * 10**9
"""When what is left of a broken upload goes."""
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

    def others_bytes(self, directory: str, digest: str, now_ns: int) -> int:
        """What other uploads take, each a file or a directory named by its digest; those that were given up go.

        Raises OSError.
        """
        os.makedirs(directory, mode=0o700, exist_ok=True)
        total = 0
        for entry in os.scandir(directory):
            with contextlib.suppress(FileNotFoundError):  # it has become whole
                if entry.name == digest:
                    continue
                if entry.stat().st_mtime_ns >= now_ns - ABANDONED_NS or entry.name in self:
                    total += size_bytes(entry.path)
                elif entry.is_dir(follow_symlinks=False):
                    shutil.rmtree(entry.path, ignore_errors=True)
                else:
                    os.unlink(entry.path)
        return total


def size_bytes(path: str) -> int:
    """Of a file, or of the files in a directory. Raises OSError."""
    if os.path.isdir(path):
        return sum(entry.stat().st_size for entry in os.scandir(path))
    return os.path.getsize(path)


def check_digest(digest: str) -> None:
    """Raises UsageError if it isn't one."""
    if not is_digest(digest):
        raise UsageError(f"digest {digest[:80]!r}: isn't one", "give the SHA-256 in lower-case hex")
