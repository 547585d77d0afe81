"""RecordService (proto/timecraft/v1/record.proto)."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Iterator
from typing import Any

from timecraftd.api import convert
from timecraftd.api.threads import Stop, from_thread
from timecraftd.api.v1 import record_pb2 as pb
from timecraftd.api.v1 import record_pb2_grpc
from timecraftd.embedded import Runtime
from timecraftd.errors import UsageError
from timecraftd.masking import TraceMask
from timecraftd.recorder.logs import TraceQuery
from timecraftd.supervisor.supervisor import Supervisor
from timecraftd.views import follower, secrets_of

STRING_BYTES = 32
STRING_BYTES_MAX = 1 << 20
MESSAGE_BYTES = 256 << 10
"""Records are sent in pieces of about so many bytes."""


class RecordService(record_pb2_grpc.RecordServiceServicer):
    """Records of a node's processes."""

    def __init__(self, supervisor: Supervisor, runtime: Runtime) -> None:
        self._supervisor = supervisor
        self._runtime = runtime

    async def ReadRecords(  # noqa: N802
        self, request: pb.ReadRecordsRequest, _context: Any
    ) -> AsyncIterator[pb.ReadRecordsResponse]:
        """Records in order."""
        if request.HasField("from_seq") and request.HasField("from_time"):
            raise UsageError("from_time: doesn't go with from_seq", "give one of them")
        process = await self._supervisor.get(request.id)
        query = TraceQuery(
            start_ns=convert.duration_ns(request.from_time, "from_time") if request.HasField("from_time") else None,
            until_ns=convert.duration_ns(request.until_time, "until_time") if request.HasField("until_time") else None,
            json=True,
            string_bytes_max=min(request.string_bytes_max or STRING_BYTES, STRING_BYTES_MAX),
            calls=tuple(request.calls),
            start_seq=request.from_seq if request.HasField("from_seq") else None,
        )

        def produce(stop: Stop) -> Iterator[list[str]]:
            self._runtime.log_info(process)
            wait = follower(self._runtime, process, stop.sleep_for) if request.follow else bool
            log, trees = self._runtime.log_source(process), self._runtime.trees_of(process)
            batches = self._runtime.logs.trace(log, query, wait, trees)
            mask = TraceMask(secrets_of(self._runtime, process))
            left = request.records_max or sys.maxsize
            for batch in batches:
                yield from _pieces([mask.line(line) for line in batch[:left]])
                left -= len(batch)
                if left <= 0:
                    return

        async for pieces in from_thread(produce, lambda piece: sum(map(len, piece))):
            for records in pieces:
                yield pb.ReadRecordsResponse(records=records)


def _pieces(lines: list[str]) -> Iterator[list[str]]:
    piece: list[str] = []
    size = 0
    for line in lines:
        piece.append(line)
        size += len(line)
        if size >= MESSAGE_BYTES:
            yield piece
            piece, size = [], 0
    if piece:
        yield piece
