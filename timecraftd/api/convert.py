"""Between messages and the types of the rest of the program."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TypeVar

from google.protobuf import duration_pb2, timestamp_pb2

from timecraftd.api.v1 import module_pb2, process_pb2
from timecraftd.config import Config, check_given
from timecraftd.engine.request import NetworkRequest, RunRequest
from timecraftd.engine.spec import LimitSpec, MountSpec, Nans, Sockets
from timecraftd.errors import PolicyError, UsageError
from timecraftd.labels import Labels, check_label, merged
from timecraftd.model import Digest, ModuleRecord, ProcessId, ProcessRecord, ProcessState, is_digest, is_name
from timecraftd.network.publish import parse_publication
from timecraftd.network.rules import format_rule, parse_policy
from timecraftd.supervisor.journal import Submission
from timecraftd.supervisor.restarts import Mode, RestartPolicy, parse_restart

_STATES: dict[ProcessState, process_pb2.ProcessState] = {
    state: getattr(process_pb2, f"PROCESS_STATE_{state.name}") for state in ProcessState
}
_MODES: dict[Mode, process_pb2.RestartPolicy.Mode] = {
    "no": process_pb2.RestartPolicy.MODE_NO,
    "on-failure": process_pb2.RestartPolicy.MODE_ON_FAILURE,
    "always": process_pb2.RestartPolicy.MODE_ALWAYS,
    "resume": process_pb2.RestartPolicy.MODE_RESUME,
}
_MODES_BACK = {number: mode for mode, number in _MODES.items()}
_T = TypeVar("_T", bound=str)
NANS: tuple[Nans, ...] = ("canonical", "native")
PAGE_SIZE = 100
PAGE_SIZE_MAX = 1000
SOCKETS: tuple[Sockets, ...] = ("auto", "none", "v1", "v2", "path")


def page_size(asked: int) -> int:
    """How many items a page is to have; 0 asks for the default."""
    return min(asked or PAGE_SIZE, PAGE_SIZE_MAX)


def timestamp(unix_ns: int) -> timestamp_pb2.Timestamp:
    """A time."""
    return timestamp_pb2.Timestamp(seconds=unix_ns // 10**9, nanos=unix_ns % 10**9)


def unix_ns(message: timestamp_pb2.Timestamp) -> int:
    """A time, in nanoseconds since the Unix epoch."""
    return int(message.seconds) * 10**9 + int(message.nanos)


def duration(ns: int) -> duration_pb2.Duration:
    """A length of time that isn't negative."""
    return duration_pb2.Duration(seconds=ns // 10**9, nanos=ns % 10**9)


def duration_ns(message: duration_pb2.Duration, field: str) -> int:
    """A length of time, nanoseconds. Raises UsageError if it is negative."""
    ns = int(message.seconds) * 10**9 + int(message.nanos)
    if ns < 0:
        raise UsageError(f"{field}: is negative", "give a time that isn't")
    return ns


def process_message(process: ProcessRecord, submission: Submission | None = None) -> process_pb2.Process:
    """A process as a message."""
    message = process_pb2.Process(
        id=process.id,
        name=process.name,
        module=process.module,
        module_name=process.module_name,
        config=process.config,
        runtime=process.runtime,
        state=_STATES[process.state],
        created_at=timestamp(process.created_ns),
        exit_code=process.exit_code,
        message=process.message,
        pid=process.pid if process.state is ProcessState.RUNNING else 0,
        recorded=process.recorded,
        epoch=process.epoch,
        last_seq=process.last_seq,
        log_bytes=process.log_bytes,
        restart_of=process.restart_of,
        imported=process.imported,
        labels=dict(process.labels),
    )
    if process.state is not ProcessState.QUEUED:
        message.started_at.CopyFrom(timestamp(process.started_ns))
    if process.ended_ns is not None:
        message.ended_at.CopyFrom(timestamp(process.ended_ns))
    if submission is not None:
        message.restart.mode = _MODES[submission.restart.mode]
        message.restart.retries_max = submission.restart.retries_max or 0
        message.owner = submission.owner
    return message


def process_record(message: process_pb2.Process) -> ProcessRecord:
    """A process from a message."""
    created_ns = unix_ns(message.created_at)
    return ProcessRecord(
        id=ProcessId(message.id),
        name=message.name,
        module=Digest(message.module),
        module_name=message.module_name,
        config=Digest(message.config),
        runtime=Digest(message.runtime),
        state=state_of(message.state),
        created_ns=created_ns,
        started_ns=unix_ns(message.started_at) if message.HasField("started_at") else created_ns,
        ended_ns=unix_ns(message.ended_at) if message.HasField("ended_at") else None,
        exit_code=message.exit_code if message.HasField("exit_code") else None,
        message=message.message,
        pid=message.pid,
        recorded=message.recorded,
        epoch=message.epoch,
        log_bytes=message.log_bytes,
        last_seq=message.last_seq if message.HasField("last_seq") else None,
        restart_of=message.restart_of,
        imported=message.imported,
        labels=merged((), message.labels),
    )


def state_of(number: int) -> ProcessState:
    """A state from its number. Raises UsageError."""
    for state, known in _STATES.items():
        if known == number:
            return state
    raise UsageError(f"state {number}: isn't one", "use a ProcessState but UNSPECIFIED")


def state_number(state: ProcessState) -> process_pb2.ProcessState:
    """A state's number."""
    return _STATES[state]


def module_message(module: ModuleRecord) -> module_pb2.Module:
    """A module as a message."""
    return module_pb2.Module(
        digest=module.digest,
        name=module.name,
        size_bytes=module.size_bytes,
        memory_min_bytes=module.memory_min_bytes,
        created_at=timestamp(module.created_ns),
    )


def restart_policy(message: process_pb2.RestartPolicy, default: str) -> RestartPolicy:
    """A restart policy, the node's if none is given."""
    if message.mode == process_pb2.RestartPolicy.MODE_UNSPECIFIED:
        return parse_restart(default, "node.restart")
    if message.mode not in _MODES_BACK:
        raise UsageError(f"spec.restart.mode {message.mode}: isn't one", "use a Mode of RestartPolicy")
    return RestartPolicy(_MODES_BACK[message.mode], message.retries_max or None)


def restart_message(policy: RestartPolicy) -> process_pb2.RestartPolicy:
    """A restart policy as a message."""
    return process_pb2.RestartPolicy(mode=_MODES[policy.mode], retries_max=policy.retries_max or 0)


def run_request(spec: process_pb2.ProcessSpec, module_name: str, config: Config) -> RunRequest:
    """What a spec asks for, over the node's configuration. Raises UsageError, PolicyError."""
    if spec.name and not is_name(spec.name):
        raise UsageError(f"spec.name {spec.name!r}: isn't a name", "use letters, digits, '_', '.', '-', at most 63")
    if not 0 <= spec.chaos_ratio <= 1:
        raise UsageError(f"spec.chaos_ratio {spec.chaos_ratio}: isn't between 0 and 1", "correct it")
    recording, record = spec.recording, config.record
    chosen: dict[str, str] = {
        "compression": recording.compression or record.compression,
        "output": recording.output or record.output,
        "on_full": recording.on_full or record.on_full,
        "durability": recording.durability or record.durability,
    }
    block_bytes_max = recording.block_bytes_max or record.block_bytes_max
    for name, value in chosen.items():
        check_given(f"record.{name}", value, f"spec.recording.{name}")
    check_given("record.block_bytes_max", block_bytes_max, "spec.recording.block_bytes_max")
    return RunRequest(
        args=tuple(spec.args) or (os.fsencode(module_name),),
        env=tuple(_variable(each) for each in spec.env),
        secrets=tuple(sorted({each.name for each in spec.env if each.secret})),
        mounts=tuple(_mount(each) for each in spec.mounts),
        function=spec.function or None,
        nans=_choice(spec.nans, NANS, "spec.nans"),
        sockets=_choice(spec.sockets, SOCKETS, "spec.sockets"),
        limits=limit_spec(spec.limits, config),
        network=_network(spec.network),
        name=spec.name,
        labels=_labels(spec.labels),
        recorded=not recording.off,
        block_bytes_max=block_bytes_max,
        log_bytes_max=recording.log_bytes_max or record.log_bytes_max,
        chaos_ratio=spec.chaos_ratio,
        chaos_seed=spec.chaos_seed,
        interruptible=spec.interruptible,
        **chosen,
    )


def _labels(given: Mapping[str, str]) -> Labels:
    for key, value in given.items():
        check_label(key, value)
    return merged((), given)


def limit_spec(message: process_pb2.Limits, config: Config) -> LimitSpec:
    """Bounds, the node's where none is given. Raises UsageError."""
    limits = config.limits

    def chosen(name: str, default: int | None) -> int | None:
        return getattr(message, name) if message.HasField(name) else default

    def chosen_ns(name: str, default_s: float | None) -> int | None:
        if message.HasField(name):
            return duration_ns(getattr(message, name), f"spec.limits.{name}")
        return None if default_s is None else round(default_s * 1e9)

    values = {
        "memory_bytes": chosen("memory_bytes", limits.memory_bytes_max) or 0,
        "stack_bytes": chosen("stack_bytes", limits.stack_bytes_max) or 0,
        "open_files": chosen("open_files", limits.open_files_max) or 0,
        "sockets": chosen("sockets", limits.sockets_max) or 0,
    }
    for name, value in values.items():
        check_given(f"limits.{name}_max", value, f"spec.limits.{name}")
    return LimitSpec(
        **values,
        disk_bytes=chosen("disk_bytes", limits.disk_bytes_max),
        cpu_ns=chosen_ns("cpu", limits.cpu_s_max),
        wall_ns=chosen_ns("wall", limits.wall_s_max),
        log_bytes_per_s=chosen("log_bytes_per_s", limits.log_bytes_per_s_max),
    )


def _network(message: process_pb2.Network) -> NetworkRequest:
    rules = parse_policy(list(message.rules), _refuse_file).rules if message.rules else ()
    return NetworkRequest(
        rules=tuple((format_rule(rule), rule.origin) for rule in rules),
        publish=tuple(str(parse_publication(text)) for text in message.publish),
        listen=tuple(message.listen),
        dial=tuple(message.dial),
        ca_file=message.ca_file,
    )


def _refuse_file(path: str) -> bytes:
    raise PolicyError(f"spec.network.rules {path!r}: is a file", "give the rules: the node reads no files of its own")


def _variable(variable: process_pb2.EnvVar) -> bytes:
    if not variable.name or "=" in variable.name or "\0" in variable.name or b"\0" in variable.value:
        raise UsageError(f"spec.env {variable.name!r}: isn't a variable", "give a name without '=', and no NUL byte")
    return variable.name.encode() + b"=" + variable.value


def _mount(mount: process_pb2.Mount) -> MountSpec:
    if mount.tree:
        if not is_digest(mount.tree) or not mount.guest or "\0" in mount.host + mount.guest:
            raise UsageError(f"spec.mounts {mount.guest!r}: isn't a mount of a tree", "give its digest, and a path")
        return MountSpec(mount.host, mount.guest, True, mount.tree)
    is_private = not mount.host and not mount.immutable
    if not (is_private or os.path.isabs(mount.host)) or not mount.guest or "\0" in mount.host + mount.guest:
        raise UsageError(
            f"spec.mounts {mount.host!r}: isn't an absolute path", "give the path of a directory on the node"
        )
    return MountSpec(
        mount.host and os.path.normpath(mount.host),
        mount.guest,
        mount.read_only or mount.immutable,
        "" if mount.immutable else None,
    )


def _choice(text: str, choices: tuple[_T, ...], field: str) -> _T:
    for choice in choices:
        if text in (choice, ""):
            return choice
    raise UsageError(f"{field} {text!r}: isn't one", f"use {', '.join(choices)}")
