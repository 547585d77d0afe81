"""A worker process: hosts guests, writes their logs, and goes on when the control process is gone."""

# It listens in `$TIMECRAFT_HOME/workers`; whoever connects last controls it. What it is asked:
#   hello                                  -> pid, version, processes: ids
#   begin process stdio trace + descriptors -> published, pid, epoch, started_ns
#   resume process trust stdio trace + descriptors -> the same
#   kill process signal                    -> sent
#   replay process token trace verify until_seq until_time_ns other_module + descriptors -> how it ended, when it has
#   end_replay token                       -> that replay is wanted no more
#   stats                                  -> memory_bytes, guest_memory_bytes, totals: counters since it began;
#                                             ring_waiting_bytes, ring_taken (share of the fullest), log_unsealed_ns
#   retire                                 -> ends when it hosts nothing any more
#   abandon                                -> ends now: logs stay without an end, their processes can be resumed
# What it tells: ended process kind code message backtrace stats totals, record: what of its row has changed; refused if
# it never went on.

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import resource
import signal
import sys
import traceback
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from timecraftd.config import load_config
from timecraftd.embedded import Runtime
from timecraftd.engine.cpu import GuestClock
from timecraftd.engine.runtime import Engine
from timecraftd.errors import EngineError, ProcessStateError, TimecraftError, UnsupportedError
from timecraftd.model import ObjectKind
from timecraftd.registry.home import read_kill_request
from timecraftd.running import NETWORK_STATE_S, Running, Streams
from timecraftd.supervisor.channel import Directory, Peer, once
from timecraftd.views import replay_end

if TYPE_CHECKING:
    from timecraftd.engine.runtime import Guest
    from timecraftd.model import ProcessRecord

WORKERS_DIR = "workers"
THREADS_MAX = 16
"""Guests that are begun, or written down as ended, at one time; what runs has threads of its own."""
ORPHAN_S = 30.0
"""How long a worker that hosts nothing waits for somebody to control it."""
DRAIN_BYTES = 1 << 16
BACKTRACE_FRAMES_MAX = 64
MESSAGE_CHARS_MAX = 8192
COUNTERS = (
    "cpu_ns", "calls", "records", "log_bytes_raw", "log_bytes_stored", "ring_stalls", "ring_stalled_ns", "records_lost",
    "log_syncs", "log_sync_waited_ns", "log_faults", "log_faulted_ns", "log_flushes", "log_flush_ns",
)  # fmt: skip
"""Of the engine's, those that are added up."""


@dataclass(slots=True)
class _Hosted:
    running: Running
    drains: list[int]
    """Ends of the guest's pipes from which its output is taken if nobody else does."""

    def kill(self, number: int) -> None:
        """Ends the guest as by a signal; SIGINT interrupts one that understands it and has noticed the last one."""
        guest = self.running.guest
        if not (number == signal.SIGINT and self.running.interruptible and guest.interrupt()):
            guest.kill(number)


class Worker:
    """Guests of one process of the host."""

    def __init__(self, runtime: Runtime, *, orphan_s: float = ORPHAN_S) -> None:
        self._runtime = runtime
        self._orphan_s = orphan_s
        self._loop = asyncio.get_running_loop()
        self._threads = ThreadPoolExecutor(THREADS_MAX, "timecraft-worker")
        self._hosted: dict[str, _Hosted] = {}
        self._starting = 0
        self._replays: dict[str, Guest] = {}
        self._clock = GuestClock()
        self._past: Counter[str] = Counter()
        """What guests counted that are over."""
        self._control: Peer | None = None
        self._held = False
        self._retiring = False
        self._over = asyncio.Event()
        self._tasks: asyncio.TaskGroup | None = None

    async def serve(self, directory: Directory, name: str) -> None:
        """Takes control connections until it is to end."""
        with directory.listen(name) as listener:
            self._loop.add_signal_handler(signal.SIGUSR2, self._look_for_kills)
            async with asyncio.TaskGroup() as tasks:
                self._tasks = tasks
                accepting = tasks.create_task(self._accept(listener, tasks))
                states = tasks.create_task(self._write_network_states())
                orphan = tasks.create_task(self._end_as_orphan())
                await self._over.wait()
                for task in (accepting, states, orphan):
                    task.cancel()
                if self._control is not None:
                    self._control.close()
        directory.remove(name)
        self._threads.shutdown()
        self._runtime.close()

    async def _accept(self, listener: Any, tasks: asyncio.TaskGroup) -> None:
        while True:
            connection, _ = await self._loop.sock_accept(listener)
            if self._control is not None:
                self._control.close()
            self._control = Peer(connection, handle=self._handle)
            tasks.create_task(self._serve_control(self._control))

    async def _serve_control(self, peer: Peer) -> None:
        await peer.serve()
        if self._control is peer:
            self._control = None
            self._drain_outputs()
            self._hold_all(held=False)  # nobody is there who would end it

    async def _handle(self, operation: str, arguments: dict[str, Any], descriptors: list[int]) -> dict[str, Any]:
        if operation in ("begin", "resume"):
            return await self._begin(operation, arguments, descriptors)
        if operation == "replay":
            return await self._replay(arguments, descriptors)
        _close(descriptors)
        operations = {
            "hello": self._hello,
            "kill": self._kill,
            "end_replay": self._end_replay,
            "stats": self._stats,
            "hold": self._hold,
            "retire": self._retire,
            "abandon": self._abandon,
        }
        if operation not in operations:
            raise UnsupportedError(f"worker: doesn't know {operation!r}", "it is of another version; let it retire")
        return await operations[operation](arguments)

    async def _hello(self, _arguments: dict[str, Any]) -> dict[str, Any]:
        self._retiring = False
        return {
            "pid": os.getpid(),
            "version": self._runtime.engine.build_info()["version"],
            "processes": [*self._hosted],
        }

    async def _begin(self, operation: str, arguments: dict[str, Any], descriptors: list[int]) -> dict[str, Any]:
        """Of the descriptors the first are the guest's (input, output, errors, trace), the rest their other ends."""
        count = 4 if arguments["trace"] else 3
        ends, drains = ([*descriptors[:count]], descriptors[count:]) if arguments["stdio"] else ([], [])
        self._starting += 1
        try:
            running = await self._loop.run_in_executor(self._threads, self._run, operation, arguments, ends)
        except BaseException:
            _close(drains)
            raise
        finally:
            self._starting -= 1
            _close(ends)
        self._hosted[running.process.id] = _Hosted(running, drains)
        self._loop.add_reader(running.guest.fileno(), self._ended, running.process.id)
        if self._held:
            running.guest.hold(True)
        running.guest.begin()
        if self._control is None:
            self._drain_outputs()
        return {
            "published": list(running.published),
            "pid": os.getpid(),
            "epoch": running.process.epoch,
            "started_ns": running.process.started_ns,
        }

    def _run(self, operation: str, arguments: dict[str, Any], ends: list[int]) -> Running:
        streams = Streams(*ends[:3]) if ends else Streams()
        trace_fd = ends[3] if len(ends) > 3 else None
        process = self._runtime.registry.catalogue.get(arguments["process"])
        if operation == "begin":
            return self._runtime.begin(process, streams, trace_fd)
        return self._runtime.resume(process, streams, trace_fd, trusted=bool(arguments.get("trust")))

    async def _replay(self, arguments: dict[str, Any], ends: list[int]) -> dict[str, Any]:
        """The descriptors are those of output, errors and trace; what a replay can't do is known before it answers."""
        token = str(arguments["token"])
        try:
            guest = await self._loop.run_in_executor(self._threads, self._start_replay, arguments, ends)
        finally:
            _close(ends)
        self._replays[token] = guest
        over = self._loop.create_future()
        self._loop.add_reader(guest.fileno(), once(over))
        guest.begin()
        try:
            await over
        finally:
            self._loop.remove_reader(guest.fileno())
            del self._replays[token]
        outcome = guest.wait(0)
        assert outcome is not None, "it is over"
        end = replay_end(self._runtime, self._runtime.registry.catalogue.get(arguments["process"]), outcome)
        return {"end": asdict(end) | {"message": end.message[:MESSAGE_CHARS_MAX]}}

    def _start_replay(self, arguments: dict[str, Any], ends: list[int]) -> Guest:
        process = self._runtime.registry.catalogue.get(arguments["process"])
        other = arguments["other_module"]
        source = self._runtime.registry.objects.get(ObjectKind.MODULE, other) if other else None
        output, errors, *trace = ends
        spec = replace(
            self._runtime.replay_spec(process, source),
            stdout_fd=None if arguments["verify"] else output,
            stderr_fd=None if arguments["verify"] else errors,
            trace_fd=trace[0] if trace else None,
            until_seq=arguments["until_seq"],
            until_time_ns=arguments["until_time_ns"],
        )
        return self._runtime.engine.replay(spec)

    async def _end_replay(self, arguments: dict[str, Any]) -> dict[str, Any]:
        guest = self._replays.get(str(arguments["token"]))
        if guest is not None:
            guest.kill(signal.SIGKILL)
        return {}

    async def _kill(self, arguments: dict[str, Any]) -> dict[str, Any]:
        hosted = self._hosted.get(arguments["process"])
        if hosted is None:
            raise ProcessStateError(f"process {arguments['process']}: doesn't run here", "look at it again")
        hosted.kill(int(arguments["signal"]))
        return {}

    async def _stats(self, _arguments: dict[str, Any]) -> dict[str, Any]:
        totals = self._past.copy()
        guest_memory_bytes = ring_waiting_bytes = log_unsealed_ns = 0
        ring_taken = 0.0
        for hosted in self._hosted.values():
            stats = hosted.running.guest.stats()
            guest_memory_bytes += stats["memory_bytes"]
            ring_waiting_bytes += stats["ring_waiting_bytes"]
            ring_taken = max(ring_taken, stats["ring_waiting_bytes"] / max(stats["ring_bytes"], 1))
            log_unsealed_ns = max(log_unsealed_ns, stats["log_unsealed_ns"])
            totals.update(counted(hosted.running, stats))
        totals.update(self._runtime.engine.count_calls([hosted.running.guest for hosted in self._hosted.values()]))
        if self._hosted:
            totals["cpu_ns"] += self._clock.ns()
        return {
            "memory_bytes": resident_bytes(),
            "guest_memory_bytes": guest_memory_bytes,
            "ring_waiting_bytes": ring_waiting_bytes,
            "ring_taken": ring_taken,
            "log_unsealed_ns": log_unsealed_ns,
            "totals": totals,
        }

    async def _hold(self, arguments: dict[str, Any]) -> dict[str, Any]:
        self._hold_all(held=bool(arguments["held"]))
        return {}

    def _hold_all(self, *, held: bool) -> None:
        """Guests wait once their rings are full, or go on."""
        if held != self._held:
            self._held = held
            for hosted in self._hosted.values():
                hosted.running.guest.hold(held)

    async def _retire(self, _arguments: dict[str, Any]) -> dict[str, Any]:
        self._retiring = True
        self._loop.call_soon(self._end_if_idle)
        return {}

    async def _abandon(self, _arguments: dict[str, Any]) -> dict[str, Any]:
        # What is in the rings is drained by whoever settles the processes: nothing that a guest was told is lost.
        self._loop.call_later(0.01, os._exit, 0)
        return {}

    def _ended(self, process_id: str) -> None:
        hosted = self._hosted[process_id]
        self._loop.remove_reader(hosted.running.guest.fileno())
        assert self._tasks is not None, "it serves"
        self._tasks.create_task(self._finish(process_id, hosted))

    async def _finish(self, process_id: str, hosted: _Hosted) -> None:
        outcome = hosted.running.guest.wait(0)
        assert outcome is not None, "it is over"
        refused = None
        try:
            await self._loop.run_in_executor(self._threads, hosted.running.finish, outcome)
        except TimecraftError as error:
            refused = str(error)
        except Exception as error:  # noqa: BLE001 - a bug that shows at one guest's end must not end the others
            traceback.print_exc()
            refused = f"internal error: {type(error).__name__}: {error}"
        for descriptor in hosted.drains:
            self._loop.remove_reader(descriptor)
        _close(hosted.drains)
        del self._hosted[process_id]
        self._past.update(counted(hosted.running, outcome.stats))
        self._past.update(self._runtime.engine.count_calls([hosted.running.guest]))
        if self._control is not None:
            await self._control.tell(
                "ended",
                process=process_id,
                kind=outcome.kind,
                code=outcome.code,
                message=outcome.message[:MESSAGE_CHARS_MAX],
                backtrace=[frame[:256] for frame in outcome.backtrace[:BACKTRACE_FRAMES_MAX]],
                stats=outcome.stats,
                totals=self._past,
                refused=refused,
                record=None if refused else ended_columns(hosted.running.process),
            )
        self._end_if_idle()

    def _end_if_idle(self) -> None:
        if self._retiring and not self._hosted and not self._starting and not self._replays:
            self._over.set()

    async def _end_as_orphan(self) -> None:
        alone = 0.0
        while True:
            await asyncio.sleep(min(self._orphan_s, 1.0))
            busy = self._control is not None or self._hosted or self._starting
            alone = 0.0 if busy else alone + min(self._orphan_s, 1.0)
            if alone >= self._orphan_s:
                self._over.set()
                return

    async def _write_network_states(self) -> None:
        while True:
            await asyncio.sleep(NETWORK_STATE_S)
            for hosted in list(self._hosted.values()):
                await self._loop.run_in_executor(self._threads, hosted.running.write_network_state)

    def _drain_outputs(self) -> None:
        """A guest whose reader is gone isn't to wait for room in a pipe, nor to learn that nobody reads."""
        for hosted in self._hosted.values():
            for descriptor in hosted.drains:
                self._loop.add_reader(descriptor, self._drain, descriptor)

    def _drain(self, descriptor: int) -> None:
        with contextlib.suppress(BlockingIOError):
            if os.read(descriptor, DRAIN_BYTES):
                return
            self._loop.remove_reader(descriptor)

    def _look_for_kills(self) -> None:
        """`timecraft kill`, embedded in another process, leaves a signal beside the log."""
        for hosted in self._hosted.values():
            number = read_kill_request(self._runtime.kill_file(hosted.running.process))
            if number:
                hosted.kill(number)


def counted(running: Running, stats: Mapping[str, int]) -> dict[str, int]:
    """What is added up of a guest, by name: the engine's counters, and what was decided of its network."""
    decided = {f"network_{outcome}": count for outcome, count in running.decisions.items()}
    return {name: stats.get(name, 0) for name in COUNTERS} | decided


def ended_columns(process: ProcessRecord) -> dict[str, Any] | None:
    """What changed of a row when a process ended; None if that isn't written down."""
    if process.ended_ns is None:
        return None
    names = ("state", "exit_code", "message", "ended_ns", "last_seq", "log_bytes")
    return {name: getattr(process, name) for name in names}


def resident_bytes() -> int:
    """Memory of this process of the host."""
    with open("/proc/self/statm", "rb") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


def _close(descriptors: list[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


async def serve(runtime: Runtime, name: str) -> None:
    """Serves until the worker is to end."""
    directory = Directory(os.path.join(runtime.config.home, WORKERS_DIR))
    try:
        await Worker(runtime).serve(directory, name)
    finally:
        directory.close()


def main() -> int:
    """Serves; errors go to the standard error, which is the node's log of the worker."""
    parser = argparse.ArgumentParser(prog="timecraft-worker", description=__doc__)
    parser.add_argument("--home", required=True)
    parser.add_argument("--name", required=True)
    args = parser.parse_args()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # a terminal's, or systemd's to the group: the control process decides
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    config = load_config(os.environ | {"TIMECRAFT_HOME": args.home})
    engine = Engine()
    try:
        if config.node.confine == "on":
            engine.confine()
    except EngineError as error:
        sys.stderr.write(f"{error}; set node.confine to off if that is acceptable\n")
        return error.exit_code
    asyncio.run(serve(Runtime(config, engine=engine), args.name))
    return 0


if __name__ == "__main__":
    sys.exit(main())
