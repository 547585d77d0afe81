"""What a name means to a guest: itself, the host, a neighbour, or what the host's resolver says."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence

from timecraftd.network.addresses import Address, parse_address
from timecraftd.network.answers import Answers
from timecraftd.network.guest import Guest
from timecraftd.network.lookups import Lookups
from timecraftd.network.names import GUEST_SUFFIX, HOST_NAME
from timecraftd.network.neighbours import Neighbour
from timecraftd.network.policy import Peer
from timecraftd.network.virtual import HOST_NUMBER

ADDRESSES_MAX = 64
CACHE_S = 5.0
CACHED_MAX = 256


class RefusedError(Exception):
    """A name that leads nowhere: the guest's errno, and the reason unless the decisions tell it already."""

    def __init__(self, errno: str, reason: str = "") -> None:
        super().__init__(reason)
        self.errno = errno
        self.reason = reason


class Resolver:
    """Names of one guest. A name is normalised, and an answer only what the policy lets through."""

    def __init__(self, guest: Guest, answers: Answers, lookups: Lookups, monotonic: Callable[[], float]) -> None:
        self._guest = guest
        self._answers = answers
        self._lookups = lookups
        self._monotonic = monotonic
        self._cache: OrderedDict[tuple[str, bool, bool], tuple[float, Sequence[str]]] = OrderedDict()

    def known(self, name: str) -> list[Address] | None:
        """Addresses of the host or of guests, without asking anybody; None for other names. Raises RefusedError."""
        if name == HOST_NAME:
            loopback = Peer(parse_address("127.0.0.1"), 0, "tcp", host=True)
            return self._granted(name, [(each, loopback) for each in self._guest.network.addresses(HOST_NUMBER)])
        guest = name.removesuffix(f".{GUEST_SUFFIX}")
        may_be_host = guest == name
        if self._guest.neighbours is None or (may_be_host and "." in name):
            return None
        # Whether a guest is running is nothing that those learn who may not reach it.
        decision = self._guest.policy.decide_guest(guest)
        if not decision.allowed:
            if may_be_host:
                return None
            self._guest.decisions.decided("resolve", name, decision)
            raise RefusedError("EACCES")
        found = self._guest.neighbours.find(guest)
        if not found and may_be_host:
            return None
        return self._granted(name, [pair for each in found for pair in self._addresses(each)])

    async def look_up(self, name: str, ipv4: bool, ipv6: bool) -> list[Address]:
        """What the host's resolver says, as far as the guest may connect to it. Raises RefusedError, OSError."""
        decision = self._guest.policy.decide_name(name)
        self._guest.decisions.decided("resolve", name, decision)
        if not decision.allowed:
            raise RefusedError("EACCES")
        found = []
        for text in await self._ask(name, ipv4, ipv6):
            try:
                found.append(parse_address(text))
            except ValueError:
                continue  # a link-local address with a zone
        peers = [(address, Peer(address, 0, "tcp", frozenset({name}))) for address in dict.fromkeys(found)]
        granted = self._granted(name, peers[:ADDRESSES_MAX])
        self._answers.remember(name, granted)
        return granted

    async def _ask(self, name: str, ipv4: bool, ipv6: bool) -> Sequence[str]:
        key, now = (name, ipv4, ipv6), self._monotonic()
        expires, addresses = self._cache.get(key, (0.0, ()))
        if expires > now:
            return addresses
        addresses = await self._lookups.run(self, name, ipv4, ipv6)
        self._cache[key] = (now + CACHE_S, addresses)
        self._cache.move_to_end(key)
        if len(self._cache) > CACHED_MAX:
            self._cache.popitem(last=False)
        return addresses

    def _addresses(self, neighbour: Neighbour) -> list[tuple[Address, Peer]]:
        addresses = self._guest.network.addresses(neighbour.number)
        return [(address, Peer(address, 0, "tcp", guest=neighbour.name)) for address in addresses]

    def _granted(self, name: str, peers: Iterable[tuple[Address, Peer]]) -> list[Address]:
        """The addresses whose peers could be reached. Raises RefusedError if there are none."""
        granted, refused = [], False
        for address, peer in peers:
            decision = self._guest.policy.decide_address(peer)
            self._guest.decisions.decided("answer", f"{name} is {address}", decision)
            if decision.allowed:
                granted.append(address)
            else:
                refused = True
        if not granted:
            raise RefusedError("EACCES") if refused else RefusedError("ENOENT", "the name has no address")
        return granted
