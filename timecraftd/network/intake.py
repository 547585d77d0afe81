"""What is on its way in: connections from published ports of the host, connections and flows of datagrams from
neighbouring guests, to a guest's listeners and bound sockets."""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import Any

from timecraftd.network.addresses import Address, parse_address
from timecraftd.network.guest import Guest, subject
from timecraftd.network.neighbours import PREAMBLE_BYTES, parse_preamble
from timecraftd.network.policy import Peer, Transport
from timecraftd.network.port import os_error

PREAMBLE_S_MAX = 1.0
"""A caller sends its preamble before it hands the connection to its guest."""
ACCEPT_PAUSE_S = 0.2
"""How long to leave off when no connection can be accepted, for want of descriptors."""


class Intake:
    """What comes in to one port of a guest.

    Connections wait in the kernel's backlog until the guest listens, and again while its own backlog is full; one of
    each way in is held here meanwhile. Flows of datagrams that a guest has no room for are closed.
    """

    def __init__(self, guest: Guest, port: int, transport: Transport) -> None:
        self._guest = guest
        self._port = port
        self._transport = transport
        self._listeners: dict[int, int] = {}
        self._changed = asyncio.Event()

    @property
    def is_listening(self) -> bool:
        """Whether the guest listens."""
        return bool(self._listeners)

    def opened(self, listener: int, version: int) -> None:
        """The guest listens, by a version of IP."""
        self._listeners[listener] = version
        self._changed.set()

    def closed(self, listener: int) -> None:
        """It has closed that listener."""
        self._listeners.pop(listener, None)

    def has_room(self) -> None:
        """A listener that had refused a connection would take one."""
        self._changed.set()

    async def serve_published(self, listener: socket.socket) -> None:
        """Hands in what connects to a socket of the host, until cancelled."""
        while True:
            connection, (text, port, *_) = await self._accept(listener)
            address = parse_address(text.partition("%")[0])
            peer = Peer(address, self._port, self._transport, host=address.is_loopback)
            await self._admit(connection, peer, port)

    async def serve_neighbours(self, listener: socket.socket) -> None:
        """Hands in what connects to the Unix socket of the port, until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            connection, _ = await self._accept(listener)
            try:
                async with asyncio.timeout(PREAMBLE_S_MAX):
                    preamble = b""
                    while len(preamble) < PREAMBLE_BYTES:
                        data = await loop.sock_recv(connection, PREAMBLE_BYTES - len(preamble))
                        if not data:
                            raise ConnectionResetError
                        preamble += data
                caller = parse_preamble(preamble)
            except (OSError, ValueError, TimeoutError):
                connection.close()
                continue
            except BaseException:
                connection.close()
                raise
            address = self._guest.network.address(caller.number, caller.version)
            peer = Peer(address, self._port, self._transport, guest=self._guest.neighbour_name(caller.number))
            await self._admit(connection, peer, caller.port, caller.number)

    async def _accept(self, listener: socket.socket) -> tuple[socket.socket, Any]:
        """The next connection, once the guest listens."""
        loop = asyncio.get_running_loop()
        while True:
            while not self._listeners:
                self._changed.clear()
                await self._changed.wait()
            try:
                connection, peer = await loop.sock_accept(listener)
            except ConnectionError:
                continue
            except OSError as error:
                self._guest.decisions.failed("accept", f"{self._transport} :{self._port}", os_error(error))
                await asyncio.sleep(ACCEPT_PAUSE_S)
                continue
            return connection, peer

    async def _admit(self, connection: socket.socket, peer: Peer, port: int, number: int | None = None) -> None:
        """Decides on a connection from a port of the peer, and hands it in. Owns it."""
        try:
            decision = self._guest.policy.decide("in", peer)
            self._guest.decisions.decided("accept", subject(peer, inward=True), decision)
            if decision.allowed:
                await self._deliver(connection, peer.address, port, number)
            else:
                reset(connection)
            await asyncio.sleep(0)  # a flood of connections mustn't keep the loop from its other work
        except BaseException:
            reset(connection)
            raise

    async def _deliver(self, connection: socket.socket, address: Address, port: int, number: int | None) -> None:
        while True:
            self._changed.clear()
            listener = self._choose(address.version)
            if listener is not None:
                version = self._listeners[listener]
                local = (self._guest.own_address(version), self._port)
                peer = (self._guest.shown(address, version, number), port)
                if self._guest.port.deliver(listener, connection.fileno(), local, peer):
                    connection.detach()
                    return
            if self._transport == "udp":
                reset(connection)
                return
            await self._changed.wait()

    def _choose(self, version: int) -> int | None:
        """The listener for a version of IP, else any."""
        chosen = None
        for listener, its_version in self._listeners.items():
            if its_version == version:
                return listener
            chosen = listener
        return chosen


def reset(connection: socket.socket) -> None:
    """Closes a connection so that the peer is told that nobody took it. Idempotent."""
    if connection.fileno() >= 0:
        if connection.family != socket.AF_UNIX:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()
