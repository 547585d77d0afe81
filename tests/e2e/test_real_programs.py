"""Programs that nobody here wrote, as Go builds them for wasip1: run, replayed, outputs equal."""

from pathlib import Path

import pytest

from tests.e2e.guests import REAL_CASES, Bench, Case, check, contents, prepare


@pytest.mark.parametrize("case", REAL_CASES, ids=lambda case: case.name)
def test_runs_and_replays(case: Case, bench: Bench, scratch: Path):
    """A real program works in the sandbox, and its replay says the same without touching anything."""
    case = prepare(case, scratch)
    live = bench.run(case, scratch)
    check(case, live, scratch)
    after = contents(scratch)
    again = bench.replay(case.module, poison=True)
    assert again.end == live.end, again.outcome.message
    assert again.outcome.memory_digest == live.outcome.memory_digest
    assert contents(scratch) == after
