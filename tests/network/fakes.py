"""A guest's end of the gateway without a guest, and what tests of the gateway share."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import functools
import itertools
import os
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from timecraftd.config import NetworkConfig
from timecraftd.network.gateway import Gateway, GuestNetwork
from timecraftd.network.rules import parse_policy

ANSWER_S_MAX = 10


@dataclass
class FakeEvent:
    """What the extension's events are."""

    kind: str
    id: int
    transport: str = "tcp"
    address: tuple[str, int] | None = None
    source: tuple[str, int] | None = None
    backlog: int = 0
    name: str = ""
    ipv4: bool = True
    ipv6: bool = True
    protocols: list[str] = field(default_factory=list)
    fd: int = -1


@dataclass
class FakeAnswer:
    """What the gateway answered: an errno, or the rest."""

    errno: str = ""
    connection: socket.socket | None = None
    local: tuple[str, int] | None = None
    peer: tuple[str, int] | None = None
    protocol: str = ""
    addresses: list[str] = field(default_factory=list)


class FakePort:
    """Keeps the contract of `NetworkPort`: no id is used again, an answer comes once, a descriptor has one owner."""

    def __init__(self) -> None:
        self._signal = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._events: list[FakeEvent] = []
        self._ids = itertools.count(1)
        self._pending: dict[int, concurrent.futures.Future[FakeAnswer]] = {}
        self._answers: dict[int, concurrent.futures.Future[FakeAnswer]] = {}
        self.listeners: dict[int, int] = {}
        """Listener to the room that it has."""
        self.delivered: dict[int, asyncio.Queue[FakeAnswer]] = {}

    # ---- the guest

    def ask(self, kind: str, **more: Any) -> int:
        """Asks for something; the request."""
        event = FakeEvent(kind, next(self._ids), **more)
        self._pending[event.id] = self._answers[event.id] = concurrent.futures.Future()
        self._push(event)
        return event.id

    def dial(self, host: str, port: int, transport: str = "tcp", source: tuple[str, int] | None = None) -> int:
        """Asks for a connection."""
        return self.ask("dial", address=(host, port), transport=transport, source=source)

    def listen(self, port: int, host: str = "0.0.0.0", transport: str = "tcp", backlog: int = 128) -> int:
        """Asks for what comes in."""
        request = self.ask("listen", address=(host, port), transport=transport, backlog=backlog)
        self.delivered[request] = asyncio.Queue()
        return request

    def close(self, request: int) -> None:
        """Loses interest in a request, or closes a listener."""
        self._pending.pop(request, None)
        self.listeners.pop(request, None)
        self._push(FakeEvent("closed", request))

    def make_room(self, request: int, room: int) -> None:
        """Accepts what was delivered."""
        self.listeners[request] = room
        self._push(FakeEvent("room", request))

    def end(self) -> None:
        """The guest is gone."""
        self._pending.clear()
        self.listeners.clear()
        self._push(FakeEvent("ended", 0))

    async def answer(self, request: int) -> FakeAnswer:
        """What the gateway answers."""
        return await asyncio.wait_for(asyncio.wrap_future(self._answers[request]), ANSWER_S_MAX)

    def answer_now(self, request: int) -> FakeAnswer:
        """The same, for tests without a loop."""
        return self._answers[request].result(ANSWER_S_MAX)

    def is_answered(self, request: int) -> bool:
        """Whether it has."""
        return self._answers[request].done()

    async def arrival(self, request: int) -> FakeAnswer:
        """The next connection that was delivered to a listener."""
        return await asyncio.wait_for(self.delivered[request].get(), ANSWER_S_MAX)

    def dispose(self) -> None:
        """Closes its own descriptor."""
        os.close(self._signal)

    def _push(self, event: FakeEvent) -> None:
        self._events.append(event)
        os.eventfd_write(self._signal, 1)

    # ---- the gateway

    def fileno(self) -> int:
        return self._signal

    def take(self) -> Sequence[FakeEvent]:
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._signal)
        events, self._events = self._events, []
        return events

    def refuse(self, request: int, errno: str) -> bool:
        return self._reply(request, FakeAnswer(errno))

    def connected(self, request: int, fd: int, local: Any, peer: Any, protocol: str = "") -> bool:
        connection = socket.socket(fileno=fd)
        connection.setblocking(False)
        if self._reply(request, FakeAnswer("", connection, local, peer, protocol)):
            return True
        connection.close()
        return False

    def listening(self, request: int) -> bool:
        self.listeners[request] = 1 << 20
        return self._reply(request, FakeAnswer())

    def deliver(self, request: int, fd: int, local: Any, peer: Any) -> bool:
        if not self.listeners.get(request, 0):
            return False
        self.listeners[request] -= 1
        connection = socket.socket(fileno=fd)
        self.delivered[request].put_nowait(FakeAnswer("", connection, local, peer))
        return True

    def bound(self, request: int, fd: int | None) -> bool:
        self.listeners[request] = 64
        return self._reply(request, FakeAnswer()) if fd is None else self.connected(request, fd, None, None)

    def addresses(self, request: int, addresses: Sequence[str]) -> bool:
        assert addresses
        return self._reply(request, FakeAnswer(addresses=list(addresses)))

    def _reply(self, request: int, answer: FakeAnswer) -> bool:
        waiting = self._pending.pop(request, None)
        if waiting is not None:
            waiting.set_result(answer)
        return waiting is not None


def in_loop(test: Callable[..., Any]) -> Callable[..., None]:
    """An asynchronous test, in a loop of its own and in a bounded time."""

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        asyncio.run(asyncio.wait_for(test(*args, **kwargs), 60))

    return run


@contextlib.asynccontextmanager
async def serve(*rules: str, lookup=None, neighbours=None, config=None, **more: Any):
    """(port, attachment) of one guest at a gateway of its own."""
    names = lookup if callable(lookup) else Names(lookup or {})
    gateway = Gateway(config or NetworkConfig(), lookup=names, neighbours=neighbours)
    port = FakePort()
    try:
        yield port, gateway.add(port, GuestNetwork("test", parse_policy(rules), **more))
    finally:
        await gateway.close()
        port.dispose()


class Names:
    """A resolver that knows what a test tells it."""

    def __init__(self, names: dict[str, list[str]]) -> None:
        self.names = names
        self.asked: list[str] = []

    def __call__(self, name: str, ipv4: bool, ipv6: bool) -> list[str]:
        self.asked.append(name)
        found = self.names.get(name)
        if found is None:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return found


@contextlib.contextmanager
def listener(family: socket.AddressFamily = socket.AF_INET, host: str = "127.0.0.1", backlog: int = 4096):
    """A TCP server's socket that accepts nothing by itself, and its port."""
    with socket.socket(family, socket.SOCK_STREAM) as server:
        server.bind((host, 0))
        server.listen(backlog)
        yield server, server.getsockname()[1]


def refused(attachment):
    """(subject, rule or reason) of what was refused, newest first."""
    return [(entry["subject"], entry["rule"] or entry["reason"]) for entry in attachment.snapshot()["refused"]]


def failed(attachment):
    """(subject, reason) of what failed, newest first."""
    return [(entry["subject"], entry["reason"]) for entry in attachment.snapshot()["failed"]]


async def until(condition):
    """Lets the loop work until something is so."""
    for _ in range(10_000):
        if condition():
            return
        await asyncio.sleep(0.001)
    raise AssertionError("it never was so")
