"""Looks after the processes of a node: room, queue, workers, restarts, and what is to run after a crash."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter, deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from signal import SIGTERM
from typing import Any, TypeVar

from timecraftd.config import Config
from timecraftd.embedded import Runtime
from timecraftd.engine.request import RunRequest, decode_config
from timecraftd.errors import (
    CapacityError,
    NotFoundError,
    ProcessStateError,
    StateError,
    TimecraftError,
    WorkerLostError,
)
from timecraftd.model import STATE_OF_END, ModuleRecord, ObjectKind, ProcessId, ProcessRecord, ProcessState
from timecraftd.supervisor.changes import Changes
from timecraftd.supervisor.journal import Journal, Submission
from timecraftd.supervisor.restarts import RestartPolicy
from timecraftd.supervisor.stdio import Stdio
from timecraftd.supervisor.tasks import OwnedTasks
from timecraftd.supervisor.totals import Totals
from timecraftd.supervisor.workers import WorkerHandle, WorkerPool

_T = TypeVar("_T")
Log = Callable[..., None]
STATS_S = 1.0
"""How long workers have to tell what they use."""
HOST_POLL_S = 0.5
"""How often it is looked whether another host still runs a process that the node is to look after."""
ENDS_MAX = 1024
"""Ends that are remembered with what isn't in the catalogue: whether another run follows, backtraces, counters."""


@dataclass(frozen=True, slots=True)
class End:
    """How a process's run ended, as far as its worker could tell."""

    process: ProcessRecord
    backtrace: tuple[str, ...] = ()
    stats: dict[str, int] = field(default_factory=dict)
    refused: str = ""
    """Why a resumed process didn't get to go on."""
    restarts: bool = False
    """Whether another run follows by policy."""


@dataclass(slots=True)
class Live:
    """A process that is queued or runs."""

    record: ProcessRecord
    """As it was last told."""
    submission: Submission
    memory_bytes: int
    """Promised."""
    stdio: Stdio | None
    begun: asyncio.Future[tuple[str, ...]]
    """Published ports, once it runs."""
    ended: asyncio.Future[End]
    worker: WorkerHandle | None = None
    resumes: bool = False
    trust: bool = False
    stopped: bool = False
    """Somebody asked for its end: no restarts."""

    @property
    def published(self) -> tuple[str, ...]:
        """Published ports, as far as it runs."""
        return self.begun.result() if self.begun.done() else ()


class Supervisor:
    """The processes of a node. Belongs to one event loop; what blocks is done in threads."""

    def __init__(self, runtime: Runtime, journal: Journal, config: Config, *, memory_bytes_max: int, log: Log) -> None:
        self.changes = Changes()
        self.totals = Totals()
        self.draining = False
        self.memory_bytes_max = memory_bytes_max
        self._runtime = runtime
        self._journal = journal
        self._config = config
        self._log = log
        self._live: dict[str, Live] = {}
        self._queue: deque[str] = deque()
        self._running: set[str] = set()
        self._memory_bytes = 0
        self.tasks = OwnedTasks(log)
        self._idle = asyncio.Event()
        self._idle.set()
        self._closing = False
        self._ends: dict[str, End] = {}
        """The newest."""
        self._called_off: set[str] = set()
        """Processes that ended and were to be started again, until somebody stopped them."""
        self._due: Counter[str] = Counter()
        """Processes that ended and are to be started again, or to go on."""
        self.workers = WorkerPool(
            runtime.config.home,
            config_file=config.source,
            processes_max=config.node.worker_processes_max,
            version=runtime.engine.build_info()["version"],
            on_end=self._on_end,
            on_lost=self._on_lost,
            log=log,
        )

    # ---- life

    async def start(self) -> None:
        """Finds workers and their guests again, and takes up what was wanted when the last control process ended."""
        for worker in await self.workers.adopt():
            with contextlib.suppress(WorkerLostError):
                self.totals.begin(worker.name, (await worker.peer.call("stats"))["totals"])
            for process in list(worker.processes):
                record = await self._stored(process)
                if record.state is not ProcessState.RUNNING:
                    continue  # it has ended since the worker said what it hosts
                submission = self._journal.get(record.id) or Submission(record.id, RestartPolicy())
                live = await self._new_live(record, submission, None)
                live.worker = worker
                self._admit(process, live)
                live.begun.set_result(())
        for submission in self._journal.wanted():
            if submission.process not in self._live:
                await self._take_up(submission)
        with contextlib.suppress(TimecraftError):
            await self.workers.prepare()

    async def _take_up(self, submission: Submission) -> None:
        try:
            process = await self._stored(submission.process)
        except NotFoundError:
            self._journal.delete(submission.process)
            return
        if process.state is ProcessState.QUEUED:
            live = await self._new_live(process, submission, None)
            self._live[process.id] = live
            self._queue.append(process.id)
            self._start_next()
        elif process.state is ProcessState.RUNNING:
            self._log("another host runs the process", process=process.id, pid=process.pid)
            self.tasks.start(self._take_up_later(submission))
        elif process.state is ProcessState.CRASHED and submission.checkpointed and process.recorded:
            self._go_on(replace(submission, checkpointed=False), process, 0.0, resumes=True)
        else:
            self._log("process ended while no node looked after it", process=process.id, state=str(process.state))
            self._follow_up(submission, process)

    async def _take_up_later(self, submission: Submission) -> None:
        """Takes a process up once its host lets go of it: a worker that is dying needs a moment for that."""
        state = ProcessState.RUNNING
        while state is ProcessState.RUNNING:
            await asyncio.sleep(HOST_POLL_S)
            if submission.process in self._live:  # somebody had it resumed
                return
            with contextlib.suppress(StateError):
                try:
                    state = (await self._stored(submission.process)).state
                except NotFoundError:
                    break
        await self._take_up(submission)

    async def drain(self) -> None:
        """Takes no more processes, and waits until none is left."""
        self.draining = True
        await self._idle.wait()

    async def close(self, *, abandon: bool) -> None:
        """Ends the control of workers: guests go on alone, or are left resumable, to be resumed at the next start."""
        self._closing = True
        if abandon:
            for live in self._live.values():
                self._journal.put(replace(live.submission, checkpointed=True))
        await self.tasks.cancel()
        await self.workers.close(abandon=abandon)

    @property
    def running(self) -> int:
        """Processes that run."""
        return len(self._running)

    @property
    def queued(self) -> int:
        """Processes that wait for room."""
        return len(self._queue)

    @property
    def memory_bytes(self) -> int:
        """Linear memory that is promised."""
        return self._memory_bytes

    def processes(self) -> list[ProcessId]:
        """Those that are queued, or run in one of the node's workers."""
        return [ProcessId(process) for process in self._live]

    def live(self, process: str) -> Live | None:
        """A process that is queued, or runs in one of the node's workers."""
        return self._live.get(process)

    def is_needed(self, process: str) -> bool:
        """Whether a process is live, or is about to go on or be restarted."""
        return process in self._live or process in self._due

    # ---- processes

    async def submit(
        self,
        module: ModuleRecord,
        module_name: str,
        request: RunRequest,
        submission: Callable[[ProcessId], Submission],
        stdio: Stdio | None = None,
    ) -> tuple[ProcessRecord, Live]:
        """Starts a process, or queues it if there is no room. Raises CapacityError, and what `Runtime.admit` does.

        If it fails to begin, nothing is left of it.
        """
        self._check_open()

        def admit() -> tuple[ProcessRecord, Submission]:
            process = self._runtime.admit(module, module_name, request)
            submitted = submission(process.id)
            self._journal.put(submitted)
            return process, submitted

        process, submitted = await self._do(admit)
        live = await self._new_live(process, submitted, stdio, request)
        self._live[process.id] = live
        self._idle.clear()
        self.changes.publish(process)
        if self._queue or not self._has_room(live):
            if len(self._queue) >= self._config.node.queue_max:
                await self._discard(process)
                raise CapacityError(
                    f"node: runs {self.running} processes, and {len(self._queue)} wait, which is as many as may",
                    "try again later, or raise node.processes_max or node.queue_max",
                )
            self._queue.append(process.id)
            return process, live
        self._admit(process.id, live)
        try:
            await self._begin(process.id, live)
        except WorkerLostError:
            pass  # it may have run: what becomes of it, those who settle the worker's processes tell
        except BaseException:
            await asyncio.shield(self._discard(process))
            raise
        return live.record, live

    async def resume(
        self, process: ProcessRecord, submission: Submission, *, trust: bool, stdio: Stdio | None = None
    ) -> Live:
        """Lets a crashed process go on. Raises ProcessStateError, ReplayRefusedError, CapacityError..."""
        self._check_open()
        if process.id in self._live:
            raise ProcessStateError(f"process {process.id}: it runs", "attach to it")
        live = await self._new_live(process, submission, stdio)
        live.resumes, live.trust = True, trust
        if not self._has_room(live):
            raise CapacityError(f"node: has no room for process {process.id}", "try again later")
        await self._do(lambda: self._journal.put(submission))
        self._admit(process.id, live)
        try:
            await self._begin(process.id, live)
        except WorkerLostError:
            pass
        except BaseException:
            self._forget(process.id)
            self._journal.settle(process.id)
            raise
        return live

    async def get(self, reference: str) -> ProcessRecord:
        """A process as it is now. Raises NotFoundError, AmbiguousIdError."""
        live = self._live.get(reference)
        if live is not None and not live.ended.done() and live.begun.done():
            return live.record
        return await self._stored(reference)

    async def _stored(self, reference: str) -> ProcessRecord:
        return await self._do(lambda: self._runtime.process(reference))

    async def wait(self, process: ProcessRecord) -> End:
        """Waits for the end of a process."""
        live = self._live.get(process.id)
        if live is not None:
            return await asyncio.shield(live.ended)
        # Another host's: its lock tells. A thread that waits for a lock can't be cancelled, so it is asked for instead.
        process = await self._stored(process.id)
        while process.state.is_alive:
            await asyncio.sleep(0.1)
            process = await self._stored(process.id)
        known = self._ends.get(process.id)
        return known if known is not None and known.process.epoch == process.epoch else End(process)

    def call_off(self, process: ProcessRecord) -> None:
        """A process that has ended isn't started again, if it was to be."""
        if process.id in self._ends and self._ends[process.id].restarts:
            self._called_off.add(process.id)

    async def signal(self, process: ProcessRecord, number: int) -> None:
        """Ends a guest as by a signal. Raises ProcessStateError if it doesn't run."""
        live = self._live.get(process.id)
        if live is not None:
            live.stopped = True
            if process.id in self._queue:
                await self._end_queued(process, number)
                return
            while not live.begun.done() and self._live.get(process.id) is live:  # it is being started
                await asyncio.wait([live.begun], timeout=HOST_POLL_S)
            if live.worker is None or self._live.get(process.id) is not live:
                return  # it has ended
            await live.worker.peer.call("kill", process=process.id, signal=number)
        elif process.state is not ProcessState.RUNNING or not await self._do(
            lambda: self._runtime.kill(process, number)
        ):
            raise ProcessStateError(f"process {process.id}: doesn't run, but {process.state}", "look at it again")

    async def signal_all(self, number: int) -> None:
        """Ends all guests as by a signal; one that can't be ended, or has ended, doesn't keep the others."""
        # Those that are queued go first, or they would take the room of those that end.
        for process in sorted(self.processes(), key=lambda process: process in self._running):
            try:
                await self.signal(await self.get(process), number)
            except (ProcessStateError, NotFoundError):
                pass
            except TimecraftError as error:
                self._log("signal failed", level="warning", process=process, error=str(error))

    async def forget(self, process: ProcessRecord) -> None:
        """A process is to be started no more: it was removed."""
        await self._do(lambda: self._journal.delete(process.id))
        self.changes.publish(process, removed=True)

    def relabelled(self, process: ProcessRecord) -> None:
        """Labels of a process were changed."""
        live = self._live.get(process.id)
        if live is not None:
            live.record = replace(live.record, labels=process.labels)
        self.changes.publish(process)

    def submission(self, process: ProcessId) -> Submission | None:
        """What was asked for with a process; None if the node doesn't look after it."""
        live = self._live.get(process)
        return live.submission if live is not None else self._journal.get(process)

    async def stats(self, patience_s: float = STATS_S) -> dict[str, dict[str, Any]]:
        """Of each worker that answers in time, by name: its memory and its guests'. Adds up what they count."""
        asked = {worker.name: worker.peer.call("stats") for worker in self.workers.workers.values()}
        answers: dict[str, dict[str, Any]] = {}

        async def ask(name: str, answer: Awaitable[dict[str, Any]]) -> None:
            with contextlib.suppress(WorkerLostError, TimeoutError):
                async with asyncio.timeout(patience_s):
                    answers[name] = await answer
                self.totals.note(name, answers[name]["totals"])

        await asyncio.gather(*(ask(name, answer) for name, answer in asked.items()))
        return answers

    # ---- inside

    def _check_open(self) -> None:
        if self.draining:
            raise CapacityError("node: is draining, and takes no processes", "use another node, or end the drain")

    async def _new_live(
        self, record: ProcessRecord, submission: Submission, stdio: Stdio | None, request: RunRequest | None = None
    ) -> Live:
        if request is None:
            request = await self._do(lambda: self._request(record))
        loop = asyncio.get_running_loop()
        return Live(
            record,
            submission,
            min(request.limits.memory_bytes, self._config.node.memory_bytes_reckoned),
            stdio,
            loop.create_future(),
            loop.create_future(),
        )

    def _request(self, record: ProcessRecord) -> RunRequest:
        request = decode_config(self._runtime.registry.objects.get(ObjectKind.CONFIG, record.config))
        return replace(request, name=record.name, recorded=record.recorded, labels=record.labels)

    def _has_room(self, live: Live) -> bool:
        if len(self._running) >= self._config.node.processes_max:
            return False
        return not self._running or self._memory_bytes + live.memory_bytes <= self.memory_bytes_max

    def _admit(self, process: str, live: Live) -> None:
        self._live[process] = live
        self._running.add(process)
        self._memory_bytes += live.memory_bytes
        self._idle.clear()

    async def _begin(self, process: str, live: Live) -> None:
        """Begins in a worker what was admitted. Raises what the worker does, and WorkerLostError."""
        isolated = live.submission.isolated or self._config.node.placement == "isolated"
        worker = await self.workers.acquire(process, isolated=isolated)
        live.worker = worker
        stdio = live.stdio
        try:
            answer = await worker.peer.call(
                "resume" if live.resumes else "begin",
                () if stdio is None else stdio.descriptors(),
                process=process,
                stdio=stdio is not None,
                trace=stdio is not None and stdio.has_trace,
                trust=live.trust,
            )
        except BaseException as error:
            if not isinstance(error, WorkerLostError):
                self.workers.release(worker, process)
                live.worker = None
            raise
        finally:
            if stdio is not None:
                stdio.handed_over()
        if not live.begun.done():
            live.begun.set_result(tuple(answer["published"]))
        self._log("process started", process=process, worker=worker.name)
        live.record = replace(
            live.record,
            state=ProcessState.RUNNING,
            pid=answer["pid"],
            epoch=answer["epoch"],
            started_ns=answer["started_ns"],
            ended_ns=None,
            exit_code=None,
            message="",
        )
        self.changes.publish(live.record)

    async def _discard(self, process: ProcessRecord) -> None:
        self._forget(process.id)
        with contextlib.suppress(TimecraftError):
            await self._do(lambda: self._runtime.remove(process))
        await self.forget(process)

    def _forget(self, process: str) -> Live | None:
        """Takes a process off the books."""
        live = self._live.pop(process, None)
        if process in self._running:
            self._running.remove(process)
            if live is not None:
                self._memory_bytes -= live.memory_bytes
        with contextlib.suppress(ValueError):
            self._queue.remove(process)
        if live is not None and live.worker is not None:
            self.workers.release(live.worker, process)
        self._start_next()
        if not self._live:
            self._idle.set()
        return live

    def _start_next(self) -> None:
        while self._queue and self._has_room(self._live[self._queue[0]]) and not self._closing:
            process = self._queue.popleft()
            live = self._live[process]
            self._admit(process, live)
            self.tasks.start(self._begin_queued(process, live))

    async def _begin_queued(self, process: str, live: Live) -> None:
        try:
            await self._begin(process, live)
        except WorkerLostError:
            return
        except TimecraftError as error:
            reason = str(error)
            record = await self._do(lambda: self._runtime.fail(ProcessId(process), reason))
            self._finish(record, End(record))

    async def _end_queued(self, process: ProcessRecord, number: int) -> None:
        record = await self._do(
            lambda: self._runtime.fail(process.id, f"killed by signal {number} while it was queued", 128 + number)
        )
        self._finish(record, End(record))

    def _on_end(self, worker: WorkerHandle, arguments: dict[str, Any]) -> None:
        worker.processes.discard(arguments["process"])
        self.totals.note(worker.name, arguments["totals"])
        self.tasks.start(self._ended(arguments))

    async def _ended(self, arguments: dict[str, Any]) -> None:
        live = self._live.get(arguments["process"])
        if live is not None and arguments.get("record"):  # as the worker has written it down
            told = arguments["record"]
            record = replace(live.record, **told | {"state": ProcessState(told["state"])})
        else:
            record = await self._ended_record(
                arguments["process"],
                state=STATE_OF_END.get(arguments["kind"], ProcessState.CRASHED),
                exit_code=arguments["code"],
                message=arguments["message"],
            )
        end = End(record, tuple(arguments["backtrace"]), arguments["stats"], arguments["refused"] or "")
        self._finish(record, end)

    async def _on_lost(self, worker: WorkerHandle) -> None:
        """Its logs are recovered; what is to go on elsewhere does."""
        processes = list(worker.processes)
        self.totals.forget(worker.name)
        if not processes:
            return
        self.totals.count("workers_lost")
        self._log("worker lost", level="warning", worker=worker.name, pid=worker.pid, processes=len(processes))
        for process in processes:
            with contextlib.suppress(NotFoundError):
                record = await self._ended_record(
                    process, state=ProcessState.CRASHED, exit_code=None, message="its host died"
                )
                self._finish(record, End(record))

    async def _ended_record(self, process: str, **told: Any) -> ProcessRecord:
        """A process that has ended; as its worker told it if the state directory takes no rows now."""
        try:
            record = await self._stored(process)
        except StateError as error:
            self._log("process can't be written down", level="error", process=process, error=str(error))
            live = self._live.get(process)
            if live is None:
                raise NotFoundError(f"process {process!r}: there is no such process") from None
            return replace(live.record, ended_ns=self._runtime.now_ns(), **told)
        # Without room for its row, a process looks as if its host had died.
        return replace(record, **told) if record.state is ProcessState.CRASHED else record

    def _finish(self, record: ProcessRecord, end: End) -> None:
        live = self._forget(record.id)
        if live is None:
            return
        follows = False
        try:
            follows = self._follow_up(live.submission, record, stopped=live.stopped)
        except StateError as error:
            self._log("restart not decided", level="error", process=record.id, error=str(error))
        if live.stdio is not None:
            live.stdio.handed_over()  # if it never ran: else its reader would wait for ever
        if not live.begun.done():
            live.begun.set_result(())
        end = replace(end, restarts=follows)
        live.ended.set_result(end)
        self._called_off.discard(record.id)
        self._ends[record.id] = end
        if len(self._ends) > ENDS_MAX:
            oldest = next(iter(self._ends))
            del self._ends[oldest]
            self._called_off.discard(oldest)
        self.changes.publish(record)
        self.totals.count(f"ended_{record.state}")
        self._log(
            "process ended", process=record.id, state=str(record.state), exit_code=record.exit_code, restarts=follows
        )

    def _follow_up(self, submission: Submission, record: ProcessRecord, *, stopped: bool = False) -> bool:
        """Restarts or resumes by policy; whether it does."""
        ran_s = ((record.ended_ns or record.started_ns) - record.started_ns) / 1e9
        restart = self._config.restart
        crashed = record.state is ProcessState.CRASHED
        delay_s: float | None
        resumes = crashed and submission.restart.mode == "resume" and record.recorded
        if resumes:
            delay_s = submission.restart.resume_delay_s(submission.restarts, ran_s, restart)
        else:
            failed = record.exit_code != 0
            delay_s = submission.restart.delay_s(submission.restarts, failed, ran_s, restart)
        if delay_s is None or stopped or self._closing:
            if not self._closing:
                self._journal.settle(record.id)
            return False
        restarts = 0 if ran_s >= restart.healthy_s else submission.restarts
        again = replace(submission, restarts=restarts + 1)
        self._go_on(again, record, delay_s, resumes=resumes)
        return True

    def _go_on(self, submission: Submission, record: ProcessRecord, delay_s: float, *, resumes: bool) -> None:
        self._due[record.id] += 1
        self.tasks.start(self._again(submission, record, delay_s, resumes=resumes))

    async def _again(self, submission: Submission, record: ProcessRecord, delay_s: float, *, resumes: bool) -> None:
        try:
            await asyncio.sleep(delay_s)
            if record.id in self._called_off:
                self._called_off.discard(record.id)
                self._journal.settle(record.id)
                return
            if resumes:
                await self.resume(record, submission, trust=True)
                self.totals.count("restarts")
                self._log("process resumed", process=record.id)
                return
            request = replace(await self._do(lambda: self._request(record)), restart_of=record.id)
            module = await self._do(lambda: self._runtime.registry.catalogue.module(record.module))
            assert module is not None, "a process keeps its module"
            process, _ = await self.submit(
                module, record.module_name, request, lambda new: replace(submission, process=new, wanted=True)
            )
            self._journal.settle(record.id)
            self.totals.count("restarts")
            self._log("process restarted", process=process.id, restart_of=record.id)
            if record.id in self._called_off:  # while it was being started
                self._called_off.discard(record.id)
                await self.signal(process, SIGTERM)
        except TimecraftError as error:
            self._log("restart failed", level="warning", process=record.id, error=str(error))
            self._journal.settle(record.id)
        finally:
            self._due -= Counter([record.id])

    async def _do(self, work: Callable[[], _T]) -> _T:
        return await asyncio.to_thread(work)
