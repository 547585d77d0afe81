"""Removal of processes, and of what nothing refers to any more: asked for by people, or by a node's retention."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import replace

from timecraftd.embedded import Runtime
from timecraftd.embedded_remote import required, stored_id
from timecraftd.errors import NotFoundError, ProcessStateError, RemoteError
from timecraftd.model import ProcessId, ProcessRecord
from timecraftd.recorder.deletion import Sweeper
from timecraftd.recorder.logs import log_bytes
from timecraftd.recorder.remote import RemoteInfo, RemoteStore
from timecraftd.recorder.retention import RetentionPolicy, expired
from timecraftd.recorder.ring import sweep_rings


def prune(
    runtime: Runtime,
    policy: RetentionPolicy | None,
    *,
    dry_run: bool,
    is_needed: Callable[[ProcessId], bool] = lambda _id: False,
) -> list[dict[str, object]]:
    """Removes processes as a policy says, then what nothing refers to; returns what went, or would go.

    What is needed, as it is to be started again, stays. Each is `kind` (process, artifact, ring, or an object's), `id`
    and `bytes`.
    """
    found = [] if policy is None else expired(on_disk(runtime), policy, runtime.now_ns())
    processes = [process for process in found if not is_needed(process.id)]
    gone: list[dict[str, object]] = []
    for process in processes:
        if not dry_run:
            try:
                runtime.remove(process)
            except ProcessStateError:
                continue  # resumed meanwhile
        gone.append({"kind": "process", "id": process.id, "bytes": process.log_bytes})
    return gone + collect(runtime, {process.id for process in processes} if dry_run else (), dry_run=dry_run)


def prune_stored(
    runtime: Runtime, policy: RetentionPolicy | None, *, dry_run: bool, now: bool = False
) -> list[dict[str, object]]:
    """The same in the store: deletes processes, and removes what is due; returns what went, or would go.

    A `process` isn't found any more, and what it takes goes after the grace period, at once if that is wanted `now`;
    a `log` is gone, and so is an object, a `blob`, which is a file of trees, or a `segment` of no process. Raises
    ConfigError, RemoteError, LogError.
    """
    return required(runtime.remote).run(lambda store: prune_in(store, runtime, policy, dry_run=dry_run, now=now))


async def prune_in(
    store: RemoteStore, runtime: Runtime, policy: RetentionPolicy | None, *, dry_run: bool = False, now: bool = False
) -> list[dict[str, object]]:
    """`prune_stored`, for an event loop."""

    def choose(processes: Sequence[ProcessRecord]) -> list[ProcessRecord]:
        return [] if policy is None else expired(processes, policy, runtime.now_ns())

    sweeper = _sweeper(runtime, store)
    swept = await (sweeper.preview(choose) if dry_run else sweeper.sweep(choose, now=now))
    if swept.is_cut:
        raise RemoteError(f"{store.url}: not all is done, it takes too long for once", "do it again for the rest")
    return [
        *({"kind": "process", "id": process.id, "bytes": 0} for process in swept.deleted),
        *({"kind": "log", "id": process_id, "bytes": size} for process_id, size in swept.removed),
        *(_named(info) for info in swept.objects),
    ]


def remove_stored(runtime: Runtime, reference: str, *, force: bool, now: bool) -> None:
    """Deletes a process in the store; what it takes goes after the grace period, or `now`.

    Its log on the disk stays, and where there is none, what the catalogue knows of it goes. With `force` it needn't be
    wholly there. Raises ConfigError, NotFoundError, AmbiguousIdError, ProcessStateError, RemoteError, LogDamagedError.
    """
    remote = required(runtime.remote)
    unknown = NotFoundError(
        f"process {reference!r}: isn't in {remote.url}", "`timecraft ps --remote` lists what is there, with their ids"
    )
    process_id = stored_id(remote, reference, unknown)

    async def work(store: RemoteStore) -> None:
        sweeper = _sweeper(runtime, store)
        await sweeper.delete(process_id, force=force)
        if now:
            await sweeper.remove(process_id, now=True)

    remote.run(work)
    if not os.path.isdir(runtime.registry.home.process_dir(process_id)):
        with suppress(NotFoundError):
            runtime.remove(runtime.registry.catalogue.get(process_id))


def _sweeper(runtime: Runtime, store: RemoteStore) -> Sweeper:
    config = runtime.config
    return Sweeper(store, node=config.node_name, grace_s=config.remote.delete_grace_s, now_ns=runtime.now_ns)


def _named(info: RemoteInfo) -> dict[str, object]:
    """What went, by its key: an object, a blob, or a segment that was nobody's."""
    first, second, *_, last = info.key.split("/")
    if first == "logs":
        return {"kind": "segment", "id": f"{second}/{last}", "bytes": info.size}
    return {"kind": second if first == "objects" else "blob", "id": last, "bytes": info.size}


def on_disk(runtime: Runtime) -> list[ProcessRecord]:
    """All processes, each with what its log takes here: of one that is in a bucket only, that is nothing."""
    home = runtime.registry.home
    return [replace(process, log_bytes=log_bytes(home.log_dir(process.id))) for process in runtime.processes()]


def collect(runtime: Runtime, without: Collection[ProcessId] = (), *, dry_run: bool = False) -> list[dict[str, object]]:
    """Removes what no process, but those left out, refers to; returns what went, or would go, as `prune` does."""
    registry = runtime.registry
    gone: list[dict[str, object]] = []
    with registry.home.collection_lock(exclusive=True):
        for info in registry.unreferenced(without):
            size_bytes = registry.object_bytes(info)
            if not dry_run:
                registry.delete_object(info)
            gone.append({"kind": str(info.kind), "id": info.digest, "bytes": size_bytes})
        if not dry_run:
            registry.trees.sweep()
        for path, size in registry.stale_artifacts(runtime.now_ns()):
            if not dry_run:
                os.unlink(path)
            gone.append({"kind": "artifact", "id": os.path.basename(path), "bytes": size})
    gone += (
        {"kind": "ring", "id": os.path.basename(path), "bytes": size} for path, size in sweep_rings(dry_run=dry_run)
    )
    return gone
