"""IP addresses: one form for each, and those that no wildcard admits."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_MAPPED = IPv6Network("::ffff:0:0/96")
_NAT64 = IPv6Network("64:ff9b::/96")
_SIX_TO_FOUR = IPv6Network("2002::/16")

_SPECIAL_V4 = (
    ("127.0.0.0/8", "loopback"),
    ("169.254.0.0/16", "link-local, where clouds keep metadata"),
    ("0.0.0.0/8", "unspecified"),
    ("224.0.0.0/4", "multicast"),
    ("240.0.0.0/4", "reserved or broadcast"),
    ("100.100.100.200/32", "cloud metadata"),
    ("168.63.129.16/32", "cloud metadata"),
    ("192.0.0.192/32", "cloud metadata"),
)
_SPECIAL_V6 = (
    ("::/96", "loopback, unspecified or IPv4-compatible"),
    ("fe80::/10", "link-local"),
    ("fec0::/10", "site-local"),
    ("ff00::/8", "multicast"),
    ("fd00:ec2::/32", "cloud metadata"),
    ("fd20:ce::254/128", "cloud metadata"),
    ("64:ff9b:1::/48", "local NAT64"),
    ("2001::/32", "Teredo"),
)


def parse_address(text: str) -> Address:
    """An address in its one form. Raises ValueError: not an address, or one with a zone."""
    if "%" in text:
        raise ValueError(f"{text!r} has a zone, which means something on one machine only")
    return canonical(ip_address(text))


def parse_network(text: str, *, strict: bool = True) -> Network:
    """A CIDR, or an address as a range of one. Raises ValueError, if strict also for bits set beyond the prefix."""
    if "%" in text:
        raise ValueError(f"{text!r} has a zone, which means something on one machine only")
    network = ip_network(text, strict)
    if isinstance(network, IPv6Network) and network.subnet_of(_MAPPED):
        return IPv4Network((int(network.network_address) & 0xFFFF_FFFF, network.prefixlen - 96))
    return network


def canonical(address: Address) -> Address:
    """IPv4 for an IPv4-mapped IPv6 address: the kernel makes no difference either."""
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def embedded(address: Address) -> IPv4Address | None:
    """The IPv4 address that a translator or relay would turn an IPv6 address into."""
    if isinstance(address, IPv6Address):
        if address in _NAT64:
            return IPv4Address(int(address) & 0xFFFF_FFFF)
        return address.sixtofour
    return None


def special(address: Address) -> str | None:
    """What is special about an address that no wildcard admits: why, for people. The address is canonical."""
    value = int(address)
    for base, mask, why in _TABLES[address.version]:
        if value & mask == base:
            return why
    return None


def is_special_range(network: Network) -> bool:
    """Whether all of a range lies within one that is special."""
    low, mask = int(network.network_address), int(network.netmask)
    return any(mask & wide == wide and low & wide == base for base, wide, _ in _TABLES[network.version])


def endpoint(address: Address | str, port: int) -> str:
    """`1.2.3.4:80`, `[::1]:80`."""
    return f"[{address}]:{port}" if ":" in str(address) else f"{address}:{port}"


def _translated(network: IPv4Network) -> tuple[IPv6Network, IPv6Network]:
    """The forms in which translators and relays carry a range of IPv4."""
    value, bits = int(network.network_address), network.prefixlen
    return (
        IPv6Network((int(_NAT64.network_address) | value, 96 + bits)),
        IPv6Network((int(_SIX_TO_FOUR.network_address) | value << 80, 16 + bits)),
    )


def _tables() -> dict[int, list[tuple[int, int, str]]]:
    """IP version to (base, mask, why)."""
    ranges: list[tuple[Network, str]] = [(IPv6Network(text), why) for text, why in _SPECIAL_V6]
    for text, why in _SPECIAL_V4:
        network = IPv4Network(text)
        ranges += [(network, why), *((form, f"a form of {text}: {why}") for form in _translated(network))]
    tables: dict[int, list[tuple[int, int, str]]] = {4: [], 6: []}
    for item, why in ranges:
        tables[item.version].append((int(item.network_address), int(item.netmask), why))
    return tables


_TABLES = _tables()
