"""Which processes go, by age, number, size and end."""

import pytest

from timecraftd.config import RetentionConfig
from timecraftd.model import Digest, ProcessId, ProcessRecord, ProcessState
from timecraftd.recorder.retention import RetentionPolicy, due, expired, policies_of

S = ProcessState


def process(number: int, state: ProcessState, ended_ns: int | None, exit_code: int | None = None) -> ProcessRecord:
    """One whose log takes ten bytes."""
    none = Digest("")
    return ProcessRecord(
        ProcessId(f"p{number}"), "", none, "", none, none, state, created_ns=0, started_ns=0, ended_ns=ended_ns,
        exit_code=exit_code, log_bytes=10,
    )  # fmt: skip


PROCESSES = [
    process(0, S.EXITED, 100, 0),
    process(1, S.TRAPPED, 200, 134),
    process(2, S.CRASHED, 300),
    process(3, S.EXITED, 400, 3),
    process(4, S.RUNNING, None),
    process(5, S.QUEUED, None),
]
BY_SIZE = {"by_age_and_number": False}


@pytest.mark.parametrize(
    ("policy", "gone"),
    [
        (RetentionPolicy(), "0 1 3"),
        (RetentionPolicy(keep_crashed=False), "0 1 2 3"),
        (RetentionPolicy(age_ns_max=350), "0"),
        (RetentionPolicy(keep_newest=1), "0 1"),
        (RetentionPolicy(states=frozenset({S.TRAPPED})), "1"),
        (RetentionPolicy(age_ns_max=50, states=frozenset({S.EXITED})), "0 3"),
        (RetentionPolicy(bytes_max=40, **BY_SIZE), ""),
        (RetentionPolicy(bytes_max=30, **BY_SIZE), "0"),
        (RetentionPolicy(bytes_max=10, **BY_SIZE), "0 1"),
        (RetentionPolicy(bytes_max=0, **BY_SIZE), "0 1 3"),
        (RetentionPolicy(bytes_max=0, keep_crashed=False, states=frozenset({S.CRASHED}), **BY_SIZE), "2"),
        (RetentionPolicy(exit_codes=frozenset({0})), "0"),
        (RetentionPolicy(exit_codes=frozenset({0, 3}), states=frozenset({S.EXITED})), "0 3"),
        (RetentionPolicy(exit_nonzero=True), "1 3"),
        (RetentionPolicy(exit_nonzero=True, exit_codes=frozenset({0}), age_ns_max=350), "0"),
        (RetentionPolicy(age_ns_max=450, bytes_max=10), "0 1"),
    ],
)
def test_what_no_bound_keeps_goes_oldest_first(policy: RetentionPolicy, gone: str):
    """And never what runs or is to run."""
    assert " ".join(each.id.removeprefix("p") for each in expired(PROCESSES, policy, 500)) == gone


@pytest.mark.parametrize(
    ("config", "gone"),
    [
        (RetentionConfig(), ""),
        (RetentionConfig(age_s_max=250e-9), "0:age_s_max 1:age_s_max"),
        (RetentionConfig(age_s_max=350e-9, succeeded_age_s_max=50e-9), "0:age_s_max"),
        (RetentionConfig(age_s_max=450e-9, succeeded_age_s_max=50e-9), "0:succeeded_age_s_max"),
        (RetentionConfig(processes_max=2), "0:processes_max 1:processes_max"),
        (RetentionConfig(log_bytes_max=30), "0:log_bytes_max"),
        (RetentionConfig(age_s_max=350e-9, log_bytes_max=0), "0:age_s_max 1:log_bytes_max 3:log_bytes_max"),
        (RetentionConfig(age_s_max=50e-9, crashed="remove"), " ".join(f"{n}:age_s_max" for n in range(4))),
    ],
)
def test_a_node_removes_what_is_beyond_any_bound(config: RetentionConfig, gone: str):
    """Nothing without bounds; the first bound is named."""
    found = due(PROCESSES, policies_of(config), 500)
    assert " ".join(f"{each.id.removeprefix('p')}:{bound}" for each, bound in found.items()) == gone
