"""kill -9 of the host at any point: every completed call is in the recovered log, which replays to its last record.

What a guest printed is read from a pipe. A line there is a call that had its effect; the last one may have been under
way when the host died, and then it may lack its record. All lines before it were followed by another call, so they
can't.
"""

import fcntl
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from random import Random

import pytest

from tests.e2e.cli import Cli, guest, kill9
from timecraftd.config import load_config
from timecraftd.embedded import Runtime
from timecraftd.recorder.reader import read_log

ROOT = Path(__file__).parents[2]
FD_WRITE, RANDOM_GET = 26, 41

LINES = {"spin_output": 6, "counter": 9}
"""Guests that print a line per call, and bytes per line."""


def run_and_kill(cli: Cli, name: str, scratch: Path, random: Random) -> tuple[str, bytes]:
    """Kills a host after random many bytes and a random while; returns the process and what came out of the pipe."""
    args: list[str | Path] = [guest(name)]
    if name == "counter":
        args = ["--dir", f"{scratch}:/data", *args, "-echo", "-n", "10000000", "/data/out"]
    host = cli.start("run", *args)
    process = host.stderr.readline().decode().strip()
    wanted = int(10 ** random.uniform(0, 6))
    read = bytearray()
    while len(read) < wanted:
        read += os.read(host.stdout.fileno(), 1 << 16)
    if random.random() < 0.5:
        time.sleep(random.uniform(0, 0.01))  # lets it run into a full pipe
    host.kill()
    host.wait()
    read += host.stdout.read()
    kill9(host)
    return process, bytes(read)


def check_recovered(cli: Cli, process: str, printed: bytes, line_bytes: int) -> None:
    """The log has what was printed, up to the call under way, and replays to its end."""
    logged = cli("logs", process).stdout
    assert printed.startswith(logged), "the log has what was never printed"
    assert len(printed) - len(logged) <= line_bytes, f"{len(printed) - len(logged)} bytes of completed calls are lost"
    state = cli.process(process)
    assert state["state"] == "crashed"
    verified = cli("replay", "--verify", process)
    assert f"the same up to record {state['last_seq']}, where its host died" in verified.out, verified.shown
    assert cli.replay(process, code=125).stdout == logged


@pytest.mark.parametrize("points", [4, pytest.param(200, marks=[pytest.mark.soak, pytest.mark.timeout(3600)])])
def test_every_completed_call_is_in_the_log(points: int, cli: Cli, scratch: Path, random: Random):
    """Wherever a host is killed, no completed call is lost and none appears that wasn't made."""
    for point in range(points):
        name = random.choice(list(LINES))
        print(f"point {point}: {name}")
        process, printed = run_and_kill(cli, name, scratch, random)
        check_recovered(cli, process, printed, LINES[name])
        cli("rm", process)


TOLD_BYTES = 8
"""What `tell` asks for, and passes on."""
PIPE_BYTES = 4096
"""What a guest can be ahead of its reader."""


class Forks:
    """Hosts that are started by fork; see `tests/faults/forks.py`."""

    def __init__(self, cli: Cli, folder: Path) -> None:
        self._folder = folder
        environment = cli.environment | {"TIMECRAFT_RECORD_SEGMENT_BYTES_MAX": "1MiB"}
        self._parent = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.forks"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, cwd=ROOT,
        )  # fmt: skip

    def ask(self, *words: str | Path) -> str:
        """The answer to a command."""
        assert self._parent.stdin is not None
        assert self._parent.stdout is not None
        print(*words, sep="\t", file=self._parent.stdin, flush=True)
        return self._parent.stdout.readline().strip()

    def run_and_kill(self, random: Random) -> tuple[str, bytes]:
        """Kills a host somewhere; returns its process and what came out of the pipe."""
        pipe, errors = self._folder / "pipe", self._folder / "errors"
        os.mkfifo(pipe)
        errors.write_bytes(b"")
        pid = int(self.ask(pipe, errors, "run", guest("tell")))
        with pipe.open("rb", buffering=0) as file:
            fcntl.fcntl(file, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
            wanted, read = int(10 ** random.uniform(0, 4.5)), bytearray()
            while len(read) < wanted:
                read += file.read(PIPE_BYTES)
            if random.random() < 0.3:
                time.sleep(random.uniform(0, 0.12))  # into a full pipe, and syncs
            os.kill(pid, signal.SIGKILL)
            read += file.read()
        assert self.ask(str(pid)) == "gone"
        pipe.unlink()
        return errors.read_text().split("\n")[0], bytes(read)

    def close(self) -> None:
        """Ends the parent."""
        kill9(self._parent)


def check_told(runtime: Runtime, process: str, printed: bytes) -> None:
    """Each number that came out was told to the guest by a call, and that call is in the log, in that order."""
    record = runtime.process(process)
    assert record.state == "crashed"
    told, written, last = bytearray(), bytearray(), -1
    for call in read_log(runtime.registry.home.log_dir(record.id)):
        assert call.seq == last + 1
        last = call.seq
        if call.call == RANDOM_GET:
            told += call.written[0][1]
        elif call.call == FD_WRITE:
            written += call.sent[-1][1]
    assert last == record.last_seq
    assert told.startswith(printed), "what the guest passed on isn't what the log says that it was told"
    assert printed.startswith(written), "the log has what was never printed"
    assert len(printed) - len(written) <= TOLD_BYTES, "completed calls are lost"


@pytest.mark.parametrize("kills", [100, pytest.param(1000, marks=[pytest.mark.soak, pytest.mark.timeout(3600)])])
def test_what_a_guest_was_told_is_in_the_log(kills: int, cli: Cli, tmp_path: Path, random: Random):
    """Whenever its host is killed."""
    runtime = Runtime(load_config(cli.environment))
    forks = Forks(cli, tmp_path)
    try:
        for kill in range(kills):
            process, printed = forks.run_and_kill(random)
            print(f"kill {kill}: {process}, {len(printed)} bytes")
            check_told(runtime, process, printed)
            runtime.remove(runtime.process(process))
    finally:
        forks.close()
        runtime.close()
