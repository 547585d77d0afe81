"""A process whose host was killed goes on where it was, or is refused with the reason."""

import shutil
import time
from pathlib import Path
from random import Random

import pytest

from tests.e2e.cli import Cli, guest, kill9, wait_for

LINES = 1000
PAUSE_US = 300
KILLS_PER_RUN_MAX = 12
MODES = {"plain": [], "append": ["-append"], "at": ["-at"]}


def expected(lines: int) -> bytes:
    return b"".join(b"%08d\n" % number for number in range(1, lines + 1))


def count_command(data: Path, *flags: str, lines: int = LINES) -> list[str | Path]:
    pause = ["-n", str(lines), "-pause", str(PAUSE_US)]
    return ["--dir", f"{data}:/data", guest("counter"), *flags, *pause, "/data/out"]


def kill_somewhere(cli: Cli, random: Random, *command: str | Path) -> str:
    """Starts a command that runs a guest and kills it: sometimes while it begins, mostly while the guest runs."""
    host = cli.start(*command)
    process = ""
    if random.random() < 0.7:
        process = host.stderr.readline().decode().strip()
        time.sleep(random.uniform(0, 0.3))
    else:
        time.sleep(random.uniform(0, 0.6))
    kill9(host)
    return process


def crashed(cli: Cli, data: Path, *flags: str, lines_min: int = 20) -> str:
    """A counting process whose host died."""
    host = cli.start("run", *count_command(data, *flags, lines=100_000))
    process = host.stderr.readline().decode().strip()
    out = data / "out"
    wait_for(lambda: out.exists() and out.stat().st_size >= 9 * lines_min, "some lines in the file")
    kill9(host)
    return process


def count_with_kills(cli: Cli, data: Path, mode: str, kills: int, random: Random) -> int:
    """Runs one counting process to its end, killed and resumed on the way; returns how often it was killed."""
    command: list[str | Path] = ["run", *count_command(data, *MODES[mode])]
    kill_somewhere(cli, random, *command)
    done, killed = None, 1
    while not (ids := cli("ps", "-aq", "--no-trunc").out.split()):
        kill_somewhere(cli, random, *command)  # it died before there was a process
    (process,) = ids
    while killed < min(kills, KILLS_PER_RUN_MAX) and cli.process(process)["state"] == "crashed":
        kill_somewhere(cli, random, "resume", process)
        killed += 1
    if cli.process(process)["state"] == "crashed":
        done = cli("resume", process)
        assert done.out in (f"counted to {LINES}\n", ""), done.shown
    assert (data / "out").read_bytes() == expected(LINES), f"after {killed} kills"
    state = cli.process(process)
    assert (state["state"], state["exit_code"]) == ("exited", 0)
    assert "the same to the end" in cli("replay", "--verify", process).out
    assert cli.replay(process).out == cli("logs", process).out == f"counted to {LINES}\n"
    cli("rm", process)
    return killed


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("points", [6, pytest.param(100, marks=[pytest.mark.soak, pytest.mark.timeout(3600)])])
def test_killed_and_resumed_at_any_point(mode: str, points: int, cli: Cli, tmp_path: Path, random: Random):
    """However often its host is killed, a counting process's file ends complete, with no line twice."""
    killed = 0
    while killed < points:
        data = tmp_path / f"data{killed}"
        data.mkdir()
        killed += count_with_kills(cli, data, mode, points - killed, random)
        print(f"{killed} kills")


def change_byte(out: Path) -> None:
    content = bytearray(out.read_bytes())
    content[30] ^= 1
    out.write_bytes(content)


DAMAGE = {
    "changed": (change_byte, "at offset 30 the log says"),
    "shortened": (lambda out: out.write_bytes(out.read_bytes()[:9]), "byte"),
    "lengthened": (lambda out: out.write_bytes(out.read_bytes() + b"another line\n" * 9), "byte"),
    "deleted": (lambda out: out.unlink(), ""),
    "a directory now": (lambda out: (out.unlink(), out.mkdir()), ""),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_file_that_is_not_as_written_is_named(damage: str, cli: Cli, scratch: Path):
    """A resume that would go on upon other data than the guest wrote is refused, and changes nothing."""
    process = crashed(cli, scratch)
    out = scratch / "out"
    change, reason = DAMAGE[damage]
    change(out)
    after = out.read_bytes() if out.is_file() else None
    done = cli("resume", process, code=125)
    assert "/data/out" in done.stderr, done.shown
    assert reason in done.stderr, done.shown
    assert (out.read_bytes() if out.is_file() else None) == after
    assert cli.process(process)["state"] == "crashed"
    cli("replay", "--verify", process)


def test_resumed_once_the_file_is_put_right(cli: Cli, scratch: Path):
    """A refused resume is no end: with the file as it was, the process goes on."""
    process = crashed(cli, scratch)
    out = scratch / "out"
    written = out.read_bytes()
    out.write_bytes(b"something else")
    cli("resume", process, code=125)
    out.write_bytes(written)
    host = cli.start("resume", process)
    wait_for(lambda: out.stat().st_size > len(written) + 90, "more lines")
    kill9(host)
    assert expected(100_000).startswith(out.read_bytes())
    assert cli.process(process)["epoch"] >= 1


def test_a_mount_that_is_gone(cli: Cli, scratch: Path):
    """Resume names a mounted directory that isn't there any more, and works once it is back."""
    process = crashed(cli, scratch)
    aside = scratch.with_name("aside")
    scratch.rename(aside)
    done = cli("resume", process, code=125)
    assert f"mount {scratch}: there is no such directory" in done.stderr
    aside.rename(scratch)
    kill9_after_lines(cli, process, scratch / "out")


def kill9_after_lines(cli: Cli, process: str, out: Path) -> None:
    size = out.stat().st_size
    host = cli.start("resume", process)
    wait_for(lambda: out.stat().st_size > size + 90, "more lines")
    kill9(host)


def test_only_crashed_processes_are_resumed(cli: Cli, scratch: Path):
    """A process that ended, was killed by a signal or runs has nothing to resume."""
    ended, _ = cli.run(guest("hello"))
    done = cli("resume", ended, code=125)
    assert "only a process whose host died can be resumed" in done.stderr
    running = cli.detach(guest("sleep_forever"))
    done = cli("resume", running, code=125)
    assert "in use" in done.stderr or "runs" in done.stderr, done.shown
    cli("kill", running)
    cli("wait", running, code=None)
    assert "only a process whose host died" in cli("resume", running, code=125).stderr


def test_two_resumes_at_once(cli: Cli, scratch: Path):
    """Of two resumes of one process one runs it; the other says who has it."""
    process = crashed(cli, scratch)
    size = (scratch / "out").stat().st_size
    first = cli.start("resume", process)
    wait_for(lambda: (scratch / "out").stat().st_size > size, "the first one runs")
    done = cli("resume", process, code=125)
    assert str(first.pid) in done.stderr or "runs" in done.stderr, done.shown
    assert cli("rm", process, code=125).stderr
    kill9(first)
    assert expected(100_000).startswith((scratch / "out").read_bytes())


def test_unrecorded_processes_cannot_be_resumed(cli: Cli, scratch: Path):
    """A process that was run without a log says so."""
    host = cli.start("run", "--no-record", *count_command(scratch, lines=100_000))
    process = host.stderr.readline().decode().strip()
    wait_for((scratch / "out").exists, "the guest runs")
    kill9(host)
    assert "without recording" in cli("resume", process, code=125).stderr


@pytest.fixture
def compiling(tmp_path: Path) -> Cli:
    """A state directory in which one process's host was killed before there was a log."""
    cli = Cli(tmp_path / "home", shared_artifacts=False)
    host = cli.start("run", *count_command(tmp_path))
    wait_for(lambda: cli("ps", "-q").out, "the process")
    kill9(host)
    assert not cli.segments(cli.only_process())
    return cli


def test_killed_while_compiling(compiling: Cli):
    """A process that died before its log began is listed as crashed, has nothing to replay, and can be removed."""
    process = compiling.only_process()
    assert "Crashed" in compiling("ps", "-a").out
    assert "its host died" in compiling.process(process)["message"]
    for verb in ("replay", "logs"):
        done = compiling(verb, process, code=125)
        assert "nothing of it has run" in done.stderr, done.shown
    assert compiling("describe", "process", process).out
    compiling("rm", process)
    assert compiling("ps", "-aq").out == ""
    assert not any((compiling.home / "processes").iterdir())


def test_resumed_after_a_kill_while_compiling(compiling: Cli, tmp_path: Path):
    """A process that died before its log began runs from its beginning when it is resumed."""
    process = compiling.only_process()
    assert compiling("resume", process).out == f"counted to {LINES}\n"
    assert (tmp_path / "out").read_bytes() == expected(LINES)
    assert "the same to the end" in compiling("replay", "--verify", process).out
    assert compiling.process(process)["epoch"] == 0


def test_prune_after_a_kill_while_compiling(compiling: Cli):
    """Prune keeps crashed processes unless told otherwise, also those without a log."""
    process = compiling.only_process()
    assert process not in compiling("prune", "--all").out
    assert process in compiling("prune", "--all", "--crashed").out
    assert not any((compiling.home / "processes").iterdir())


def test_temporary_files_of_resumes_go(cli: Cli, scratch: Path):
    """What a resume needed to check files is gone afterwards, and no ring is left in shared memory."""
    process = crashed(cli, scratch, "-at")
    kill9_after_lines(cli, process, scratch / "out")
    shutil.rmtree(scratch)
    cli("resume", process, code=125)
    left = cli.process_dir(process) / "scratch"
    assert not left.exists() or not any(left.iterdir())
    cli("rm", process)
    assert not list(Path("/dev/shm").glob(f"timecraft-*/{process}*"))
