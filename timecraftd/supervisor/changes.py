"""Tells those who watch of each change of a process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from timecraftd.errors import CapacityError
from timecraftd.model import ProcessRecord

PENDING_MAX = 10_000
"""Changes that wait for one who watches."""
WATCHERS_MAX = 1024


class Changes:
    """Belongs to one event loop."""

    def __init__(self) -> None:
        self._watchers: set[asyncio.Queue[tuple[ProcessRecord, bool]]] = set()
        self._overrun: set[asyncio.Queue[tuple[ProcessRecord, bool]]] = set()

    def publish(self, process: ProcessRecord, *, removed: bool = False) -> None:
        """Tells all who watch; one who is too slow is told so at the end of what waits for them."""
        for queue in self._watchers - self._overrun:
            try:
                queue.put_nowait((process, removed))
            except asyncio.QueueFull:
                self._overrun.add(queue)

    async def subscribe(self) -> AsyncIterator[tuple[ProcessRecord, bool]]:
        """Changes from the first step of the iteration on. Raises CapacityError if there are too many, or it lags."""
        if len(self._watchers) >= WATCHERS_MAX:
            raise CapacityError(f"node: {WATCHERS_MAX} clients watch, which is as many as may", "watch with fewer")
        queue: asyncio.Queue[tuple[ProcessRecord, bool]] = asyncio.Queue(PENDING_MAX)
        self._watchers.add(queue)
        try:
            while queue not in self._overrun or not queue.empty():
                yield await queue.get()
            raise CapacityError(f"watch: more than {PENDING_MAX} changes waited to be read", "watch again")
        finally:
            self._watchers.discard(queue)
            self._overrun.discard(queue)
