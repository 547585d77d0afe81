"""Ctrl-C in Python programs: a `KeyboardInterrupt` as outside, in its place in replays too."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path
from textwrap import dedent

import pytest

from tests.e2e.cli import Cli, kill9, wait_for

SLEEP = """
    import sys, time
    print("ready", flush=True)
    try:
        time.sleep(1000)
    except KeyboardInterrupt:
        print("interrupted")
        sys.exit(7)
"""
INPUT = """
    import sys
    for _ in range(2):
        try:
            print("ready", flush=True)
            print("read", sys.stdin.readline())
        except KeyboardInterrupt:
            print("interrupted", flush=True)
    sys.exit(7)
"""
COMPUTE = """
    import sys
    print("ready", flush=True)
    try:
        number = 0
        while True:
            number += 1
    except KeyboardInterrupt:
        print("interrupted")
        sys.exit(7)
"""
SERVE = """
    import asyncio, sys

    async def main():
        server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
        print("ready", flush=True)
        try:
            await server.serve_forever()
        finally:
            print("cleaned up")

    try:
        asyncio.run(main())
    except KeyboardInterrupt:
        print("interrupted")
        sys.exit(7)
"""
WAIT = """
    import sys, threading
    print("ready", flush=True)
    try:
        threading.Event().wait(1000)
    except KeyboardInterrupt:
        print("interrupted")
        sys.exit(7)
"""
DEAF = """
    print("ready", flush=True)
    print(sum(range(10**15)))
"""
GO_ON = r"""
    import time
    try:
        print("ready", flush=True)
        time.sleep(1000)
    except KeyboardInterrupt:
        pass
    with open("/tmp/note", "w", buffering=1) as note:
        note.write("interrupted\n")
        print("noted", flush=True)
        try:
            time.sleep(1000)
        except KeyboardInterrupt:
            with open("/tmp/note") as note:
                print(note.read().strip(), "twice")
"""


def begin(cli: Cli, scratch: Path, source: str, *flags: str) -> tuple[subprocess.Popen[bytes], str]:
    """A program that has said that it is ready, and its process id."""
    app = scratch / "app.py"
    app.write_text(dedent(source))
    host = cli.start("run", *flags, app, stdin=subprocess.PIPE, bufsize=0)
    process = host.stderr.readline().decode().strip()
    assert host.stdout.readline() == b"ready\n", process
    return host, process


@pytest.mark.parametrize(
    "source", [SLEEP, INPUT, COMPUTE, SERVE, WAIT], ids=["sleep", "input", "compute", "serve", "wait"]
)
def test_a_program_is_interrupted(cli: Cli, scratch: Path, source: str):
    """Whatever it does, its KeyboardInterrupt comes, once; a replay has it in the same place."""
    host, process = begin(cli, scratch, source)
    host.send_signal(signal.SIGINT)
    seen = host.stdout.readline()
    host.stdin.write(b"typed\n")
    rest, stderr = host.communicate(timeout=100)
    assert host.returncode == 7, stderr
    assert b"interrupted\n" in seen + rest
    assert (b"read typed\n" in rest) == (source == INPUT)
    assert "the same to the end" in cli("replay", "--verify", process).out
    assert cli.replay(process, code=7).stdout == b"ready\n" + seen + rest


def test_who_does_not_catch_it_ends_by_it(cli: Cli, scratch: Path):
    """The traceback is the interpreter's, the exit code that of the signal."""
    host, process = begin(cli, scratch, "import time\nprint('ready', flush=True)\ntime.sleep(1000)\n")
    host.send_signal(signal.SIGINT)
    _, stderr = host.communicate(timeout=100)
    assert host.returncode == 130
    assert b"KeyboardInterrupt" in stderr
    assert cli.process(process)["state"] == "exited"


def test_who_notices_nothing_is_ended_by_the_second(cli: Cli, scratch: Path):
    """A program deep in C asks for nothing, so that the next Ctrl-C ends it, as any other guest."""
    host, process = begin(cli, scratch, DEAF)
    host.send_signal(signal.SIGINT)
    with pytest.raises(subprocess.TimeoutExpired):
        host.wait(0.5)
    host.send_signal(signal.SIGINT)
    host.communicate(timeout=100)
    assert host.returncode == 130
    assert cli.process(process)["state"] == "killed"


def test_a_program_in_the_background_is_interrupted(cli: Cli, scratch: Path):
    """`kill -s INT` is Ctrl-C from elsewhere; other signals end the program as any other."""
    app = scratch / "app.py"
    app.write_text(dedent(SLEEP))
    codes = []
    for name in ("INT", "TERM"):
        process = cli.detach(app)
        wait_for(lambda process=process: cli("logs", process).out == "ready\n", "it is ready")
        cli("kill", "-s", name, process)
        codes.append(cli("wait", process, code=None).out.strip())
    assert codes == ["7", "143"]


def test_an_interrupted_program_is_resumed(cli: Cli, scratch: Path):
    """A host that dies after an interrupt loses none of it, nor what the program has in its `/tmp`."""
    host, process = begin(cli, scratch, GO_ON)
    host.send_signal(signal.SIGINT)
    assert host.stdout.readline() == b"noted\n"
    # What came out and isn't in the log yet comes out again.
    wait_for(lambda: cli("logs", process).out.endswith("noted\n"), "it is recorded")
    kill9(host)
    host = cli.start("resume", process, bufsize=0)
    host.stderr.readline()
    wait_for(lambda: cli.process(process)["state"] == "running", "it runs again")
    host.send_signal(signal.SIGINT)
    stdout, stderr = host.communicate(timeout=100)
    assert (host.returncode, stdout) == (0, b"interrupted twice\n"), stderr
    assert not (cli.process_dir(process) / "root").exists()
    assert "the same to the end" in cli("replay", "--verify", process).out
