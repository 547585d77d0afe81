"""Makes a catalogue anew, out of what a bucket and the logs of a state directory tell."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from dataclasses import dataclass, field

from timecraftd.embedded import Runtime
from timecraftd.embedded_remote import seen_from_here
from timecraftd.errors import LogError, NotFoundError, StateBusyError, StateError, StateVersionError, TimecraftError
from timecraftd.model import (
    ModuleRecord,
    ObjectInfo,
    ObjectKind,
    ProcessId,
    ProcessRecord,
    ProcessState,
    is_process_id,
)
from timecraftd.recorder.manifest import public_record

CALL_START = 0xFF00


@dataclass
class Rebuilt:
    """What was added to a catalogue."""

    added: list[ProcessId] = field(default_factory=list)
    from_bucket: int = 0
    problems: list[str] = field(default_factory=list)
    """Logs that don't say whose they are."""


def rebuild(runtime: Runtime) -> Rebuilt:
    """Adds to the catalogue what it lacks: processes of the bucket that are over, and those whose logs are here.

    Raises StateError, RemoteError.
    """
    registry = runtime.registry
    try:
        registry.catalogue.counts()
    except (StateVersionError, StateBusyError):
        raise
    except StateError:
        registry.put_catalogue_aside(runtime.now_ns())
    done = Rebuilt()
    for manifest in () if runtime.remote is None else runtime.remote.manifests():
        is_here = os.path.isdir(registry.home.log_dir(manifest.process.id))
        process = public_record(manifest.process) if is_here else seen_from_here(manifest)
        if manifest.complete and registry.catalogue.insert_new(process):
            done.added.append(process.id)
            done.from_bucket += 1
    for name in sorted(os.listdir(registry.home.processes_dir)):
        if is_process_id(name):
            _rebuild_local(runtime, ProcessId(name), done)
    for info in registry.objects.stored(ObjectKind.MODULE):
        if registry.module_record(info.digest) is None:
            _rebuild_module(runtime, info)
    return done


def _rebuild_local(runtime: Runtime, process_id: ProcessId, done: Rebuilt) -> None:
    """Adds a process by what its log begins with. Its end is found as that of one whose host died unseen."""
    from timecraftd.recorder.reader import read_log

    registry = runtime.registry
    try:
        registry.catalogue.get(process_id)
    except NotFoundError:
        pass
    else:
        return
    try:
        first = next(read_log(registry.home.log_dir(process_id)), None)
        if first is None or first.call != CALL_START:
            raise LogError(f"process {process_id}: its log doesn't have its beginning")
        told = json.loads(first.sent[0][1])
        process = ProcessRecord(
            id=process_id,
            name=told["name"],
            module=told["module"],
            module_name=told["module_name"],
            config=told["config"],
            runtime=told["runtime"],
            state=ProcessState.RUNNING,
            created_ns=told["created_ns"],
            started_ns=first.args[1],
            restart_of=told["restart_of"],
        )
    except (LogError, OSError, ValueError, KeyError, IndexError, TypeError) as error:
        done.problems.append(str(error))
        return
    if registry.catalogue.insert_new(process):
        runtime.settle(process)
        done.added.append(process_id)


def _rebuild_module(runtime: Runtime, info: ObjectInfo) -> None:
    names = [process.module_name for process in runtime.processes() if process.module == info.digest]
    with suppress(TimecraftError):
        inspected = runtime.engine.inspect(runtime.registry.objects.get(ObjectKind.MODULE, info.digest))
        name = names[0] if names else info.digest[:12]
        record = ModuleRecord(info.digest, name, info.size_bytes, inspected.memory_min_bytes, info.modified_ns)
        runtime.registry.catalogue.put_module(record)
