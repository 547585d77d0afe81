"""Iterators that block, as asynchronous ones."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import TypeVar

from timecraftd.errors import CapacityError

_T = TypeVar("_T")
AHEAD_MAX = 4
"""Items that wait for the one who reads."""
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


async def from_thread(produce: Callable[[Stop], Iterator[_T]]) -> AsyncIterator[_T]:
    """What an iterator gives that works in a thread of its own. Raises what it raises, and CapacityError."""
    if not _room.acquire(blocking=False):
        raise CapacityError(f"node: reads {STREAMS_MAX} logs at one time, which is as many as may", "try again later")
    loop = asyncio.get_running_loop()
    items: asyncio.Queue[tuple[str, _T | BaseException | None]] = asyncio.Queue(AHEAD_MAX)
    stop = Stop()

    def put(kind: str, item: _T | BaseException | None) -> bool:
        future = asyncio.run_coroutine_threadsafe(items.put((kind, item)), loop)
        while not stop():
            try:
                future.result(POLL_S)
                return True
            except TimeoutError:
                continue
        future.cancel()
        return False

    def work() -> None:
        try:
            for item in produce(stop):
                if not put("item", item):
                    return
            put("end", None)
        except BaseException as error:  # noqa: BLE001 - raised where it is waited for
            put("error", error)
        finally:
            _room.release()

    threading.Thread(target=work, name="timecraft-stream", daemon=True).start()
    try:
        while True:
            kind, item = await items.get()
            if kind == "end":
                return
            if kind == "error":
                assert isinstance(item, BaseException), "it comes with that kind only"
                raise item
            yield item  # type: ignore[misc] # it is of the iterator's type
    finally:
        stop.set()
