"""Commands run for real, in a state directory of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.node.conftest import Node
from tests.testing import FakeNative, make_runtime
from timecraftd.cli import main
from timecraftd.cli.context import Context
from timecraftd.embedded import Runtime

GUESTS = Path(__file__).parent.parent / "guests"
NODE_CONFIG = """[restart]
backoff_s_min = "1ms"
"""


class Timecraft:
    """The command, with a state directory of its own."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.env = {
            "PATH": os.environ["PATH"],
            "HOME": str(home.parent),
            "TIMECRAFT_HOME": str(home),
            "RUST_BACKTRACE": "0",
        }

    def argv(self, *args: object) -> list[str]:
        """What to execute."""
        return [sys.executable, "-m", "timecraftd.cli", *map(str, args)]

    def __call__(self, *args: object, stdin: bytes = b"", **env: str) -> subprocess.CompletedProcess[str]:
        """Runs a command to its end."""
        done = subprocess.run(
            self.argv(*args), input=stdin, capture_output=True, env=self.env | env, timeout=60, check=False
        )
        return subprocess.CompletedProcess(
            done.args, done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
        )

    def start(self, *args: object) -> subprocess.Popen[str]:
        """Starts a command; its standard error is a pipe."""
        return subprocess.Popen(
            self.argv(*args),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=self.env,
            text=True,
        )


@pytest.fixture(scope="session")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A node for all tests that run both ways."""
    node = Node(tmp_path_factory.mktemp("node"), NODE_CONFIG)
    try:
        yield node.start()
    finally:
        node.close()


@pytest.fixture
def timecraft(request: pytest.FixtureRequest, tmp_path: Path) -> Timecraft:
    """The real command. With the parameter `node` it is for a node, which holds nothing."""
    command = Timecraft(tmp_path / "state")
    if getattr(request, "param", "embedded") == "node":
        daemon: Node = request.getfixturevalue("daemon")
        daemon.empty()
        command.env["TIMECRAFT_NODE"] = daemon.socket
    return command


@pytest.fixture
def guests() -> Path:
    """Directory of the test guests."""
    return GUESTS


@pytest.fixture
def native() -> FakeNative:
    """A fake extension."""
    return FakeNative()


@pytest.fixture
def runtime(tmp_path: Path, native: FakeNative) -> Runtime:
    """A runtime on the fake extension."""
    return make_runtime(tmp_path / "state", native)


@pytest.fixture
def command(runtime: Runtime) -> Callable[..., int]:
    """The command on the fake extension, in this process; returns the exit code."""

    def run(*args: object) -> int:
        return main([str(arg) for arg in args], Context(runtime))

    return run
