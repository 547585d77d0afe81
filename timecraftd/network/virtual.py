"""Addresses of guests: each guest of a node has a number, and by it an IPv4 and an IPv6 address."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from timecraftd.errors import NetworkError
from timecraftd.network.addresses import Address

HOST_NUMBER = 1
"""Who answers for the host's own loopback."""
GUEST_NUMBER_MIN = 2
GUESTS_IPV4 = IPv4Network("10.86.0.0/16")
GUESTS_IPV6 = IPv6Network("fd74:696d:6563::/64")


@dataclass(frozen=True, slots=True)
class VirtualNetwork:
    """The ranges that guests' addresses are taken from."""

    ipv4: IPv4Network = GUESTS_IPV4
    ipv6: IPv6Network = GUESTS_IPV6

    @classmethod
    def of(cls, ipv4: str, ipv6: str) -> VirtualNetwork:
        """The network of two ranges as text. Raises NetworkError."""
        try:
            network = cls(IPv4Network(ipv4), IPv6Network(ipv6))
        except ValueError as error:
            raise NetworkError(f"guests' addresses: {error}", "correct network.guests_ipv4 or guests_ipv6") from None
        if not 8 <= network.ipv4.prefixlen <= 28 or network.ipv6.prefixlen > 96:
            next_step = "give an IPv4 range of 8 to 28 bits and an IPv6 range of at most 96"
            raise NetworkError(f"guests' addresses: {ipv4} or {ipv6} is too wide or too narrow", next_step)
        return network

    @property
    def guest_number_max(self) -> int:
        """The last number whose address is not the range's broadcast address."""
        return self.ipv4.num_addresses - 2

    def addresses(self, number: int) -> tuple[IPv4Address, IPv6Address]:
        """The addresses of a number."""
        return self.ipv4.network_address + number, self.ipv6.network_address + number

    def address(self, number: int, version: int) -> Address:
        """The address of a number by a version of IP."""
        return self.addresses(number)[version == 6]

    def number(self, address: Address) -> int | None:
        """Whose address it is, if anybody's; None if it lies outside."""
        if isinstance(address, IPv4Address):
            return int(address) - int(self.ipv4.network_address) if address in self.ipv4 else None
        return int(address) - int(self.ipv6.network_address) if address in self.ipv6 else None
