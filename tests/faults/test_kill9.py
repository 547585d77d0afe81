"""kill -9 of the host at any point: every completed call is in the recovered log, which replays to its last record.

What a guest printed is read from a pipe. A line there is a call that had its effect; the last one may have been under
way when the host died, and then it may lack its record. All lines before it were followed by another call, so they
can't.
"""

import os
import time
from pathlib import Path
from random import Random

import pytest

from tests.e2e.cli import Cli, guest, kill9

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


@pytest.mark.parametrize("points", [10, pytest.param(200, marks=[pytest.mark.soak, pytest.mark.timeout(3600)])])
def test_every_completed_call_is_in_the_log(points: int, cli: Cli, scratch: Path, random: Random):
    """Wherever a host is killed, no completed call is lost and none appears that wasn't made."""
    for point in range(points):
        name = random.choice(list(LINES))
        print(f"point {point}: {name}")
        process, printed = run_and_kill(cli, name, scratch, random)
        check_recovered(cli, process, printed, LINES[name])
        cli("rm", process)
