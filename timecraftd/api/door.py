"""The Unix socket that clients come through, where the kernel tells who they are."""

# gRPC doesn't show who is at the other end of a Unix socket. So this door asks the kernel (SO_PEERCRED) and carries the
# bytes to gRPC's own socket, which only the daemon's user can reach, from an address that says what the kernel said:
# gRPC shows that as the peer.

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import re
import secrets
import socket
import stat
from collections.abc import Callable

from timecraftd.errors import ConfigError, StateBusyError
from timecraftd.supervisor.channel import peer_credentials

CONNECTIONS_MAX = 4096
BUFFER_BYTES = 256 << 10
PEER = re.compile(r"unix-abstract:(?:%00)?timecraft-([0-9a-f]{16})-([0-9]+)-([0-9]+)-[0-9]+")


class Door:
    """Belongs to one event loop."""

    def __init__(self, path: str, inner: str, *, mode: int, group: int | None, log: Callable[..., None]) -> None:
        """`inner` is the path of gRPC's socket."""
        self._path = path
        self._inner = inner
        self._mode = mode
        self._group = group
        self._log = log
        self._secret = secrets.token_hex(8)
        self._numbers = itertools.count(1)
        self._tasks: set[asyncio.Task[None]] = set()
        self._listener: socket.socket | None = None
        self._is_ours = False
        self._accepting: asyncio.Task[None] | None = None

    def open(self, given: socket.socket | None = None) -> None:
        """Lets clients come; `given` is a listening socket from systemd. Raises ConfigError, StateBusyError."""
        self._listener = given or self._bind()
        self._is_ours = given is None
        self._listener.setblocking(False)
        self._accepting = asyncio.get_running_loop().create_task(self._accept(self._listener))

    async def close(self) -> None:
        """Ends all connections."""
        if self._accepting is not None:
            self._accepting.cancel()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._listener is not None:
            self._listener.close()
            if self._is_ours:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(self._path)

    def peer(self, text: str) -> tuple[int, int] | None:
        """(uid, gid) of a peer as gRPC shows it; None if it didn't come through this door."""
        found = PEER.fullmatch(text)
        if found is None or not secrets.compare_digest(found[1], self._secret):
            return None
        return int(found[2]), int(found[3])

    def _bind(self) -> socket.socket:
        try:
            if stat.S_ISSOCK(os.stat(self._path).st_mode):
                with socket.socket(socket.AF_UNIX) as probe:
                    try:
                        probe.connect(self._path)
                    except ConnectionRefusedError:
                        os.unlink(self._path)  # of a daemon that is gone
                    else:
                        raise StateBusyError(f"{self._path}: another daemon listens there", "stop it first")
        except FileNotFoundError:
            pass
        listener = socket.socket(socket.AF_UNIX)
        before = os.umask(0o177)
        try:
            listener.bind(self._path)
            if self._group is not None:
                os.chown(self._path, -1, self._group)
            os.chmod(self._path, self._mode)
            listener.listen(128)
        except OSError as error:
            listener.close()
            raise ConfigError(
                f"node.socket {self._path}: {error.strerror}", "give another path, or set TIMECRAFT_HOME"
            ) from None
        finally:
            os.umask(before)
        return listener

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, _ = await loop.sock_accept(listener)
            except OSError as error:  # no descriptors left: those who wait are served when there are
                self._log("accept failed", level="warning", error=str(error))
                await asyncio.sleep(0.1)
                continue
            if len(self._tasks) >= CONNECTIONS_MAX:
                connection.close()
                continue
            task = loop.create_task(self._carry(connection))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _carry(self, outer: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        _, uid, gid = peer_credentials(outer)
        inner = socket.socket(socket.AF_UNIX)
        with outer, inner:
            outer.setblocking(False)
            inner.setblocking(False)
            inner.bind(f"\0timecraft-{self._secret}-{uid}-{gid}-{next(self._numbers)}")
            try:
                await loop.sock_connect(inner, self._inner)
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(_pump(outer, inner))
                    tasks.create_task(_pump(inner, outer))
            except* OSError:
                pass  # either end is gone


async def _pump(source: socket.socket, target: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    buffer = bytearray(BUFFER_BYTES)
    view = memoryview(buffer)
    while count := await loop.sock_recv_into(source, buffer):
        await loop.sock_sendall(target, view[:count])
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)
