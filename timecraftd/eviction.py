"""Removal of logs from the disk that are wholly in the store: they are read from there, segment by segment."""

from __future__ import annotations

import os
from contextlib import suppress

from timecraftd.embedded import Runtime
from timecraftd.embedded_remote import required
from timecraftd.errors import LogError, ProcessStateError, StateBusyError
from timecraftd.model import ProcessRecord, ProcessState
from timecraftd.recorder.manifest import segment_key, segment_name
from timecraftd.recorder.remote import RemoteStore
from timecraftd.recorder.segments import segment_files
from timecraftd.recorder.uploader import is_stored
from timecraftd.registry.home import state_errors


def evictable(runtime: Runtime, ended_before_ns: int) -> list[ProcessRecord]:
    """Processes that ended before a time (Unix ns) with logs on the disk that were sent, oldest first.

    Those that could be resumed aren't among them. Raises StateError.
    """
    return [
        process
        for process in reversed(runtime.processes())
        if _may_go(process)
        and (process.ended_ns or process.created_ns) < ended_before_ns
        and _is_sent(runtime, process)
    ]


def evict(runtime: Runtime, process: ProcessRecord) -> int:
    """Removes the segments of a process's log from the disk, once the store has been seen to have them; the bytes.

    Who reads them can go on. Raises ConfigError, ProcessStateError if it runs, could be resumed or is in use, LogError
    if not all of it is in the store, RemoteError, StateError.
    """
    remote = required(runtime.remote)
    if not _may_go(process):
        raise ProcessStateError(f"process {process.id}: it runs, or could be resumed", "its log stays here till then")
    log_dir = runtime.registry.home.log_dir(process.id)
    if not segment_files(log_dir):
        return 0
    missing = LogError(f"process {process.id}: its log isn't wholly in {remote.url}", "`timecraft log push` sends it")
    lock = runtime.registry.lock(process.id)
    try:
        lock.acquire()
    except StateBusyError:
        raise ProcessStateError(f"process {process.id}: it is in use", "try again later") from None
    try:
        if runtime.registry.catalogue.get(process.id).epoch != process.epoch or not _is_sent(runtime, process):
            raise missing
        manifest = remote.manifest(process.id)
        named = {segment.number: segment.size for segment in remote.segments(process.id)}

        async def sizes(store: RemoteStore) -> dict[str, int]:
            return {
                info.key: info.size async for info in store.list(segment_key(process.id, 0).rpartition("/")[0] + "/")
            }

        stored = remote.run(sizes)
        files = segment_files(log_dir)
        for number, _, size in files:
            if not named.get(number) == stored.get(segment_key(process.id, number)) == size:
                raise missing
        if manifest is None or not manifest.complete or manifest.process.epoch != process.epoch:
            raise missing
        with state_errors(log_dir):
            for number, _, _ in files:
                with suppress(FileNotFoundError):
                    os.unlink(os.path.join(log_dir, segment_name(number)))
        return sum(size for _, _, size in files)
    finally:
        lock.release()


def _may_go(process: ProcessRecord) -> bool:
    return process.recorded and not process.state.is_alive and process.state is not ProcessState.CRASHED


def _is_sent(runtime: Runtime, process: ProcessRecord) -> bool:
    home = runtime.registry.home
    return bool(segment_files(home.log_dir(process.id))) and is_stored(
        home.process_dir(process.id), process, runtime.config.remote
    )
