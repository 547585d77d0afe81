"""Iterators that block, as asynchronous ones."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from typing import Generic, TypeVar

from timecraftd.errors import CapacityError

_T = TypeVar("_T")
AHEAD_BYTES_MAX = 1 << 20
"""What waits for the one who reads, before one more item."""
STREAMS_MAX = 512
"""Threads that read for somebody."""
POLL_S = 0.1

_room = threading.BoundedSemaphore(STREAMS_MAX)


class Stop:
    """Tells a thread that nobody reads any more."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def set(self) -> None:
        """Nobody reads any more."""
        self._event.set()

    def __call__(self) -> bool:
        """Whether nobody reads any more."""
        return self._event.is_set()

    def sleep_for(self, seconds: float) -> bool:
        """Waits for so long; True, and at once, if nobody reads any more."""
        return self._event.wait(seconds)


class Handover(Generic[_T]):
    """Items on their way from a thread to a loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, size: Callable[[_T], int]) -> None:
        self.stop = Stop()
        self._loop = loop
        self._size = size
        self._condition = threading.Condition()
        self._items: list[_T] = []
        self._bytes = 0
        self._over: BaseException | bool = False
        self._there = asyncio.Event()

    def put(self, item: _T) -> bool:
        """From the thread; waits for room, and is False if nobody reads any more."""
        with self._condition:
            while self._bytes >= AHEAD_BYTES_MAX and not self.stop():
                self._condition.wait(POLL_S)
            self._items.append(item)
            self._bytes += self._size(item)
            first = len(self._items) == 1
        if first:
            self._wake()
        return not self.stop()

    def end(self, error: BaseException | None = None) -> None:
        """From the thread: nothing more comes."""
        with self._condition:
            self._over = error or True
        self._wake()

    async def take(self) -> list[_T]:
        """Waits for what has come; empty at the end. Raises what the thread ended with."""
        while True:
            await self._there.wait()
            with self._condition:
                self._there.clear()
                items, self._items, self._bytes = self._items, [], 0
                over = self._over
                self._condition.notify()
            if items:
                if over:
                    self._there.set()
                return items
            if isinstance(over, BaseException):
                raise over
            if over:
                return []

    def _wake(self) -> None:
        with suppress(RuntimeError):  # the loop is closed, and nobody reads
            self._loop.call_soon_threadsafe(self._there.set)


def from_thread(produce: Callable[[Stop], Iterator[_T]], size: Callable[[_T], int]) -> AsyncIterator[list[_T]]:
    """What an iterator gives that works in a thread of its own, as many items at a time as have come.

    `size` tells how many bytes an item holds. Raises what the iterator raises, and CapacityError.
    """

    def work(handover: Handover[_T]) -> None:
        for item in produce(handover.stop):
            if not handover.put(item):
                return

    return put_by_thread(work, size)


async def put_by_thread(work: Callable[[Handover[_T]], None], size: Callable[[_T], int]) -> AsyncIterator[list[_T]]:
    """The same for what a function puts, that works in a thread of its own."""
    if not _room.acquire(blocking=False):
        raise CapacityError(f"node: reads {STREAMS_MAX} logs at one time, which is as many as may", "try again later")
    handover: Handover[_T] = Handover(asyncio.get_running_loop(), size)

    def run() -> None:
        try:
            work(handover)
            handover.end()
        except BaseException as error:  # noqa: BLE001 - raised where it is waited for
            handover.end(error)
        finally:
            _room.release()

    threading.Thread(target=run, name="timecraft-stream", daemon=True).start()
    try:
        while items := await handover.take():
            yield items
    finally:
        handover.stop.set()
