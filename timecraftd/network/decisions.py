"""What was decided for a guest: counted by rule, remembered for a while, and logged."""

from __future__ import annotations

import logging
import time
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal

from timecraftd.network.policy import Decision, Policy
from timecraftd.network.rules import format_rule

logger = logging.getLogger("timecraftd.network")
logger.addHandler(logging.NullHandler())  # a command that sets up no logging must not write into its guest's stderr

RECENT_MAX = 128
"""Different decisions of each outcome that are remembered."""
LINES_PER_S_MAX = 20

What = Literal["dial", "resolve", "answer", "accept", "listen", "secure"]
Outcome = Literal["granted", "refused", "failed"]


@dataclass(slots=True)
class Entry:
    """The same decision, taken once or more."""

    what: What
    subject: str
    """The other end: `tcp 192.0.2.1:443 (example.com)`."""
    rule: str
    """Empty if none matched."""
    origin: str
    reason: str
    count: int
    first_ns: int
    last_ns: int


class Decisions:
    """The ledger of one guest."""

    def __init__(self, guest: str, policy: Policy, now_ns: Callable[[], int] = time.time_ns) -> None:
        """`guest` names it in logs; `now_ns` is the wall clock."""
        self._guest = guest
        self._policy = policy
        self._now_ns = now_ns
        self._counts: Counter[tuple[int, bool]] = Counter()
        self._rules = {id(rule): (number, format_rule(rule)) for number, rule in enumerate(policy.rules)}
        self._recent: dict[Outcome, OrderedDict[tuple[What, str, str, str, str], Entry]] = {
            "granted": OrderedDict(),
            "refused": OrderedDict(),
            "failed": OrderedDict(),
        }
        self._totals: Counter[Outcome] = Counter()
        self._second = 0
        self._lines = 0

    def decided(self, what: What, subject: str, decision: Decision) -> None:
        """A rule, or the lack of one, granted or refused something."""
        number, rule, origin = -1, "", ""
        if decision.rule is not None:
            (number, rule), origin = self._rules[id(decision.rule)], decision.rule.origin
        self._counts[number, decision.allowed] += 1
        outcome: Outcome = "granted" if decision.allowed else "refused"
        self._note(outcome, (what, subject, rule, origin, decision.reason))

    def failed(self, what: What, subject: str, reason: str) -> None:
        """Something that was granted didn't work; the reason says what to do, if anything."""
        self._note("failed", (what, subject, "", "", reason))

    def snapshot(self) -> dict[str, Any]:
        """All of it as JSON: per rule and for none how often it decided what, and the latest, newest first."""
        rules = []
        for rule in self._policy.rules:
            number, text = self._rules[id(rule)]
            count = self._counts[number, rule.verdict == "allow"]
            rules.append({"rule": text, "origin": rule.origin, "verdict": rule.verdict, "count": count})
        return {
            "rules": rules,
            "without_rule": {"granted": self._counts[-1, True], "refused": self._counts[-1, False]},
            "totals": {outcome: self._totals[outcome] for outcome in self._recent},
            **{name: [asdict(entry) for entry in reversed(kept.values())] for name, kept in self._recent.items()},
        }

    def _note(self, outcome: Outcome, key: tuple[What, str, str, str, str]) -> None:
        now_ns = self._now_ns()
        self._totals[outcome] += 1
        kept = self._recent[outcome]
        entry = kept.get(key)
        if entry is None:
            entry = kept[key] = Entry(*key, count=0, first_ns=now_ns, last_ns=now_ns)
            self._log(outcome, entry, now_ns)
        entry.count += 1
        entry.last_ns = now_ns
        kept.move_to_end(key)
        if len(kept) > RECENT_MAX:
            kept.popitem(last=False)

    def _log(self, outcome: Outcome, entry: Entry, now_ns: int) -> None:
        """One line for what wasn't there lately, so that a guest can't flood the log."""
        second = now_ns // 10**9
        if second != self._second:
            self._second, self._lines = second, 0
        self._lines += 1
        if self._lines > LINES_PER_S_MAX:
            return
        why = f"{entry.rule!r} ({entry.origin})" if entry.rule else entry.reason
        if self._lines == LINES_PER_S_MAX:
            why += "; what follows within this second is counted, but not logged"
        level = logging.INFO if outcome == "granted" else logging.WARNING
        logger.log(level, "guest %s: %s %s %s: %s", self._guest, outcome, entry.what, entry.subject, why)
