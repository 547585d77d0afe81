"""Where processes live: on the runtime embedded in this command, or on a node. Verbs ask either the same."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import IO, TYPE_CHECKING, Protocol

from timecraftd.errors import ProcessStateError
from timecraftd.model import ProcessState, require_unheld

if TYPE_CHECKING:
    from timecraftd.cli.context import Context
    from timecraftd.cli.supervise import Interrupts
    from timecraftd.embedded import Runtime
    from timecraftd.engine.request import RunRequest
    from timecraftd.engine.spec import MountSpec
    from timecraftd.model import Digest, ModuleFile, ProcessId, ProcessRecord
    from timecraftd.recorder.logs import Output
    from timecraftd.recorder.retention import RetentionPolicy
    from timecraftd.running import Running, Streams
    from timecraftd.supervisor.restarts import RestartPolicy
    from timecraftd.views import ReplayEnd, TraceOptions

REMOVE_PATIENCE_S = 2.0

WATCH_S = 1.0
"""How often `ps --watch` looks for changes."""


@dataclass(frozen=True, slots=True)
class Run:
    """What `run` is to do."""

    module: tuple[bytes | ModuleFile, str]
    """Bytes and name."""
    request: RunRequest
    policy: RestartPolicy
    flags: argparse.Namespace
    """What was given, so that a node's own defaults hold for the rest."""
    streams: Streams
    trace: bool = False
    quiet: bool = False


@dataclass(frozen=True, slots=True)
class Resume:
    """What `resume` is to do."""

    reference: str
    streams: Streams
    trusted: bool = False
    trace: bool = False
    quiet: bool = False


@dataclass(frozen=True, slots=True)
class Replay:
    """What `replay` is to do. Descriptors are the host's; None drops what would go there."""

    until_seq: int | None = None
    until_time_ns: int | None = None
    """Since the start of the process."""
    other_module: tuple[bytes, str] | None = None
    stdout_fd: int | None = None
    stderr_fd: int | None = None
    trace_fd: int | None = None


class TraceText(Protocol):
    """A trace of one process."""

    def text(self) -> Iterator[bytes]:
        """What there is to show, in order."""

    @property
    def notes(self) -> Sequence[str]:
        """What the user should know of what isn't shown; complete once all text was taken."""


class Target(Protocol):
    """Where processes live. What is named may be an id, a unique prefix of one, or a name.

    All methods raise NotFoundError and AmbiguousIdError for names, StateError, and, on a node, NodeError and
    AccessError.
    """

    node: str
    """Address; empty for the embedded runtime."""
    is_local: bool
    """Whether paths mean the same there as here."""

    def process(self, reference: str) -> ProcessRecord:
        """A process as it is now."""

    def processes(
        self, *, alive: bool = False, filters: Sequence[tuple[str, str]] = (), last: int | None = None
    ) -> list[ProcessRecord]:
        """Processes, newest first: those that live only, those that pass filters of `ps`, so many at most."""

    def watch(self, *, alive: bool, filters: Sequence[tuple[str, str]]) -> Iterator[list[ProcessRecord]]:
        """What `processes` tells, then each process that is new or has changed, whether it lives or not, for ever."""

    def remote_processes(
        self, *, filters: Sequence[tuple[str, str]] = (), last: int | None = None
    ) -> Iterator[ProcessRecord]:
        """Processes that are in the bucket, newest first, as they come. Raises ConfigError, RemoteError."""

    def short_id(self, process_id: ProcessId) -> str:
        """The shortest prefix, of 13 characters or more, that names a process alone."""

    def wait(self, process: ProcessRecord) -> ProcessRecord:
        """Waits for a process's end."""

    def kill(self, process: ProcessRecord, number: int) -> None:
        """Ends a guest as by a signal. Raises ProcessStateError if it doesn't run."""

    def stop(self, process: ProcessRecord, patience_ns: int) -> None:
        """Ends a process by SIGTERM, later by SIGKILL. Raises ProcessStateError."""

    def remove(self, process: ProcessRecord, *, force: bool) -> None:
        """Removes a process and its log. Raises ProcessStateError if it runs and that isn't forced."""

    def relabel(self, process: ProcessRecord, added: Mapping[str, str], removed: Sequence[str]) -> ProcessRecord:
        """Changes labels; the process as it is then. Raises UsageError, RemoteError."""

    def prune(self, policy: RetentionPolicy | None, *, dry_run: bool) -> list[dict[str, object]]:
        """Removes what isn't needed, and tells what went: each with `kind`, `id` and `bytes`."""

    def remove_stored(self, reference: str, *, force: bool, now: bool) -> None:
        """Deletes a process in the store. Raises ConfigError, NotFoundError, ProcessStateError, RemoteError."""

    def prune_stored(self, policy: RetentionPolicy | None, *, dry_run: bool, now: bool) -> list[dict[str, object]]:
        """What `prune` does, in the store. Raises ConfigError, RemoteError."""

    def listing(self, kind: str, references: Sequence[str]) -> Iterator[dict[str, object]]:
        """What `get` tells of objects and logs, newest first."""

    def describe(self, kind: str, reference: str) -> dict[str, object]:
        """All that is known of one thing."""

    def output(
        self, process: ProcessRecord, since_unix_ns: int | None, *, follow: bool
    ) -> tuple[int, Iterator[Output]]:
        """When a process started (Unix ns), and what it wrote from a time on, with `CAUGHT_UP` where that is true."""

    def trace(self, process: ProcessRecord, options: TraceOptions, *, follow: bool) -> TraceText:
        """What went through the gate."""

    def exporter(
        self, kind: str, reference: str, *, compress: bool, gap: Callable[[str], object] | None = None
    ) -> Callable[[IO[bytes]], None]:
        """A function that writes a thing into a file; what can be known before is checked before.

        With `gap`, what is damaged of a log is left out, and it is told of that.
        """

    def import_process(self, source: IO[bytes], name: str) -> ProcessId:
        """Takes in an exported process. Raises ArchiveError."""

    def import_module(self, module: tuple[bytes, str]) -> Digest:
        """Takes in a module. Raises ModuleError."""

    def epochs(self, process: ProcessRecord) -> list[tuple[int, int]]:
        """When a process was started and resumed: since its start, and of the day (Unix ns)."""

    def replay(self, process: ProcessRecord, asked: Replay, interrupts: Interrupts) -> ReplayEnd | None:
        """Runs a recorded process again; None if a signal came."""

    def mounted(self, mount: MountSpec, is_left_out: Callable[[str], bool] | None = None) -> MountSpec:
        """A mount of a directory of this machine, read-only, as a process there can have it.

        Of directories in it `is_left_out` says which it can do without. Raises MountError.
        """

    def run(self, asked: Run) -> int:
        """Runs a guest; returns its exit code."""

    def run_detached(self, asked: Run) -> tuple[str, Sequence[str]]:
        """Starts a guest that nobody is attached to; its id, and published ports."""

    def resume(self, asked: Resume) -> int:
        """Lets a crashed process go on; returns its exit code."""

    def close(self) -> None:
        """Closes what was opened."""


class EmbeddedTarget:
    """The runtime in this command."""

    node = ""
    is_local = True

    def __init__(self, context: Context) -> None:
        self._context = context

    @property
    def _runtime(self) -> Runtime:
        return self._context.runtime

    def process(self, reference: str) -> ProcessRecord:
        """See Target."""
        from timecraftd.views import sized

        return sized(self._runtime, self._runtime.process(reference))

    def processes(
        self, *, alive: bool = False, filters: Sequence[tuple[str, str]] = (), last: int | None = None
    ) -> list[ProcessRecord]:
        """See Target."""
        from timecraftd.views import matches, sized

        found = self._runtime.processes(running_only=alive)
        found = [process for process in found if all(matches(process, *item) for item in filters)][:last]
        return [sized(self._runtime, process) for process in found]

    def watch(self, *, alive: bool, filters: Sequence[tuple[str, str]]) -> Iterator[list[ProcessRecord]]:
        """See Target."""
        from timecraftd.views import matches, sized

        def look() -> dict[ProcessId, ProcessRecord]:
            found = self._runtime.processes()
            return {process.id: process for process in found if all(matches(process, *item) for item in filters)}

        last = look()
        yield [
            sized(self._runtime, process)
            for process in last.values()
            if not alive or process.state is ProcessState.RUNNING
        ]
        while True:
            time.sleep(WATCH_S)
            now = look()
            for process in reversed(now.values()):
                if last.get(process.id) != process:
                    yield [sized(self._runtime, process)]
            last = now

    def remote_processes(
        self, *, filters: Sequence[tuple[str, str]] = (), last: int | None = None
    ) -> Iterator[ProcessRecord]:
        """See Target."""
        from itertools import islice

        from timecraftd.views import matches, remote_processes

        found = remote_processes(self._runtime)
        return islice((process for process in found if all(matches(process, *item) for item in filters)), last)

    def short_id(self, process_id: ProcessId) -> str:
        """See Target."""
        return self._runtime.registry.catalogue.short_id(process_id)

    def wait(self, process: ProcessRecord) -> ProcessRecord:
        """See Target."""
        return self._runtime.wait(process)

    def kill(self, process: ProcessRecord, number: int) -> None:
        """See Target."""
        if process.state is not ProcessState.RUNNING or not self._runtime.kill(process, number):
            raise ProcessStateError(f"process {process.id}: it doesn't run", "`timecraft ps` lists those that do")

    def stop(self, process: ProcessRecord, patience_ns: int) -> None:
        """See Target."""
        import signal

        from timecraftd.views import end

        end(self._runtime, process, signal.SIGTERM, patience_ns / 1e9)

    def remove(self, process: ProcessRecord, *, force: bool) -> None:
        """See Target."""
        require_unheld(process)
        if force and process.state is ProcessState.RUNNING:
            import signal

            from timecraftd.views import end

            end(self._runtime, process, signal.SIGKILL, REMOVE_PATIENCE_S)
        self._runtime.remove(process)

    def relabel(self, process: ProcessRecord, added: Mapping[str, str], removed: Sequence[str]) -> ProcessRecord:
        """See Target."""
        from timecraftd.labelling import relabel

        return relabel(self._runtime, process, added, removed)

    def prune(self, policy: RetentionPolicy | None, *, dry_run: bool) -> list[dict[str, object]]:
        """See Target."""
        from timecraftd.pruning import prune

        return prune(self._runtime, policy, dry_run=dry_run)

    def remove_stored(self, reference: str, *, force: bool, now: bool) -> None:
        """See Target."""
        from timecraftd.pruning import remove_stored

        remove_stored(self._runtime, reference, force=force, now=now)

    def prune_stored(self, policy: RetentionPolicy | None, *, dry_run: bool, now: bool) -> list[dict[str, object]]:
        """See Target."""
        from timecraftd.pruning import prune_stored

        return prune_stored(self._runtime, policy, dry_run=dry_run, now=now)

    def listing(self, kind: str, references: Sequence[str]) -> Iterator[dict[str, object]]:
        """See Target."""
        from timecraftd.views import listing

        return listing(self._runtime, kind, references)

    def describe(self, kind: str, reference: str) -> dict[str, object]:
        """See Target."""
        from timecraftd.views import describe

        return describe(self._runtime, kind, reference)

    def output(
        self, process: ProcessRecord, since_unix_ns: int | None, *, follow: bool
    ) -> tuple[int, Iterator[Output]]:
        """See Target."""
        from timecraftd.views import follower, output

        return output(self._runtime, process, since_unix_ns, follower(self._runtime, process) if follow else None)

    def trace(self, process: ProcessRecord, options: TraceOptions, *, follow: bool) -> TraceText:
        """See Target."""
        from timecraftd.views import Trace, follower

        return Trace(self._runtime, process, options, follower(self._runtime, process) if follow else None)

    def exporter(
        self, kind: str, reference: str, *, compress: bool, gap: Callable[[str], object] | None = None
    ) -> Callable[[IO[bytes]], None]:
        """See Target."""
        from timecraftd.views import exporter

        return exporter(self._runtime, kind, reference, compress=compress, gap=gap)

    def import_process(self, source: IO[bytes], name: str) -> ProcessId:
        """See Target."""
        from timecraftd.views import import_archive

        return import_archive(self._runtime, source, name).id

    def import_module(self, module: tuple[bytes, str]) -> Digest:
        """See Target."""
        return self._runtime.store_module(*module).digest

    def epochs(self, process: ProcessRecord) -> list[tuple[int, int]]:
        """See Target."""
        return self._runtime.logs.epochs(self._runtime.log_source(process))

    def replay(self, process: ProcessRecord, asked: Replay, interrupts: Interrupts) -> ReplayEnd | None:
        """See Target."""
        from timecraftd.views import check_ended, replay_end

        check_ended(process)
        other = None if asked.other_module is None else asked.other_module[0]
        spec = replace(
            self._runtime.replay_spec(process, other),
            until_seq=asked.until_seq,
            until_time_ns=asked.until_time_ns,
            stdout_fd=asked.stdout_fd,
            stderr_fd=asked.stderr_fd,
            trace_fd=asked.trace_fd,
        )
        try:
            guest = self._runtime.engine.replay(spec)
            interrupts.attach(guest)
            outcome = guest.wait()
        finally:
            interrupts.detach()
        assert outcome is not None, "waiting without a timeout lasts until the end"
        return None if interrupts.came else replay_end(self._runtime, process, outcome)

    def mounted(self, mount: MountSpec, is_left_out: Callable[[str], bool] | None = None) -> MountSpec:
        """See Target. It can have all of it."""
        del is_left_out
        return mount

    def run(self, asked: Run) -> int:
        """See Target."""
        from timecraftd.cli.context import tell_id, tell_published
        from timecraftd.cli.supervise import supervise

        def started(running: Running) -> None:
            tell_id(running.process.id, quiet=asked.quiet)
            tell_published(running.published)

        trace_fd = 2 if asked.trace else None
        return supervise(
            self._context,
            asked.module,
            asked.request,
            asked.streams,
            trace_fd=trace_fd,
            policy=asked.policy,
            started=started,
        )

    def run_detached(self, asked: Run) -> tuple[str, Sequence[str]]:
        """See Target."""
        from timecraftd.cli.detach import detach

        return detach(self._context, asked.module, asked.request, asked.policy)

    def resume(self, asked: Resume) -> int:
        """See Target."""
        from timecraftd.cli.context import tell_id, tell_published
        from timecraftd.cli.supervise import Interrupts, attend

        process = self._runtime.process(asked.reference)
        with Interrupts() as interrupts:
            trace_fd = 2 if asked.trace else None
            running = self._runtime.resume(process, asked.streams, trace_fd, trusted=asked.trusted)
            tell_id(process.id, quiet=asked.quiet)
            tell_published(running.published)
            return attend(self._context, running, interrupts).code

    def close(self) -> None:
        """See Target. The runtime is the context's."""
