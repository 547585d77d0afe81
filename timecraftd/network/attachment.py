"""One guest at the gateway: takes what it asks for, and answers."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections import deque
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass
from typing import Any

from timecraftd.config import NetworkConfig
from timecraftd.network import dial
from timecraftd.network.answers import Answers
from timecraftd.network.decisions import What, logger
from timecraftd.network.guest import Guest, subject
from timecraftd.network.intake import Intake
from timecraftd.network.lookups import Lookups, gai_errno
from timecraftd.network.names import normalise_name, printable
from timecraftd.network.policy import Transport
from timecraftd.network.port import Endpoint, NetworkEvent, os_error, wasi_errno
from timecraftd.network.publish import Published
from timecraftd.network.resolve import RefusedError, Resolver
from timecraftd.network.tls import Contexts, Session, TlsError

Place = tuple[Transport, int]
"""One of a guest's ports."""

PORT_CHOSEN_MIN = 49152
EVENTS_MAX = 64
"""Of one guest that are handled before others have their turn."""


@dataclass(frozen=True, slots=True)
class Services:
    """What all guests of a gateway share."""

    config: NetworkConfig
    lookups: Lookups
    contexts: Contexts
    dials: asyncio.Semaphore
    monotonic: Callable[[], float] = time.monotonic


class Attachment:
    """A guest that is being served. Lives on the gateway's loop."""

    def __init__(self, guest: Guest, services: Services, published: list[Published]) -> None:
        """Owns the published sockets and the guest's membership from now on."""
        config = services.config
        self.guest = guest
        self.published = published
        self.ended = asyncio.Event()
        """Set when the guest is gone, by it or by who wants it to be."""
        self.hurry = asyncio.Event()
        """Set when nobody waits for TLS connections any longer."""
        self._services = services
        self._port = guest.port
        self._answers = Answers(config.names_max, config.names_s_max, services.monotonic)
        self._resolver = Resolver(guest, self._answers, services.lookups, services.monotonic)
        self._dials = asyncio.Semaphore(config.dials_max // 2)
        self._next_port = PORT_CHOSEN_MIN
        self._requests: dict[int, asyncio.Task[None]] = {}
        self._relays: set[asyncio.Task[None]] = set()
        self._intakes: dict[Place, Intake] = {}
        self._listeners: dict[int, Place] = {}
        self._neighbours: dict[Place, asyncio.Task[None]] = {}
        """What serves neighbours there."""
        self._events: deque[NetworkEvent] = deque()
        """Taken, but not handled yet."""
        self._loop = asyncio.get_running_loop()
        self._servers = [self._task(self._serve(each, listener)) for each in published for listener in each.listeners]
        self._loop.add_reader(self._port.fileno(), self._take)

    async def close(self, linger_s: float) -> None:
        """Withdraws all requests and closes what is open. TLS connections may take a while to send what they hold."""
        self._loop.remove_reader(self._port.fileno())
        for event in self._events:
            if event.fd >= 0:
                os.close(event.fd)
        self._events.clear()
        tasks = [*self._requests.values(), *self._servers, *self._neighbours.values()]
        for place in list(self._neighbours):
            self._stop_neighbours(place)
        await _cancelled(tasks)
        for each in self.published:
            each.close()
        if self.guest.member is not None:
            self.guest.member.leave()
        if self._relays:
            hurry = self._task(self._until_hurry())
            sent = self._task(_all_done(self._relays))
            await asyncio.wait({sent, hurry}, timeout=linger_s, return_when=asyncio.FIRST_COMPLETED)
            await _cancelled([hurry, sent, *self._relays])

    def snapshot(self) -> dict[str, Any]:
        """The guest's network as JSON: addresses, published ports, and what was decided."""
        return {
            "addresses": [self.guest.own_address(4), self.guest.own_address(6)],
            "published": [str(each.publication) for each in self.published],
            **self.guest.decisions.snapshot(),
        }

    async def _until_hurry(self) -> None:
        await self.hurry.wait()

    # ---- what the guest asks for

    def _take(self) -> None:
        was_idle = not self._events
        self._events += self._port.take()
        if was_idle:
            self._work()

    def _work(self) -> None:
        """Handles some of what the guest asks for; others have their turn before the rest."""
        for _ in range(min(len(self._events), EVENTS_MAX)):
            event = self._events.popleft()
            try:
                self._handle(event)
            except Exception:  # noqa: BLE001 (one request's trouble mustn't be the others')
                logger.exception("a guest's request failed in the gateway")
                self._port.refuse(event.id, "EIO")
        if self._events:
            self._loop.call_soon(self._work)

    def _handle(self, event: NetworkEvent) -> None:
        match event.kind:
            case "dial":
                self._dial(event)
            case "resolve":
                self._start(event.id, self._resolve(event))
            case "listen":
                self._listen(event)
            case "secure":
                raw = socket.socket(fileno=event.fd)
                self._start(event.id, self._secure(event, raw), otherwise=raw.close)
            case "room":
                if event.id in self._listeners:
                    self._intakes[self._listeners[event.id]].has_room()
            case "closed":
                self._closed(event.id)
            case "ended":
                self._loop.remove_reader(self._port.fileno())
                self.ended.set()

    def _closed(self, request: int) -> None:
        if request in self._requests:
            self._requests[request].cancel()
        place = self._listeners.pop(request, None)
        if place is not None:
            self._intakes[place].closed(request)
            if not self._intakes[place].is_listening:
                self._stop_neighbours(place)

    def _start(
        self, request: int, work: Coroutine[Any, Any, None], *, otherwise: Callable[[], None] | None = None
    ) -> None:
        """Works on a request; `otherwise` is called if that is cancelled or fails."""

        def done(task: asyncio.Task[None]) -> None:
            del self._requests[request]
            if task.cancelled() or task.exception():
                if otherwise is not None:
                    otherwise()
                self._port.refuse(request, "ECANCELED" if task.cancelled() else "EIO")

        self._requests[request] = self._task(work)
        self._requests[request].add_done_callback(done)

    def _task(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self._loop.create_task(work)
        task.add_done_callback(_log_failure)
        return task

    # ---- dialling

    def _dial(self, event: NetworkEvent) -> None:
        assert event.address is not None, "a dial leads somewhere"
        try:
            route = dial.route(self.guest, self._answers, event.address, event.transport)
        except ValueError:
            self._port.refuse(event.id, "EINVAL")
            return
        decision = self.guest.policy.decide("out", route.peer)
        self.guest.decisions.decided("dial", subject(route.peer), decision)
        if not decision.allowed:
            self._port.refuse(event.id, "EACCES")
        elif route.number is not None and route.neighbour is None:
            self._fail(event, "dial", subject(route.peer), "EHOSTUNREACH", "no such guest is running")
        elif event.transport == "udp" and route.neighbour is None:
            try:
                self._connected(event, dial.connect_datagrams(route.peer))
            except OSError as error:
                self._fail(event, "dial", subject(route.peer), wasi_errno(error.errno), os_error(error))
        else:
            self._start(event.id, self._connect(event, route))

    async def _connect(self, event: NetworkEvent, route: dial.Route) -> None:
        timeout_s = self._services.config.connect_s_max
        try:
            async with self._dials, self._services.dials, asyncio.timeout(timeout_s):
                if route.neighbour is not None:
                    source = (event.source and event.source[1]) or self._choose_port()
                    connection = await dial.call(self.guest, route.neighbour, route.peer, source)
                    self._connected(event, connection, source)
                else:
                    self._connected(event, await dial.connect(route.peer))
        except TimeoutError:
            self._fail(event, "dial", subject(route.peer), "ETIMEDOUT", f"no answer within {timeout_s:g} s")
        except OSError as error:
            self._fail(event, "dial", subject(route.peer), wasi_errno(error.errno), os_error(error))

    def _connected(self, event: NetworkEvent, connection: socket.socket, source: int = 0) -> None:
        """Hands over a connection. The guest sees its own address, and whom it has dialled."""
        assert event.address is not None, "a dial leads somewhere"
        port = source or (event.source and event.source[1]) or connection.getsockname()[1]
        local = (self.guest.own_address(_version(event.address)), port)
        self._port.connected(event.id, connection.detach(), local, event.address)

    def _choose_port(self) -> int:
        """A port for a connection that has none of the host's."""
        chosen = self._next_port
        self._next_port = chosen + 1 if chosen < 65535 else PORT_CHOSEN_MIN
        return chosen

    def _fail(self, event: NetworkEvent, what: What, about: str, errno: str, reason: str) -> None:
        """Something that was granted doesn't work."""
        self.guest.decisions.failed(what, about, reason)
        self._port.refuse(event.id, errno)

    # ---- names

    async def _resolve(self, event: NetworkEvent) -> None:
        timeout_s = self._services.config.lookup_s_max
        about = printable(event.name)
        try:
            name = normalise_name(event.name)
            found = self._resolver.known(name)
            if found is None:
                async with asyncio.timeout(timeout_s):
                    found = await self._resolver.look_up(name, event.ipv4, event.ipv6)
            wanted = [str(each) for each in found if (event.ipv4 if each.version == 4 else event.ipv6)]
            if wanted:
                self._port.addresses(event.id, wanted)
            else:
                self._port.refuse(event.id, "ENOENT")
        except RefusedError as refused:
            if refused.reason:
                self.guest.decisions.failed("resolve", about, refused.reason)
            self._port.refuse(event.id, refused.errno)
        except ValueError as error:
            self._fail(event, "resolve", about, "ENOENT", f"the name {error}")
        except TimeoutError:
            self._fail(event, "resolve", about, "ETIMEDOUT", f"no answer within {timeout_s:g} s")
        except socket.gaierror as error:
            self._fail(event, "resolve", about, gai_errno(error), str(error.args[-1]))
        except OSError as error:
            self._fail(event, "resolve", about, wasi_errno(error.errno), os_error(error))

    # ---- listening

    def _listen(self, event: NetworkEvent) -> None:
        assert event.address is not None, "a listener listens somewhere"
        place, version = (event.transport, event.address[1]), _version(event.address)
        published = [each for each in self.published if each.leads_to(place[1], event.transport)]
        datagrams = next((each.sockets[version] for each in published if version in each.sockets), None)
        is_published = bool(published) if event.transport == "tcp" else datagrams is not None
        self._meet_neighbours(place)
        if not is_published and place not in self._neighbours:
            self._port.refuse(event.id, "EADDRNOTAVAIL")  # nobody could reach it
        elif self._opened(event, datagrams):
            self._listeners[event.id] = place
            self._intake(place).opened(event.id, version)
        elif not self._intake(place).is_listening:
            self._stop_neighbours(place)

    def _opened(self, event: NetworkEvent, datagrams: socket.socket | None) -> bool:
        """Whether the guest still wanted to be reachable."""
        if event.transport == "tcp":
            return self._port.listening(event.id)
        # The guest may close it and bind again, so it gets a duplicate.
        return self._port.bound(event.id, None if datagrams is None else os.dup(datagrams.fileno()))

    def _meet_neighbours(self, place: Place) -> None:
        """Lets neighbours reach a port, if there are any."""
        transport, port = place
        if self.guest.member is None or place in self._neighbours:
            return
        try:
            listener = self.guest.member.listen(port, transport)
        except OSError as error:
            reason = f"neighbours can't reach it: {os_error(error)}"
            self.guest.decisions.failed("listen", f"{transport} port {port}", reason)
        else:
            task = self._neighbours[place] = self._task(self._intake(place).serve_neighbours(listener))
            task.add_done_callback(lambda _: listener.close())

    def _intake(self, place: Place) -> Intake:
        if place not in self._intakes:
            self._intakes[place] = Intake(self.guest, place[1], place[0])
        return self._intakes[place]

    async def _serve(self, published: Published, listener: socket.socket) -> None:
        await self._intake(("tcp", published.publication.guest_port)).serve_published(listener)

    def _stop_neighbours(self, place: Place) -> None:
        task = self._neighbours.pop(place, None)
        if task is not None and self.guest.member is not None:
            self.guest.member.unlisten(place[1], place[0])
            task.cancel()

    # ---- TLS

    async def _secure(self, event: NetworkEvent, raw: socket.socket) -> None:
        about = printable(event.name)
        try:
            session = Session(raw, await self._services.contexts.get(event.protocols), event.name)
            await session.handshake(self._services.config.handshake_s_max)
        except TlsError as error:
            raw.close()
            self._fail(event, "secure", about, error.errno, error.reason)
            return
        plain, theirs = socket.socketpair()
        plain.setblocking(False)

        def close(_: object) -> None:
            raw.close()
            plain.close()

        # The guest's host keeps the addresses that the connection has.
        nowhere = (self.guest.own_address(4), 0)
        if self._port.connected(event.id, theirs.detach(), nowhere, nowhere, session.protocol):
            relay = self._task(self._relay(session, plain, about))
            self._relays.add(relay)
            relay.add_done_callback(self._relays.discard)
            relay.add_done_callback(close)
        else:
            close(None)

    async def _relay(self, session: Session, plain: socket.socket, about: str) -> None:
        trouble = await session.relay(plain)
        if trouble:
            self.guest.decisions.failed("secure", about, trouble)


def _version(address: Endpoint) -> int:
    """The version of IP by which a guest speaks."""
    return 6 if ":" in address[0] else 4


def _log_failure(task: asyncio.Task[None]) -> None:
    error = None if task.cancelled() else task.exception()
    if error is not None:
        logger.error("a task of the gateway failed", exc_info=error)


async def _all_done(tasks: Iterable[asyncio.Task[None]]) -> None:
    await asyncio.wait(list(tasks))


async def _cancelled(tasks: Iterable[asyncio.Task[None]]) -> None:
    """Cancels tasks and waits for their end."""
    tasks = list(tasks)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
