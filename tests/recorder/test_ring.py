"""Rings in shared memory whose logs are gone."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
from pathlib import Path

import crc32c
import pytest

from tests.e2e.cli import Cli, guest, kill9, wait_for
from timecraftd.recorder.ring import sweep_rings


def ring(path: Path, log: Path, device: int | None = None) -> Path:
    """A file with a ring's header."""
    name = os.fsencode(log)
    place = len(name).to_bytes(4, "little") + (device or os.stat(path.parent).st_dev).to_bytes(8, "little") + name
    header = bytes(512) + crc32c.crc32c(place).to_bytes(4, "little") + place
    path.write_bytes(header.ljust(8192, b"\0"))
    return path


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """Where the user's rings are."""
    folder = tmp_path / f"timecraft-{os.getuid()}"
    folder.mkdir()
    return folder


def test_only_rings_of_logs_that_are_gone_are_removed(own: Path, tmp_path: Path):
    gone = ring(own / "gone.ring", tmp_path / "home" / "processes" / "x" / "log")
    (tmp_path / "log").mkdir()
    ring(own / "there.ring", tmp_path / "log")
    ring(own / "unmounted.ring", tmp_path / "home" / "log", device=1 << 40)
    ring(own / "other.file", tmp_path / "home" / "log")
    (own / "old.ring").write_bytes(bytes(8192))
    (own / "short.ring").write_bytes(b"x")
    damaged = ring(own / "damaged.ring", tmp_path / "home" / "log")
    damaged.write_bytes(damaged.read_bytes().replace(b"home", b"hame"))
    used = ring(own / "used.ring", tmp_path / "home" / "log")
    with used.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert [path for path, _ in sweep_rings(dry_run=True, shm=str(tmp_path))] == [str(gone)]
        assert gone.exists()
        assert [path for path, _ in sweep_rings(shm=str(tmp_path))] == [str(gone)]
    assert len(list(own.iterdir())) == 7
    assert not gone.exists()
    assert list(sweep_rings(shm=str(tmp_path / "nowhere"))) == []


def test_a_state_directory_that_was_removed_leaves_no_ring(cli: Cli, tmp_path: Path):
    """While its guest runs the ring is in use, and when its host has died `prune` finds it, as doctor tells."""
    lost = Cli(tmp_path / "lost")
    lost("ps")  # makes the state directory
    host = lost.start("run", guest("sleep_forever"))
    process = lost.only_process()
    pointer = lost.process_dir(process) / "log" / "ring"
    wait_for(pointer.exists, "a ring")
    path = Path(pointer.read_text())
    shutil.rmtree(lost.home)
    assert path.exists()
    assert str(path) not in cli("prune", "-o", "json").out
    assert path.exists()
    host.send_signal(signal.SIGKILL)
    kill9(host)
    assert "rings of logs that are gone" in cli("doctor", code=None).out
    assert path.name in cli("prune", "-o", "json").out
    assert not path.exists()
