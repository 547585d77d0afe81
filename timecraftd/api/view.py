"""ViewService (proto/timecraft/v1/view.proto)."""

from __future__ import annotations

import asyncio
import io
import itertools
import json
import os
import secrets
import tempfile
from collections.abc import AsyncIterator, Iterator
from functools import partial
from typing import Any

from timecraftd.api import convert
from timecraftd.api.threads import Handover, Stop, from_thread, put_by_thread
from timecraftd.api.v1 import view_pb2 as pb
from timecraftd.api.v1 import view_pb2_grpc
from timecraftd.embedded import Runtime
from timecraftd.errors import StateBusyError, TimecraftError, UsageError
from timecraftd.masking import TraceMask
from timecraftd.model import ObjectKind
from timecraftd.pruning import prune, prune_stored
from timecraftd.recorder.retention import RetentionPolicy
from timecraftd.registry.home import state_errors
from timecraftd.supervisor.stdio import STDERR, STDOUT, Stdio
from timecraftd.supervisor.supervisor import Supervisor
from timecraftd.views import (
    Trace,
    TraceOptions,
    check_ended,
    describe,
    exporter,
    follower,
    import_archive,
    listing,
    secrets_of,
)

PIECE_BYTES_MAX = 1 << 20
NAME_CHARS_MAX = 255
FORMS = ("text", "json", "yaml")
TIMESTAMPS = ("", "none", "relative", "absolute")
SIDES = ("", "client", "server")
LAYERS = {
    pb.TraceRequest.LAYER_SYSCALL: "syscall",
    pb.TraceRequest.LAYER_NETWORK: "network",
    pb.TraceRequest.LAYER_REQUEST: "request",
}


class ViewService(view_pb2_grpc.ViewServiceServicer):
    """What is derived from a node's logs and registry."""

    def __init__(self, supervisor: Supervisor, runtime: Runtime) -> None:
        self._supervisor = supervisor
        self._runtime = runtime
        self._pruning = asyncio.Lock()

    async def Trace(self, request: pb.TraceRequest, _context: Any) -> AsyncIterator[pb.TraceResponse]:  # noqa: N802
        """Host calls, connections or requests."""
        options = _trace_options(request)
        process = await self._supervisor.get(request.id)
        notes: list[str] = []

        def produce(stop: Stop) -> Iterator[bytes]:
            wait = follower(self._runtime, process, stop.sleep_for) if request.follow else None
            trace = Trace(self._runtime, process, options, wait)
            for text in trace.text():
                yield from _cut(text)
            notes.extend(trace.notes)

        async for texts in from_thread(produce, len):
            for text in texts:
                yield pb.TraceResponse(text=text)
        yield pb.TraceResponse(notes=notes)

    async def Replay(self, request: pb.ReplayRequest, _context: Any) -> AsyncIterator[pb.ReplayResponse]:  # noqa: N802
        """Runs a recorded process again, in a worker of its own kind."""
        process = await self._supervisor.get(request.id)
        check_ended(process)
        other = ""
        if request.other_module:
            registry = self._runtime.registry
            other = await asyncio.to_thread(registry.resolve_object, ObjectKind.MODULE, request.other_module)
        worker = await self._supervisor.workers.for_views()
        mask = TraceMask(await asyncio.to_thread(secrets_of, self._runtime, process))
        stdio = Stdio(trace=request.trace, stdin=False)
        token = secrets.token_hex(8)
        replay = asyncio.ensure_future(
            worker.peer.call(
                "replay",
                stdio.outputs(),
                process=process.id,
                token=token,
                verify=request.verify,
                until_seq=request.until_seq if request.HasField("until_seq") else None,
                until_time_ns=convert.duration_ns(request.until_time, "until_time")
                if request.HasField("until_time")
                else None,
                other_module=other,
            )
        )
        try:
            await asyncio.sleep(0)  # the call sends its descriptors now
            stdio.handed_over()
            async for stream, data in stdio.output():
                if stream == STDOUT:
                    yield pb.ReplayResponse(stdout=data)
                elif stream == STDERR:
                    yield pb.ReplayResponse(stderr=data)
                elif shown := mask.feed(data):
                    yield pb.ReplayResponse(trace=shown)
            if shown := mask.rest():
                yield pb.ReplayResponse(trace=shown)
            end = (await replay)["end"]
            yield pb.ReplayResponse(ended=pb.ReplayResponse.Ended(**end))
        finally:
            stdio.close()
            if not replay.done():
                self._supervisor.tasks.start(_end_replay(worker.peer.call("end_replay", token=token), replay))

    async def Describe(self, request: pb.DescribeRequest, _context: Any) -> pb.DescribeResponse:  # noqa: N802
        """One thing in detail."""
        value = await asyncio.to_thread(describe, self._runtime, _kind(request.kind), request.id)
        return pb.DescribeResponse(json=json.dumps(value))

    async def ListObjects(self, request: pb.ListObjectsRequest, _context: Any) -> pb.ListObjectsResponse:  # noqa: N802
        """A page of things, newest first."""
        kind = _kind(request.kind)
        size = convert.page_size(request.page_size)

        def page() -> tuple[list[dict[str, object]], bool]:
            items = listing(self._runtime, kind, tuple(request.ids))
            if request.page_token:
                items = itertools.islice(
                    itertools.dropwhile(lambda item: item["id"] != request.page_token, items), 1, None
                )
            found = list(itertools.islice(items, size + 1))
            return found[:size], len(found) > size

        items, more = await asyncio.to_thread(page)
        token = str(items[-1]["id"]) if more else ""
        return pb.ListObjectsResponse(json=map(json.dumps, items), next_page_token=token)

    async def Export(self, request: pb.ExportRequest, _context: Any) -> AsyncIterator[pb.ExportResponse]:  # noqa: N802
        """A process as an archive, an object's bytes, or a log as JSON lines."""
        kind = _kind(request.kind)
        notes: list[str] = []

        def work(handover: Handover[bytes]) -> None:
            gap = notes.append if request.skip_damaged else None
            write = exporter(self._runtime, kind, request.id, compress=request.compress, gap=gap)
            with io.BufferedWriter(_Pieces(handover), PIECE_BYTES_MAX) as file:
                write(file)

        async for pieces in put_by_thread(work, len):
            for data in pieces:
                yield pb.ExportResponse(data=data)
        if notes:
            yield pb.ExportResponse(notes=notes)

    async def Import(  # noqa: N802
        self, requests: AsyncIterator[pb.ImportRequest], _context: Any
    ) -> pb.ImportResponse:
        """Takes in an archive."""
        directory = os.path.join(self._runtime.config.home, "uploads")
        with state_errors(directory):
            os.makedirs(directory, mode=0o700, exist_ok=True)
            with tempfile.TemporaryFile(dir=directory) as file:
                left = self._runtime.config.imports.archive_bytes_max
                name = ""
                async for request in requests:
                    name = name or request.name[:NAME_CHARS_MAX]
                    left -= len(request.data)
                    if left < 0:
                        raise UsageError("import: is bigger than imports.archive_bytes_max", "raise that bound")
                    await asyncio.to_thread(file.write, request.data)
                file.seek(0)
                record = await asyncio.to_thread(import_archive, self._runtime, file, name or "archive")
        self._supervisor.changes.publish(record)
        return pb.ImportResponse(id=record.id)

    async def Prune(self, request: pb.PruneRequest, _context: Any) -> pb.PruneResponse:  # noqa: N802
        """Removes what isn't needed any more."""
        if self._pruning.locked():
            raise StateBusyError("prune: is under way", "wait for it")
        policy = _retention_policy(request)
        async with self._pruning:
            here = partial(prune, is_needed=self._supervisor.is_needed)
            work = partial(prune_stored, now=request.now) if request.remote else here
            gone = await asyncio.to_thread(work, self._runtime, policy, dry_run=request.dry_run)
        return pb.PruneResponse(
            removed=[
                pb.PruneResponse.Removed(kind=str(each["kind"]), id=str(each["id"]), size_bytes=int(str(each["bytes"])))
                for each in gone
            ]
        )


async def _end_replay(end: Any, replay: asyncio.Future[Any]) -> None:
    await asyncio.gather(end, replay, return_exceptions=True)


def _kind(number: int) -> str:
    if number not in pb.ObjectKind.values() or number == pb.OBJECT_KIND_UNSPECIFIED:
        raise UsageError(f"kind {number}: isn't one", "use an ObjectKind but UNSPECIFIED")
    return pb.ObjectKind.Name(number).removeprefix("OBJECT_KIND_").lower()


def _retention_policy(request: pb.PruneRequest) -> RetentionPolicy | None:
    """What is to go; None if nothing was selected."""
    by_age_and_number = request.HasField("older_than") or request.HasField("keep")
    by_end = request.states or request.exit_codes or request.exit_nonzero
    if not by_age_and_number and not by_end and not request.HasField("max_size_bytes"):
        return None
    return RetentionPolicy(
        convert.duration_ns(request.older_than, "older_than") if request.HasField("older_than") else None,
        request.keep,
        keep_crashed=not request.crashed,
        bytes_max=request.max_size_bytes if request.HasField("max_size_bytes") else None,
        states=frozenset(map(convert.state_of, request.states)) or None,
        exit_codes=frozenset(request.exit_codes),
        exit_nonzero=request.exit_nonzero,
        by_age_and_number=by_age_and_number or not request.HasField("max_size_bytes"),
    )


def _trace_options(request: pb.TraceRequest) -> TraceOptions:
    if request.layer not in LAYERS:
        raise UsageError(f"layer {request.layer}: isn't one", "use a Layer but UNSPECIFIED")
    for field, value, choices in (
        ("form", request.form or "text", FORMS),
        ("timestamps", request.timestamps, TIMESTAMPS),
        ("side", request.side, SIDES),
    ):
        if value not in choices:
            raise UsageError(f"{field} {value!r}: isn't one", f"use {', '.join(filter(None, choices))}")
    start = request.WhichOneof("start")
    start_ns = None
    if start == "start_at":
        start_ns = convert.unix_ns(request.start_at)
    elif start == "start_offset":
        start_ns = convert.duration_ns(request.start_offset, "start_offset")
    return TraceOptions(
        layer=LAYERS[request.layer],  # type: ignore[arg-type]
        form=request.form or "text",  # type: ignore[arg-type]
        timestamps=request.timestamps or None,  # type: ignore[arg-type]
        verbose=request.verbose,
        color=request.color,
        start_ns=start_ns,
        start_is_unix=start == "start_at",
        duration_ns=convert.duration_ns(request.duration, "duration") if request.HasField("duration") else None,
        calls=tuple(request.calls),
        host=request.host or None,
        port=request.port or None,
        side=request.side or None,  # type: ignore[arg-type]
        skip_damaged=request.skip_damaged,
    )


def _cut(data: bytes) -> Iterator[bytes]:
    for at in range(0, len(data), PIECE_BYTES_MAX):
        yield data[at : at + PIECE_BYTES_MAX]


class _Pieces(io.RawIOBase):
    """A file whose content goes to a loop, in pieces."""

    def __init__(self, handover: Handover[bytes]) -> None:
        self._handover = handover

    def writable(self) -> bool:
        """It is for writing."""
        return True

    def write(self, data: Any) -> int:
        """Hands over; waits for room. Raises TimecraftError if nobody reads any more."""
        for piece in _cut(bytes(data)):
            if not self._handover.put(piece):
                raise TimecraftError("export: nobody reads any more")
        return len(data)
