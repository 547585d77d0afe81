"""The uploader of a state directory, in a thread of its own: composition of store, registry and recorder."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Future
from typing import Any

from timecraftd.config import RemoteConfig
from timecraftd.embedded import Runtime
from timecraftd.errors import LogError, NotFoundError, ObjectDamagedError, StateError
from timecraftd.model import Digest, ObjectKind, ProcessId, ProcessRecord
from timecraftd.recorder.remote import RemoteLoop, RemoteStore, open_store
from timecraftd.recorder.uploader import LOOK_ALL_S, LocalObject, Status, Uploader
from timecraftd.registry.trees import mounted_trees

AGAIN_S = 10.0
"""After an error that nobody thought of."""

RECENT_NS = 2 * round(LOOK_ALL_S * 1e9)
"""Processes that began since then are looked for all the time."""


class HomeSource:
    """A state directory as the uploader sees it."""

    def __init__(self, runtime: Runtime, only: ProcessId | None = None) -> None:
        self._runtime = runtime
        self._only = only

    def processes(self, *, recent_only: bool) -> list[ProcessRecord]:
        """Recorded processes that run or are new; or all, looked at for hosts that have died."""
        if self._only is not None:
            found = [self.process(self._only)]
        elif recent_only:
            catalogue = self._runtime.registry.catalogue
            new = catalogue.created_since(self._runtime.now_ns() - RECENT_NS)
            found = list({process.id: process for process in [*catalogue.processes(running_only=True), *new]}.values())
        else:
            found = self._runtime.processes()
        return [process for process in found if process.recorded]

    def process(self, process_id: ProcessId) -> ProcessRecord:
        """One of them. Raises NotFoundError."""
        return self._runtime.registry.catalogue.get(process_id)

    def directory(self, process_id: ProcessId) -> str:
        """Of a process."""
        return self._runtime.registry.home.process_dir(process_id)

    def recover(self, process: ProcessRecord) -> None:
        """Has the last segment sealed. Raises LogError."""
        self._runtime.logs.recover(self._runtime.registry.home.log_dir(process.id))

    def objects(self, process: ProcessRecord) -> list[LocalObject]:
        """Module, config, runtime, trees and their files. Raises LogError if something of it is gone."""
        registry = self._runtime.registry
        named = {
            ObjectKind.MODULE: process.module, ObjectKind.CONFIG: process.config, ObjectKind.RUNTIME: process.runtime
        }  # fmt: skip
        try:
            found = [self._object(kind, digest) for kind, digest in named.items()]
            config = registry.objects.get(ObjectKind.CONFIG, process.config)
            for tree in dict.fromkeys(filter(None, mounted_trees(config))):
                found += [self._object(ObjectKind.TREE, tree), *self._files(tree)]
        except (OSError, ValueError, NotFoundError, ObjectDamagedError) as error:
            raise LogError(f"process {process.id}: what it needs isn't all here: {error}", "import it again") from None
        return list({item.key: item for item in found}.values())

    def _object(self, kind: ObjectKind, digest: Digest) -> LocalObject:
        path = self._runtime.registry.objects.path(kind, digest)
        return LocalObject(kind, digest, path, os.stat(path).st_size)

    def _files(self, tree: Digest) -> list[LocalObject]:
        trees = self._runtime.registry.trees
        root = trees.path(tree)
        files = trees.manifest(tree)["files"]
        return [
            LocalObject(None, Digest(file["sha256"]), os.path.join(root, path), file["size"])
            for path, file in files.items()
        ]


def upload_gauges(status: Status) -> dict[str, float]:
    """What is told of an uploader's present, by names of metrics."""
    return {
        "upload_waiting_processes": status.processes,
        "upload_waiting_segments": status.waiting_segments,
        "upload_waiting_bytes": status.waiting_bytes,
        "upload_lag_seconds": status.lag_s,
        "upload_sending": status.sending,
        "upload_failing": status.failing,
        "upload_held": status.is_full,
    }


def upload_totals(status: Status) -> dict[str, int]:
    """What is told of its past."""
    totals = status.totals
    return {
        "uploaded_segments": totals.segments,
        "uploaded_bytes": totals.bytes,
        "uploaded_objects": totals.objects,
        "upload_retries": status.retries,
        "upload_failures": totals.failures,
        "upload_conflicts": totals.conflicts,
    }


class Uploads:
    """Sends a state directory's logs to its store. Its methods are for any thread."""

    def __init__(
        self,
        runtime: Runtime,
        *,
        node: str,
        log: Callable[..., None],
        on_full: Callable[[bool], None] = lambda _full: None,
        only: ProcessId | None = None,
        open_store: Callable[[RemoteConfig], RemoteStore] = open_store,
    ) -> None:
        """`log` and `on_full` are called in the uploader's thread. With `only` it is for that process alone."""
        self._only = only
        self._runtime = runtime
        self._node = node
        self._log = log
        self._on_full = on_full
        self._open_store = open_store
        self._loop = RemoteLoop()
        self._uploader: Uploader | None = None

    def start(self) -> None:
        """Sends what there is, and what comes, until it is closed."""
        self._loop.start(self._serve())

    def push(self, process_ids: Sequence[ProcessId]) -> Future[None]:
        """Sends all of these processes' logs that is sealed. The result raises TimecraftError."""
        return self._loop.start(self._with_store(lambda uploader: uploader.push(process_ids)))

    def status(self) -> Status:
        """How it stands."""
        return Status() if self._uploader is None else self._uploader.status()

    def close(self) -> None:
        """Ends what is being sent; what was sent whole stays. Idempotent."""
        self._loop.close()

    async def _serve(self) -> None:
        while True:
            try:
                await self._with_store(lambda uploader: uploader.run())
            except Exception as error:  # noqa: BLE001 - logs must go on, and what is wrong be seen
                shown = error.exceptions[0] if isinstance(error, ExceptionGroup) else error
                self._log("uploads: begin again", level="error", error=f"{type(shown).__name__}: {shown}")
                await asyncio.sleep(AGAIN_S)

    async def _with_store(self, work: Callable[[Uploader], Coroutine[Any, Any, None]]) -> None:
        store = self._open_store(self._runtime.config.remote)
        try:
            self._uploader = Uploader(
                store, HomeSource(self._runtime, self._only), self._runtime.config.remote,
                node=self._node, log=self._log, on_full=self._on_full,
            )  # fmt: skip
            await work(self._uploader)
        finally:
            await store.close()


def local_bytes(runtime: Runtime) -> int:
    """What of all logs isn't in the store, as far as is known without asking it."""
    from timecraftd.recorder.segments import segment_files
    from timecraftd.recorder.uploader import read_state

    home, total = runtime.registry.home, 0
    for process in runtime.registry.catalogue.processes():
        try:
            files = segment_files(home.log_dir(process.id))
            state = read_state(home.process_dir(process.id), process.id) if files else None
        except (StateError, OSError):
            continue
        if state and state.is_deleted:
            continue
        next_number = state.manifest.next_number if state and state.manifest else 0
        total += sum(size for number, _, size in files if number >= next_number)
    return total
