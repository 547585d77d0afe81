"""Which processes are to go. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from timecraftd.model import ProcessRecord, ProcessState


@dataclass(frozen=True, slots=True)
class RetentionPolicy:
    """A process stays if it is young enough or among the newest; a bound that is None keeps nothing by itself."""

    age_ns_max: int | None = None
    """Keep what ended less than this ago."""
    keep_newest: int = 0
    """Keep this many of those that ended, newest first."""
    keep_crashed: bool = True
    """Keep processes whose host died: they can be resumed."""


def expired(processes: Iterable[ProcessRecord], policy: RetentionPolicy, now_ns: int) -> list[ProcessRecord]:
    """Processes to remove, oldest first; never one that runs or is to run."""
    alive = (ProcessState.QUEUED, ProcessState.RUNNING)
    ended = [process for process in processes if process.state not in alive]
    ended.sort(key=lambda process: process.id, reverse=True)
    candidates = ended[policy.keep_newest :]
    return [process for process in reversed(candidates) if not _stays(process, policy, now_ns)]


def _stays(process: ProcessRecord, policy: RetentionPolicy, now_ns: int) -> bool:
    if policy.keep_crashed and process.state is ProcessState.CRASHED:
        return True
    age_ns = now_ns - (process.ended_ns or process.created_ns)
    return policy.age_ns_max is not None and age_ns < policy.age_ns_max
