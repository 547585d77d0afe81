"""The gRPC server of a node."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from timecraftd.api.gate import Access, Gate, Observer
from timecraftd.api.module import ModuleService
from timecraftd.api.node import NodeService
from timecraftd.api.process import ProcessService
from timecraftd.api.record import RecordService
from timecraftd.api.tree import TreeService
from timecraftd.api.v1 import (
    module_pb2,
    module_pb2_grpc,
    node_pb2,
    node_pb2_grpc,
    process_pb2,
    process_pb2_grpc,
    record_pb2,
    record_pb2_grpc,
    tree_pb2,
    tree_pb2_grpc,
    view_pb2,
    view_pb2_grpc,
)
from timecraftd.api.view import ViewService
from timecraftd.errors import ConfigError

KEEPALIVE_MS = 60_000


@dataclass(frozen=True, slots=True)
class Services:
    """What the node offers."""

    processes: ProcessService
    modules: ModuleService
    node: NodeService
    records: RecordService
    views: ViewService
    trees: TreeService


@dataclass(frozen=True, slots=True)
class Certificates:
    """What a TLS listener shows and asks for, as PEM."""

    certificate: bytes
    key: bytes
    client_ca: bytes | None = None
    """Authorities of the certificates that clients must show; None: clients show none."""

    def of_grpc(self) -> Any:
        """The same, as gRPC has it."""
        return grpc.ssl_server_certificate_configuration([(self.key, self.certificate)], self.client_ca)


class Server:
    """Serves on gRPC's own socket behind the door, and over TLS if asked."""

    def __init__(
        self,
        services: Services,
        access: Access,
        observer: Observer,
        log: Callable[..., None],
        *,
        message_bytes_max: int,
        calls_max: int,
    ) -> None:
        self._server = grpc.aio.server(
            interceptors=[Gate(access, observer, log)],
            options=[
                ("grpc.max_receive_message_length", message_bytes_max),
                ("grpc.max_send_message_length", message_bytes_max),
                ("grpc.so_reuseport", 0),
                ("grpc.keepalive_time_ms", KEEPALIVE_MS),
                ("grpc.http2.min_ping_interval_without_data_ms", KEEPALIVE_MS // 4),
            ],
            maximum_concurrent_rpcs=calls_max,
        )
        self._health = health.aio.HealthServicer()
        self._renewed: Any = None
        add: list[tuple[Callable[..., None], object]] = [
            (process_pb2_grpc.add_ProcessServiceServicer_to_server, services.processes),
            (module_pb2_grpc.add_ModuleServiceServicer_to_server, services.modules),
            (node_pb2_grpc.add_NodeServiceServicer_to_server, services.node),
            (record_pb2_grpc.add_RecordServiceServicer_to_server, services.records),
            (view_pb2_grpc.add_ViewServiceServicer_to_server, services.views),
            (tree_pb2_grpc.add_TreeServiceServicer_to_server, services.trees),
            (health_pb2_grpc.add_HealthServicer_to_server, self._health),
        ]
        for add_to, service in add:
            add_to(service, self._server)
        names = [
            descriptor.services_by_name[name].full_name
            for descriptor, name in (
                (process_pb2.DESCRIPTOR, "ProcessService"),
                (module_pb2.DESCRIPTOR, "ModuleService"),
                (node_pb2.DESCRIPTOR, "NodeService"),
                (record_pb2.DESCRIPTOR, "RecordService"),
                (view_pb2.DESCRIPTOR, "ViewService"),
                (tree_pb2.DESCRIPTOR, "TreeService"),
                (health_pb2.DESCRIPTOR, "Health"),
            )
        ]
        reflection.enable_server_reflection([*names, reflection.SERVICE_NAME], self._server)

    def listen_inside(self, path: str) -> None:
        """Listens where only the door comes."""
        self._server.add_insecure_port(f"unix:{path}")

    def listen_tls(self, address: str, certificates: Certificates) -> int:
        """Listens for TLS at HOST:PORT; the port. Raises ConfigError."""
        credentials = grpc.dynamic_ssl_server_credentials(
            certificates.of_grpc(),
            self._take_renewed,
            # gRPC in Python can't ask for a certificate without demanding it.
            require_client_authentication=certificates.client_ca is not None,
        )
        try:
            port: int = self._server.add_secure_port(address, credentials)
        except RuntimeError as error:
            raise ConfigError(f"node.listen {address}: {error}", "choose an address and port that are free") from None
        return port

    def renew(self, certificates: Certificates) -> None:
        """Later connections get these; whether clients must show certificates stays as it was."""
        self._renewed = certificates.of_grpc()

    def _take_renewed(self) -> Any:
        renewed, self._renewed = self._renewed, None
        return renewed

    async def start(self) -> None:
        """Serves from now on."""
        await self._server.start()
        await self._set(health_pb2.HealthCheckResponse.SERVING)

    async def refuse(self) -> None:
        """Tells health checks that nothing new is to come."""
        await self._set(health_pb2.HealthCheckResponse.NOT_SERVING)

    async def stop(self, grace_s: float) -> None:
        """Lets calls end, for so long."""
        await self._server.stop(grace_s)

    async def _set(self, status: Any) -> None:
        await asyncio.gather(*(self._health.set(name, status) for name in ("", "timecraft.v1.ProcessService")))
