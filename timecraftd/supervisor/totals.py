"""Counters of a node that only grow, whichever of its workers come and go."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping


class Totals:
    """Sums of what workers count, and of what the node itself counts."""

    def __init__(self) -> None:
        self.sums: Counter[str] = Counter()
        self._seen: dict[str, dict[str, int]] = {}

    def count(self, name: str) -> None:
        """One more of the node's own."""
        self.sums[name] += 1

    def begin(self, worker: str, counters: Mapping[str, int]) -> None:
        """Counts from here on: what an earlier control process has seen of a worker isn't counted again."""
        self._seen[worker] = dict(counters)

    def note(self, worker: str, counters: Mapping[str, int]) -> None:
        """What a worker counted since it began. Older news than what is known changes nothing."""
        seen = self._seen.setdefault(worker, {})
        for name, value in counters.items():
            more = value - seen.get(name, 0)
            if more > 0:
                self.sums[name] += more
                seen[name] = value

    def forget(self, worker: str) -> None:
        """It is gone; what it counted stays."""
        self._seen.pop(worker, None)
