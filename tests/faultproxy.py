"""A proxy for TCP that fails as it is told to."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from typing import Literal, Self

Fault = Literal["none", "refuse", "reset", "error", "cut", "corrupt", "hang", "slow", "denied", "skewed"]
CHUNK_BYTES = 64 << 10
ANSWERS = {
    "error": ("503 Service Unavailable", "SlowDown"),
    "denied": ("403 Forbidden", "AccessDenied"),
    "skewed": ("403 Forbidden", "RequestTimeTooSkewed"),
}


class FaultProxy:
    """Carries connections to a port of the loopback. Each connection has the fault that is set when it is made."""

    def __init__(self, target: int) -> None:
        self.port = 0
        self.fault: Fault = "none"
        self.faults_left: int | None = None
        """Connections that fail still; None: all."""
        self.slow_s = 0.02
        """Between pieces of a `slow` connection."""
        self._target = target
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        self.hang_up()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def hang_up(self) -> None:
        """Ends all connections."""
        for task in self._tasks:
            task.cancel()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        fault: Fault = "none"
        if self.faults_left is None or self.faults_left > 0:
            fault = self.fault
            self.faults_left = None if self.faults_left is None or fault == "none" else self.faults_left - 1
        task = asyncio.create_task(self._carry_on(fault, reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda _: writer.transport.abort())  # also if it was cancelled before it began

    async def _carry_on(self, fault: Fault, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await self._serve(fault, reader, writer)

    async def _serve(self, fault: Fault, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if fault in ("refuse", "reset"):
            if fault == "reset":
                await reader.read(100)
            linger = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        elif fault == "hang":
            await asyncio.Event().wait()
        elif fault in ANSWERS:
            await reader.readuntil(b"\r\n\r\n")
            status, code = ANSWERS[fault]
            body = f"<Error><Code>{code}</Code><Message>by order</Message></Error>"
            head = f"HTTP/1.1 {status}\r\nContent-Type: application/xml\r\nConnection: close\r\n"
            writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode())
            await writer.drain()
            with contextlib.suppress(TimeoutError):  # what is still being sent would become a reset
                async with asyncio.timeout(0.5):
                    while await reader.read(CHUNK_BYTES):
                        pass
        else:
            there, back = await asyncio.open_connection("127.0.0.1", self._target)
            up = asyncio.create_task(self._carry(reader, back, fault))
            down = asyncio.create_task(self._carry(there, writer, fault if fault == "slow" else "none"))
            try:
                await asyncio.wait((up, down), return_when=asyncio.FIRST_COMPLETED)
            finally:
                back.transport.abort()
                up.cancel()
                down.cancel()
                await asyncio.gather(up, down, return_exceptions=True)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, fault: Fault) -> None:
        carried = 0
        while data := await reader.read(CHUNK_BYTES):
            carried += len(data)
            if fault == "cut" and carried > 20:
                return
            if fault == "corrupt" and carried > 50_000:  # one byte of a body
                data, fault = data[:-1] + bytes([data[-1] ^ 1]), "none"
            if fault == "slow":
                await asyncio.sleep(self.slow_s)
            writer.write(data)
            await writer.drain()
