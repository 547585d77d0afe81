"""ProcessService (proto/timecraft/v1/process.proto)."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import itertools
import os
from collections.abc import AsyncIterator, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from timecraftd.api import convert
from timecraftd.api.convert import page_size, process_message
from timecraftd.api.identity import Role, current
from timecraftd.api.threads import Stop, from_thread
from timecraftd.api.v1 import process_pb2 as pb
from timecraftd.api.v1 import process_pb2_grpc
from timecraftd.config import Config
from timecraftd.embedded import Runtime
from timecraftd.engine.request import RunRequest
from timecraftd.errors import AccessError, ProcessStateError, StateError, UsageError
from timecraftd.labelling import relabel
from timecraftd.labels import HOLD, check_label
from timecraftd.model import ModuleRecord, ProcessId, ProcessRecord, ProcessState, require_unheld
from timecraftd.pruning import remove_stored
from timecraftd.recorder.logs import CAUGHT_UP, Output
from timecraftd.supervisor.journal import Journal, Submission
from timecraftd.supervisor.restarts import RestartPolicy
from timecraftd.supervisor.stdio import STDERR, STDOUT, Stdio
from timecraftd.supervisor.supervisor import End, Live, Supervisor
from timecraftd.views import follower, matches, remote_processes, sized
from timecraftd.views import output as written

STDIN_BYTES_MAX = 1 << 20
LOG_BYTES_MAX = 256 << 10
OUTPUT_BYTES = 32
"""What a piece of output takes on the wire beside its data."""
PATIENCE_S = 10.0
SIGKILL, SIGTERM = 9, 15


@dataclass(frozen=True, slots=True)
class Asked:
    """A checked request for a process."""

    module: ModuleRecord
    module_name: str
    request: RunRequest
    restart: RestartPolicy
    isolated: bool
    owner: str

    def submission(self, process: ProcessId) -> Submission:
        """What the node keeps of it."""
        return Submission(process, self.restart, self.owner, self.isolated)


class ProcessService(process_pb2_grpc.ProcessServiceServicer):
    """Processes of a node."""

    def __init__(self, supervisor: Supervisor, runtime: Runtime, journal: Journal, config: Config) -> None:
        self._supervisor = supervisor
        self._runtime = runtime
        self._journal = journal
        self._config = config

    async def Run(self, request: pb.RunRequest, _context: Any) -> pb.RunResponse:  # noqa: N802
        """Starts a process that nobody is attached to."""
        known = await self._known(request.idempotency_key, request.spec)
        if known is not None:
            return pb.RunResponse(process=self._message(known))
        asked = await self._asked(request.spec)
        process, live = await self._submit(asked, request.idempotency_key, request.spec, None)
        return pb.RunResponse(process=self._message(process), published=live.published)

    async def Attach(  # noqa: N802
        self, requests: AsyncIterator[pb.AttachRequest], _context: Any
    ) -> AsyncIterator[pb.AttachResponse]:
        """Starts a process, or takes hold of one, and carries its standard streams."""
        first = await anext(aiter(requests), None)
        kind = None if first is None else first.WhichOneof("message")
        if first is None or kind not in ("start", "existing", "resume"):
            raise UsageError(
                "attach: the first message says what to start or to attach to", "send start, existing or resume"
            )
        known = await self._known(first.start.idempotency_key, first.start.spec) if kind == "start" else None
        if known is not None:
            responses = self._attach_again(known, first, requests)
        else:
            responses = (self._follow if kind == "existing" else self._start_attached)(first, requests)
        async for response in responses:
            yield response

    async def _attach_again(
        self, known: ProcessRecord, first: pb.AttachRequest, requests: AsyncIterator[pb.AttachRequest]
    ) -> AsyncIterator[pb.AttachResponse]:
        """A request is repeated: the process that it has started, with all its output, but without its streams."""
        if not known.recorded or first.trace:
            raise ProcessStateError(
                f"process {known.id}: was started by a request with the same key, and its output went there",
                f"`timecraft wait {known.id}` tells how it ends",
            )
        live = self._supervisor.live(known.id)
        if live is not None:
            await asyncio.shield(live.begun)
        again = pb.AttachRequest(existing=pb.AttachRequest.Existing(id=known.id))
        again.existing.since.CopyFrom(convert.timestamp(known.created_ns))
        async for response in self._follow(again, requests):
            yield response

    async def _start_attached(
        self, first: pb.AttachRequest, requests: AsyncIterator[pb.AttachRequest]
    ) -> AsyncIterator[pb.AttachResponse]:
        stdio = Stdio(trace=first.trace, stdin=first.with_stdin)
        try:
            process, live = await self._begin_attached(first, stdio)
        except BaseException:
            stdio.close()
            raise
        pump = asyncio.create_task(self._pump(process, requests, stdio))
        try:
            if process.state is ProcessState.QUEUED:
                yield self._started(process, ())
                await asyncio.shield(live.begun)  # set at the end too, if it never ran
                process = await self._supervisor.get(process.id)
            if live.begun.done():
                yield self._started(process, live.published)
                async for stream, data in stdio.output():
                    if stream == STDOUT:
                        yield pb.AttachResponse(stdout=data)
                    elif stream == STDERR:
                        yield pb.AttachResponse(stderr=data)
                    else:
                        yield pb.AttachResponse(trace=data)
            yield self._ended(await asyncio.shield(live.ended))
        finally:
            pump.cancel()
            stdio.close_stdin()
            if live.ended.done():
                stdio.close()
            else:
                self._leave(process, stdio, kill=first.kill_on_disconnect)

    async def _begin_attached(self, first: pb.AttachRequest, stdio: Stdio) -> tuple[ProcessRecord, Live]:
        if first.WhichOneof("message") == "resume":
            process = await self._own_process(first.resume.id)
            trust = first.resume.trust
            live = await self._supervisor.resume(process, self._submission(process), trust=trust, stdio=stdio)
            return await self._supervisor.get(process.id), live
        spec, key = first.start.spec, first.start.idempotency_key
        return await self._submit(await self._asked(spec), key, spec, stdio)

    def _leave(self, process: ProcessRecord, stdio: Stdio, *, kill: bool) -> None:
        """The client is gone: its guest goes on, its output into the log alone, unless it was to be killed."""

        async def leave() -> None:
            if kill:
                with contextlib.suppress(ProcessStateError):
                    await self._supervisor.signal(process, SIGKILL)
            await stdio.drain()
            stdio.close()

        self._supervisor.tasks.start(leave())

    async def _follow(
        self, first: pb.AttachRequest, requests: AsyncIterator[pb.AttachRequest]
    ) -> AsyncIterator[pb.AttachResponse]:
        """What comes of a process that runs, from its log: nobody holds its streams."""
        if first.with_stdin or first.trace:
            raise UsageError("attach: standard input and trace are of who started a process", "attach without them")
        process = await self._own_process(first.existing.id)
        yield self._started(process, ())
        pump = asyncio.create_task(self._pump(process, requests, None))
        try:
            wanted = first.existing
            since_ns = convert.unix_ns(wanted.since) if wanted.HasField("since") else self._runtime.now_ns()
            async for batch in self._output(process, follow=True, since_unix_ns=since_ns):
                for stream, pieces in itertools.groupby(batch, lambda piece: piece.stream):
                    data = b"".join(piece.data for piece in pieces)
                    if stream in (STDOUT, STDERR):
                        yield pb.AttachResponse(stdout=data) if stream == STDOUT else pb.AttachResponse(stderr=data)
            yield self._ended(await self._supervisor.wait(process))
        finally:
            pump.cancel()

    async def _pump(
        self, process: ProcessRecord, requests: AsyncIterator[pb.AttachRequest], stdio: Stdio | None
    ) -> None:
        """Carries what the client sends to the guest."""
        async for request in requests:
            kind = request.WhichOneof("message")
            if kind == "stdin" and stdio is not None and len(request.stdin) <= STDIN_BYTES_MAX:
                await stdio.write(request.stdin)
            elif kind == "stdin_eof" and stdio is not None:
                stdio.close_stdin()
            elif kind == "signal":
                with contextlib.suppress(ProcessStateError):
                    await self._supervisor.signal(process, _signal(request.signal))
        if stdio is not None:
            stdio.close_stdin()

    async def Get(self, request: pb.GetRequest, _context: Any) -> pb.GetResponse:  # noqa: N802
        """One process."""
        message = self._told(await self._supervisor.get(request.id))
        return pb.GetResponse(process=_masked(message, request))

    async def List(self, request: pb.ListRequest, _context: Any) -> pb.ListResponse:  # noqa: N802
        """A page of processes, newest first."""
        size = page_size(request.page_size)
        if request.remote:
            return await asyncio.to_thread(self._list_remote, request, size)
        found = await asyncio.to_thread(self._runtime.processes)
        fits = [each for each in found if _fits(each, request.filter)]
        if request.page_token:
            fits = [each for each in fits if each.id < request.page_token]
        page = fits[:size]
        messages = await asyncio.to_thread(lambda: [_masked(self._told(each), request) for each in page])
        return pb.ListResponse(processes=messages, next_page_token=page[-1].id if len(fits) > size else "")

    def _list_remote(self, request: pb.ListRequest, size: int) -> pb.ListResponse:
        found = remote_processes(self._runtime, request.page_token)
        page = list(itertools.islice((each for each in found if _fits(each, request.filter)), size + 1))
        messages = [_masked(self._told(each), request) for each in page[:size]]
        return pb.ListResponse(processes=messages, next_page_token=page[size - 1].id if len(page) > size else "")

    async def Watch(self, request: pb.WatchRequest, _context: Any) -> AsyncIterator[pb.WatchResponse]:  # noqa: N802
        """The processes that there are, then each change."""
        changes = self._supervisor.changes.subscribe()
        waiting = asyncio.ensure_future(anext(changes))
        await asyncio.sleep(0)  # it subscribes now: no change between the list and the first one is missed
        try:
            for process in reversed(await asyncio.to_thread(self._runtime.processes)):
                if _fits(process, request.filter):
                    yield pb.WatchResponse(process=await asyncio.to_thread(self._told, process))
            yield pb.WatchResponse(synced=True)
            while True:
                process, removed = await waiting
                waiting = asyncio.ensure_future(anext(changes))
                if _fits(process, request.filter):
                    message = self._message(process) if removed else await asyncio.to_thread(self._told, process)
                    yield pb.WatchResponse(process=message, removed=removed)
        finally:
            waiting.cancel()
            with contextlib.suppress(asyncio.CancelledError, StopAsyncIteration):
                await waiting
            await changes.aclose()  # type: ignore[attr-defined] # it is a generator

    async def Wait(self, request: pb.WaitRequest, _context: Any) -> pb.WaitResponse:  # noqa: N802
        """Waits for the end of a process."""
        end = await self._supervisor.wait(await self._supervisor.get(request.id))
        return pb.WaitResponse(process=self._message(end.process))

    async def Signal(self, request: pb.SignalRequest, _context: Any) -> pb.SignalResponse:  # noqa: N802
        """Ends a guest as by a signal."""
        await self._supervisor.signal(await self._own_process(request.id), _signal(request.signal))
        return pb.SignalResponse()

    async def Stop(self, request: pb.StopRequest, _context: Any) -> pb.StopResponse:  # noqa: N802
        """Ends a process gently, then hard."""
        process = await self._own_process(request.id)
        patience_s = PATIENCE_S
        if request.HasField("patience"):
            patience_s = convert.duration_ns(request.patience, "patience") / 1e9
        if process.state.is_alive:
            for number, wait_s in ((SIGTERM, patience_s), (SIGKILL, None)):
                with contextlib.suppress(ProcessStateError):
                    await self._supervisor.signal(process, number)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(wait_s):
                        process = (await self._supervisor.wait(process)).process
                        break
        self._supervisor.call_off(process)
        return pb.StopResponse(process=self._message(process))

    async def Resume(self, request: pb.ResumeRequest, _context: Any) -> pb.ResumeResponse:  # noqa: N802
        """Lets a crashed process go on, with nobody attached."""
        process = await self._own_process(request.id)
        live = await self._supervisor.resume(process, self._submission(process), trust=request.trust)
        process = await self._supervisor.get(process.id)
        return pb.ResumeResponse(process=self._message(process), published=live.published)

    async def Remove(self, request: pb.RemoveRequest, _context: Any) -> pb.RemoveResponse:  # noqa: N802
        """Removes a process and its log."""
        if request.remote:
            await asyncio.to_thread(remove_stored, self._runtime, request.id, force=request.force, now=request.now)
            return pb.RemoveResponse()
        process = await self._own_process(request.id)
        require_unheld(process)
        if request.force and process.state.is_alive:
            with contextlib.suppress(ProcessStateError):
                await self._supervisor.signal(process, SIGKILL)
            process = (await self._supervisor.wait(process)).process
        if self._supervisor.live(process.id) is not None:
            verb = "is queued" if process.state is ProcessState.QUEUED else "runs"
            raise ProcessStateError(f"process {process.id}: it {verb}", "stop it first, or use `rm -f`")
        await asyncio.to_thread(self._runtime.remove, process)
        await self._supervisor.forget(process)
        return pb.RemoveResponse()

    async def Label(self, request: pb.LabelRequest, _context: Any) -> pb.LabelResponse:  # noqa: N802
        """Changes labels of a process."""
        for key, value in request.labels.items():
            check_label(key, value)
        process = await self._own_process(request.id)
        _check_hold((*request.labels, *request.removed))
        changed = await asyncio.to_thread(relabel, self._runtime, process, request.labels, request.removed)
        self._supervisor.relabelled(changed)
        return pb.LabelResponse(process=self._message(changed))

    async def Logs(self, request: pb.LogsRequest, _context: Any) -> AsyncIterator[pb.LogsResponse]:  # noqa: N802
        """What a process wrote, from its log."""
        process = await self._supervisor.get(request.id)
        info = await asyncio.to_thread(self._runtime.log_info, process)
        yield pb.LogsResponse(start_at=convert.timestamp(info.start_unix_ns))
        since_ns = convert.unix_ns(request.since) if request.HasField("since") else None
        async for batch in self._output(process, follow=request.follow, since_unix_ns=since_ns):
            response = pb.LogsResponse(caught_up=batch[-1] is CAUGHT_UP)
            for each in batch[:-1] if response.caught_up else batch:
                output = response.outputs.add(stream=each.stream, data=each.data)
                output.time.seconds, output.time.nanos = divmod(
                    each.time_ns, 10**9
                )  # cheaper than a message of its own
            yield response

    # ---- inside

    async def _output(
        self, process: ProcessRecord, *, follow: bool, since_unix_ns: int | None
    ) -> AsyncIterator[list[Output]]:
        """What a log holds of standard streams, as much at a time as fits a message; CAUGHT_UP is the last of some."""

        def produce(stop: Stop) -> Iterator[list[Output]]:
            wait = follower(self._runtime, process, stop.sleep_for) if follow else None
            return _batches(written(self._runtime, process, since_unix_ns, wait)[1])

        size = LOG_BYTES_MAX + OUTPUT_BYTES
        async for batches in from_thread(produce, lambda _: size):
            for batch in batches:
                yield batch

    async def _asked(self, spec: pb.ProcessSpec) -> Asked:
        identity = current.get()
        if not spec.module:
            raise UsageError("spec.module: is missing", "give a digest, a prefix of one, or a module's name")
        module = await asyncio.to_thread(self._runtime.registry.resolve_module, spec.module)
        name = spec.module_name or module.name
        request = convert.run_request(spec, name, self._config)
        _check_hold(spec.labels)
        if identity.role < Role.OPERATOR:
            await asyncio.to_thread(_check_mounts, request, self._config.node.mounts_allowed, identity.name)
        restart = convert.restart_policy(spec.restart, self._config.node.restart)
        return Asked(module, name, request, restart, spec.isolated, identity.name)

    async def _submit(
        self, asked: Asked, key: str, spec: pb.ProcessSpec, stdio: Stdio | None
    ) -> tuple[ProcessRecord, Live]:
        def submission(process: ProcessId) -> Submission:
            if key:
                answer = process.encode()
                self._journal.remember(asked.owner, key, _digest(spec), answer, self._runtime.now_ns())
            return asked.submission(process)

        try:
            return await self._supervisor.submit(asked.module, asked.module_name, asked.request, submission, stdio)
        except BaseException:
            if key:
                self._journal.forget(asked.owner, key)
            raise

    async def _known(self, key: str, spec: pb.ProcessSpec) -> ProcessRecord | None:
        """The process that a request with this key has begun."""
        if not key:
            return None
        answer = self._journal.answer(current.get().name, key, _digest(spec))
        return None if answer is None else await self._supervisor.get(answer.decode())

    async def _own_process(self, reference: str) -> ProcessRecord:
        """A process that the caller may end. Raises AccessError, NotFoundError, AmbiguousIdError."""
        if not reference:
            raise UsageError("id: is missing", "give a process's id, a prefix of it, or its name")
        process = await self._supervisor.get(reference)
        identity = current.get()
        submission = self._supervisor.submission(process.id)
        if identity.role < Role.OPERATOR and (submission is None or submission.owner != identity.name):
            raise AccessError(
                f"process {process.id}: belongs to {submission.owner if submission else 'the operator'}",
                "ask them, or an operator",
            )
        return process

    def _submission(self, process: ProcessRecord) -> Submission:
        """What was asked for with a process; what is resumed by hand is looked after from now on."""
        known = self._supervisor.submission(process.id)
        return known or Submission(process.id, RestartPolicy(), current.get().name)

    def _message(self, process: ProcessRecord) -> pb.Process:
        return process_message(process, self._supervisor.submission(process.id))

    def _told(self, process: ProcessRecord) -> pb.Process:
        """The same with what takes a look at the disk."""
        message = self._message(sized(self._runtime, process))
        with contextlib.suppress(StateError):  # the database is busy: it is for people only
            message.short_id = self._runtime.registry.catalogue.short_id(process.id)
        return message

    def _started(self, process: ProcessRecord, published: tuple[str, ...]) -> pb.AttachResponse:
        return pb.AttachResponse(started=pb.AttachResponse.Started(process=self._told(process), published=published))

    def _ended(self, end: End) -> pb.AttachResponse:
        if end.refused:
            raise ProcessStateError(end.refused)
        return pb.AttachResponse(
            ended=pb.AttachResponse.Ended(
                process=self._told(end.process), backtrace=end.backtrace, stats=end.stats, restarts=end.restarts
            )
        )


def _check_mounts(request: RunRequest, mounts_allowed: str, who: str) -> None:
    """Raises AccessError for a directory that may not be mounted, or is reached through a link to such a one."""
    allowed = [path.strip().rstrip("/") for path in mounts_allowed.split(",") if path.strip()]
    for mount in request.mounts:
        if mount.tree or mount.is_null:  # it is no directory of the node's
            continue
        host = os.path.realpath(mount.host) if mount.host else ""
        if host and not any(host == path or host.startswith(f"{path}/") for path in allowed):
            raise AccessError(
                f"mount {mount.host}: {who} may not mount it",
                "ask the node's operator to name it in node.mounts_allowed",
            )


def _batches(pieces: Iterable[Output]) -> Iterator[list[Output]]:
    """Pieces that come one after the other together, up to CAUGHT_UP or to what fits a message."""
    batch: list[Output] = []
    size = 0
    for piece in pieces:
        for part in _parts(piece):
            batch.append(part)
            size += len(part.data) + OUTPUT_BYTES
            if size >= LOG_BYTES_MAX or part is CAUGHT_UP:
                yield batch
                batch, size = [], 0
    if batch:
        yield batch


def _parts(piece: Output) -> Sequence[Output]:
    if len(piece.data) <= LOG_BYTES_MAX:
        return (piece,)
    cuts = range(0, len(piece.data), LOG_BYTES_MAX)
    return [Output(piece.time_ns, piece.stream, piece.data[at : at + LOG_BYTES_MAX]) for at in cuts]


def _check_hold(labels: Collection[str]) -> None:
    if HOLD in labels and current.get().role < Role.OPERATOR:
        raise AccessError(f"label {HOLD}: is for operators", "ask one")


def _digest(spec: pb.ProcessSpec) -> str:
    return hashlib.sha256(spec.SerializeToString(deterministic=True)).hexdigest()


def _masked(message: pb.Process, request: pb.GetRequest | pb.ListRequest) -> pb.Process:
    """The fields that were asked for. Raises UsageError for one that doesn't exist."""
    if not request.HasField("fields"):
        return message
    if not request.fields.IsValidForDescriptor(pb.Process.DESCRIPTOR):  # type: ignore[arg-type]
        raise UsageError("fields: names what isn't a field of Process", "see process.proto")
    part = pb.Process()
    request.fields.MergeMessage(message, part)
    return part


def _fits(process: ProcessRecord, wanted: pb.ProcessFilter) -> bool:
    if wanted.states and convert.state_number(process.state) not in wanted.states:
        return False
    if wanted.names and not any(matches(process, "name", pattern) for pattern in wanted.names):
        return False
    if wanted.labels and not any(matches(process, "label", pattern) for pattern in wanted.labels):
        return False
    if wanted.ids and not any(matches(process, "id", prefix) for prefix in wanted.ids):
        return False
    return not wanted.modules or any(matches(process, "module", pattern) for pattern in wanted.modules)


def _signal(number: int) -> int:
    if not 1 <= number <= 64:
        raise UsageError(f"signal {number}: isn't one", "use 1 to 64; 15 is SIGTERM, 9 SIGKILL")
    return number
