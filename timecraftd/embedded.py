"""The embedded runtime: composition root of registry, engine and recorder for one process of the host."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from timecraftd.config import Config
from timecraftd.engine.compat import incompatibility, nans_of
from timecraftd.engine.request import (
    RunRequest,
    canonical_json,
    check_mounts,
    decode_config,
    describe_grants,
    encode_config,
)
from timecraftd.engine.runtime import Engine
from timecraftd.engine.spec import (
    LimitSpec,
    LogSpec,
    ModuleSpec,
    MountSpec,
    OnFull,
    ReplaySpec,
    ResumeSpec,
    RunSpec,
)
from timecraftd.errors import (
    LogError,
    ModuleError,
    NotFoundError,
    ObjectDamagedError,
    ProcessStateError,
    ReplayRefusedError,
    StateBusyError,
    StateError,
    StateFullError,
)
from timecraftd.model import (
    STATE_OF_END,
    Digest,
    ModuleFile,
    ModuleRecord,
    ObjectKind,
    ProcessId,
    ProcessRecord,
    ProcessState,
    new_process_id,
    require_unheld,
)
from timecraftd.recorder.logs import Logs, log_bytes
from timecraftd.recorder.ring import remove_ring, shared_ring_path
from timecraftd.registry.files import read_module
from timecraftd.registry.home import Home, ProcessLock, boot_id, leave_kill_request
from timecraftd.registry.objects import digest_of
from timecraftd.registry.private import make_private, private_path, remove_private
from timecraftd.registry.registry import Registry
from timecraftd.running import Running, Streams, never_went_on
from timecraftd.units import format_size_exact

if TYPE_CHECKING:
    from timecraftd.embedded_network import HostNetwork
    from timecraftd.engine.runtime import Outcome
    from timecraftd.model import LogSource
    from timecraftd.recorder.fetch import Remote
    from timecraftd.recorder.logs import LogInfo

ON_FULL: dict[str, OnFull] = {"wait": "wait", "stop": "stop", "continue": "continue"}
LOG_BEGIN_S = 2.0
LOG_POLL_S = 0.02


class Runtime:
    """Runs, replays and looks after processes in one state directory."""

    def __init__(
        self,
        config: Config,
        *,
        engine: Engine | None = None,
        logs: Logs | None = None,
        now_ns: Callable[[], int] = time.time_ns,
        random_bytes: Callable[[int], bytes] = os.urandom,
        compiling: Callable[[ModuleRecord | None], None] = lambda _module: None,
    ) -> None:
        """`compiling` is told of each module that a run begins by compiling."""
        self.config = config
        self.engine = engine or Engine()
        self.logs = logs or Logs()
        self.now_ns = now_ns
        self._random_bytes = random_bytes
        self._compiling = compiling

    @cached_property
    def registry(self) -> Registry:
        """The state directory, opened at the first use."""
        return Registry(Home(self.config.home), self.now_ns, self.remote)

    @cached_property
    def remote(self) -> Remote | None:
        """The bucket beyond the disk, if one is configured; nothing is connected before it is asked."""
        if not self.config.remote.url:
            return None
        from timecraftd.embedded_remote import open_remote  # most commands need no event loop

        return open_remote(self.config)

    def close(self) -> None:
        """Closes what was opened; the next use opens it again."""
        for name in ("registry", "remote"):
            if self.__dict__.get(name) is not None:
                getattr(self, name).close()
            self.__dict__.pop(name, None)

    # ---- modules

    def store_module(self, source: bytes | ModuleFile, name: str) -> ModuleRecord:
        """Checks a module, wasm or text format, and puts it into the registry. Raises ModuleError, NotFoundError."""
        if isinstance(source, ModuleFile):
            known = self.registry.catalogue.module(source.digest)
            if known is not None and self.registry.objects.holds(ObjectKind.MODULE, known.digest, known.size_bytes):
                return known  # the engine compares the digest before it compiles what is stored
            source, _ = read_module(source.path)
        if source.startswith(b"\0asm"):
            known = self.registry.catalogue.module(digest_of(source))
            if known is not None:  # it was checked when it came
                self.registry.objects.put(ObjectKind.MODULE, source)
                return known
        with naming_module(name):
            wasm = self.engine.assemble(source)
            info = self.engine.inspect(wasm)
        digest = self.registry.objects.put(ObjectKind.MODULE, wasm)
        record = ModuleRecord(digest, name, len(wasm), info.memory_min_bytes, self.now_ns())
        self.registry.catalogue.put_module(record)
        return record

    def is_compiled(self, source: ModuleFile) -> bool:
        """Whether runs of a module begin at once."""
        return self.engine.is_compiled(self._module_spec(source.digest, RunRequest()))

    def compile(self, source: ModuleFile, name: str) -> None:
        """Stores a module and compiles it, so that its first run begins at once. Raises ModuleError, NotFoundError."""
        with self.registry.home.collection_lock(exclusive=False):
            module = self.store_module(source, name)
            self.engine.compile(self._module_spec(module.digest, RunRequest()))

    # ---- runs

    def start(
        self, source: bytes | ModuleFile, source_name: str, request: RunRequest, streams: Streams, trace_fd: int | None
    ) -> Running:
        """Starts a guest, recorded unless the request says otherwise.

        Raises ModuleError, MountError, StateError, LogError, EngineError; nothing ran and nothing is left then.
        """
        check_mounts(request.mounts)
        with self.registry.home.collection_lock(exclusive=False):
            module = self.store_module(source, source_name)
            process, request = self._new_process(module, source_name, request, ProcessState.RUNNING)
            lock = self.registry.lock(process.id)
            lock.acquire()
            lock.claim()
            self.registry.catalogue.insert(process)
        try:
            return self._launch(process, request, lock, streams, trace_fd)
        except BaseException:
            self.registry.remove_process(process.id)
            lock.release()
            raise

    def admit(self, module: ModuleRecord, source_name: str, request: RunRequest) -> ProcessRecord:
        """Makes a process of a stored module, for a worker to begin. Raises ModuleError, MountError, StateError."""
        check_mounts(request.mounts)
        with self.registry.home.collection_lock(exclusive=False):
            if not self.registry.objects.holds(ObjectKind.MODULE, module.digest, module.size_bytes):
                self.registry.objects.get(ObjectKind.MODULE, module.digest)  # says what is the matter
            process, _ = self._new_process(module, source_name, request, ProcessState.QUEUED)
            self.registry.catalogue.insert(process)
            return process

    def begin(self, process: ProcessRecord, streams: Streams, trace_fd: int | None) -> Running:
        """Lets a queued process run.

        Raises ProcessStateError, NotFoundError, MountError, StateError, LogError, EngineError; nothing ran then, and
        the process is queued as before.
        """
        lock = self.registry.lock(process.id)
        lock.acquire()
        try:
            process = self.registry.catalogue.get(process.id)
            if process.state is not ProcessState.QUEUED:
                raise ProcessStateError(f"process {process.id}: isn't queued, but {process.state}", "look at it again")
            request = decode_config(self.registry.objects.get(ObjectKind.CONFIG, process.config))
            request = replace(request, recorded=process.recorded)
            lock.claim()
            changes: dict[str, Any] = {"state": ProcessState.RUNNING, "started_ns": self.now_ns()}
            changes |= {"pid": os.getpid(), "boot_id": boot_id()}
            # Written before anything runs: what has run is never taken for queued.
            self.registry.catalogue.update(process.id, **changes)
            try:
                return self._launch(replace(process, **changes), request, lock, streams, trace_fd)
            except BaseException:
                self.registry.catalogue.update(process.id, state=ProcessState.QUEUED)
                raise
        except BaseException:
            lock.release()
            raise

    def fail(self, process_id: ProcessId, message: str, exit_code: int | None = None) -> ProcessRecord:
        """Writes down that a queued process will never run, or, with an exit code, that it was killed."""
        lock = self.registry.lock(process_id)
        lock.acquire()
        try:
            state = ProcessState.FAILED if exit_code is None else ProcessState.KILLED
            changes: dict[str, Any] = {"state": state, "exit_code": exit_code, "message": message[:4096]}
            changes["ended_ns"] = self.now_ns()
            self.registry.catalogue.update(process_id, **changes)
            return self.registry.catalogue.get(process_id)
        finally:
            lock.release()

    def _launch(
        self, process: ProcessRecord, request: RunRequest, lock: ProcessLock, streams: Streams, trace_fd: int | None
    ) -> Running:
        network = None
        try:
            network = self._network(process, request, resumed=False)
            spec = self._run_spec(process, request, streams, trace_fd, network)
            if not self.engine.is_compiled(spec.module):
                self._compiling(self.registry.catalogue.module(process.module))
            with naming_module(process.module_name):
                guest = self.engine.run(spec)
        except BaseException:
            if network is not None:
                network.close()
            raise
        return Running(process, guest, lock, network, self.write_end, interruptible=request.interruptible)

    def _new_process(
        self, module: ModuleRecord, source_name: str, request: RunRequest, state: ProcessState
    ) -> tuple[ProcessRecord, RunRequest]:
        """A process without its row, and its request with all mounts pinned; the caller holds the collection lock."""
        check_memory(module, source_name, request.limits)
        request = replace(request, mounts=tuple(map(self._pinned, request.mounts)))
        config = self.registry.objects.put(ObjectKind.CONFIG, encode_config(request))
        runtime = self.registry.objects.put(ObjectKind.RUNTIME, canonical_json(self.engine.build_info(request.nans)))
        now_ns = self.now_ns()
        process = ProcessRecord(
            id=new_process_id(now_ns, self._random_bytes(10)),
            name=request.name,
            module=module.digest,
            module_name=source_name,
            config=config,
            runtime=runtime,
            state=state,
            created_ns=now_ns,
            started_ns=now_ns,
            pid=os.getpid(),
            boot_id=boot_id(),
            recorded=request.recorded,
            restart_of=request.restart_of,
            labels=request.labels,
        )
        self.registry.create_process_dir(process.id)
        make_private(self.registry.home.process_dir(process.id), request.private)
        return process, request

    def resume(
        self, process: ProcessRecord, streams: Streams, trace_fd: int | None, *, trusted: bool = False
    ) -> Running:
        """Lets a crashed process go on; an imported one only if its grants are trusted.

        One whose host died before the guest's first record begins now: nothing of it has run.

        Raises ProcessStateError, ReplayRefusedError, and what `start` raises.
        """
        lock = self.registry.lock(process.id)
        lock.acquire()
        network = None
        try:
            process = self._settle(self.registry.catalogue.get(process.id))
            self._check_resumable(process)
            began = self._has_begun(process)
            if began:
                self.check_replayable(process)
            request = decode_config(self.registry.objects.get(ObjectKind.CONFIG, process.config))
            if process.imported and not trusted:
                raise ReplayRefusedError(
                    f"process {process.id}: was imported, and would get {describe_grants(request)}",
                    "if you trust where it comes from, resume it with --trust",
                )
            check_mounts(request.mounts)
            self._require_trees(process)
            make_private(self.registry.home.process_dir(process.id), request.private)
            lock.claim()
            network = self._network(process, request, resumed=began)
            scratch_dir = os.path.join(self.registry.home.process_dir(process.id), "scratch")
            os.makedirs(scratch_dir, mode=0o700, exist_ok=True)
            changes: dict[str, Any] = {"state": ProcessState.RUNNING, "pid": os.getpid(), "boot_id": boot_id()}
            changes |= {"ended_ns": None, "exit_code": None, "message": "", "epoch": process.epoch + began}
            self.registry.catalogue.update(process.id, **changes)
            resumed = replace(process, **changes)
            run = self._run_spec(resumed, request, streams, trace_fd, network)
            try:
                guest = self.engine.resume(ResumeSpec(run, scratch_dir)) if began else self.engine.run(run)
            except BaseException as error:
                undone: dict[str, Any] = {name: getattr(process, name) for name in changes}
                self.registry.catalogue.update(process.id, **undone | {"message": f"resume failed: {error}"})
                raise
        except BaseException:
            if network is not None:
                network.close()
            lock.release()
            raise
        return Running(resumed, guest, lock, network, self.write_end, interruptible=request.interruptible)

    def write_end(self, process: ProcessRecord, outcome: Outcome) -> ProcessRecord:
        """Writes down how a live process ended; the caller holds its lock."""
        state = STATE_OF_END.get(outcome.kind, ProcessState.CRASHED)
        changes: dict[str, Any]
        if never_went_on(process, outcome):
            changes = {"state": ProcessState.CRASHED, "message": f"resume failed: {outcome.message}"[:4096]}
            changes["ended_ns"] = self.now_ns()
            self.registry.catalogue.update(process.id, **changes)
            return replace(process, **changes)
        last_seq = outcome.last_seq
        if outcome.kind == "log_failed":
            last_seq = self._recover_failed(process) or last_seq
        changes = {
            "state": state,
            "exit_code": None if state is ProcessState.CRASHED else outcome.code,
            "message": outcome.message[:4096],
            "ended_ns": self.now_ns(),
            "last_seq": last_seq,
            "log_bytes": log_bytes(self.registry.home.log_dir(process.id)),
        }
        self.registry.catalogue.update(process.id, **changes)
        if state is not ProcessState.CRASHED:
            remove_private(self.registry.home.process_dir(process.id))
        return replace(process, **changes)

    def _recover_failed(self, process: ProcessRecord) -> int | None:
        """Stores what a log that couldn't be written left in its ring, beyond its bound if need be; the last record.

        If there is still no room, the ring keeps it.
        """
        if not process.recorded:
            return None
        try:
            return self.logs.recover(self.registry.home.log_dir(process.id)).last_seq
        except LogError:
            return None

    # ---- replays

    def replay_spec(self, process: ProcessRecord, other_module: bytes | None = None) -> ReplaySpec:
        """What a replay of a process needs, effects and bounds of it left to the caller.

        Raises ReplayRefusedError, NotFoundError, ObjectDamagedError, ModuleError.
        """
        self.check_replayable(process)
        request = decode_config(self.registry.objects.get(ObjectKind.CONFIG, process.config))
        digest = process.module
        if other_module is not None:
            wasm = self.engine.assemble(other_module)
            self.engine.inspect(wasm)
            digest = self.registry.objects.put(ObjectKind.MODULE, wasm)
        else:
            try:
                self.registry.objects.get(ObjectKind.MODULE, digest)
            except NotFoundError:
                raise NotFoundError(
                    f"process {process.id}: its module {digest[:12]} ({process.module_name}) is not in the store",
                    "bring it back with `timecraft import module FILE`, or replay another build with --module FILE",
                ) from None
        return ReplaySpec(
            module=self._module_spec(digest, request),
            log=self.log_source(process),
            trees=self._tree_paths(request.mounts),
            # Memory and stack decide what a guest sees; how long a replay takes is another matter.
            limits=replace(request.limits, cpu_ns=None, wall_ns=None, log_bytes_per_s=None),
        )

    def check_replayable(self, process: ProcessRecord) -> None:
        """Whether this runtime can replay a process exactly. Raises ReplayRefusedError, NotFoundError."""
        self.check_log(process)
        recorded = decode_object(ObjectKind.RUNTIME, process.runtime, self.registry)
        reason = incompatibility(recorded, self.engine.build_info(nans_of(recorded)))
        if reason is not None:
            raise ReplayRefusedError(
                f"process {process.id}: this runtime can't replay it exactly: {reason}",
                f"use Timecraft {recorded.get('version', 'of that time')}",
            )
        self._require_trees(process)

    def _has_begun(self, process: ProcessRecord) -> bool:
        """Whether anything of a crashed process may have run."""
        if process.last_seq is not None or not process.recorded or process.imported:
            return True
        if process.boot_id != boot_id():
            return True  # its ring went with the machine's memory
        log_dir = self.registry.home.log_dir(process.id)
        try:
            return os.path.isdir(log_dir) and self.logs.recover(log_dir).last_seq is not None
        except LogError:
            return True

    def check_log(self, process: ProcessRecord) -> None:
        """Whether there is a log: it was recorded, and its host lived long enough. Raises ReplayRefusedError."""
        if not process.recorded:
            raise ReplayRefusedError(
                f"process {process.id}: was run without recording, there is no log", "run it again without --no-record"
            )
        if process.state is not ProcessState.CRASHED or process.last_seq is not None:
            return
        if not self._has_begun(process):
            raise ReplayRefusedError(
                f"process {process.id}: its host died before its log began: nothing of it has run",
                "let it begin with `timecraft resume`, or remove it with `timecraft rm`",
            )
        if log_bytes(self.registry.home.log_dir(process.id)) == 0:
            raise ReplayRefusedError(
                f"process {process.id}: nothing of its log outlived the machine",
                "run it again, and remove this one with `timecraft rm`",
            )

    def log_info(self, process: ProcessRecord) -> LogInfo:
        """Summary of a process's log. Raises LogError, ReplayRefusedError."""
        self.check_log(process)
        deadline = time.monotonic() + LOG_BEGIN_S
        while True:
            # The log of a process that has just begun comes with its first block, and that with its first record.
            last_try = process.state is not ProcessState.RUNNING or time.monotonic() >= deadline
            try:
                info = self.logs.info(self.log_source(process))
                if info.records or last_try:
                    return info
            except LogError:
                if last_try:
                    raise
            time.sleep(LOG_POLL_S)

    def log_source(self, process: ProcessRecord) -> str | LogSource:
        """Where the log of a process is: a directory, or also the bucket. Raises NotFoundError, RemoteError."""
        if self.remote is None:
            return self.registry.home.log_dir(process.id)
        from timecraftd.embedded_remote import source_of

        return source_of(self.remote, self.registry, process)

    def network_state(self, process: ProcessRecord) -> dict[str, Any] | None:
        """What a process was granted and refused on the network, as it was last written down; None if it never was."""
        from timecraftd.embedded_network import read_state

        return read_state(self.registry.home.process_dir(process.id))

    # ---- looking after processes

    def process(self, reference: str) -> ProcessRecord:
        """A process by id, prefix or name, as it is now. Raises NotFoundError, AmbiguousIdError."""
        try:
            return self.settle(self.registry.catalogue.resolve(reference))
        except NotFoundError as error:
            if self.remote is None:
                raise
            from timecraftd.embedded_remote import find

            return find(self.remote, self.registry, reference, error)

    def processes(self, *, running_only: bool = False) -> list[ProcessRecord]:
        """Processes, newest first, as they are now."""
        settled = [self.settle(process) for process in self.registry.catalogue.processes(running_only=running_only)]
        return [process for process in settled if not running_only or process.state is ProcessState.RUNNING]

    def settle(self, process: ProcessRecord) -> ProcessRecord:
        """A process as it is now: one whose host died is recovered when it is first seen."""
        if process.state is ProcessState.FAILED and os.path.exists(self._ring_file(process)):
            return self._settle_failed(process)
        if process.state is not ProcessState.RUNNING:
            return process
        lock = self.registry.lock(process.id)
        try:
            lock.acquire()
        except StateBusyError:
            return process
        except StateError:
            if os.path.isdir(self.registry.home.process_dir(process.id)):
                raise
            return self._write_crash(process, "its directory is gone")
        try:
            return self._settle(self.registry.catalogue.get(process.id))
        except NotFoundError:
            return replace(process, state=ProcessState.CRASHED)  # removed meanwhile
        finally:
            lock.release()

    def _ring_file(self, process: ProcessRecord) -> str:
        """The file that says where a log's ring is; it goes when all of the ring is in segments."""
        return os.path.join(self.registry.home.log_dir(process.id), "ring")

    def _settle_failed(self, process: ProcessRecord) -> ProcessRecord:
        lock = self.registry.lock(process.id)
        try:
            lock.acquire()
        except StateBusyError:
            return process
        try:
            last_seq = self._recover_failed(process)
            if last_seq is None:
                return process
            log_dir = self.registry.home.log_dir(process.id)
            changes: dict[str, Any] = {"last_seq": last_seq, "log_bytes": log_bytes(log_dir)}
            self.registry.catalogue.update(process.id, **changes)
            return replace(process, **changes)
        finally:
            lock.release()

    def wait(self, process: ProcessRecord) -> ProcessRecord:
        """Waits until no host runs the process."""
        if process.state is not ProcessState.RUNNING:
            return process
        lock = self.registry.lock(process.id)
        lock.acquire(wait=True)
        try:
            return self._settle(self.registry.catalogue.get(process.id))
        finally:
            lock.release()

    def is_running(self, process: ProcessRecord) -> bool:
        """Whether a process still runs."""
        with suppress(NotFoundError):
            return self.settle(self.registry.catalogue.get(process.id)).state is ProcessState.RUNNING
        return False

    def remove(self, process: ProcessRecord) -> None:
        """Removes a process and its log. Raises ProcessStateError if it runs, or is held."""
        require_unheld(self.registry.catalogue.get(process.id))
        lock = self.registry.lock(process.id)
        if os.path.isdir(self.registry.home.process_dir(process.id)):
            try:
                lock.acquire()
            except StateBusyError:
                raise ProcessStateError(f"process {process.id}: it runs", "stop it first, or use `rm -f`") from None
        try:
            remove_ring(self.registry.home.log_dir(process.id))
            self.registry.remove_process(process.id)
        finally:
            lock.release()

    def kill_file(self, process: ProcessRecord) -> str:
        """Where a signal for a process's host is left; SIGUSR2 tells the host to look."""
        return os.path.join(self.registry.home.process_dir(process.id), "kill")

    def kill(self, process: ProcessRecord, number: int) -> bool:
        """Ends a running guest as by a signal; False if its host is gone already. The end is recorded."""
        leave_kill_request(self.kill_file(process), number)
        return self._signal_host(process, signal.SIGUSR2)

    def kill_host(self, process: ProcessRecord) -> bool:
        """Kills the host of a process that doesn't listen. The log is recovered, without an end."""
        return self._signal_host(process, signal.SIGKILL)

    def _signal_host(self, process: ProcessRecord, number: int) -> bool:
        lock = self.registry.lock(process.id)
        holder = lock.live_holder()
        if holder is None:
            return False
        try:
            descriptor = os.pidfd_open(holder)
        except OSError:
            return False
        try:
            # The descriptor stays with one process even if the pid comes again: check after opening it.
            if lock.live_holder() != holder:
                return False
            signal.pidfd_send_signal(descriptor, number)
        except ProcessLookupError:
            return False
        except PermissionError:
            raise ProcessStateError(f"process {process.id}: another user runs it", "ask that user") from None
        finally:
            os.close(descriptor)
        return True

    def _settle(self, process: ProcessRecord) -> ProcessRecord:
        """Recovers a process that its row says runs; the caller holds its lock, so no host runs it."""
        if process.state is not ProcessState.RUNNING:
            return process
        if not process.recorded:
            return self._write_crash(process, "its host died")
        log_dir = self.registry.home.log_dir(process.id)
        try:
            self.logs.recover(log_dir)
            info = self.logs.info(log_dir)
        except LogError as error:  # it may have died before there was a log; that must not hide other processes
            return self._write_crash(process, f"its host died; {error}")
        if info.end is None:
            return self._write_crash(process, "its host died", info.last_seq)
        kind, code, message = info.end
        changes: dict[str, Any] = {
            "state": STATE_OF_END.get(kind, ProcessState.FAILED),
            "exit_code": code,
            "message": message[:4096],
            "ended_ns": self.logs.unix_times(log_dir)(info.last_time_ns),
            "last_seq": info.last_seq,
            "log_bytes": log_bytes(log_dir),
        }
        return self._write_down(process, changes)

    def _write_crash(self, process: ProcessRecord, message: str, last_seq: int | None = None) -> ProcessRecord:
        changes: dict[str, Any] = {
            "state": ProcessState.CRASHED,
            "message": message[:4096],
            "ended_ns": self.now_ns(),
            "last_seq": last_seq,
            "log_bytes": log_bytes(self.registry.home.log_dir(process.id)),
        }
        return self._write_down(process, changes)

    def _write_down(self, process: ProcessRecord, changes: dict[str, Any]) -> ProcessRecord:
        """Without room in the state directory it is done when the process is next seen: that must not prevent `rm`."""
        with suppress(StateFullError):
            self.registry.catalogue.update(process.id, **changes)
        return replace(process, **changes)

    def _check_resumable(self, process: ProcessRecord) -> None:
        if process.state is not ProcessState.CRASHED:
            raise ProcessStateError(
                f"process {process.id}: it {process.state}, only a process whose host died can be resumed",
                "run its module again",
            )

    def _pinned(self, mount: MountSpec) -> MountSpec:
        """An immutable mount with the tree that it shows. Raises MountError, NotFoundError."""
        if mount.tree == "":
            return replace(mount, read_only=True, tree=self.registry.trees.snapshot(mount.host))
        if mount.tree is not None:
            self.registry.trees.require(Digest(mount.tree))
        return mount

    def _require_trees(self, process: ProcessRecord) -> None:
        """Whether the trees of a process's mounts are there, unverified. Raises NotFoundError."""
        for tree in filter(None, self.trees_of(process)):
            try:
                self.registry.trees.require(Digest(os.path.basename(tree)))
            except NotFoundError as error:
                raise NotFoundError(f"process {process.id}: {error.message}", error.next_step) from None

    def _tree_paths(self, mounts: Iterable[MountSpec]) -> tuple[str | None, ...]:
        return tuple(None if m.tree is None else self.registry.trees.path(Digest(m.tree)) for m in mounts)

    def trees_of(self, process: ProcessRecord) -> tuple[str | None, ...]:
        """Where the trees of a process's mounts are, or would be; none if its config can't be read."""
        try:
            config = self.registry.objects.get(ObjectKind.CONFIG, process.config)
            return self._tree_paths(decode_config(config).mounts)
        except (NotFoundError, ObjectDamagedError, ReplayRefusedError):
            return ()

    def _module_spec(self, digest: Digest, request: RunRequest) -> ModuleSpec:
        return ModuleSpec(
            path=self.registry.objects.path(ObjectKind.MODULE, digest),
            digest=digest,
            artifact_dir=self.registry.home.artifacts_dir,
            artifact_bytes_max=self.config.cache.artifact_bytes_max,
            function=request.function,
            nans=request.nans,
            sockets=request.sockets,
        )

    def _network(self, process: ProcessRecord, request: RunRequest, *, resumed: bool) -> HostNetwork | None:
        """The guest's network, None if it has none but its own loopback: asyncio and TLS take time to load."""
        if request.network.is_empty:
            return None
        from timecraftd.embedded_network import HostNetwork

        home = self.registry.home
        return HostNetwork(
            request.network,
            engine=self.engine,
            config=self.config.network,
            name=process.name,
            process_dir=home.process_dir(process.id),
            home=home.path,
            resumed=resumed,
        )

    def _run_spec(
        self,
        process: ProcessRecord,
        request: RunRequest,
        streams: Streams,
        trace_fd: int | None,
        network: HostNetwork | None,
    ) -> RunSpec:
        process_dir = self.registry.home.process_dir(process.id)
        return RunSpec(
            module=self._module_spec(process.module, request),
            args=request.args,
            env=request.env,
            mounts=tuple(
                replace(mount, host=tree or mount.host or private_path(process_dir, mount.guest))
                for mount, tree in zip(request.mounts, self._tree_paths(request.mounts), strict=True)
            ),
            stdin_fd=streams.stdin,
            stdout_fd=streams.stdout,
            stderr_fd=streams.stderr,
            limits=request.limits,
            log=self._log_spec(process, request) if request.recorded else None,
            trace_fd=trace_fd,
            network=None if network is None else network.port,
            listeners=() if network is None else network.listeners,
            dials=() if network is None else network.dials,
            chaos_ratio=request.chaos_ratio,
            chaos_seed=request.chaos_seed,
        )

    def _log_spec(self, process: ProcessRecord, request: RunRequest) -> LogSpec:
        manifest = {
            "process": process.id,
            "name": process.name,
            "module": process.module,
            "module_name": process.module_name,
            "config": process.config,
            "runtime": process.runtime,
            "created_ns": process.created_ns,
            "restart_of": process.restart_of,
        }
        record, remote = self.config.record, self.config.remote
        return LogSpec(
            dir=self.registry.home.log_dir(process.id),
            process_id=process.id,
            manifest=canonical_json(manifest),
            epoch=process.epoch,
            ring_path=shared_ring_path(process.id, record.ring_bytes),
            ring_bytes=record.ring_bytes,
            block_bytes_max=request.block_bytes_max,
            segment_bytes_max=record.segment_bytes_max,
            seal_age_ns=round(remote.seal_age_s * 1e9) if remote.url else None,
            compression="none" if request.compression == "none" else "lz4",
            output="digest" if request.output == "digest" else "inline",
            on_full=ON_FULL[request.on_full],
            wait_ns_max=None if record.wait_s_max is None else round(record.wait_s_max * 1e9),
            log_bytes_max=request.log_bytes_max,
            durability="sync" if request.durability == "sync" else "flush",
            flush_ns=round(record.flush_s * 1e9),
        )


def decode_object(kind: ObjectKind, digest: Digest, registry: Registry) -> dict[str, Any]:
    """A JSON object from the store. Raises NotFoundError, ObjectDamagedError, StateError."""
    value = json.loads(registry.objects.get(kind, digest))
    if not isinstance(value, dict):
        raise StateError(f"{kind} {digest[:12]}: isn't a JSON object")
    return value


@contextmanager
def naming_module(name: str) -> Iterator[None]:
    """Puts a module's name before what the engine, which doesn't know it, says of it."""
    try:
        yield
    except ModuleError as error:
        raise ModuleError(f"{name}: {error.message}", error.next_step) from None


def check_memory(module: ModuleRecord, name: str, limits: LimitSpec) -> None:
    """Whether a module's first memory fits its limit. Raises ModuleError."""
    if module.memory_min_bytes > limits.memory_bytes:
        needed = format_size_exact(module.memory_min_bytes)
        raise ModuleError(
            f"{name}: needs {needed} of memory to start, the limit is {format_size_exact(limits.memory_bytes)}",
            f"raise it with --memory {needed}",
        )
