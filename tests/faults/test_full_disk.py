"""A disk that is full, and then isn't: a small tmpfs in a mount namespace of its own, with the state directory."""

import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.cli import Cli, artifacts_folder, guest, kill9, wait_for

ROOM = 6 << 20
LINE_BYTES = 6
"""Of spin_output."""


@dataclass(frozen=True)
class Disk:
    """A small one."""

    folder: Path
    """Where it is for the command line, which is started in its namespace."""
    seen: Path
    """The same from outside."""
    enter: tuple[str | Path, ...]
    """Begins a command in the namespace."""

    def free_bytes(self) -> int:
        """Room that is left."""
        room = os.statvfs(self.seen)
        return room.f_bavail * room.f_frsize

    def resize(self, size: int) -> None:
        """More or less room."""
        subprocess.run([*self.enter, "mount", "-o", f"remount,size={size}", self.folder], check=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """A disk with nothing on it."""
    folder = tmp_path / "disk"
    folder.mkdir()
    script = f"mount -t tmpfs -o size={ROOM} tmpfs {folder} && echo mounted && exec cat"
    command = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script]
    holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"mounted\n"
    enter = ("nsenter", f"--target={holder.pid}", "--user", "--mount", "--preserve-credentials")
    yield Disk(folder, Path(f"/proc/{holder.pid}/root{folder}"), enter)
    kill9(holder)


@pytest.fixture
def cli(disk: Disk) -> Iterator[Cli]:
    """The command line with its state on the small disk, and room for half of a log of that size."""
    (disk.seen / "home").mkdir()
    (disk.seen / "home" / "artifacts").symlink_to(artifacts_folder())
    (disk.seen / "ballast").write_bytes(b"x" * (ROOM // 2))
    cli = Cli(disk.folder / "home", shared_artifacts=False, through=disk.enter)
    cli.environment["TIMECRAFT_RECORD_COMPRESSION"] = "none"
    yield cli
    cli.close()
    for ring in (disk.seen / "home" / "processes").glob("*/log/ring"):
        Path(ring.read_text()).unlink(missing_ok=True)


def begin(cli: Cli, output: Path) -> tuple[subprocess.Popen[bytes], str]:
    """A guest that has filled the disk; its host and its process."""
    with output.open("wb") as file:
        host = cli.start("run", guest("spin_output"), stdout=file)
    assert host.stderr is not None
    process = host.stderr.readline().decode().strip()
    assert "its log can't be written (No space left on device)" in host.stderr.readline().decode()
    return host, process


def check_log(cli: Cli, process: str, output: Path) -> None:
    """All that was printed is in the log, but for a call that was under way."""
    logged, printed = cli("logs", process).stdout, output.read_bytes()
    assert printed.startswith(logged)
    assert len(printed) - len(logged) <= LINE_BYTES, f"{len(printed) - len(logged)} bytes are missing"


def test_a_guest_waits_for_room_and_goes_on(disk: Disk, cli: Cli, tmp_path: Path):
    """It is told on standard error and by doctor; when there is room again, nothing is missing."""
    output = tmp_path / "output"
    host, process = begin(cli, output)
    assert f"process {process}: No space left on device" in cli("doctor", code=1).out
    printed = output.stat().st_size
    disk.resize(1 << 30)
    assert host.stderr is not None
    assert "its log can be written again" in host.stderr.readline().decode()
    wait_for(lambda: output.stat().st_size > printed, "the guest goes on")
    host.terminate()
    assert host.wait(60) == 128 + 15
    assert cli.process(process)["state"] == "killed"
    check_log(cli, process, output)


@pytest.mark.parametrize("by", ["signal", "kill"])
def test_a_guest_that_waits_for_room_can_be_ended(disk: Disk, cli: Cli, tmp_path: Path, by: str):
    """What its log had no room for is in the ring, and comes into the log once there is."""
    output = tmp_path / "output"
    host, process = begin(cli, output)
    if by == "signal":
        host.terminate()
    else:
        cli("kill", process)
    assert host.wait(60) == 125
    disk.resize(1 << 30)
    # Without room for its row either, it is found to have crashed when it is next seen.
    assert cli.process(process)["state"] in ("failed", "crashed")
    check_log(cli, process, output)


def test_a_guest_is_stopped_when_it_has_waited_long_enough(cli: Cli):
    """As configured, with the reason."""
    cli.environment["TIMECRAFT_RECORD_WAIT_S_MAX"] = "50ms"
    with open(os.devnull, "wb") as null:
        host = cli.start("run", guest("spin_output"), stdout=null)
    assert host.stderr is not None
    told = host.stderr.read().decode()
    assert host.wait(30) == 125
    assert "stopped, because its log can't be written" in told
    assert "No space left on device" in told
