"""Where a process's ring lies."""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
from collections.abc import Iterator

RING_HEADROOM = 4
"""A tmpfs takes a ring if it has this many times its size free."""
FAULT_AT = 272
"""Where a ring tells of its writer's troubles: docs/log-format.md, section 9."""
_PLACE_AT = 512
_PLACE = struct.Struct("<IIQ")
"""Whose log's ring it is: CRC of the rest and the path, length of the path, device."""
_PLACE_END = 4096
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


def sweep_rings(*, dry_run: bool = False, shm: str = SHM) -> Iterator[tuple[str, int]]:
    """Removes rings of this user whose logs are gone, with their state directory as a rule: path and bytes of each.

    A ring stays if anybody uses it, if it doesn't tell where its log is, or if that may only not be mounted.
    """
    directory = os.path.join(shm, f"timecraft-{os.getuid()}")
    with contextlib.suppress(FileNotFoundError):
        for name in sorted(os.listdir(directory)):
            path = os.path.join(directory, name)
            with contextlib.suppress(OSError), open(path, "rb") as file:
                if not name.endswith(".ring") or not _is_orphaned(file.read(_PLACE_END)):
                    continue
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                size = os.fstat(file.fileno()).st_blocks * 512
                if not dry_run:
                    os.unlink(path)
                yield path, size


def _is_orphaned(header: bytes) -> bool:
    """Whether the log of a ring is gone for good: what is left of its path is on the device that it was on."""
    import crc32c

    if len(header) < _PLACE_END:
        return False
    crc, length, device = _PLACE.unpack_from(header, _PLACE_AT)
    begin = _PLACE_AT + _PLACE.size
    path = header[begin : begin + length]
    if not path or len(path) != length or crc32c.crc32c(header[_PLACE_AT + 4 : begin + length]) != crc:
        return False
    place = os.fsdecode(path)
    if not os.path.isabs(place) or os.path.lexists(place):
        return False
    while not os.path.lexists(place):
        place = os.path.dirname(place)
    return bool(os.stat(place).st_dev == device)


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
