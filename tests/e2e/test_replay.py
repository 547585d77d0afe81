"""Replays: exact, without effects, and clear about where and why they end."""

import hashlib
import json
import shutil
import signal
import sqlite3
import time
from pathlib import Path
from random import Random

import pytest

from tests.e2e.cli import Cli, guest, kill9, wait_for
from tests.e2e.guests import CASES, Case, contents, prepare

REFUSED = 125


def run_case(cli: Cli, case: Case, scratch: Path) -> tuple[str, bytes]:
    """Runs a prepared case by command line: the process, and its standard output."""
    flags = [f"--dir={scratch}/{mount}" for mount in case.mounts]
    env = [f"--env={key}={value}" for key, value in case.env.items()]
    process, done = cli.run(*flags, *env, case.module, *case.args, stdin=case.stdin, code=case.exit)
    return process, done.stdout


# ---- no effects


@pytest.mark.parametrize("name", ["fsops", "escape", "mapdemo", "readfile", "calls", "rights", "gojq-file"])
def test_replays_touch_nothing(name: str, cli: Cli, scratch: Path):
    """With its mounts gone a process replays all the same, makes no file, and changes none."""
    case = prepare(CASES[name], scratch)
    process, stdout = run_case(cli, case, scratch)
    shutil.rmtree(scratch)
    scratch.parent.joinpath("beside").mkdir()
    state = contents(cli.process_dir(process))
    again = cli.replay(process, code=case.exit)
    assert again.stdout == stdout
    assert not scratch.exists()
    assert not any(scratch.parent.joinpath("beside").iterdir())
    assert contents(cli.process_dir(process)) == state
    assert f"process {process[:8]}" in cli("replay", "--verify", process).out


def test_replays_leave_files_as_they_are(cli: Cli, scratch: Path):
    """A replay of a program that makes, renames and removes files does nothing of it again."""
    case = prepare(CASES["fsops"], scratch)
    process, stdout = run_case(cli, case, scratch)
    (scratch / "data" / "new since").write_text("kept")
    before = contents(scratch)
    assert cli.replay(process).stdout == stdout
    assert contents(scratch) == before


def test_waits_are_skipped(cli: Cli, scratch: Path):
    """A replay doesn't sleep as the run did."""
    process, _ = cli.run("--dir", f"{scratch}:/data", guest("counter"), "-n", "100", "-pause", "50000", "/data/out")
    start = time.monotonic()
    cli.replay(process)
    assert time.monotonic() - start < 4, "the run slept 5 s"


def test_replays_are_repeatable(cli: Cli, scratch: Path):
    """Random numbers, map order and the time of day are as they were, each time; a second run has others."""
    case = prepare(CASES["mapdemo"], scratch)
    process, stdout = run_case(cli, case, scratch)
    assert {cli.replay(process).stdout for _ in range(3)} == {stdout}
    assert run_case(cli, case, scratch)[1] != stdout


def test_replays_of_replays_at_once(cli: Cli):
    """Several replays of one process at the same time don't disturb each other."""
    process, done = cli.run(guest("hello"))
    replays = [cli.start("replay", process) for _ in range(4)]
    assert [replay.communicate(timeout=100)[0] for replay in replays] == [done.stdout] * 4


def test_names_and_prefixes(cli: Cli):
    """A process is found by name, by id and by a unique beginning of it."""
    process, _ = cli.run("--name", "greeter", guest("hello"))
    for reference in (process, process[:13], "greeter"):
        assert cli.replay(reference).out == "hello, world\n"


# ---- where to stop, and traces


def trace_lines(cli: Cli, process: str) -> list[str]:
    """Calls of a process, from the record alone."""
    return calls(cli("trace", "syscall", "--timestamps", "none", process).out)


def calls(trace: str) -> list[str]:
    """The lines of calls; those with +++ tell of beginning and end."""
    return [line for line in trace.splitlines() if not line.startswith("+++")]


@pytest.mark.parametrize("name", ["hello", "fsops", "timers", "args_env", "stdin_cat"])
def test_traces_are_equal(name: str, cli: Cli, scratch: Path):
    """What a replay shows of the calls is what the record alone shows, line by line."""
    case = prepare(CASES[name], scratch)
    process, stdout = run_case(cli, case, scratch)
    again = cli.replay(process, "--trace", code=case.exit)
    assert again.stdout == stdout
    assert calls(again.stderr) == trace_lines(cli, process) != []


def test_until_a_record(cli: Cli):
    """A replay stops behind the record that it is told to, and its trace has the calls up to there."""
    process, _ = cli.run(guest("timers"))
    lines = trace_lines(cli, process)
    for seq in (1, 2, len(lines) // 2):
        done = cli.replay(process, "--until", str(seq), "--trace")
        assert done.stderr.splitlines()[:seq] == lines[:seq]
        assert len(done.stderr.splitlines()) <= seq + 1, "at most the call under way is shown beyond"
        assert f"up to record {seq}" in cli.replay(process, "--until", str(seq), "--verify").out
    last = cli.process(process)["last_seq"]
    assert cli.replay(process, "--until", str(last + 1000)).stdout == cli.replay(process).stdout


def test_until_a_time(cli: Cli):
    """Times since the start, and of the clock, mean the records before them."""
    process, _ = cli.run(guest("timers"))
    records = [json.loads(line) for line in cli("trace", "syscall", "-o", "json", process).out.splitlines()]
    assert records
    full = cli.replay(process).stdout
    half = cli.replay(process, "--until", "40ms").stdout
    assert full.startswith(half)
    assert len(half) < len(full)
    assert cli.replay(process, "--until", "1h").stdout == full
    assert cli.replay(process, "--until", "2100-01-01T00:00:00Z").stdout == full
    assert "before the process started" in cli.replay(process, "--until", "2001-01-01T00:00:00Z", code=REFUSED).stderr
    assert "--until" in cli.replay(process, "--until", "soon", code=REFUSED).stderr


# ---- other builds


def doctored(cli: Cli, tmp_path: Path, name: str, old: str, new: str) -> tuple[str, Path]:
    """A recorded process, and another build of its module."""
    process, _ = cli.run(guest(name), code=None)
    text = guest(name).read_text()
    assert old in text
    other = tmp_path / "other.wat"
    other.write_text(text.replace(old, new))
    return process, other


def test_another_build_that_prints_something_else(cli: Cli, tmp_path: Path):
    """The first difference is told: record, call, both sides, where in memory, and where in the guest."""
    process, other = doctored(cli, tmp_path, "hello", "hello, world", "hellO, world")
    done = cli.replay(process, "--module", other, code=REFUSED)
    for part in (
        "diverged from the log at record 1 (fd_write)",
        'recorded: fd_write(1, [{"hello, world\\n", 13}], [13]) = 0',
        'replayed: fd_write(1, [{"hellO, world\\n", 13}]',
        "input at 0x14",
        "guest backtrace:\n    print",
        "the other build does something else from there on",
    ):
        assert part in done.stderr, done.shown
    assert done.stdout == b""
    assert cli.replay(process).out == "hello, world\n"


def test_another_build_that_calls_something_else(cli: Cli):
    """Another call, another argument, a missing call and a call too many are each told as such."""
    process, _ = cli.run(guest("hello"))
    for name, part in (
        ("exit_code", "the guest called proc_exit, not fd_write"),
        ("stderr", "argument nwritten"),
        ("no_memory", "record 1"),
    ):
        assert part in cli.replay(process, "--module", guest(name), code=REFUSED).stderr
    process, _ = cli.run(guest("no_memory"))
    done = cli.replay(process, "--module", guest("hello"), code=REFUSED)
    assert "diverged" in done.stderr
    assert "fd_write" in done.stderr


def test_another_build_that_ends_otherwise(cli: Cli, tmp_path: Path):
    """A trap in place of an exit, and another exit code, are differences."""
    process, other = doctored(cli, tmp_path, "exit_code", "(i32.const 42)", "(i32.const 43)")
    done = cli.replay(process, "--module", other, code=REFUSED)
    assert "42" in done.stderr
    assert "43" in done.stderr
    process, other = doctored(
        cli, tmp_path, "hello", "(i32.const 16) (i32.const 13))", "(i32.const 16) (i32.const 13)) unreachable"
    )
    assert "unreachable" in cli.replay(process, "--module", other, code=REFUSED).stderr


def test_another_build_that_does_the_same(cli: Cli, tmp_path: Path):
    """A build that differs where it doesn't matter replays."""
    process, other = doctored(cli, tmp_path, "hello", "(memory (export", '(func (export "unused")) (memory (export')
    assert cli.replay(process, "--module", other).out == "hello, world\n"
    assert "the same to the end" in cli.replay(process, "--module", other, "--verify").out


def test_a_replay_is_interrupted(cli: Cli):
    """A build that computes for ever is ended by the user, without a trace of it in the state."""
    process, _ = cli.run(guest("hello"))
    replay = cli.start("replay", process, "--module", guest("spin"))
    wait_for(lambda: catches_signals(replay.pid), "it runs")
    replay.send_signal(2)
    assert replay.wait(60) == 130
    assert cli.replay(process).out == "hello, world\n"


def catches_signals(pid: int) -> bool:
    """Whether a host passes signals on: then it catches SIGUSR1 too."""
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("SigCgt"))
    return bool(int(line.split()[1], 16) & 1 << (signal.SIGUSR1 - 1))


# ---- damaged logs


@pytest.fixture
def recorded(cli: Cli) -> tuple[str, bytes]:
    """A process with a log of several blocks, and its output."""
    process, done = cli.run("--record-batch-size", "4KiB", "--timeout", "60s", guest("timers"))
    return process, done.stdout


def check_damaged(cli: Cli, process: str, stdout: bytes, what: str) -> None:
    """A replay of a damaged log repeats some of the output, or all of it, and says how far it got; nothing crashes."""
    for command in (["replay"], ["replay", "--verify"], ["logs"], ["trace", "syscall"], ["describe", "process"]):
        done = cli(*command, process, code=None)
        assert done.code in (0, REFUSED), f"{what}: {command}: {done.shown}"
        if done.code:
            assert "[TC00" in done.stderr or "its log ends" in done.stderr, f"{what}: {command}: {done.shown}"
        if command in (["replay"], ["logs"]):
            assert stdout.startswith(done.stdout), f"{what}: {command}: {done.shown}"
        if command == ["replay"] and done.stdout != stdout:
            assert done.code == REFUSED, f"{what}: {done.shown}"
            assert "record" in done.stderr or "segment" in done.stderr or "log" in done.stderr, f"{what}: {done.shown}"


def test_truncated_logs(cli: Cli, recorded: tuple[str, bytes], random: Random):
    """A log cut anywhere replays up to the cut, and says where that is."""
    process, stdout = recorded
    (segment,) = cli.segments(process)
    whole = segment.read_bytes()
    cuts = [0, 1, 40, 64, 100, len(whole) - 1, len(whole) - 8, *(random.randrange(len(whole)) for _ in range(5))]
    for cut in cuts:
        segment.write_bytes(whole[:cut])
        check_damaged(cli, process, stdout, f"cut at {cut} of {len(whole)}")
    segment.unlink()
    done = cli.replay(process, code=REFUSED)
    assert "no log here" in done.stderr
    segment.write_bytes(whole)
    assert cli.replay(process).stdout == stdout


def test_corrupted_logs(cli: Cli, recorded: tuple[str, bytes], random: Random):
    """A flipped bit anywhere is found, or lies where it doesn't matter; what comes before it is replayed."""
    process, stdout = recorded
    (segment,) = cli.segments(process)
    whole = segment.read_bytes()
    for at in [0, 8, 30, *(random.randrange(len(whole)) for _ in range(9))]:
        damaged = bytearray(whole)
        damaged[at] ^= 1 << random.randrange(8)
        segment.write_bytes(damaged)
        check_damaged(cli, process, stdout, f"bit flipped in byte {at} of {len(whole)}")


def test_logs_that_are_something_else(cli: Cli, recorded: tuple[str, bytes], random: Random):
    """Noise, zeros and another process's segment in place of a log are refused."""
    process, _ = recorded
    other, _ = cli.run(guest("exit_code"), code=42)
    (segment,) = cli.segments(process)
    for what, data in (
        ("noise", random.randbytes(5000)),
        ("zeros", bytes(5000)),
        ("another process's", cli.segments(other)[0].read_bytes()),
    ):
        segment.write_bytes(data)
        done = cli.replay(process, code=REFUSED)
        assert "[TC00" in done.stderr, what
        assert done.stdout == b"", what


def test_a_newer_log_format(cli: Cli, recorded: tuple[str, bytes]):
    """A segment of a later version is refused by its version, not read as noise."""
    process, _ = recorded
    (segment,) = cli.segments(process)
    data = bytearray(segment.read_bytes())
    data[4] = 99
    segment.write_bytes(data)
    assert "[TC00" in cli.replay(process, code=REFUSED).stderr


# ---- other runtimes


@pytest.mark.parametrize(
    ("key", "value"),
    [("engine_version", "0.0.1"), ("engine", "other"), ("flags", "nan=pinned"), ("compiler", "llvm"), ("flags", None)],
)
def test_logs_of_other_engines_are_refused(key: str, value: str | None, cli: Cli):
    """A log that another engine, version or set of flags recorded is refused with the difference, never tried."""
    process, _ = cli.run(guest("hello"))
    digest = cli.process(process)["runtime"]
    stored = cli.home / "objects" / "runtime" / digest[:2] / digest
    recorded = json.loads(stored.read_bytes())
    recorded[key] = value
    if value is None:
        del recorded[key]
    forge_runtime(cli, process, json.dumps(recorded, sort_keys=True, separators=(",", ":")).encode())
    for verb in ("replay", "resume"):
        done = cli(verb, process, code=REFUSED)
        assert done.stdout == b""
        if verb == "replay":
            assert f"it was recorded with {key.replace('_', ' ')} {value or 'unknown'!r}" in done.stderr, done.shown
            assert "can't replay it exactly" in done.stderr
    assert cli("logs", process).out == "hello, world\n", "what needs no replay still works"


def forge_runtime(cli: Cli, process: str, data: bytes) -> None:
    """Makes a process one that another runtime recorded."""
    digest = hashlib.sha256(data).hexdigest()
    path = cli.home / "objects" / "runtime" / digest[:2] / digest
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    database = sqlite3.connect(cli.home / "catalogue.db")
    with database:
        changed = database.execute("update processes set runtime = ? where id = ?", (digest, process)).rowcount
    database.close()
    assert changed == 1


def test_a_crashed_process_replays_to_where_it_died(cli: Cli, scratch: Path):
    """A replay without an end says that the host died, where, and how to go on."""
    host = cli.start("run", "--dir", f"{scratch}:/data", guest("counter"), "-pause", "1000", "-echo", "/data/out")
    process = host.stderr.readline().decode().strip()
    lines = [host.stdout.readline() for _ in range(5)]
    kill9(host)
    done = cli.replay(process, code=REFUSED)
    assert done.stdout.startswith(b"".join(lines[:-1])), "the last line's call may not have returned"
    assert "where its host died; go on with `timecraft resume" in done.stderr
