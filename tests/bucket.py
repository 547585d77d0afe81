"""Puts processes into a store as the uploader does, all at once."""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from timecraftd.config import Config, RemoteConfig
from timecraftd.embedded import Runtime
from timecraftd.model import Digest, ObjectKind, ProcessRecord
from timecraftd.recorder.manifest import (
    Manifest,
    Segment,
    blob_key,
    encode_manifest,
    manifest_key,
    object_key,
    segment_key,
)
from timecraftd.recorder.remote import RemoteStore
from timecraftd.recorder.s3 import checksum

HEADER = struct.Struct("<4sHH16sIIQQQII")
FOOTER = struct.Struct("<4sHHQIIQQQQII")


def segment_of(data: bytes) -> Segment:
    """What a manifest says of a sealed segment."""
    number, epoch, base_seq, base_time_ns = HEADER.unpack_from(data)[4:8]
    magic, _, _, index_offset, _, _, _, next_seq, _, last_time_ns, _, _ = FOOTER.unpack(data[-FOOTER.size :])
    assert magic == b"TCLF", "sealed"
    last_ns = max(last_time_ns, base_time_ns)
    crc = f"{checksum(data):08x}"
    return Segment(number, len(data), base_seq, next_seq, base_time_ns, last_ns, epoch, index_offset, crc)


async def publish(
    store: RemoteStore, home: Path, process_id: str, *, complete: bool = True, segments_max: int | None = None
) -> Manifest:
    """Sends one process of a state directory; returns its manifest."""
    runtime = Runtime(Config(home=str(home), remote=RemoteConfig()))
    process = runtime.process(process_id)
    segments = []
    for data in _segments(runtime.registry.home.log_dir(process.id))[:segments_max]:
        segments.append(segment_of(data))
        await store.put(segment_key(process.id, segments[-1].number), data)
    objects, blobs = await _send_objects(store, runtime, process)
    manifest = Manifest(
        process=replace(process, pid=0, boot_id=""),
        complete=complete,
        node="there",
        objects=tuple(objects),
        blobs=tuple(blobs),
        segments=tuple(segments),
    )
    await store.put(manifest_key(process.id), encode_manifest(manifest))
    runtime.close()
    return manifest


def _segments(log_dir: str) -> list[bytes]:
    return [path.read_bytes() for path in sorted(Path(log_dir).glob("*.tcl"))]


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
