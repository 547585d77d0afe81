"""The networks of guests that this process of the host runs: joins gateway, engine and what a run was asked to be."""

from __future__ import annotations

import json
import os
import re
import socket
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from timecraftd.engine.spec import SocketSpec
from timecraftd.errors import NetworkError, StateError, UsageError
from timecraftd.network.gateway import GuestNetwork
from timecraftd.network.neighbours import GuestDirectory
from timecraftd.network.policy import Policy
from timecraftd.network.publish import parse_publication
from timecraftd.network.rules import parse_rule
from timecraftd.network.thread import GatewayThread
from timecraftd.network.virtual import GUEST_NUMBER_MIN, VirtualNetwork
from timecraftd.registry.home import write_atomically

if TYPE_CHECKING:
    from timecraftd.config import NetworkConfig
    from timecraftd.engine.request import NetworkRequest
    from timecraftd.engine.runtime import Engine, NetworkPort
    from timecraftd.network.neighbours import Member
    from timecraftd.network.thread import ServedGuest

LISTEN_BACKLOG = 4096
_ADDRESS = re.compile(r"(?:tcp://)?(\[[^\]]*\]|[^:/\[\]]*):([0-9]{1,5})")


class HostNetwork:
    """The network of one guest, from before its run until after it."""

    def __init__(
        self,
        request: NetworkRequest,
        *,
        engine: Engine,
        config: NetworkConfig,
        name: str,
        process_dir: str,
        home: str,
        resumed: bool,
    ) -> None:
        """Opens and binds all that was asked for; connections of a process that is resumed are dead.

        Raises NetworkError, UsageError; nothing is open then.
        """
        self.port: NetworkPort | None = None
        self._config = replace(config, ca_file=request.ca_file or config.ca_file)
        self._process_dir = process_dir
        self._name = name
        self._sockets: list[socket.socket] = []
        self._thread: GatewayThread | None = None
        self._served: ServedGuest | None = None
        self._member: Member | None = None
        self._written = b""
        self.decisions: dict[str, int] = {}
        """How often it was granted, refused or failed something, as last written down."""
        try:
            self.listeners = tuple(self._listen(text) for text in request.listen)
            self.dials = tuple(_dead(text) if resumed else self._dial(text) for text in request.dial)
            if request.rules or request.publish:
                self._serve(request, engine, home)
            self.write_state()
        except BaseException:
            self.close()
            raise

    @property
    def published(self) -> tuple[str, ...]:
        """What is published, with the ports that were chosen."""
        return () if self._served is None else tuple(str(each) for each in self._served.published)

    def began(self) -> None:
        """The guest has duplicates of its pre-opened sockets now."""
        for each in self._sockets:
            each.close()
        self._sockets.clear()

    def write_state(self) -> None:
        """Writes down what was granted and refused so far, if that has changed and there is room."""
        if self._served is None:
            return
        state = self._served.snapshot()
        self.decisions = state["totals"]
        state["number"] = None if self._member is None else self._member.number
        data = json.dumps(state).encode()
        if data != self._written:
            # A full disk is the log's to complain about; this is written again when it changes.
            with suppress(StateError, OSError):
                write_atomically(os.path.join(self._process_dir, "network.json"), data)
                self._written = data

    def close(self) -> None:
        """Takes leave of the network. Idempotent."""
        self.began()
        if self._thread is not None:
            self._thread.stop()
            self._thread = None
        if self._member is not None:
            self._member.leave()

    def _serve(self, request: NetworkRequest, engine: Engine, home: str) -> None:
        policy = Policy(tuple(parse_rule(text, origin) for text, origin in request.rules))
        published = tuple(parse_publication(text) for text in request.publish)
        virtual = VirtualNetwork.of(self._config.guests_ipv4, self._config.guests_ipv6)
        directory = GuestDirectory(os.path.join(home, "guests"), virtual)
        number = GUEST_NUMBER_MIN
        # A guest that no rule lets speak with others isn't seen by them either.
        if any(rule.target.kind == "guest" for rule in policy.rules):
            before = read_state(self._process_dir) or {}
            self._member = directory.join(self._name, before.get("number"))
            number = self._member.number
        self._thread = GatewayThread(self._config, neighbours=directory)
        self._thread.start()
        self.port = engine.network_port(*map(str, virtual.addresses(number)))
        label = self._name or os.path.basename(self._process_dir)
        self._served = self._thread.add(self.port, GuestNetwork(label, policy, published, self._member))

    def _listen(self, text: str) -> SocketSpec:
        host, port = parse_endpoint(text, "-L")
        try:
            # An empty host is all addresses: IPv6's unspecified one takes IPv4 too.
            family = socket.AF_INET6 if ":" in host or (not host and socket.has_dualstack_ipv6()) else socket.AF_INET
            listener = socket.create_server(
                (host, port),
                family=family,
                backlog=LISTEN_BACKLOG,
                dualstack_ipv6=not host and family == socket.AF_INET6,
            )
        except OSError as error:
            raise NetworkError(
                f"-L {text}: {_reason(error)}", "choose another port, or 0 for any that is free"
            ) from None
        self._sockets.append(listener)
        return SocketSpec(listener.fileno(), text, _endpoint(listener.getsockname()), None)

    def _dial(self, text: str) -> SocketSpec:
        host, port = parse_endpoint(text, "-D")
        try:
            connection = socket.create_connection((host, port), self._config.connect_s_max)
        except OSError as error:
            raise NetworkError(f"-D {text}: {_reason(error)}", "see that something listens there") from None
        self._sockets.append(connection)
        local, peer = _endpoint(connection.getsockname()), _endpoint(connection.getpeername())
        return SocketSpec(connection.fileno(), text, local, peer)


def _dead(text: str) -> SocketSpec:
    """A connection that ended with its host."""
    nowhere = ("0.0.0.0", 0)  # noqa: S104 - no address, and nobody binds it
    return SocketSpec(-1, text, nowhere, nowhere)


def read_state(process_dir: str) -> dict[str, Any] | None:
    """What `HostNetwork.write_state` wrote; None if there is nothing."""
    try:
        with open(os.path.join(process_dir, "network.json"), "rb") as file:
            state: dict[str, Any] = json.load(file)
            return state
    except (OSError, ValueError):
        return None


def parse_endpoint(text: str, flag: str) -> tuple[str, int]:
    """Host and port of `[tcp://]HOST:PORT`; an empty host is all of this one's addresses. Raises UsageError."""
    found = _ADDRESS.fullmatch(text)
    if found is None or int(found[2]) > 65535:
        raise UsageError(f"{flag} {text!r}: isn't HOST:PORT", f"write it like {flag} 127.0.0.1:8080 or {flag} [::1]:80")
    return found[1].strip("[]"), int(found[2])


def _endpoint(address: tuple[Any, ...]) -> tuple[str, int]:
    """Of a socket's address: the family is the text's."""
    return address[0].partition("%")[0], address[1]


def _reason(error: OSError) -> str:
    return error.strerror or str(error)
