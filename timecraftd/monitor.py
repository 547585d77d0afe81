"""Watches over a node: samples it for its metrics, ends workers that don't answer, tells systemd that all is well."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable

from timecraftd.config import Config
from timecraftd.embedded import Runtime
from timecraftd.model import ProcessState
from timecraftd.retention import Retention
from timecraftd.supervisor.supervisor import Supervisor
from timecraftd.supervisor.workers import WorkerHandle, end_process
from timecraftd.systemd import Notifier
from timecraftd.telemetry import Metrics, Sample
from timecraftd.uploads import Uploads, upload_gauges, upload_totals

SAMPLE_S = 1.0
"""A younger sample is taken for the present."""
SCRAPE_S_MAX = 0.25
"""A scrape that got no new sample by then tells the last one, and how old it is."""
LAG_S = 0.25
CHECK_S = 30.0
"""How often a node wants to hear from its workers if systemd's watchdog doesn't say."""
EXTEND_S = 30.0
KINDS = {"s": "shared", "i": "isolated", "v": "views"}
"""Of workers, by how their names begin."""


class Monitor:
    """Belongs to one event loop; `latest` may be called from any thread."""

    def __init__(
        self,
        supervisor: Supervisor,
        runtime: Runtime,
        config: Config,
        *,
        notifier: Notifier,
        watchdog_s: float | None,
        log: Callable[..., None],
        uploads: Uploads | None = None,
        retention: Retention | None = None,
    ) -> None:
        """`watchdog_s`: systemd wants to be told so often that all is well."""
        self._uploads = uploads
        self._retention = retention
        self.metrics = Metrics(runtime.engine.build_info(), self.latest)
        self._supervisor = supervisor
        self._runtime = runtime
        self._config = config
        self._notifier = notifier
        self._check_s = watchdog_s or CHECK_S
        self._log = log
        self._loop = asyncio.get_running_loop()
        self._sampling = asyncio.Lock()
        self._silent = 0
        self._last = Sample(0.0)

    async def run(self) -> None:
        """Watches until it is cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._measure_lag())
            tasks.create_task(self._watch())

    @contextlib.asynccontextmanager
    async def patience(self) -> AsyncIterator[None]:
        """While this is held, systemd doesn't count the time; it would end what it takes for stuck."""

        async def extend() -> None:
            while True:
                self._notifier.extend(EXTEND_S)
                self.tell_status()
                await asyncio.sleep(EXTEND_S / 3)

        extending = self._loop.create_task(extend())
        try:
            yield
        finally:
            extending.cancel()

    def tell_status(self) -> None:
        """What `systemctl status` shows."""
        supervisor = self._supervisor
        what = "draining, " if supervisor.draining else ""
        self._notifier.status(
            f"{what}{supervisor.running} processes, {supervisor.queued} queued, "
            f"{len(supervisor.workers.workers)} workers"
        )

    # ---- samples

    def latest(self) -> Sample:
        """A sample that is new, or the last one if the loop doesn't give a new one in time. Not for the loop itself."""
        if time.monotonic() - self._last.taken_s < SAMPLE_S:
            return self._last
        work = self.sample()
        try:
            return asyncio.run_coroutine_threadsafe(work, self._loop).result(SCRAPE_S_MAX)
        except TimeoutError:
            return self._last
        except RuntimeError:  # the loop is closed
            work.close()
            return self._last

    async def sample(self) -> Sample:
        """A sample, at most a second old."""
        async with self._sampling:
            if time.monotonic() - self._last.taken_s >= SAMPLE_S:
                self._last = await self._take()
            return self._last

    async def _take(self) -> Sample:
        supervisor, node = self._supervisor, self._config.node
        taken_s = time.monotonic()
        stats, (ended, free_bytes) = await asyncio.gather(
            supervisor.stats(SCRAPE_S_MAX / 2), asyncio.to_thread(self._look_at_state)
        )
        processes = {str(state): ended.get(state, 0) for state in ProcessState}
        processes |= {"running": supervisor.running, "queued": supervisor.queued}
        gauges = {
            "processes_max": node.processes_max,
            "queue_length": supervisor.queued,
            "queue_max": node.queue_max,
            "guest_memory_bytes": sum(each["guest_memory_bytes"] for each in stats.values()),
            # Workers of another version may not tell.
            "log_ring_waiting_bytes": sum(each.get("ring_waiting_bytes", 0) for each in stats.values()),
            "log_ring_taken_max_ratio": max((each.get("ring_taken", 0.0) for each in stats.values()), default=0.0),
            "memory_promised_bytes": supervisor.memory_bytes,
            "memory_max_bytes": supervisor.memory_bytes_max,
            "worker_memory_bytes": sum(each["memory_bytes"] for each in stats.values()),
            "state_free_bytes": free_bytes,
            "draining": supervisor.draining,
        }
        totals = dict(supervisor.totals.sums)
        if self._uploads is not None:
            status = self._uploads.status()
            unsealed_ns = max((each.get("log_unsealed_ns", 0) for each in stats.values()), default=0)
            gauges["log_seal_lag_seconds"] = unsealed_ns / 1e9
            gauges |= upload_gauges(status) | {"upload_waiting_max_bytes": self._config.remote.local_bytes_max}
            totals |= upload_totals(status)
        if self._retention is not None:
            gauges["retention_kept_back"] = self._retention.kept_back
            totals["retention_processes"] = self._retention.removed_processes
            totals["retention_evicted"] = self._retention.evicted_bytes
            totals["retention_bytes"] = self._retention.removed_bytes
        kinds = Counter(KINDS.get(name[:1], "other") for name in supervisor.workers.workers)
        workers = {kind: kinds[kind] for kind in KINDS.values()}
        return Sample(taken_s, processes, workers, self._silent, gauges, totals)

    def _look_at_state(self) -> tuple[dict[str, int], int]:
        registry = self._runtime.registry
        room = os.statvfs(registry.home.path)
        return registry.catalogue.counts(), room.f_bavail * room.f_frsize

    # ---- tasks

    async def _measure_lag(self) -> None:
        while True:
            asked = self._loop.time() + LAG_S
            await asyncio.sleep(LAG_S)
            self.metrics.lagged(max(self._loop.time() - asked, 0.0))

    async def _watch(self) -> None:
        """Guests of a worker that doesn't answer are better off in another one, and so it is ended."""
        while True:
            silent = await self._ask_workers(self._check_s / 2)
            self._silent = len(silent)
            for worker in silent:
                self._log("worker doesn't answer", level="error", worker=worker.name, pid=worker.pid)
                await end_process(worker.pid)
            if not silent:
                self._notifier.alive()
                self.tell_status()
                await asyncio.sleep(self._check_s / 4)

    async def _ask_workers(self, patience_s: float) -> list[WorkerHandle]:
        workers = self._supervisor.workers.workers
        asked = list(workers.values())
        answers = await self._supervisor.stats(patience_s)
        return [worker for worker in asked if worker.name not in answers and workers.get(worker.name) is worker]
