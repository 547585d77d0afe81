"""The state directory's layout, and the locks in it."""

# VERSION          number of the layout
# catalogue.db     SQLite: processes and modules
# objects/KIND/    content-addressed bytes
# artifacts/       machine code, only a cache
# trees/           directories that immutable mounts show, each named by the digest of its manifest
# processes/ID/    lock, log/, and the ring if it isn't on a tmpfs
# collect.lock     shared by starting runs, exclusive for garbage collection

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache

from timecraftd.errors import StateBusyError, StateError, StateFullError, StateVersionError
from timecraftd.model import ProcessId

LAYOUT_VERSION = 1
_VERSION_BYTES_MAX = 64
_CATALOGUE = "catalogue.db"


class Home:
    """An opened state directory."""

    def __init__(self, path: str) -> None:
        """Creates or checks the directory. Raises StateError, StateVersionError."""
        self.path = path
        with state_errors(path):
            self._open()

    @property
    def catalogue_path(self) -> str:
        """The SQLite file."""
        return os.path.join(self.path, _CATALOGUE)

    @property
    def objects_dir(self) -> str:
        """Directory of the object store."""
        return os.path.join(self.path, "objects")

    @property
    def artifacts_dir(self) -> str:
        """Directory of the cache of machine code."""
        return os.path.join(self.path, "artifacts")

    @property
    def trees_dir(self) -> str:
        """Directory of trees."""
        return os.path.join(self.path, "trees")

    @property
    def processes_dir(self) -> str:
        """Directory that holds one directory per process."""
        return os.path.join(self.path, "processes")

    def process_dir(self, process_id: ProcessId) -> str:
        """Directory of one process."""
        return os.path.join(self.processes_dir, process_id)

    def log_dir(self, process_id: ProcessId) -> str:
        """Directory of a process's log."""
        return os.path.join(self.processes_dir, process_id, "log")

    @contextmanager
    def collection_lock(self, *, exclusive: bool) -> Iterator[None]:
        """Keeps garbage collection (exclusive) and starting runs (shared) apart.

        A run holds it from storing its objects until its row refers to them.
        """
        with state_errors(self.path):
            descriptor = os.open(os.path.join(self.path, "collect.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH)
            yield
        finally:
            os.close(descriptor)

    def _open(self) -> None:
        if not os.path.isdir(self.path):
            if os.path.lexists(self.path):
                raise StateError(
                    f"state directory {self.path}: is not a directory", "set TIMECRAFT_HOME to a directory"
                )
            os.makedirs(os.path.dirname(self.path), exist_ok=True)
            os.makedirs(self.path, mode=0o700, exist_ok=True)
        version = self._read_version()
        if version is None:
            self._create()
        elif version > LAYOUT_VERSION:
            raise StateVersionError(
                f"state directory {self.path}: has version {version}, this Timecraft knows {LAYOUT_VERSION}",
                "use the newer Timecraft, or set TIMECRAFT_HOME to another directory",
            )
        if not os.access(self.path, os.W_OK | os.X_OK):
            raise OSError(errno.EACCES, os.strerror(errno.EACCES), self.path)

    def _read_version(self) -> int | None:
        path = os.path.join(self.path, "VERSION")
        try:
            with open(path, "rb") as file:
                text = file.read(_VERSION_BYTES_MAX).strip()
        except FileNotFoundError:
            return None
        if not text.isdigit():
            raise StateError(f"{path}: isn't a version number", "set TIMECRAFT_HOME to another directory")
        return int(text)

    def _create(self) -> None:
        # Another process may be making it at this moment: its drafts and what it made first are no strangers. Nor is
        # the list of who may come, which may be made before the node is ever started.
        known = (
            ".",
            "VERSION",
            "objects",
            "artifacts",
            "trees",
            "processes",
            "collect.lock",
            _CATALOGUE,
            "identities.toml",
        )
        strangers = [name for name in os.listdir(self.path) if not name.startswith(known)]
        if strangers:
            raise StateError(
                f"state directory {self.path}: holds other things ({min(strangers)}, ...) and no VERSION",
                "set TIMECRAFT_HOME to an empty or new directory",
            )
        os.chmod(self.path, 0o700)
        for directory in (self.objects_dir, self.artifacts_dir, self.processes_dir):
            os.makedirs(directory, mode=0o700, exist_ok=True)
        write_atomically(os.path.join(self.path, "VERSION"), f"{LAYOUT_VERSION}\n".encode())


@contextmanager
def state_errors(path: str) -> Iterator[None]:
    """Turns the operating system's errors below the state directory into StateError."""
    try:
        yield
    except OSError as error:
        where = error.filename if isinstance(error.filename, str) else path
        message = f"state directory {where}: {error.strerror}"
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            next_step = "free space, for example with `timecraft rm` or `timecraft prune`"
            raise StateFullError(message, next_step) from error
        raise StateError(message, "set TIMECRAFT_HOME to a directory that you may write") from error


def leave_kill_request(path: str, number: int) -> None:
    """Leaves a signal for a host: as a link to its number, which has room on a disk that has no more for files."""
    draft = f"{path}.{os.getpid()}"
    with state_errors(path):
        with suppress(FileNotFoundError):
            os.unlink(draft)
        os.symlink(str(number), draft)
        os.rename(draft, path)


def read_kill_request(path: str) -> int:
    """The signal that was left for a host; 0 if there is none."""
    try:
        text = os.readlink(path)
    except OSError:
        return 0
    return int(text) if text.isascii() and text.isdigit() and 0 < int(text) <= 64 else 0


def write_atomically(path: str, data: bytes) -> None:
    """Writes a file so that it exists whole or not at all, even if the power fails."""
    temporary = f"{path}.{os.getpid()}-{os.urandom(4).hex()}.tmp"
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(descriptor, "wb", buffering=0) as file:
            view = memoryview(data)
            while view:
                view = view[file.write(view) :]
            os.fsync(descriptor)
        os.rename(temporary, path)
    except BaseException:
        if os.path.exists(temporary):
            os.unlink(temporary)
        raise
    fsync_directory(os.path.dirname(path))


def fsync_directory(path: str) -> None:
    """Makes entries of a directory durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class ProcessLock:
    """Held by the one host that runs a process or works on its log; the kernel lets go of it when that host dies."""

    def __init__(self, directory: str) -> None:
        self._path = os.path.join(directory, "lock")
        self._descriptor: int | None = None

    def acquire(self, *, wait: bool = False) -> None:
        """Takes the lock. Raises StateBusyError, naming the holder, unless it is to wait."""
        with state_errors(self._path):
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            os.close(descriptor)
            holder = self.holder()
            raise StateBusyError(
                f"{os.path.dirname(self._path)}: in use by process {holder[0] if holder else 'unknown'} of the host",
                "wait for it, or end it with `timecraft stop`",
            ) from None
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor = descriptor

    def claim(self) -> None:
        """Writes down who holds the lock, for those who want to signal the host."""
        assert self._descriptor is not None, "only a holder claims"
        pid = os.getpid()
        line = f"{pid} {start_ticks(pid)} {boot_id()}\n".encode()
        os.pwrite(self._descriptor, line, 0)
        # Not to nothing first: some file systems write to the disk then, for whom such a file is one that is replaced.
        os.ftruncate(self._descriptor, len(line))

    def release(self) -> None:
        """Lets go. Idempotent."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def holder(self) -> tuple[int, int, str] | None:
        """(pid, start ticks, boot id) of the host that claimed the lock last."""
        try:
            with open(self._path, encoding="ascii") as file:
                pid, ticks, boot = file.read(256).split()
            return int(pid), int(ticks), boot
        except (OSError, ValueError):
            return None

    def live_holder(self) -> int | None:
        """Pid of the host that claimed the lock, if that very host still lives."""
        holder = self.holder()
        if holder is None or holder[2] != boot_id() or start_ticks(holder[0]) != holder[1]:
            return None
        return holder[0]

    def is_free(self) -> bool:
        """Whether nobody holds the lock now."""
        probe = ProcessLock(os.path.dirname(self._path))
        try:
            probe.acquire()
        except StateBusyError:
            return False
        probe.release()
        return True


@cache
def boot_id() -> str:
    """Identity of this boot of the host; pids mean something only within it."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read(64).strip()
    except OSError:
        return "unknown"


def start_ticks(pid: int) -> int:
    """When a process of the host started, in clock ticks since boot; 0 if it is gone. A pid may recur, not this."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return int(file.read(4096).rpartition(b")")[2].split()[19])
    except (OSError, IndexError, ValueError):
        return 0
