"""Guests of one node, as they find each other: by files in a directory that all their hosts share."""

# lock             held while the directory is changed; holds the last number given
# NUMBER/          one guest; its number is its address (virtual.py)
#   lock           held by the guest's host for as long as it lives
#   guest.json     its name
#   PORT           Unix socket of a TCP port that the guest listens on
#   PORT.udp       Unix socket of a UDP port: each connection is a flow from one port of another guest

from __future__ import annotations

import asyncio
import errno
import fcntl
import json
import os
import shutil
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import chain
from typing import Protocol

from timecraftd.errors import NetworkError
from timecraftd.network.policy import Transport
from timecraftd.network.virtual import GUEST_NUMBER_MIN, VirtualNetwork

BACKLOG_MAX = 1024
GUEST_BYTES_MAX = 4096
RETRY_S_MIN = 0.001
RETRY_S_MAX = 0.1

_PREAMBLE = struct.Struct("!4sIHB")
"""Magic, the caller's number and port, and the version of IP by which it calls."""
_MAGIC = b"TCG1"
PREAMBLE_BYTES = _PREAMBLE.size
_SOCKET_TYPES = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_SEQPACKET}
"""Of Unix sockets. Those for UDP keep datagrams apart, and each end learns when the other has closed."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls from a neighbouring guest, and by which version of IP."""

    number: int
    port: int
    version: int


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A guest that runs on this node."""

    number: int
    name: str
    """Lower-case; may be empty."""


class Member(Protocol):
    """A guest that has joined its neighbours."""

    @property
    def number(self) -> int: ...
    def listen(self, port: int, transport: Transport) -> socket.socket:
        """A listening socket where neighbours reach this port. Raises OSError."""
        ...

    def unlisten(self, port: int, transport: Transport) -> None:
        """Nobody reaches the port any more. Idempotent."""
        ...

    def leave(self) -> None:
        """The guest is gone. Idempotent."""
        ...


class Neighbours(Protocol):
    """Where guests find each other."""

    @property
    def network(self) -> VirtualNetwork: ...
    def find(self, name: str) -> list[Neighbour]:
        """Running guests of that name, which is in lower case."""
        ...

    def at(self, number: int) -> Neighbour | None:
        """The running guest of that number."""
        ...

    async def connect(self, called: Neighbour, port: int, transport: Transport, caller: Caller) -> socket.socket:
        """A connection or a flow of datagrams to a port of a guest, its preamble sent. Raises OSError."""
        ...


class GuestDirectory:
    """Neighbours by files. Several hosts may use one directory at once; it must be on a local file system."""

    def __init__(self, path: str, network: VirtualNetwork | None = None) -> None:
        """The directory is made at the first use, for its owner alone."""
        self._path = path
        self.network = network or VirtualNetwork()

    def join(self, name: str, number: int | None = None) -> DirectoryMember:
        """Gives a guest a number, the one asked for if it is free; may wait for others. Raises NetworkError."""
        try:
            os.makedirs(self._path, mode=0o700, exist_ok=True)
            with self._locked() as lock:
                self._remove_stale()
                free = self._choose(lock, number)
                return DirectoryMember(self, self._enter(free, name.lower()), free)
        except OSError as error:
            next_step = "make the directory writable, or run the guest without a network"
            raise NetworkError(f"guests' directory {self._path}: {error.strerror}", next_step) from None

    def find(self, name: str) -> list[Neighbour]:
        """Running guests of that name, newest first."""
        found = [self.at(number) for number in self._numbers()]
        return [guest for guest in reversed(found) if guest is not None and guest.name == name]

    def at(self, number: int) -> Neighbour | None:
        """The guest of a number, if its host still lives."""
        directory = self.directory_of(number)
        try:
            with open(os.path.join(directory, "guest.json"), "rb") as file:
                value = json.loads(file.read(GUEST_BYTES_MAX))
        except (OSError, ValueError):
            return None
        name = value.get("name") if isinstance(value, dict) else None
        return Neighbour(number, name) if isinstance(name, str) and not _is_stale(directory) else None

    async def connect(self, called: Neighbour, port: int, transport: Transport, caller: Caller) -> socket.socket:
        """A connection or flow to a port of a guest, its preamble sent; waits while the backlog is full.

        Raises OSError.
        """
        wait_s = RETRY_S_MIN
        while True:
            try:
                return self._connect(called, port, transport, caller)
            except BlockingIOError:
                await asyncio.sleep(wait_s)
                wait_s = min(2 * wait_s, RETRY_S_MAX)

    def leave(self, number: int, lock: int) -> None:
        """Takes a guest out, and lets go of its lock."""
        # If it can't be removed, whoever joins next will, as its lock is free.
        try:
            with suppress(OSError), self._locked():
                shutil.rmtree(self.directory_of(number), ignore_errors=True)
        finally:
            os.close(lock)

    def _connect(self, called: Neighbour, port: int, transport: Transport, caller: Caller) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX, _SOCKET_TYPES[transport])
        try:
            connection.setblocking(False)
            with short_path(self.directory_of(called.number), _socket_name(port, transport)) as path:
                connection.connect(path)
            preamble = _PREAMBLE.pack(_MAGIC, caller.number, caller.port, caller.version)
            assert connection.send(preamble) == len(preamble), "a new socket has room"
        except FileNotFoundError:
            connection.close()
            raise ConnectionRefusedError(errno.ECONNREFUSED, "the guest doesn't listen there") from None
        except BaseException:
            connection.close()
            raise
        return connection

    def directory_of(self, number: int) -> str:
        """The directory of one guest."""
        return os.path.join(self._path, str(number))

    def _numbers(self) -> list[int]:
        try:
            names = os.listdir(self._path)
        except OSError:
            return []
        return sorted(int(name) for name in names if name.isascii() and name.isdigit())

    @contextmanager
    def _locked(self) -> Iterator[int]:
        """Holds the directory's lock; yields its descriptor."""
        descriptor = os.open(os.path.join(self._path, "lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield descriptor
        finally:
            os.close(descriptor)

    def _remove_stale(self) -> None:
        for number in self._numbers():
            if _is_stale(self.directory_of(number)):
                shutil.rmtree(self.directory_of(number), ignore_errors=True)

    def _choose(self, lock: int, wanted: int | None) -> int:
        """The wanted number, or the next one after the last that was given: addresses are not used again at once."""
        taken, first, last = set(self._numbers()), GUEST_NUMBER_MIN, self.network.guest_number_max
        if wanted is not None and first <= wanted <= last and wanted not in taken:
            return wanted
        text = os.pread(lock, 20, 0).strip()
        start = int(text) + 1 if text.isdigit() else first
        start = start if first <= start <= last else first
        free: int | None = next(
            (each for each in chain(range(start, last + 1), range(first, start)) if each not in taken), None
        )
        if free is None:
            next_step = "end some, or widen network.guests_ipv4"
            raise NetworkError(f"guests' directory {self._path}: all {len(taken)} addresses are taken", next_step)
        os.pwrite(lock, f"{free:<20}".encode(), 0)
        return free

    def _enter(self, number: int, name: str) -> int:
        """Makes a guest's directory; the descriptor of its lock. The directory's lock is held."""
        directory = self.directory_of(number)
        os.mkdir(directory, mode=0o700)
        lock = os.open(os.path.join(directory, "lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            temporary = os.path.join(directory, "guest.json.tmp")
            with open(temporary, "w", encoding="utf-8") as file:
                json.dump({"name": name}, file)
            os.rename(temporary, os.path.join(directory, "guest.json"))
        except BaseException:
            os.close(lock)
            raise
        return lock


class DirectoryMember:
    """A guest's own entry."""

    def __init__(self, directory: GuestDirectory, lock: int, number: int) -> None:
        self.number = number
        self._path = directory.directory_of(number)
        self._directory = directory
        self._lock: int | None = lock

    def listen(self, port: int, transport: Transport) -> socket.socket:
        """A listening socket where neighbours reach this port. Raises OSError."""
        listener = socket.socket(socket.AF_UNIX, _SOCKET_TYPES[transport])
        try:
            listener.setblocking(False)
            with short_path(self._path, _socket_name(port, transport)) as path:
                listener.bind(path)
            listener.listen(BACKLOG_MAX)
        except BaseException:
            listener.close()
            raise
        return listener

    def unlisten(self, port: int, transport: Transport) -> None:
        """Nobody reaches the port any more. Idempotent."""
        with suppress(OSError):
            os.unlink(os.path.join(self._path, _socket_name(port, transport)))

    def leave(self) -> None:
        """The guest is gone. Idempotent."""
        lock, self._lock = self._lock, None
        if lock is not None:
            self._directory.leave(self.number, lock)


def _socket_name(port: int, transport: Transport) -> str:
    return str(port) if transport == "tcp" else f"{port}.udp"


def parse_preamble(data: bytes) -> Caller:
    """What a caller has sent first. Raises ValueError."""
    magic, number, port, version = _PREAMBLE.unpack(data)
    if magic != _MAGIC or version not in (4, 6):
        raise ValueError("it isn't a neighbour's")
    return Caller(number, port, version)


@contextmanager
def short_path(directory: str, name: str) -> Iterator[str]:
    """A path of at most 107 bytes, which is what Unix sockets take, for a file in a directory wherever it is."""
    descriptor = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{descriptor}/{name}"
    finally:
        os.close(descriptor)


def _is_stale(directory: str) -> bool:
    """Whether nobody holds the lock of a guest's directory."""
    try:
        descriptor = os.open(os.path.join(directory, "lock"), os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True
