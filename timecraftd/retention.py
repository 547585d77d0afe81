"""A node's retention: removes processes that are beyond the bounds of its configuration, and tells what went."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import Future

from timecraftd.config import Config
from timecraftd.embedded import Runtime
from timecraftd.errors import LogError, ProcessStateError, TimecraftError
from timecraftd.eviction import evict, evictable
from timecraftd.model import ProcessRecord
from timecraftd.pruning import collect, on_disk, prune_in
from timecraftd.recorder.retention import RetentionPolicy, due, policies_of, stored_policies_of
from timecraftd.recorder.uploader import is_stored
from timecraftd.supervisor.supervisor import Supervisor

PASS_MAX = 1000
"""Processes that go in one pass; the others' turn is the next."""


class Retention:
    """Belongs to one event loop; what blocks is done in threads."""

    def __init__(self, supervisor: Supervisor, runtime: Runtime, config: Config, *, log: Callable[..., None]) -> None:
        self._supervisor = supervisor
        self._runtime = runtime
        self._config = config
        self._log = log
        self._policies = policies_of(config.retention)
        self._keeps_local_s = config.remote.keep_local_s if config.remote.url else None
        self._stored_policies = stored_policies_of(config.retention) if config.remote.url else []
        self._stop = asyncio.Event()
        self._running: asyncio.Task[None] | None = None
        self._in_store: Future[list[dict[str, object]]] | None = None
        self.removed_processes = 0
        self.removed_bytes = 0
        self.evicted_bytes = 0
        """Of logs that are only in the store now."""
        self.kept_back = 0
        """Processes that would have gone at the last pass, but aren't wholly in the store."""

    def start(self) -> None:
        """Looks now, and then every so often, until it is closed. Nothing is done without a bound."""
        if self._policies or self._stored_policies or self._keeps_local_s is not None:
            self._running = asyncio.create_task(self._run())

    async def close(self) -> None:
        """Ends when the process is removed whose turn it is; what is done in the store is broken off. Idempotent."""
        self._stop.set()
        if self._in_store is not None:
            self._in_store.cancel()
        if self._running is not None:
            await self._running

    async def _run(self) -> None:
        while not self._stop.is_set():
            try:
                await self.apply()
                await self._evict()
                for policy in self._stored_policies:
                    await self._apply_stored(policy)
            except (TimecraftError, OSError) as error:
                self._log("retention: failed, to be tried again", level="warning", error=str(error))
            try:
                async with asyncio.timeout(self._config.retention.every_s):
                    await self._stop.wait()
            except TimeoutError:
                continue

    async def apply(self) -> None:
        """One pass. Raises TimecraftError, OSError."""
        going, kept_back = await asyncio.to_thread(self._look)
        if kept_back != self.kept_back:
            self._log("retention: kept back, not wholly in the store", level="warning", processes=kept_back)
        self.kept_back = kept_back
        removed = 0
        for process, bound in going[:PASS_MAX]:
            if self._stop.is_set():
                break
            removed += await self._remove(process, bound)
        if removed:
            await asyncio.to_thread(collect, self._runtime)

    async def _evict(self) -> None:
        """Removes logs that are in the store from the disk. Raises TimecraftError."""
        if self._keeps_local_s is None:
            return
        before_ns = self._runtime.now_ns() - round(self._keeps_local_s * 1e9)
        for process in (await asyncio.to_thread(evictable, self._runtime, before_ns))[:PASS_MAX]:
            if self._stop.is_set():
                return
            try:
                size = await asyncio.to_thread(evict, self._runtime, process)
            except (ProcessStateError, LogError) as error:
                self._log("retention: log stays here", level="warning", process=process.id, error=str(error))
                continue
            self.evicted_bytes += size
            self._log("retention: log is in the store alone", process=process.id, bytes=size)

    async def _apply_stored(self, policy: RetentionPolicy) -> None:
        """One pass over the store. Raises TimecraftError."""
        if self._runtime.remote is None or self._stop.is_set():
            return
        self._in_store = self._runtime.remote.start(lambda store: prune_in(store, self._runtime, policy))
        try:
            gone = await asyncio.wrap_future(self._in_store)
        except asyncio.CancelledError:
            if not self._stop.is_set():
                raise
            return
        for each in gone:
            self._log("retention: removed from the store", kind=each["kind"], id=each["id"], bytes=each["bytes"])

    def _look(self) -> tuple[list[tuple[ProcessRecord, str]], int]:
        """Processes that are to go, with the bound of each, and how many are only kept because they weren't sent."""
        home = self._runtime.registry.home
        here = [process for process in on_disk(self._runtime) if os.path.isdir(home.process_dir(process.id))]
        found = due(here, self._policies, self._runtime.now_ns())
        stored = [item for item in found.items() if self._may_go(item[0])]
        return stored, len(found) - len(stored)

    def _may_go(self, process: ProcessRecord) -> bool:
        remote = self._config.remote
        directory = self._runtime.registry.home.process_dir(process.id)
        return not remote.url or not process.log_bytes or is_stored(directory, process, remote)

    async def _remove(self, process: ProcessRecord, bound: str) -> bool:
        if self._supervisor.is_needed(process.id):
            return False
        try:
            await asyncio.to_thread(self._runtime.remove, process)
        except TimecraftError as error:
            self._log("retention: failed", level="warning", process=process.id, error=str(error))
            return False
        await self._supervisor.forget(process)
        self.removed_processes += 1
        self.removed_bytes += process.log_bytes
        self._log("retention: removed", process=process.id, bound=bound, bytes=process.log_bytes)
        return True
