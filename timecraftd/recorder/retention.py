"""Which processes are to go. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from timecraftd.config import RetentionConfig
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
    exit_codes: frozenset[int] = frozenset()
    """Remove only processes that ended with these, or,"""
    exit_nonzero: bool = False
    """with any but 0."""
    by_age_and_number: bool = True
    """Whether `age_ns_max` and `keep_newest` say anything."""


def expired(processes: Iterable[ProcessRecord], policy: RetentionPolicy, now_ns: int) -> list[ProcessRecord]:
    """Processes to remove, oldest first; never one that runs or is to run, or is held."""
    ended = [process for process in processes if not process.state.is_alive]
    ended.sort(key=lambda process: process.id, reverse=True)
    gone = []
    kept_bytes = 0
    for place, process in enumerate(ended):
        is_kept = process.held is not None or (policy.keep_crashed and process.state is ProcessState.CRASHED)
        may_go = _ended_so(process, policy) and not is_kept
        asked = policy.by_age_and_number and place >= policy.keep_newest and not _is_young(process, policy, now_ns)
        too_much = policy.bytes_max is not None and kept_bytes + process.log_bytes > policy.bytes_max
        if may_go and (asked or too_much):
            gone.append(process)
        else:
            kept_bytes += process.log_bytes
    return gone[::-1]


def policies_of(config: RetentionConfig) -> dict[str, RetentionPolicy]:
    """What a node's bounds come to, by their keys: a process goes if one of these lets it go."""
    keep_crashed = config.crashed == "keep"
    policies = {}
    if config.age_s_max is not None:
        policies["age_s_max"] = RetentionPolicy(_ns(config.age_s_max), keep_crashed=keep_crashed)
    if config.succeeded_age_s_max is not None:
        age_ns = _ns(config.succeeded_age_s_max)
        policies["succeeded_age_s_max"] = RetentionPolicy(age_ns, exit_codes=frozenset({0}))
    if config.processes_max is not None:
        policies["processes_max"] = RetentionPolicy(keep_newest=config.processes_max, keep_crashed=keep_crashed)
    if config.log_bytes_max is not None:
        policies["log_bytes_max"] = RetentionPolicy(
            bytes_max=config.log_bytes_max, keep_crashed=keep_crashed, by_age_and_number=False
        )
    return policies


def stored_policies_of(config: RetentionConfig) -> list[RetentionPolicy]:
    """The same for what is in the store."""
    keep_crashed = config.crashed == "keep"
    policies = []
    if config.remote_age_s_max is not None:
        policies.append(RetentionPolicy(_ns(config.remote_age_s_max), keep_crashed=keep_crashed))
    if config.remote_bytes_max is not None:
        bytes_max = config.remote_bytes_max
        policies.append(RetentionPolicy(bytes_max=bytes_max, keep_crashed=keep_crashed, by_age_and_number=False))
    return policies


def due(
    processes: Sequence[ProcessRecord], policies: Mapping[str, RetentionPolicy], now_ns: int
) -> dict[ProcessRecord, str]:
    """Processes to remove, oldest first, each with the first bound that lets it go."""
    found = {name: expired(processes, policy, now_ns) for name, policy in policies.items()}
    reasons = {process: name for name in reversed(found) for process in found[name]}
    return dict(sorted(reasons.items(), key=lambda item: item[0].id))


def _ns(seconds: float) -> int:
    return round(seconds * 1e9)


def _ended_so(process: ProcessRecord, policy: RetentionPolicy) -> bool:
    if policy.states is not None and process.state not in policy.states:
        return False
    if not policy.exit_codes and not policy.exit_nonzero:
        return True
    return process.exit_code in policy.exit_codes or (policy.exit_nonzero and bool(process.exit_code))


def _is_young(process: ProcessRecord, policy: RetentionPolicy, now_ns: int) -> bool:
    age_ns = now_ns - (process.ended_ns or process.created_ns)
    return policy.age_ns_max is not None and age_ns < policy.age_ns_max
