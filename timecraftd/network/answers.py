"""Which names a guest has been given which addresses for: what rules with names admit."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable

from timecraftd.network.addresses import Address

NAMES_PER_ADDRESS_MAX = 16


class Answers:
    """The memory of one guest; bounded, the least recently used goes first."""

    def __init__(self, addresses_max: int, ttl_s: float, monotonic: Callable[[], float]) -> None:
        self._addresses_max = addresses_max
        self._ttl_s = ttl_s
        self._monotonic = monotonic
        self._names: OrderedDict[Address, dict[str, float]] = OrderedDict()

    def remember(self, name: str, addresses: Iterable[Address]) -> None:
        """These addresses were the answer for the normalised name."""
        expires = self._monotonic() + self._ttl_s
        for address in addresses:
            names = self._names.setdefault(address, {})
            names.pop(name, None)
            names[name] = expires
            if len(names) > NAMES_PER_ADDRESS_MAX:
                del names[next(iter(names))]
            self._names.move_to_end(address)
        while len(self._names) > self._addresses_max:
            self._names.popitem(last=False)

    def names_of(self, address: Address) -> frozenset[str]:
        """The names for which the address was an answer not too long ago."""
        names = self._names.get(address)
        if names is None:
            return frozenset()
        now = self._monotonic()
        current = {name: expires for name, expires in names.items() if expires > now}
        if not current:
            del self._names[address]
            return frozenset()
        self._names[address] = current
        self._names.move_to_end(address)
        return frozenset(current)
