"""Removal of processes, and of what nothing refers to any more: asked for by people, or by a node's retention."""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import replace

from timecraftd.embedded import Runtime
from timecraftd.errors import ProcessStateError
from timecraftd.model import ProcessId, ProcessRecord
from timecraftd.recorder.logs import log_bytes
from timecraftd.recorder.retention import RetentionPolicy, expired


def prune(runtime: Runtime, policy: RetentionPolicy | None, *, dry_run: bool) -> list[dict[str, object]]:
    """Removes processes as a policy says, then what nothing refers to; returns what went, or would go.

    Each is `kind` (process, artifact, or an object's), `id` and `bytes`.
    """
    processes = [] if policy is None else expired(on_disk(runtime), policy, runtime.now_ns())
    gone: list[dict[str, object]] = []
    for process in processes:
        if not dry_run:
            try:
                runtime.remove(process)
            except ProcessStateError:
                continue  # resumed meanwhile
        gone.append({"kind": "process", "id": process.id, "bytes": process.log_bytes})
    return gone + collect(runtime, {process.id for process in processes} if dry_run else (), dry_run=dry_run)


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
    return gone
