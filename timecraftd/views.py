"""What verbs ask of a state directory, as data: the command line and the node's services answer from here.

Field names of `-o json` and `-o yaml` are here; how things look is the command line's.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import IO, TYPE_CHECKING, Any, Literal

from timecraftd.errors import (
    ConfigError,
    LogError,
    NotFoundError,
    ObjectDamagedError,
    ProcessStateError,
    RemoteError,
    TimecraftError,
)
from timecraftd.masking import TraceMask, mask_config
from timecraftd.model import LogSource, ObjectInfo, ObjectKind, ProcessRecord, ProcessState
from timecraftd.recorder.logs import CAUGHT_UP, Output, TraceQuery, TrafficQuery, log_bytes
from timecraftd.units import rfc3339

if TYPE_CHECKING:
    from timecraftd.embedded import Runtime
    from timecraftd.engine.runtime import Outcome
    from timecraftd.timemachine.traffic import Traffic

POLL_S = 0.02
HARD_S = 2.0
"""How long a host may take to end its guest after SIGKILL was asked for, before it is killed itself."""
FOLLOW_INTERVAL_S = 0.1
STRING_BYTES = 32
STRING_BYTES_VERBOSE = 1 << 16
STRING_BYTES_EXPORTED = 1 << 20

Layer = Literal["syscall", "network", "request"]
Form = Literal["text", "json", "yaml"]
Timestamps = Literal["none", "relative", "absolute"]

# ---- processes


def sized(runtime: Runtime, process: ProcessRecord) -> ProcessRecord:
    """A process with the space that its log takes now: that of a running one is written down at its end only."""
    if process.state is not ProcessState.RUNNING:
        return process
    return replace(process, log_bytes=log_bytes(runtime.registry.home.log_dir(process.id)))


def remote_processes(runtime: Runtime, before: str = "") -> Iterator[ProcessRecord]:
    """Processes of the bucket, newest first, as they come; only ids before one, if that is given.

    One that is known here is as it is known here, others are as they were last told of.

    Raises ConfigError, RemoteError.
    """
    if runtime.remote is None:
        raise ConfigError("remote.url: isn't set, so there is no bucket", "see docs/remote.md")
    for manifest in runtime.remote.manifests(before):
        try:
            yield runtime.settle(runtime.registry.catalogue.get(manifest.process.id))
        except NotFoundError:
            size_bytes = manifest.process.log_bytes or sum(segment.size for segment in manifest.segments)
            yield replace(manifest.process, log_bytes=size_bytes)


def process_data(process: ProcessRecord) -> dict[str, object]:
    """A process, as `sized` gives it, as data."""
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
        "started_at": None if process.state is ProcessState.QUEUED else rfc3339(process.started_ns),
        "ended_at": None if process.ended_ns is None else rfc3339(process.ended_ns),
        "recorded": process.recorded,
        "epoch": process.epoch,
        "last_seq": process.last_seq,
        "size_bytes": process.log_bytes,
        "restart_of": process.restart_of or None,
        "imported": process.imported,
        "labels": dict(process.labels),
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
    epochs = [(0, info.start_unix_ns)] if info.epochs == 1 else runtime.logs.epochs(runtime.log_source(process))
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
        "began": [{"time_ns": time_ns, "at": rfc3339(unix_ns, digits=9)} for time_ns, unix_ns in epochs],
        "end": end,
        "incomplete_from": info.incomplete_from,
    }


# ---- objects


def object_data(runtime: Runtime, info: ObjectInfo) -> dict[str, object]:
    """A config or a runtime as data, secrets hidden."""
    value = json.loads(runtime.registry.objects.get(info.kind, info.digest))
    return {
        "id": info.digest,
        "size_bytes": info.size_bytes,
        "created_at": rfc3339(info.modified_ns),
        "value": mask_config(value) if info.kind is ObjectKind.CONFIG else value,
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


def listing(runtime: Runtime, kind: str, references: Sequence[str] = ()) -> Iterator[dict[str, object]]:
    """What `get` tells of modules, configs, runtimes, trees or logs, newest first; of these only if any are named.

    Raises NotFoundError, AmbiguousIdError.
    """
    if kind == "log":
        found = [runtime.process(reference) for reference in references] if references else runtime.processes()
        return (_listed_log(runtime, process) for process in found if process.recorded)
    object_kind = ObjectKind(kind)
    infos = list(runtime.registry.objects.stored(object_kind))
    if references:
        wanted = {runtime.registry.resolve_object(object_kind, reference) for reference in references}
        infos = [info for info in infos if info.digest in wanted]
    infos.sort(key=lambda info: info.modified_ns, reverse=True)
    show = {ObjectKind.MODULE: module_data, ObjectKind.TREE: tree_data}.get(object_kind, object_data)
    return (show(runtime, info) for info in infos)


def _listed_log(runtime: Runtime, process: ProcessRecord) -> dict[str, object]:
    try:
        return log_data(runtime, process)
    except LogError as error:  # one damaged log must not hide the others
        return {"id": process.id, "error": str(error)}


# ---- one thing in detail


def describe(runtime: Runtime, kind: str, reference: str) -> dict[str, object]:
    """All that is known of one process, log or object. Raises NotFoundError, AmbiguousIdError, LogError."""
    if kind == "log":
        return log_data(runtime, runtime.process(reference))
    if kind == "process":
        return _process(runtime, runtime.process(reference))
    object_kind = ObjectKind(kind)
    digest = runtime.registry.resolve_object(object_kind, reference)
    data = runtime.registry.objects.get(object_kind, digest)
    info = next(info for info in runtime.registry.objects.stored(object_kind) if info.digest == digest)
    if object_kind is ObjectKind.MODULE:
        return _module(runtime, info, data)
    return _tree(runtime, info) if object_kind is ObjectKind.TREE else object_data(runtime, info)


def _tree(runtime: Runtime, info: ObjectInfo) -> dict[str, object]:
    manifest = runtime.registry.trees.manifest(info.digest)
    path = runtime.registry.trees.path(info.digest)
    return tree_data(runtime, info) | {
        "directories": manifest["directories"],
        "links": [{"path": path, "target": target} for path, target in manifest["links"].items()],
        "contents": [
            {
                "path": path,
                "size_bytes": file["size"],
                "modified_at": rfc3339(file["mtime_ns"]),
                "sha256": file["sha256"],
            }
            for path, file in manifest["files"].items()
        ],
        "processes": [process.id for process in runtime.processes() if path in runtime.trees_of(process)],
    }


def _process(runtime: Runtime, process: ProcessRecord) -> dict[str, object]:
    data = process_data(sized(runtime, process))
    try:
        config = mask_config(json.loads(runtime.registry.objects.get(ObjectKind.CONFIG, process.config)))
        data |= {name: config[name] for name in ("args", "env", "mounts", "function", "limits", "chaos")}
        data["network"] = network_data(runtime, process, config.get("network", {}))
    except TimecraftError as error:
        data["config_error"] = str(error)
    if process.recorded:
        try:
            log = log_data(runtime, process)
            log.pop("id")
            data["log"] = log
        except TimecraftError as error:
            data["log_error"] = str(error)
        data["store"] = _store_data(runtime, process)
        try:
            runtime.check_replayable(process)
            data["replayable"] = True
        except TimecraftError as error:
            data |= {"replayable": False, "replay_error": str(error)}
    return data


def _store_data(runtime: Runtime, process: ProcessRecord) -> dict[str, object] | None:
    """What of a process's log was sent to the store, as was last written down, or as the store says of one that is
    only there; None if nothing was.
    """
    directory = runtime.registry.home.process_dir(process.id)
    manifest = None
    if os.path.exists(os.path.join(directory, "upload.json")):
        from timecraftd.recorder.uploader import read_state

        state = read_state(directory, process.id)
        manifest = None if state is None or state.is_deleted else state.manifest
    elif runtime.remote is not None and not os.path.isdir(directory):
        with suppress(RemoteError, LogError):  # it is told beside the log
            manifest = runtime.remote.manifest(process.id)
    if manifest is None:
        return None
    return {"complete": manifest.complete, "segments": manifest.next_number, "next_seq": manifest.next_seq}


def _module(runtime: Runtime, info: ObjectInfo, wasm: bytes) -> dict[str, object]:
    data = module_data(runtime, info)
    inspected = runtime.engine.inspect(wasm)
    data |= {
        "memory_min_bytes": inspected.memory_min_bytes,
        "memory_max_bytes": inspected.memory_max_bytes,
        "functions": inspected.functions,
        "imports": [{"module": module, "name": name, "type": kind} for module, name, kind in inspected.imports],
        "exports": [{"name": name, "type": kind} for name, kind in inspected.exports],
        "processes": [process.id for process in runtime.processes() if process.module == info.digest],
    }
    return data


# ---- logs and traces


def follower(
    runtime: Runtime, process: ProcessRecord, pause: Callable[[float], object] = time.sleep
) -> Callable[[], bool]:
    """A function that, at the end of what a log holds, waits a little and says whether there may be more.

    `pause` waits for so many seconds; if it returns what is true (as `threading.Event.wait` does), it is enough.
    """

    def wait() -> bool:
        goes_on = runtime.is_running(process) or goes_on_elsewhere(runtime, process)
        return goes_on and not pause(FOLLOW_INTERVAL_S)

    return wait


def goes_on_elsewhere(runtime: Runtime, process: ProcessRecord) -> bool:
    """Whether more of a process may come into the store from another machine. Raises RemoteError, LogDamagedError."""
    if runtime.remote is None or os.path.isdir(runtime.registry.home.process_dir(process.id)):
        return False
    manifest = runtime.remote.manifest(process.id)
    return manifest is not None and not manifest.complete


def _log_to_read(runtime: Runtime, process: ProcessRecord, *, follow: bool) -> str | LogSource:
    """Where a log is; one that is followed may be longer than is known."""
    source = runtime.log_source(process)
    return replace(source, next_seq=None) if follow and isinstance(source, LogSource) else source


def output(
    runtime: Runtime, process: ProcessRecord, since_unix_ns: int | None, follow: Callable[[], bool] | None
) -> tuple[int, Iterator[Output]]:
    """When a process started (Unix ns), and what it wrote from a time on, with `CAUGHT_UP` where that is true.

    Times are of the day, less that of the start: while no host ran the process, they went on. `follow` is `follower`'s,
    or None. Raises LogError, ReplayRefusedError.
    """
    info = runtime.log_info(process)
    unix_ns = runtime.logs.unix_times(runtime.log_source(process)) if process.epoch else None
    since_ns = 0 if since_unix_ns is None else since_unix_ns - info.start_unix_ns
    # A guest may write faster than we read.
    last_ns = info.last_time_ns if process.state is ProcessState.RUNNING and follow is None else None

    def pieces() -> Iterator[Output]:
        begun = new = False
        for piece in runtime.logs.output(_log_to_read(runtime, process, follow=follow is not None), follow or bool):
            if last_ns is not None and piece.time_ns > last_ns:
                break
            # All that there was when we began counts too: a guest may write so fast that nobody ever catches up.
            caught_up = piece is CAUGHT_UP
            if (caught_up and new) or (not begun and (caught_up or piece.time_ns > info.last_time_ns)):
                yield CAUGHT_UP
                begun, new = True, False
            if not caught_up and unix_ns is not None:
                piece = replace(piece, time_ns=unix_ns(piece.time_ns) - info.start_unix_ns)  # noqa: PLW2901
            if not caught_up and piece.time_ns >= since_ns:
                yield piece
                new = True

    return info.start_unix_ns, pieces()


@dataclass(frozen=True, slots=True)
class TraceOptions:
    """What of a process is traced, and how it is shown (docs/traces.md)."""

    layer: Layer
    form: Form = "text"
    timestamps: Timestamps | None = None
    """None is the layer's default."""
    verbose: bool = False
    color: bool = False
    start_ns: int | None = None
    """Since the start of the process, or since the Unix epoch."""
    start_is_unix: bool = False
    duration_ns: int | None = None
    calls: tuple[str, ...] = ()
    host: str | None = None
    port: int | None = None
    side: Literal["client", "server"] | None = None
    skip_damaged: bool = False
    """Leave out records that can't be read, and tell so in the notes. Of the layer syscall."""


class Trace:
    """One trace of one process."""

    def __init__(
        self, runtime: Runtime, process: ProcessRecord, options: TraceOptions, follow: Callable[[], bool] | None
    ) -> None:
        """`follow` is `follower`'s, or None. Raises LogError, ReplayRefusedError, UsageError."""
        self._runtime = runtime
        self._process = process
        self._options = options
        self._follow = follow
        self._gaps: list[str] = []
        self._traffic: Traffic | None = None
        self._last_ns: int | None = None
        self._log = _log_to_read(runtime, process, follow=follow is not None)
        if options.skip_damaged:
            return
        runtime.check_log(process)
        if process.state is ProcessState.RUNNING and follow is None:
            # A guest may call faster than we read: what came since isn't waited for, unless that is asked for.
            self._last_ns = runtime.log_info(process).last_time_ns
        self._traffic = None if options.layer == "syscall" else self._open_traffic()

    def text(self) -> Iterator[bytes]:
        """What there is to show, in order, in pieces of whole lines. Raises LogDamagedError, UsageError."""
        if self._traffic is not None:
            yield from self._traffic.text(self._follow or bool)
            return
        options = self._options
        query = TraceQuery(
            start_ns=options.start_ns,
            until_ns=None if options.duration_ns is None else (options.start_ns or 0) + options.duration_ns,
            is_unix=options.start_is_unix,
            last_ns=self._last_ns,
            json=options.form != "text",
            string_bytes_max=STRING_BYTES_VERBOSE if options.verbose else STRING_BYTES,
            timestamps=options.timestamps or "relative",
            calls=options.calls,
        )
        trees = self._runtime.trees_of(self._process)
        mask = TraceMask(secrets_of(self._runtime, self._process))
        gap = self._gaps.append if options.skip_damaged else None
        for shown in self._runtime.logs.trace(self._log, query, self._follow or bool, trees, gap):
            lines = [mask.line(line) for line in shown]
            yield _yaml(lines) if options.form == "yaml" else _joined(lines)

    @property
    def notes(self) -> list[str]:
        """What the user should know of what isn't shown; complete once all text was taken."""
        notes = self._gaps if self._traffic is None else self._traffic.notes
        crashed = self._process.state is ProcessState.CRASHED and self._options.duration_ns is None
        if self._traffic is not None and crashed and not self._traffic.ended:
            notes = [*notes, f"its log ends with record {self._process.last_seq}, where its host died"]
        return notes

    def _open_traffic(self) -> Traffic:
        from timecraftd.engine.request import decode_config
        from timecraftd.timemachine.traffic import Traffic, given_sockets

        options = self._options
        assert options.layer != "syscall", "that layer isn't traffic"
        config = self._runtime.registry.objects.get(ObjectKind.CONFIG, self._process.config)
        query = TrafficQuery(
            layer=options.layer,
            form=options.form,
            timestamps=options.timestamps or "absolute",
            verbose=options.verbose,
            color=options.color and options.form == "text",
            host=options.host,
            port=options.port,
            side=options.side,
            from_ns=options.start_ns,
            until_ns=None if options.duration_ns is None else (options.start_ns or 0) + options.duration_ns,
            is_unix=options.start_is_unix,
            last_ns=self._last_ns,
            given=given_sockets(decode_config(config)),
        )
        return Traffic(self._runtime.logs, self._log, query)


def secrets_of(runtime: Runtime, process: ProcessRecord) -> tuple[str, ...]:
    """Names of the variables of a process whose values aren't shown; none if what it was given is lost."""
    try:
        config = json.loads(runtime.registry.objects.get(ObjectKind.CONFIG, process.config))
    except (NotFoundError, ObjectDamagedError):
        return ()
    return tuple(config.get("secrets", ()))


def _joined(lines: Sequence[str]) -> bytes:
    return b"".join(line.encode("utf-8", "backslashreplace") + b"\n" for line in lines)


def _yaml(lines: Sequence[str]) -> bytes:
    """Lines of JSON as documents of YAML."""
    import yaml

    return "".join(yaml.safe_dump(json.loads(line), sort_keys=False, explicit_start=True) for line in lines).encode()


# ---- replays


@dataclass(frozen=True, slots=True)
class ReplayEnd:
    """How a replay ended. The fields are those of `Outcome`, and what the process tells of it."""

    kind: str
    code: int
    message: str
    backtrace: tuple[str, ...]
    last_seq: int | None
    log_incomplete: bool
    """The log ends before the process did, because the rest was lost: no room, or a damaged ring."""


def check_ended(process: ProcessRecord) -> None:
    """Only what is over can be replayed. Raises ProcessStateError."""
    if process.state is ProcessState.RUNNING:
        raise ProcessStateError(f"process {process.id}: it still runs", "wait for it with `timecraft wait`")


def replay_end(runtime: Runtime, process: ProcessRecord, outcome: Outcome) -> ReplayEnd:
    """How a replay of a process ended."""
    incomplete = outcome.kind == "log_ended" and runtime.log_info(process).incomplete_from is not None
    backtrace = tuple(outcome.backtrace)
    return ReplayEnd(outcome.kind, outcome.code, outcome.message, backtrace, outcome.last_seq, incomplete)


# ---- exports


def exporter(
    runtime: Runtime, kind: str, reference: str, *, compress: bool, gap: Callable[[str], object] | None = None
) -> Callable[[IO[bytes]], None]:
    """A function that writes a process as an archive, an object's bytes, or a log as JSON lines, into a file.

    With `gap`, what is damaged of a log is left out, and it is told of that. What can be known before is checked
    before. Raises NotFoundError, AmbiguousIdError, ProcessStateError, LogError.
    """
    if kind == "process":
        return _process_exporter(runtime, runtime.process(reference), compress=compress)
    if kind == "log":
        return _log_exporter(runtime, runtime.process(reference), gap)
    object_kind = ObjectKind(kind)
    data = runtime.registry.objects.get(object_kind, runtime.registry.resolve_object(object_kind, reference))
    return lambda file: _write(file, data)


def _write(file: IO[bytes], data: bytes) -> None:
    file.write(data)


def _process_exporter(runtime: Runtime, process: ProcessRecord, *, compress: bool) -> Callable[[IO[bytes]], None]:
    if process.state is ProcessState.RUNNING:
        raise ProcessStateError(f"process {process.id}: it runs", "stop it, or wait for its end, first")
    if not process.recorded:
        raise ProcessStateError(f"process {process.id}: was run without recording, there is nothing to export")

    def export(file: IO[bytes]) -> None:
        from timecraftd.embedded_remote import whole_log
        from timecraftd.registry.archive import export_process

        lock = runtime.registry.lock(process.id)
        if os.path.isdir(runtime.registry.home.process_dir(process.id)):
            lock.acquire()
        try:
            with whole_log(runtime.remote, runtime.registry, process) as log_dir:
                export_process(runtime.registry, process, file, compress=compress, log_dir=log_dir)
        finally:
            lock.release()

    return export


def _log_exporter(
    runtime: Runtime, process: ProcessRecord, gap: Callable[[str], object] | None
) -> Callable[[IO[bytes]], None]:
    log = runtime.log_source(process)
    if gap is None:
        runtime.log_info(process)
    query = TraceQuery(json=True, string_bytes_max=STRING_BYTES_EXPORTED, timestamps="absolute")

    mask = TraceMask(secrets_of(runtime, process))

    def export(file: IO[bytes]) -> None:
        for lines in runtime.logs.trace(log, query, trees=runtime.trees_of(process), gap=gap):
            file.write(_joined([mask.line(line) for line in lines]))

    return export


def import_archive(runtime: Runtime, source: IO[bytes], name: str) -> ProcessRecord:
    """Takes in an exported process. Raises ArchiveError."""
    from timecraftd.registry.archive import ArchiveBounds, import_process

    bounds = runtime.config.imports
    limits = ArchiveBounds(bounds.archive_bytes_max, bounds.member_bytes_max, bounds.members_max)
    return import_process(runtime.registry, source, name, limits)


# ---- ends


def end(runtime: Runtime, process: ProcessRecord, number: int, patience_s: float) -> None:
    """Ends a process by a signal, after a while by SIGKILL, then by killing its host. Raises ProcessStateError."""
    if process.state is not ProcessState.RUNNING:
        return
    runtime.kill(process, number)
    if _gone(runtime, process, patience_s):
        return
    runtime.kill(process, signal.SIGKILL)
    if _gone(runtime, process, HARD_S):
        return
    runtime.kill_host(process)
    if not _gone(runtime, process, HARD_S):
        raise ProcessStateError(
            f"process {process.id}: its host (pid {process.pid}) doesn't end", "look at that process"
        )


def _gone(runtime: Runtime, process: ProcessRecord, patience_s: float) -> bool:
    deadline = time.monotonic() + patience_s
    while runtime.is_running(process):
        if time.monotonic() >= deadline:
            return False
        time.sleep(POLL_S)
    return True


def matches(process: ProcessRecord, key: str, pattern: str) -> bool:
    """Whether a process passes a filter of `ps`."""
    if key == "module":
        return fnmatchcase(process.module_name, pattern) or process.module.startswith(pattern)
    if key == "id":
        return process.id.startswith(pattern)
    if key == "label":
        name, equals, value = pattern.partition("=")
        found = dict(process.labels).get(name)
        return found is not None and (not equals or fnmatchcase(found, value))
    return fnmatchcase(process.name if key == "name" else process.state, pattern)
