"""Puts processes into a store as the uploader does, all at once."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from timecraftd.config import Config, RemoteConfig
from timecraftd.embedded import Runtime
from timecraftd.model import Digest, ObjectKind, ProcessRecord
from timecraftd.recorder.manifest import (
    Manifest,
    blob_key,
    encode_manifest,
    manifest_key,
    object_key,
    public_record,
    segment_key,
)
from timecraftd.recorder.remote import RemoteStore
from timecraftd.recorder.segments import file_sums, sealed_segment, segment_files


async def publish(
    store: RemoteStore, home: Path, process_id: str, *, complete: bool = True, segments_max: int | None = None
) -> Manifest:
    """Sends one process of a state directory; returns its manifest."""
    runtime = Runtime(Config(home=str(home), remote=RemoteConfig()))
    process = runtime.process(process_id)
    segments = []
    for number, path, _ in segment_files(runtime.registry.home.log_dir(process.id))[:segments_max]:
        sealed = sealed_segment(path, number)
        assert sealed is not None
        segments.append(replace(sealed.segment, crc32c=f"{file_sums(path)[0]:08x}"))
        await store.put(segment_key(process.id, number), _read(path))
    objects, blobs = await _send_objects(store, runtime, process)
    manifest = Manifest(
        process=public_record(process),
        complete=complete,
        node="there",
        objects=tuple(objects),
        blobs=tuple(blobs),
        segments=tuple(segments),
    )
    await store.put(manifest_key(process.id), encode_manifest(manifest))
    runtime.close()
    return manifest


def _read(*parts: str) -> bytes:
    return Path(*parts).read_bytes()


async def _send_objects(
    store: RemoteStore, runtime: Runtime, process: ProcessRecord
) -> tuple[Sequence[tuple[ObjectKind, Digest, int]], Sequence[tuple[Digest, int]]]:
    trees = [Digest(os.path.basename(tree)) for tree in runtime.trees_of(process) if tree]
    named = [
        (ObjectKind.MODULE, process.module),
        (ObjectKind.CONFIG, process.config),
        (ObjectKind.RUNTIME, process.runtime),
        *((ObjectKind.TREE, tree) for tree in trees),
    ]
    objects, blobs = [], {}
    for kind, digest in named:
        data = runtime.registry.objects.get(kind, digest)
        await store.put(object_key(kind, digest), data)
        objects.append((kind, digest, len(data)))
    for tree in trees:
        for path, file in runtime.registry.trees.manifest(tree)["files"].items():
            data = _read(runtime.registry.trees.path(tree), path)
            await store.put(blob_key(Digest(file["sha256"])), data)
            blobs[Digest(file["sha256"])] = len(data)
    return objects, list(blobs.items())
