"""What a guest may reach, and who may reach it: immutable rules, and the decisions that they lead to. Pure.

The first rule that matches decides. If none does, what goes out is denied and what comes in to a published port is
allowed. An address that is special (loopback, link-local, cloud metadata...: `addresses.special`) is matched by an
allowing rule only if that rule's own range is special too: neither `*` nor a host's name ever admits one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

from timecraftd.network.addresses import Address, Network, embedded, is_special_range, special
from timecraftd.network.names import is_below

Verdict = Literal["allow", "deny"]
Direction = Literal["out", "in"]
Transport = Literal["tcp", "udp"]
Kind = Literal["any", "network", "name", "below", "host", "guest"]


@dataclass(frozen=True, slots=True)
class Target:
    """Who is at the other end."""

    kind: Kind
    name: str = ""
    """Normalised. `name`: the host; `below`: a domain whose subdomains are meant; `guest`: empty for any guest."""
    network: Network | None = None

    def covers(self, peer: Peer, *, strictly: bool) -> bool:
        """Whether the peer is meant; strictly, if by no accident: see the module."""
        match self.kind:
            case "any":
                return not strictly or (peer.guest is None and peer.special is None)
            case "network":
                return self._covers_address(peer, strictly=strictly)
            case "host":
                return peer.host
            case "guest":
                return peer.guest is not None and self.covers_guest(peer.guest)
            case _:
                return any(self.covers_name(name) for name in peer.names) and not (strictly and peer.special)

    def covers_name(self, name: str) -> bool:
        """Whether a host's name is meant."""
        return name == self.name if self.kind == "name" else self.kind == "below" and is_below(name, self.name)

    def covers_guest(self, name: str) -> bool:
        """Whether another guest is meant, by its name."""
        return self.kind == "guest" and self.name in ("", name)

    def _covers_address(self, peer: Peer, *, strictly: bool) -> bool:
        assert self.network is not None, "what makes targets sees to it"
        if not strictly:
            other = embedded(peer.address)
            return peer.address in self.network or (other is not None and other in self.network)
        if peer.guest is not None or (peer.special is not None and not is_special_range(self.network)):
            return False
        return peer.address in self.network


@dataclass(frozen=True, slots=True)
class Rule:
    """One line of a policy."""

    verdict: Verdict
    direction: Direction
    transport: Transport | None
    """None: either."""
    target: Target
    ports: tuple[tuple[int, int], ...] = ()
    """First and last, sorted; empty: all. Of the peer if it is out, the guest's own if it is in."""
    origin: str = field(default="", compare=False)
    """Where it was written, for people."""

    @property
    def is_total(self) -> bool:
        """Whether it holds for every port of every transport."""
        return not self.ports and self.transport is None

    def matches(self, direction: Direction, peer: Peer) -> bool:
        """Whether this rule decides."""
        if self.direction != direction or self.transport not in (None, peer.transport):
            return False
        if self.ports and not any(first <= peer.port <= last for first, last in self.ports):
            return False
        return self.target.covers(peer, strictly=self._is_strict)

    @property
    def _is_strict(self) -> bool:
        return self.verdict == "allow" and self.direction == "out"


@dataclass(frozen=True)
class Peer:
    """The other end of a connection or of a flow of datagrams."""

    address: Address
    """Canonical, and the real one: the host's loopback is 127.0.0.1 here."""
    port: int
    """The peer's if the connection goes out; the guest's own if it comes in."""
    transport: Transport
    names: frozenset[str] = frozenset()
    """By which the guest has found the address, normalised."""
    guest: str | None = None
    """Name of the guest that it is, lower-case; empty for one without a name."""
    host: bool = False
    """Whether it is the host's own loopback."""

    @cached_property
    def special(self) -> str | None:
        """Why no wildcard admits it; a guest's address is its own business."""
        return None if self.guest is not None else special(self.address)


@dataclass(frozen=True, slots=True)
class Decision:
    """What was decided, by which rule; None: by what holds when no rule matches."""

    allowed: bool
    rule: Rule | None
    reason: str = ""
    """Why, if no rule says so."""


Covers = Callable[[Target], bool]


@dataclass(frozen=True, slots=True)
class Policy:
    """Rules in their order."""

    rules: tuple[Rule, ...] = ()

    def decide(self, direction: Direction, peer: Peer) -> Decision:
        """Whether a connection or flow may be."""
        for rule in self.rules:
            if rule.matches(direction, peer):
                return Decision(rule.verdict == "allow", rule)
        if direction == "in":
            return Decision(True, None, "no rule denies what comes in")
        return Decision(False, None, self._why_denied(peer))

    def decide_name(self, name: str) -> Decision:
        """Whether a host's name may be looked up: only if some connection to what it means could be allowed."""
        return self._decide_some(
            lambda target: target.kind in ("any", "network") or target.covers_name(name),
            lambda target: target.kind == "any" or target.covers_name(name),
            "no rule allows the name or any range of addresses",
        )

    def decide_guest(self, name: str) -> Decision:
        """Whether the addresses of another guest may be known, likewise."""
        return self._decide_some(
            lambda target: target.covers_guest(name),
            lambda target: target.kind == "any" or target.covers_guest(name),
            f"no rule allows this guest (`guest:{name}`)",
        )

    def decide_address(self, peer: Peer) -> Decision:
        """Whether some port of the peer could be reached: whether an answer with this address is passed on."""
        return self._decide_some(
            lambda target: target.covers(peer, strictly=True),
            lambda target: target.covers(peer, strictly=False),
            self._why_denied(peer),
        )

    def _decide_some(self, allows: Covers, denies: Covers, otherwise: str) -> Decision:
        """Whether any connection could be allowed: a rule that denies counts only if it leaves no port."""
        for rule in self.rules:
            if rule.direction == "out" and rule.verdict == "allow" and allows(rule.target):
                return Decision(True, rule)
            if rule.direction == "out" and rule.verdict == "deny" and rule.is_total and denies(rule.target):
                return Decision(False, rule)
        return Decision(False, None, otherwise)

    @staticmethod
    def _why_denied(peer: Peer) -> str:
        if peer.host:
            return "no rule allows the host's loopback (`host`)"
        if peer.guest is not None:
            return f"no rule allows this guest (`guest:{peer.guest or '*'}`)"
        if peer.special is not None:
            return f"the address is special ({peer.special}), and no rule names it"
        return "no rule allows it"
