"""NodeService (proto/timecraft/v1/node.proto)."""

from __future__ import annotations

import asyncio
from signal import SIGTERM
from typing import Any

from timecraftd.api import convert
from timecraftd.api.identity import current
from timecraftd.api.v1 import node_pb2 as pb
from timecraftd.api.v1 import node_pb2_grpc
from timecraftd.config import Config
from timecraftd.embedded import Runtime
from timecraftd.supervisor.supervisor import Supervisor


class NodeService(node_pb2_grpc.NodeServiceServicer):
    """The node itself."""

    def __init__(self, supervisor: Supervisor, runtime: Runtime, config: Config, *, name: str) -> None:
        self._supervisor = supervisor
        self._runtime = runtime
        self._config = config
        self._name = name
        self._started_ns = runtime.now_ns()

    async def GetNode(self, _request: pb.GetNodeRequest, _context: Any) -> pb.GetNodeResponse:  # noqa: N802
        """What the node is, has and does."""
        supervisor, node = self._supervisor, self._config.node
        build = self._runtime.engine.build_info()
        stats = await supervisor.stats()
        return pb.GetNodeResponse(
            name=self._name,
            version=build["version"],
            build=build,
            started_at=convert.timestamp(self._started_ns),
            capacity=pb.Capacity(
                processes_max=node.processes_max,
                processes=supervisor.running,
                queue_max=node.queue_max,
                queued=supervisor.queued,
                memory_bytes_max=supervisor.memory_bytes_max,
                memory_bytes=supervisor.memory_bytes,
            ),
            workers=[
                pb.Worker(
                    name=worker.name,
                    pid=worker.pid,
                    processes=len(worker.processes),
                    isolated=worker.isolated,
                    memory_bytes=stats.get(worker.name, {}).get("memory_bytes", 0),
                )
                for worker in supervisor.workers.workers.values()
            ],
            draining=supervisor.draining,
        )

    async def Drain(self, request: pb.DrainRequest, _context: Any) -> pb.DrainResponse:  # noqa: N802
        """Empties the node, or ends that."""
        if request.cancel:
            self._supervisor.draining = False
            return pb.DrainResponse()
        if not request.HasField("stop_after"):
            await self._supervisor.drain()
            return pb.DrainResponse()
        try:
            async with asyncio.timeout(convert.duration_ns(request.stop_after, "stop_after") / 1e9):
                await self._supervisor.drain()
        except TimeoutError:
            await self._supervisor.signal_all(SIGTERM)
            await self._supervisor.drain()
        return pb.DrainResponse()

    async def WhoAmI(self, _request: pb.WhoAmIRequest, _context: Any) -> pb.WhoAmIResponse:  # noqa: N802
        """Who the caller is."""
        identity = current.get()
        return pb.WhoAmIResponse(identity=identity.name, role=identity.role.name.lower())
