"""The gateway in a thread of its own, for hosts that have no event loop."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from timecraftd.config import NetworkConfig
from timecraftd.network.attachment import Attachment
from timecraftd.network.gateway import LINGER_S, Gateway, GuestNetwork
from timecraftd.network.lookups import Lookup, system_lookup
from timecraftd.network.neighbours import Neighbours
from timecraftd.network.port import NetworkPort
from timecraftd.network.publish import Publication

_Result = TypeVar("_Result")


class ServedGuest:
    """A guest that the gateway's thread serves. Thread-safe."""

    def __init__(self, thread: GatewayThread, attachment: Attachment) -> None:
        self._thread = thread
        self._attachment = attachment
        self.published: tuple[Publication, ...] = tuple(each.publication for each in attachment.published)
        """With the ports that were chosen."""

    def snapshot(self) -> dict[str, Any]:
        """What was decided so far, as JSON; also after the guest's end, and the thread's."""
        return self._thread.call(self._attachment.snapshot)


class GatewayThread:
    """Runs a gateway from `start` to `stop`."""

    def __init__(
        self,
        config: NetworkConfig | None = None,
        *,
        lookup: Lookup = system_lookup,
        neighbours: Neighbours | None = None,
    ) -> None:
        self._config = config
        self._lookup = lookup
        self._neighbours = neighbours
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._gateway: Gateway | None = None
        self._stop: asyncio.Future[float] | None = None

    def start(self) -> None:
        """Starts the thread. Raises NetworkError if the configuration can't be used."""
        started: concurrent.futures.Future[None] = concurrent.futures.Future()
        self._thread = threading.Thread(target=self._run, args=(started,), name="timecraft-gateway", daemon=True)
        self._thread.start()
        try:
            started.result()
        except BaseException:
            self._thread.join()
            self._thread = None
            raise

    def add(self, port: NetworkPort, asked: GuestNetwork) -> ServedGuest:
        """Serves a guest until it ends. Raises NetworkError if a port can't be published."""
        assert self._gateway is not None, "it has been started"
        gateway = self._gateway
        return ServedGuest(self, self.call(lambda: gateway.add(port, asked)))

    def stop(self, linger_s: float = LINGER_S) -> None:
        """Takes leave of all guests; TLS connections may take a while to send what they hold. Idempotent."""
        thread, stop, loop = self._thread, self._stop, self._loop
        if thread is None:
            return
        assert stop is not None, "it has been started"
        assert loop is not None, "it has been started"
        loop.call_soon_threadsafe(stop.set_result, linger_s)
        thread.join()
        self._thread = None

    def call(self, work: Callable[[], _Result]) -> _Result:
        """The result of what is done on the loop; here, if that has ended."""
        if self._thread is None or self._loop is None:
            return work()
        result: concurrent.futures.Future[_Result] = concurrent.futures.Future()

        def do() -> None:
            try:
                result.set_result(work())
            except BaseException as error:  # noqa: BLE001 (it is raised where it is waited for)
                result.set_exception(error)

        self._loop.call_soon_threadsafe(do)
        return result.result()

    def _run(self, started: concurrent.futures.Future[None]) -> None:
        try:
            asyncio.run(self._serve(started))
        except BaseException as error:
            if started.done():
                raise
            started.set_exception(error)

    async def _serve(self, started: concurrent.futures.Future[None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = self._loop.create_future()
        self._gateway = Gateway(self._config, lookup=self._lookup, neighbours=self._neighbours)
        started.set_result(None)
        await self._gateway.close(await self._stop)
