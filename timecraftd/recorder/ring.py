"""Where a process's ring lies."""

from __future__ import annotations

import contextlib
import os

RING_HEADROOM = 4
"""A tmpfs takes a ring if it has this many times its size free."""
FAULT_AT = 272
"""Where a ring tells of its writer's troubles: docs/log-format.md, section 9."""
SHM = "/dev/shm"  # noqa: S108 - the ring's directory below it is checked to be the user's own


def shared_ring_path(process_id: str, ring_bytes: int, shm: str = SHM) -> str | None:
    """A path for a ring in memory, so that the guest never waits for a disk; None if there is no good place."""
    try:
        free = os.statvfs(shm)
        if free.f_bavail * free.f_frsize < RING_HEADROOM * ring_bytes or not is_tmpfs(shm):
            return None
        directory = os.path.join(shm, f"timecraft-{os.getuid()}")
        with contextlib.suppress(FileExistsError):
            os.mkdir(directory, 0o700)
        stat = os.lstat(directory)
        # The directory above is open to all users: nobody else may have made this one, or be able to look into it.
        if stat.st_uid != os.getuid() or stat.st_mode & 0o170077 != 0o040000:
            return None
    except OSError:
        return None
    return os.path.join(directory, f"{process_id}.ring")


def ring_fault(log_dir: str) -> int:
    """Number of the error because of which a live process's log isn't written just now; 0 if there is none."""
    try:
        with open(os.path.join(log_dir, "ring"), "rb") as pointer, open(pointer.read(4096), "rb") as ring:
            ring.seek(FAULT_AT)
            return int.from_bytes(ring.read(4), "little")
    except OSError:
        return 0  # it ends, or has just begun


def is_tmpfs(path: str) -> bool:
    """Whether a path is the mount point of a tmpfs."""
    with open("/proc/self/mounts", encoding="utf-8", errors="surrogateescape") as file:
        return any(line.split(" ")[1:3] == [path, "tmpfs"] for line in file)


def remove_ring(log_dir: str) -> None:
    """Removes a ring that is left in shared memory, if the log points at one of this user's."""
    try:
        with open(os.path.join(log_dir, "ring"), "rb") as file:
            path = os.fsdecode(file.read(4096))
    except OSError:
        return
    own = os.path.join(SHM, f"timecraft-{os.getuid()}")
    if os.path.dirname(path) == own and path.endswith(".ring") and os.path.exists(path):
        os.unlink(path)
