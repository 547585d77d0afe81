"""How processes and objects are shown; field names of `-o json` and `-o yaml` are here."""

from __future__ import annotations

import json
from typing import Any

from timecraftd.embedded import Runtime
from timecraftd.model import ObjectInfo, ProcessRecord, ProcessState
from timecraftd.recorder.logs import log_bytes
from timecraftd.units import format_ago, format_span, rfc3339

_WORDS = {
    ProcessState.EXITED: "Exited",
    ProcessState.TRAPPED: "Trapped",
    ProcessState.KILLED: "Killed",
    ProcessState.LIMIT: "Limit",
    ProcessState.CRASHED: "Crashed",
    ProcessState.FAILED: "Failed",
}


def status(process: ProcessRecord, now_ns: int) -> str:
    """`Up 3 minutes`, `Exited (0) 2 minutes ago`."""
    if process.state is ProcessState.RUNNING:
        return f"Up {format_span(now_ns - process.started_ns)}"
    code = f" ({process.exit_code})" if process.exit_code is not None else ""
    ended = process.ended_ns if process.ended_ns is not None else process.created_ns
    return f"{_WORDS[process.state]}{code} {format_ago(now_ns - ended)}"


def process_bytes(runtime: Runtime, process: ProcessRecord) -> int:
    """Space that a process's log takes."""
    if process.state is ProcessState.RUNNING:
        return log_bytes(runtime.registry.home.log_dir(process.id))
    return process.log_bytes


def process_data(runtime: Runtime, process: ProcessRecord) -> dict[str, object]:
    """A process as data."""
    return {
        "id": process.id,
        "name": process.name or None,
        "module": process.module,
        "module_name": process.module_name,
        "config": process.config,
        "runtime": process.runtime,
        "state": str(process.state),
        "exit_code": process.exit_code,
        "message": process.message or None,
        "pid": process.pid if process.state is ProcessState.RUNNING else None,
        "created_at": rfc3339(process.created_ns),
        "started_at": rfc3339(process.started_ns),
        "ended_at": None if process.ended_ns is None else rfc3339(process.ended_ns),
        "recorded": process.recorded,
        "epoch": process.epoch,
        "last_seq": process.last_seq,
        "size_bytes": process_bytes(runtime, process),
        "restart_of": process.restart_of or None,
        "imported": process.imported,
    }


def network_data(runtime: Runtime, process: ProcessRecord, asked: dict[str, Any]) -> dict[str, object] | None:
    """What a process was granted on the network, and what it was refused, by which rule; None without a network."""
    if not any(asked.values()):
        return None
    data: dict[str, object] = {"listen": asked["listen"], "dial": asked["dial"]}
    state = runtime.network_state(process)
    if state is None:
        return data | {"rules": [rule for rule, _ in asked["rules"]], "published": asked["publish"]}
    data |= {"addresses": state["addresses"], "published": state["published"], "rules": state["rules"]}
    data |= {"without_rule": state["without_rule"], "totals": state["totals"]}
    for outcome in ("granted", "refused", "failed"):
        data[outcome] = [
            {name: entry[name] for name in ("count", "what", "subject", "rule", "origin", "reason")}
            | {"last_at": rfc3339(entry["last_ns"])}
            for entry in state[outcome]
        ]
    return data


def log_data(runtime: Runtime, process: ProcessRecord) -> dict[str, object]:
    """A log as data. Raises LogError."""
    info = runtime.log_info(process)
    end = None
    if info.end is not None:
        kind, code, message = info.end
        end = {"kind": kind, "code": code, "message": message}
    return {
        "id": process.id,
        "records": info.records,
        "last_seq": info.last_seq,
        "segments": info.segments,
        "blocks": info.blocks,
        "bytes_stored": info.bytes_stored,
        "bytes_raw": info.bytes_raw,
        "start_at": rfc3339(info.start_unix_ns, digits=9),
        "last_time_ns": info.last_time_ns,
        "epochs": info.epochs,
        "end": end,
        "incomplete_from": info.incomplete_from,
    }


def object_data(runtime: Runtime, info: ObjectInfo) -> dict[str, object]:
    """A config or a runtime as data."""
    return {
        "id": info.digest,
        "size_bytes": info.size_bytes,
        "created_at": rfc3339(info.modified_ns),
        "value": json.loads(runtime.registry.objects.get(info.kind, info.digest)),
    }


def tree_data(runtime: Runtime, info: ObjectInfo) -> dict[str, object]:
    """A tree as data, without its files."""
    return {
        "id": info.digest,
        "files": len(runtime.registry.trees.manifest(info.digest)["files"]),
        "size_bytes": runtime.registry.object_bytes(info),
        "path": runtime.registry.trees.path(info.digest),
        "created_at": rfc3339(info.modified_ns),
    }


def module_data(runtime: Runtime, info: ObjectInfo) -> dict[str, object]:
    """A module as data."""
    record = runtime.registry.module_record(info.digest)
    return {
        "id": info.digest,
        "name": record.name if record else None,
        "size_bytes": info.size_bytes,
        "memory_min_bytes": record.memory_min_bytes if record else None,
        "created_at": rfc3339(record.created_ns if record else info.modified_ns),
    }
