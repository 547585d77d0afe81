"""What all parts of the gateway know of one guest."""

from __future__ import annotations

from dataclasses import dataclass, field

from timecraftd.network.addresses import Address, endpoint
from timecraftd.network.decisions import Decisions
from timecraftd.network.neighbours import Member, Neighbours
from timecraftd.network.policy import Peer, Policy
from timecraftd.network.port import NetworkPort
from timecraftd.network.virtual import HOST_NUMBER, VirtualNetwork

NAMES_SHOWN_MAX = 3


@dataclass(frozen=True, slots=True)
class Guest:
    """One guest, its port, and its place among the others."""

    port: NetworkPort
    policy: Policy
    decisions: Decisions
    network: VirtualNetwork
    number: int
    """Its own place in the network."""
    member: Member | None
    neighbours: Neighbours | None
    """None if the guest neither sees others nor is seen."""
    _own: tuple[str, str] = field(init=False)

    def __post_init__(self) -> None:
        ipv4, ipv6 = self.network.addresses(self.number)
        object.__setattr__(self, "_own", (str(ipv4), str(ipv6)))

    def own_address(self, version: int) -> str:
        """The guest's own address of a version of IP."""
        return self._own[version == 6]

    def neighbour_name(self, number: int) -> str:
        """Name of another guest; empty if it has none or isn't there."""
        neighbour = self.neighbours.at(number) if self.neighbours else None
        return neighbour.name if neighbour else ""

    def shown(self, address: Address, version: int, number: int | None = None) -> str:
        """How a guest sees who comes in, on a socket of a version of IP. What is on the host's loopback must not look
        as if it came from the guest's own."""
        if number is not None:
            return str(self.network.address(number, version))
        if address.is_loopback or (version == 4 and address.version == 6):
            return str(self.network.address(HOST_NUMBER, version))
        return f"::ffff:{address}" if version == 6 and address.version == 4 else str(address)


def subject(peer: Peer, *, inward: bool = False) -> str:
    """The other end, for people: `tcp 192.0.2.1:443 (example.com)`, `tcp 192.0.2.1 to port 80`."""
    who = sorted(peer.names)[:NAMES_SHOWN_MAX]
    if peer.host:
        who = ["host"]
    elif peer.guest is not None:
        who = [f"guest:{peer.guest}" if peer.guest else "guest"]
    known = f" ({', '.join(who)})" if who else ""
    if inward:
        return f"{peer.transport} {peer.address}{known} to port {peer.port}"
    return f"{peer.transport} {endpoint(peer.address, peer.port)}{known}"
