"""The command `timecraft` as a user starts it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from tests.e2e.guests import BUILT, GUESTS
from timecraftd import _native

COMMAND = Path(sys.executable).parent / "timecraft"
TIMEOUT_S = 100.0


@cache
def artifacts_folder() -> Path:
    """Machine code, kept between test runs as long as the extension stays the same file."""
    stat = os.stat(_native.__file__)
    folder = BUILT / "artifacts" / f"{stat.st_mtime_ns:x}-{stat.st_size:x}"
    for other in folder.parent.glob("*"):
        if other != folder:
            shutil.rmtree(other, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def wait_for(condition: Callable[[], Any], what: str, timeout_s: float = TIMEOUT_S) -> Any:
    """Polls until a condition holds; returns its value."""
    deadline = time.monotonic() + timeout_s
    while not (value := condition()):
        assert time.monotonic() < deadline, f"still not: {what}"
        time.sleep(0.01)
    return value


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    code: int
    stdout: bytes
    stderr: str

    @property
    def out(self) -> str:
        """Standard output as text."""
        return self.stdout.decode(errors="replace")

    @property
    def shown(self) -> str:
        """For messages of asserts."""
        return f"exit {self.code}\n{self.stdout[-2000:]!r}\n{self.stderr[-4000:]}"


class Cli:
    """Starts `timecraft` with one state directory."""

    def __init__(self, home: Path, *, shared_artifacts: bool = True, through: tuple[str | Path, ...] = ()) -> None:
        """`through` is a command that starts others, such as nsenter."""
        self.home = home
        self._command = (*through, COMMAND)
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith("TIMECRAFT_")}
        self.environment["TIMECRAFT_HOME"] = str(home)
        self._started: list[subprocess.Popen[bytes]] = []
        self._detached: list[str] = []
        if shared_artifacts:
            home.mkdir(exist_ok=True)
            (home / "artifacts").symlink_to(artifacts_folder())

    def __call__(
        self, *args: str | Path, stdin: bytes = b"", code: int | None = 0, cwd: Path | None = None, **env: str
    ) -> Done:
        """Runs a command to its end; its exit code must be `code`, if that isn't None."""
        environment = self.environment | env
        done = subprocess.run(
            [*self._command, *args], input=stdin, capture_output=True, timeout=TIMEOUT_S, env=environment, cwd=cwd
        )
        ended = Done(done.returncode, done.stdout, done.stderr.decode(errors="replace"))
        assert "Traceback" not in ended.stderr, ended.stderr
        assert "internal error" not in ended.stderr, ended.stderr
        assert "panicked" not in ended.stderr, ended.stderr
        assert code is None or ended.code == code, ended.shown
        return ended

    def start(self, *args: str | Path, **options: Any) -> subprocess.Popen[bytes]:
        """Starts a command; unless said otherwise, with pipes for its streams, and no standard input."""
        streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        self._started.append(subprocess.Popen([*self._command, *args], env=self.environment, **streams | options))
        return self._started[-1]

    def detach(self, *args: str | Path) -> str:
        """`timecraft run --detach`: the process id."""
        self._detached.append(self("run", "--detach", *args).out.strip())
        return self._detached[-1]

    def close(self) -> None:
        """Ends what a test left running."""
        for process in self._started:
            kill9(process)
        if self._detached and (running := set(self("ps", "-q", "--no-trunc").out.split()) & set(self._detached)):
            self("rm", "-f", *running)
        for ring in (self.home / "processes").glob("*/log/ring"):
            Path(ring.read_text().strip()).unlink(missing_ok=True)

    def run(
        self, *args: str | Path, code: int | None = 0, stdin: bytes = b"", cwd: Path | None = None
    ) -> tuple[str, Done]:
        """`timecraft run`: the process id, and the end with the id cut from its standard error."""
        done = self("run", *args, code=code, stdin=stdin, cwd=cwd)
        first, _, rest = done.stderr.partition("\n")
        assert len(first) == 36, done.shown
        return first, Done(done.code, done.stdout, rest)

    def replay(self, process: str, *args: str | Path, code: int | None = 0) -> Done:
        """`timecraft replay`."""
        return self("replay", process, *args, code=code)

    def process(self, process: str) -> dict[str, Any]:
        """What `get process -o json` says of one."""
        found = json.loads(self("get", "process", process, "-o", "json").stdout)
        return found[0] if isinstance(found, list) else found

    def process_dir(self, process: str) -> Path:
        """Where a process's log lies."""
        return self.home / "processes" / process

    def segments(self, process: str) -> list[Path]:
        """The log's files, in order."""
        return sorted((self.process_dir(process) / "log").glob("*.tcl"))

    def only_process(self) -> str:
        """The id of the one process that there is, from its directory alone."""
        names = wait_for(lambda: os.listdir(self.home / "processes"), "a process's directory")
        assert len(names) == 1, names
        return names[0]


def kill9(process: subprocess.Popen[bytes]) -> None:
    """Kills a host as the kernel would when memory is short."""
    process.kill()
    process.wait(TIMEOUT_S)
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream is not None:
            stream.close()


def guest(name: str) -> Path:
    """A guest's module: a .wat if there is one, else Go's."""
    wat = GUESTS / f"{name}.wat"
    return wat if wat.exists() else BUILT / f"{name}.wasm"
