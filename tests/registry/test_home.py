"""State directories that can and can't be used."""

from __future__ import annotations

import os
import stat

import pytest

from timecraftd.errors import StateBusyError, StateError, StateVersionError
from timecraftd.registry.home import Home, ProcessLock, write_atomically


def test_a_new_home_is_private(tmp_path):
    """Nobody else may look into it."""
    home = Home(str(tmp_path / "a" / "state"))
    assert stat.S_IMODE(os.stat(home.path).st_mode) == 0o700
    assert (tmp_path / "a" / "state" / "VERSION").read_text() == "1\n"
    Home(home.path)


def test_a_newer_home_is_refused(tmp_path):
    """Both versions are named."""
    home = Home(str(tmp_path / "state"))
    write_atomically(os.path.join(home.path, "VERSION"), b"7\n")
    with pytest.raises(StateVersionError, match="has version 7, this Timecraft knows 1; use the newer Timecraft"):
        Home(home.path)


def test_a_file_is_refused(tmp_path):
    """It must be a directory."""
    path = tmp_path / "state"
    path.write_text("")
    with pytest.raises(StateError, match="is not a directory"):
        Home(str(path))


def test_a_directory_with_other_things_is_refused(tmp_path):
    """TIMECRAFT_HOME set to somebody's home directory changes nothing there."""
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(StateError, match=r"holds other things \(thesis.tex"):
        Home(str(tmp_path))
    assert os.listdir(tmp_path) == ["thesis.tex"]


def test_a_place_that_can_not_be_written_is_told():
    """With what to do."""
    with pytest.raises(StateError, match="set TIMECRAFT_HOME to a directory that you may write"):
        Home("/proc/timecraft")


def test_a_version_that_is_no_number_is_refused(tmp_path):
    """It isn't ours."""
    (tmp_path / "VERSION").write_text("one\n")
    with pytest.raises(StateError, match="isn't a version number"):
        Home(str(tmp_path))


def test_one_holder_at_a_time(tmp_path):
    """The second is told who the first is."""
    first, second = ProcessLock(str(tmp_path)), ProcessLock(str(tmp_path))
    first.acquire()
    first.claim()
    with pytest.raises(StateBusyError, match=f"in use by process {os.getpid()} "):
        second.acquire()
    assert not second.is_free()
    assert second.live_holder() == os.getpid()
    first.release()
    assert second.is_free()
    second.acquire()
    second.release()


def test_a_pid_that_came_again_is_not_the_holder(tmp_path):
    """Its start time differs."""
    lock = ProcessLock(str(tmp_path))
    lock.acquire()
    lock.claim()
    pid, ticks, boot = lock.holder()
    (tmp_path / "lock").write_text(f"{pid} {ticks - 1} {boot}\n")
    assert lock.live_holder() is None
    (tmp_path / "lock").write_text(f"{pid} {ticks} another-boot\n")
    assert lock.live_holder() is None
    lock.release()
