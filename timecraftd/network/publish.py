"""Ports of the host that lead to ports of a guest: their text, and the sockets, bound before the guest runs."""

from __future__ import annotations

import errno
import re
import socket
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import get_args

from timecraftd.errors import NetworkError, UsageError
from timecraftd.network.addresses import endpoint, parse_address
from timecraftd.network.policy import Policy, Rule, Transport
from timecraftd.network.port import os_error
from timecraftd.network.rules import format_rule

BACKLOG_MAX = 4096
CHOOSE_ATTEMPTS_MAX = 16

_PUBLICATION = re.compile(r"(?:(\[[^\]]*\]|[^:\[\]]*):)?([0-9]{1,5}):([0-9]{1,5})(?:/([a-z]+))?")
_ANY = {4: "0.0.0.0", 6: "::"}  # noqa: S104 (what publishing means)


@dataclass(frozen=True, slots=True)
class Publication:
    """A port of the host that leads to one of the guest."""

    host: str
    """IP address; empty: all of the host's."""
    host_port: int
    """0: any that is free."""
    guest_port: int
    transport: Transport = "tcp"

    def __str__(self) -> str:
        host = f"[{self.host}]:" if ":" in self.host else f"{self.host}:" if self.host else ""
        return f"{host}{self.host_port}:{self.guest_port}" + ("/udp" if self.transport == "udp" else "")


@dataclass(slots=True)
class Published:
    """A publication with its sockets, one for each version of IP. TCP ones listen: connections wait for the guest."""

    publication: Publication
    """With the port that was chosen."""
    sockets: dict[int, socket.socket]

    @property
    def listeners(self) -> list[socket.socket]:
        """The sockets that listen: those of TCP."""
        return list(self.sockets.values()) if self.publication.transport == "tcp" else []

    def leads_to(self, guest_port: int, transport: Transport) -> bool:
        """Whether it is a port of the guest's that is meant."""
        return (self.publication.guest_port, self.publication.transport) == (guest_port, transport)

    def close(self) -> None:
        """Gives the port up. Idempotent."""
        for each in self.sockets.values():
            each.close()


def parse_publication(text: str) -> Publication:
    """`[IP:]HOST:GUEST[/udp]`, IPv6 in brackets. Raises UsageError."""
    found = _PUBLICATION.fullmatch(text)
    if found is None:
        next_step = "write it like 8080:80, 127.0.0.1:8080:80, [::1]:8080:80 or 53:53/udp"
        raise UsageError(f"-p {text!r}: isn't [IP:]HOST:GUEST[/udp]", next_step)
    host = (found[1] or "").strip("[]")
    transport = next((each for each in get_args(Transport) if each == (found[4] or "tcp")), None)
    if transport is None:
        raise UsageError(f"-p {text!r}: {found[4]!r} isn't tcp or udp", "leave it out for tcp")
    host_port, guest_port = int(found[2]), int(found[3])
    if host_port > 65535 or not 1 <= guest_port <= 65535:
        raise UsageError(f"-p {text!r}: has a port that isn't", "ports go to 65535; 0 on the left chooses a free one")
    try:
        host = str(parse_address(host)) if host else ""
    except ValueError:
        raise UsageError(f"-p {text!r}: {host!r} isn't an IP address", "give an address of this host") from None
    return Publication(host, host_port, guest_port, transport)


def publish(publications: Iterable[Publication], policy: Policy) -> list[Published]:
    """Binds all of them, or none. Raises NetworkError."""
    published: list[Published] = []
    try:
        for publication in publications:
            if publication.transport == "udp":
                _check_datagrams(publication, policy)
            published.append(_bind(publication))
        _check_twice(published)
    except BaseException:
        for each in published:
            each.close()
        raise
    return published


def _bind(publication: Publication) -> Published:
    versions = [parse_address(publication.host).version] if publication.host else [4, 6]
    for attempt in range(CHOOSE_ATTEMPTS_MAX):
        port, sockets = publication.host_port, dict[int, socket.socket]()
        try:
            for version in versions:
                try:
                    sockets[version] = _socket(publication, version, port)
                except OSError as error:
                    is_last = version == versions[-1] and not sockets
                    if is_last or error.errno not in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
                        raise
                    continue  # a host that speaks one version of IP only
                port = sockets[version].getsockname()[1]
            return Published(replace(publication, host_port=port), sockets)
        except OSError as error:
            for each in sockets.values():
                each.close()
            # A port that is free for IPv4 needn't be for IPv6.
            chosen_anew = (
                publication.host_port == 0 and error.errno == errno.EADDRINUSE and attempt < CHOOSE_ATTEMPTS_MAX
            )
            if not chosen_anew:
                raise _refusal(publication, error) from None
    raise NetworkError(f"-p {publication}: found no free port", "name one")


def _socket(publication: Publication, version: int, port: int) -> socket.socket:
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    is_stream = publication.transport == "tcp"
    bound = socket.socket(family, socket.SOCK_STREAM if is_stream else socket.SOCK_DGRAM)
    try:
        bound.setblocking(False)
        if version == 6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if is_stream:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((publication.host or _ANY[version], port))
        if is_stream:
            bound.listen(BACKLOG_MAX)
    except BaseException:
        bound.close()
        raise
    return bound


def _refusal(publication: Publication, error: OSError) -> NetworkError:
    where = endpoint(publication.host or "*", publication.host_port)
    if error.errno == errno.EADDRINUSE:
        reason, next_step = "the port is in use", "end what uses it, publish another one, or port 0 for any"
    elif error.errno == errno.EACCES:
        reason, next_step = "the port is reserved for the superuser", "publish one above 1023, or port 0 for any"
    elif error.errno == errno.EADDRNOTAVAIL:
        reason, next_step = "the address isn't this host's", "leave it out, or give one that `ip address` shows"
    else:
        reason, next_step = os_error(error), "publish another port"
    return NetworkError(f"-p {publication}: can't bind {publication.transport} {where}: {reason}", next_step)


def _check_datagrams(publication: Publication, policy: Policy) -> None:
    """Whether the policy can be held: the guest gets the socket itself, and nobody looks at who sends."""
    for rule in policy.rules:
        is_elsewhere = rule.transport == "tcp" or not _covers_port(rule, publication.guest_port)
        # Other guests don't come through the host's port.
        if rule.direction != "in" or is_elsewhere or rule.target.kind == "guest":
            continue
        if rule.target.kind == "any" and rule.verdict == "allow":
            return
        if rule.target.kind == "any":
            reason = f"the rule {format_rule(rule)!r} ({rule.origin}) denies it"
            raise NetworkError(f"-p {publication}: {reason}", "remove the rule or the publication")
        reason = f"the rule {format_rule(rule)!r} ({rule.origin}) looks at who sends, which UDP ports can't"
        raise NetworkError(
            f"-p {publication}: {reason}", "limit the rule to tcp, and publish at one address of the host"
        )


def _covers_port(rule: Rule, port: int) -> bool:
    return not rule.ports or any(first <= port <= last for first, last in rule.ports)


def _check_twice(published: list[Published]) -> None:
    """A guest's UDP socket is one socket."""
    seen: set[tuple[int, int]] = set()
    for each in published:
        if each.publication.transport == "udp":
            for version in each.sockets:
                key = (version, each.publication.guest_port)
                if key in seen:
                    reason = f"the guest's UDP port {each.publication.guest_port} is published twice"
                    raise NetworkError(f"-p {each.publication}: {reason}", "publish it once for each version of IP")
                seen.add(key)
