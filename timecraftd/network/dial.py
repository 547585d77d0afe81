"""Connections on their way out."""

from __future__ import annotations

import asyncio
import socket
from dataclasses import dataclass

from timecraftd.network.addresses import canonical, parse_address
from timecraftd.network.answers import Answers
from timecraftd.network.guest import Guest
from timecraftd.network.neighbours import Caller, Neighbour
from timecraftd.network.policy import Peer, Transport
from timecraftd.network.port import Endpoint
from timecraftd.network.virtual import HOST_NUMBER

_LOOPBACK = {4: parse_address("127.0.0.1"), 6: parse_address("::1")}
_FAMILY = {4: socket.AF_INET, 6: socket.AF_INET6}


@dataclass(frozen=True, slots=True)
class Route:
    """Where a guest's address leads."""

    peer: Peer
    number: int | None = None
    """Of the guest that it is."""
    neighbour: Neighbour | None = None
    """That guest, if it runs."""


def route(guest: Guest, answers: Answers, to: Endpoint, transport: Transport) -> Route:
    """Where an address leads that a guest has dialled. Raises ValueError."""
    address, port = canonical(parse_address(to[0])), to[1]
    number = guest.network.number(address)
    if number == HOST_NUMBER:
        return Route(Peer(_LOOPBACK[address.version], port, transport, host=True))
    if number is not None and guest.neighbours is not None:
        neighbour = guest.neighbours.at(number)
        peer = Peer(address, port, transport, guest=neighbour.name if neighbour else "")
        return Route(peer, number, neighbour)
    return Route(Peer(address, port, transport, answers.names_of(address)))


async def connect(peer: Peer) -> socket.socket:
    """A TCP connection. Raises OSError."""
    connection = socket.socket(_FAMILY[peer.address.version], socket.SOCK_STREAM)
    try:
        connection.setblocking(False)
        await asyncio.get_running_loop().sock_connect(connection, (str(peer.address), peer.port))
    except BaseException:
        connection.close()
        raise
    return connection


def connect_datagrams(peer: Peer) -> socket.socket:
    """A UDP socket that speaks with one peer. Raises OSError."""
    flow = socket.socket(_FAMILY[peer.address.version], socket.SOCK_DGRAM)
    try:
        flow.setblocking(False)
        flow.connect((str(peer.address), peer.port))
    except BaseException:
        flow.close()
        raise
    return flow


async def call(guest: Guest, neighbour: Neighbour, peer: Peer, port: int) -> socket.socket:
    """A connection, or a flow of datagrams, to a neighbouring guest from a port. Raises OSError."""
    assert guest.neighbours is not None, "who has a neighbour has neighbours"
    caller = Caller(guest.number, port, peer.address.version)
    return await guest.neighbours.connect(neighbour, peer.port, peer.transport, caller)
