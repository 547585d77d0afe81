"""Every guest: what it does, that replays do the same, and that it makes no difference what lay in memory before or how
its code was compiled (twin runs)."""

import re
import time
from pathlib import Path

import pytest

from tests.e2e.guests import C_CASES, CASES, GO_CASES, GUESTS, WAT_CASES, Bench, Case, check, contents, prepare
from timecraftd._native import Guest
from timecraftd.errors import EngineError, ModuleError

RUN_S = 0.3
"""How long a guest without end runs before it is killed."""
CHAOS_S = 5.0
"""How long a guest in a world with faults may take: more than ten times what it takes in a calm one."""


def parameters(cases: list[Case], *kinds: str) -> pytest.MarkDecorator:
    chosen = [case for case in cases if case.expect in kinds]
    return pytest.mark.parametrize("case", chosen, ids=case_id)


def case_id(case: Case) -> str:
    """The case's name, and what kind of guest it has."""
    return f"{'c' if case in C_CASES else case.module.suffix[1:]}-{case.name}"


def check_twins(bench: Bench, case: Case, live) -> None:
    """Replays plainly, with poisoned memory, and with counting code: each time the same."""
    for changes in ({}, {"poison": True}, {"count": True}):
        again = bench.replay(case.module, **changes)
        assert again.outcome.kind == live.outcome.kind, (changes, again.outcome.message)
        assert again.end == live.end, changes
        assert again.outcome.message == live.outcome.message, changes
        assert again.outcome.memory_digest == live.outcome.memory_digest != "", changes
        assert (again.outcome.stats.get("operators", 0) > 0) == ("count" in changes), changes


@parameters([*WAT_CASES, *GO_CASES, *C_CASES], "exit", "trap")
def test_runs_and_replays(case: Case, bench: Bench, scratch: Path):
    """A guest does what its file says, and every kind of replay does the same."""
    case = prepare(case, scratch)
    before = {name: contents(scratch).get(name) for name in case.unchanged}
    names = {path.name for path in scratch.iterdir()}
    live = bench.run(case, scratch)
    check(case, live, scratch)
    after = contents(scratch)
    assert {name: after.get(name) for name in case.unchanged} == before
    assert not case.unchanged or {path.name for path in scratch.iterdir()} == names
    check_twins(bench, case, live)
    assert contents(scratch) == after, "a replay changed files"


@parameters(WAT_CASES, "any")
def test_is_harmless(case: Case, bench: Bench, scratch: Path):
    """A guest that may be refused or run does either, quickly, and then replays."""
    try:
        live = bench.run(prepare(case, scratch), scratch)
    except (ModuleError, EngineError):
        return
    check(case, live, scratch)
    check_twins(bench, case, live)


@parameters(WAT_CASES, "error")
def test_is_refused(case: Case, bench: Bench, scratch: Path):
    """A module that can't run is refused before anything of it ran, with a reason and no log."""
    with pytest.raises(ModuleError) as caught:
        bench.run(prepare(case, scratch), scratch)
    assert str(caught.value)
    assert "\n" not in str(caught.value)
    assert not any((bench.work / "log").iterdir())


@parameters(WAT_CASES, "forever")
@pytest.mark.parametrize("signal", [15, 9])
def test_is_stopped(case: Case, signal: int, bench: Bench, scratch: Path):
    """A guest without end is killed, and its log replays to that end with the same output."""

    def kill(guest: Guest) -> None:
        assert guest.wait(RUN_S) is None
        guest.kill(signal)
        start = time.monotonic()
        assert guest.wait(30) is not None
        assert time.monotonic() - start < 10, "interrupts take up to 100 ms, on an idle machine"

    live = bench.run(prepare(case, scratch), scratch, kill)
    assert (live.outcome.kind, live.outcome.code) == ("killed", 128 + signal)
    for changes in ({}, {"poison": True}, {"count": True}):
        again = bench.replay(case.module, **changes)
        assert again.end == live.end, (changes, again.outcome.message)


@pytest.mark.parametrize("seed", range(1, 9))
def test_faults_of_the_network_are_replayed(seed: int, bench: Bench, scratch: Path):
    """Servers and clients in a world with faults end in one way or another, and their replay, without chaos, alike."""

    def give_up(guest: Guest) -> None:
        # Who waits for what was lost may wait for ever.
        if guest.wait(CHAOS_S) is None:
            guest.kill(15)

    case = CASES["loopback"]
    live = bench.run(case, scratch, give_up, chaos_ratio=0.003, chaos_seed=seed)
    shown = live.stdout.decode()
    assert live.outcome.kind == "killed" or (live.outcome.code == 1 and "error: " in shown), shown
    again = bench.replay(case.module, poison=True)
    assert again.end == live.end, again.outcome.message
    assert again.outcome.memory_digest == live.outcome.memory_digest


def test_every_guest_has_a_case():
    """No guest is built in vain, and no case lacks its guest."""
    go = {path.parent.name for path in (GUESTS / "go").glob("*/main.go")}
    c = {path.stem for path in (GUESTS / "c").glob("*.c")}
    tests = "".join(path.read_text() for path in GUESTS.parent.rglob("test_*.py"))
    for names, cases in ((go, GO_CASES), (c, C_CASES)):
        stems = {case.module.stem for case in cases}
        # Some have tests of their own, which give them a network.
        named = {name for name in names if re.search(rf'"(?:c/)?{name}(?:\.wasm)?"', tests)}
        assert stems <= names <= stems | named
