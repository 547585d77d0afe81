"""Which processes are to go. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from timecraftd.model import ProcessRecord, ProcessState


@dataclass(frozen=True, slots=True)
class RetentionPolicy:
    """A process stays if it is young enough or among the newest; a bound that is None keeps nothing by itself.

    Where `bytes_max` or `states` alone is given, they alone decide.
    """

    age_ns_max: int | None = None
    """Keep what ended less than this ago."""
    keep_newest: int = 0
    """Keep this many of those that ended, newest first."""
    keep_crashed: bool = True
    """Keep processes whose host died: they can be resumed."""
    bytes_max: int | None = None
    """Of what would stay, keep the newest whose logs take so much together. Logs that stay in any case count too."""
    states: frozenset[ProcessState] | None = None
    """Remove only processes that ended so."""
    by_age_and_number: bool = True
    """Whether `age_ns_max` and `keep_newest` say anything."""


def expired(processes: Iterable[ProcessRecord], policy: RetentionPolicy, now_ns: int) -> list[ProcessRecord]:
    """Processes to remove, oldest first; never one that runs or is to run."""
    alive = (ProcessState.QUEUED, ProcessState.RUNNING)
    ended = [process for process in processes if process.state not in alive]
    ended.sort(key=lambda process: process.id, reverse=True)
    gone = []
    kept_bytes = 0
    for place, process in enumerate(ended):
        may_go = policy.states is None or process.state in policy.states
        may_go = may_go and not (policy.keep_crashed and process.state is ProcessState.CRASHED)
        asked = policy.by_age_and_number and place >= policy.keep_newest and not _is_young(process, policy, now_ns)
        too_much = policy.bytes_max is not None and kept_bytes + process.log_bytes > policy.bytes_max
        if may_go and (asked or too_much):
            gone.append(process)
        else:
            kept_bytes += process.log_bytes
    return gone[::-1]


def _is_young(process: ProcessRecord, policy: RetentionPolicy, now_ns: int) -> bool:
    age_ns = now_ns - (process.ended_ns or process.created_ns)
    return policy.age_ns_max is not None and age_ns < policy.age_ns_max
