"""What a log is found to be when all of it is read: on the disk, or in the store. Composition of the runtime."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from hashlib import sha256
from typing import Any

from timecraftd.embedded import Runtime
from timecraftd.embedded_remote import required
from timecraftd.errors import LogError, NotFoundError, RemoteError
from timecraftd.model import LogSource, ProcessId, ProcessRecord
from timecraftd.recorder.fetch import Remote, RemoteLog
from timecraftd.recorder.manifest import Manifest, Segment, blob_key, object_key, segment_key
from timecraftd.recorder.remote import RemoteStore

Progress = Callable[[int, int], object]
"""Told how many bytes of how many are done."""


def check_log(runtime: Runtime, process: ProcessRecord, progress: Progress | None = None) -> dict[str, Any]:
    """What a log was found to be, as data."""
    data = _nothing(process.id)
    try:
        return data | _read(runtime, runtime.log_source(process), progress)
    except (LogError, NotFoundError) as error:
        return data | {"error": str(error)}


def check_stored(runtime: Runtime, process_id: ProcessId, progress: Progress | None = None) -> dict[str, Any]:
    """What a process in the store was found to be, as data: its manifest, its log and what a replay needs beside it.

    Nothing of it is taken from the cache, nor from the disk. Raises ConfigError.
    """
    data = _nothing(process_id) | {"objects": []}
    cache_dir = required(runtime.remote).cache.directory
    remote = Remote(replace(runtime.config.remote, cache_bytes_max=0), cache_dir)
    try:
        manifest = remote.manifest(process_id)
        if manifest is None:
            raise NotFoundError(f"process {process_id}: isn't in {remote.url}", "`timecraft ps --remote` lists them")
        data["objects"] = list(_damaged_objects(remote, manifest))
        log = _Present(remote, process_id)
        nowhere = os.path.join(runtime.registry.home.log_dir(process_id), "stored")
        data |= _read(runtime, LogSource(nowhere, process_id, log, manifest.next_seq), progress)
    except (LogError, NotFoundError, RemoteError) as error:
        data["error"] = str(error)
    finally:
        remote.close()
    return data


class _Present(RemoteLog):
    """Without segments that are gone, or aren't as long as their manifest says: they are missing."""

    def __init__(self, remote: Remote, process_id: ProcessId) -> None:
        super().__init__(remote, process_id)
        self._of = (remote, process_id)

    def segments(self) -> Sequence[Segment]:
        remote, process_id = self._of
        prefix = segment_key(process_id, 0).rpartition("/")[0] + "/"

        async def sizes(store: RemoteStore) -> dict[str, int]:
            return {info.key: info.size async for info in store.list(prefix)}

        found = remote.run(sizes)
        named = super().segments()
        return [each for each in named if found.get(segment_key(process_id, each.number)) == each.size]


def _nothing(process_id: ProcessId) -> dict[str, Any]:
    counts = {"records": 0, "segments": 0, "bytes": 0}
    return {"id": process_id, **counts, "damage": [], "incomplete_from": None, "error": None}


def _read(runtime: Runtime, log: str | LogSource, progress: Progress | None) -> dict[str, Any]:
    check = runtime.logs.verify(log, progress)
    return {
        "records": check.records,
        "segments": check.segments,
        "bytes": check.bytes,
        "damage": [{"first_seq": first, "next_seq": behind, "reason": reason} for first, behind, reason in check.gaps],
        "incomplete_from": check.incomplete_from,
    }


def _damaged_objects(remote: Remote, manifest: Manifest) -> Iterator[dict[str, str]]:
    """Objects and files of trees that a manifest names and that aren't what their names say."""
    named = [(str(kind), object_key(kind, digest), digest, size) for kind, digest, size in manifest.objects]
    named += [("blob", blob_key(digest), digest, size) for digest, size in manifest.blobs]
    for kind, key, digest, size in named:
        hashed = sha256()
        try:
            for part in remote.parts(key, size):
                hashed.update(part)
        except RemoteError as error:
            yield {"kind": kind, "id": digest, "reason": str(error)}
            continue
        if hashed.hexdigest() != digest:
            yield {"kind": kind, "id": digest, "reason": "its bytes aren't those of its name"}
