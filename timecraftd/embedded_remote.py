"""What a state directory lacks, out of the bucket: rows, logs, objects, files of trees. Composition of the runtime."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from timecraftd.errors import ConfigError, LogError, NotFoundError
from timecraftd.model import PREFIX_MIN, LogSource, ProcessId, ProcessRecord, ProcessState, is_process_id
from timecraftd.recorder.fetch import NEXT_STEP, Remote, RemoteLog
from timecraftd.recorder.manifest import Manifest, public_record, segment_name
from timecraftd.recorder.segments import segment_files
from timecraftd.registry.catalogue import CANDIDATES_MAX, ambiguous
from timecraftd.registry.registry import Registry

if TYPE_CHECKING:
    from timecraftd.config import Config


def open_remote(config: Config) -> Remote | None:
    """The bucket that is configured, if one is; nothing is connected yet."""
    if not config.remote.url:
        return None
    return Remote(config.remote, os.path.join(config.home, "remote-cache"))


def required(remote: Remote | None) -> Remote:
    """The bucket that is configured. Raises ConfigError if none is."""
    if remote is None:
        raise ConfigError("remote.url names no store", "docs/remote.md tells how")
    return remote


def find(remote: Remote, registry: Registry, reference: str, unknown: NotFoundError) -> ProcessRecord:
    """A process of the bucket by its id or a unique prefix of it; one that is over is put into the catalogue.

    Raises AmbiguousIdError, RemoteError, LogDamagedError, and what is given if there is no such process.
    """
    manifest = remote.manifest(stored_id(remote, reference, unknown))
    if manifest is None:
        raise unknown
    return adopt(registry, manifest)


def stored_id(remote: Remote, reference: str, unknown: NotFoundError) -> ProcessId:
    """An id as it is given, or that of the one process of the bucket that has it as a prefix.

    Raises AmbiguousIdError, RemoteError, and what is given if there is no such process.
    """
    lowered = reference.lower()
    if is_process_id(lowered):
        return ProcessId(lowered)
    if len(lowered) < PREFIX_MIN or any(letter not in "0123456789abcdef-" for letter in lowered):
        raise unknown
    ids = remote.ids(lowered, CANDIDATES_MAX + 1)
    if len(ids) > 1:
        raise ambiguous("process", reference, ids[:CANDIDATES_MAX], more=len(ids) > CANDIDATES_MAX)
    if not ids:
        raise unknown
    return ids[0]


def adopt(registry: Registry, manifest: Manifest) -> ProcessRecord:
    """A process as this machine sees it; taken into the catalogue once its manifest is final.

    It has no directory: what is read of it is read from the bucket. As with an import, what it was granted was somebody
    else's decision.
    """
    process = seen_from_here(manifest)
    if manifest.complete:
        registry.catalogue.insert_new(process)
    return process


def seen_from_here(manifest: Manifest) -> ProcessRecord:
    """A process that another machine has run. Of one that may still run there, what was uploaded is all there is."""
    process = replace(public_record(manifest.process), imported=True, last_seq=_last_seq(manifest))
    if manifest.complete:
        return process
    where = f"node {manifest.node}" if manifest.node else "another machine"
    message = f"what is in the bucket ends: it still runs on {where}, or was lost with it"
    return replace(process, state=ProcessState.CRASHED, exit_code=None, message=message)


def _last_seq(manifest: Manifest) -> int | None:
    return manifest.next_seq - 1 if manifest.next_seq else None


def source_of(remote: Remote, registry: Registry, process: ProcessRecord) -> LogSource:
    """Where the log of a process is. Raises NotFoundError if that is nowhere, RemoteError, LogDamagedError."""
    log_dir = registry.home.log_dir(process.id)
    is_here = process.state.is_alive or segment_files(log_dir)
    if not is_here and remote.manifest(process.id) is None:
        raise NotFoundError(
            f"process {process.id}: its log is neither in {log_dir} nor in {remote.url}",
            f"it may be in another bucket (remote.url); `timecraft rm {process.id}` removes what is known of it",
        )
    next_seq = None if process.state.is_alive or process.last_seq is None else process.last_seq + 1
    return LogSource(log_dir, process.id, RemoteLog(remote, process.id), next_seq)


@contextmanager
def whole_log(remote: Remote | None, registry: Registry, process: ProcessRecord) -> Iterator[str]:
    """A directory with all files of a log, for the length of a `with`. Raises RemoteError, LogError, StateError."""
    log_dir = registry.home.log_dir(process.id)
    here = set(os.listdir(log_dir)) if os.path.isdir(log_dir) else set()
    segments = () if remote is None else remote.segments(process.id)
    missing = [segment for segment in segments if segment_name(segment.number) not in here]
    if remote is None or not missing:
        if not here:
            raise LogError(f"process {process.id}: its log is not in {log_dir}", NEXT_STEP if remote else "")
        yield log_dir
        return
    staging = os.path.join(registry.home.processes_dir, f".whole-{process.id}-{os.getpid()}")
    try:
        os.makedirs(staging, mode=0o700)
        for name in here:
            path = os.path.join(log_dir, name)
            if os.path.isfile(path):
                os.link(path, os.path.join(staging, name))
        for segment in missing:
            path = os.path.join(staging, segment_name(segment.number))
            remote.save_segment(process.id, segment, path)
        yield staging
    finally:
        shutil.rmtree(staging, ignore_errors=True)
