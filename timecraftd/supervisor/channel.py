"""Messages between the control process and its workers, with descriptors, over a Unix socket."""

# One JSON object a message; the socket (SOCK_SEQPACKET) keeps their bounds. `{"id", "op", ...}` asks, `{"reply", ...}`
# with the same number answers, `{"event", ...}` tells. Both ends are of one version of Timecraft or of neighbouring
# ones: unknown keys are ignored, unknown operations refused.

from __future__ import annotations

import asyncio
import itertools
import json
import os
import socket
import struct
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any

from timecraftd import errors
from timecraftd.errors import TimecraftError, WorkerLostError

MESSAGE_BYTES_MAX = 128 << 10
"""Below what a Unix socket takes in one piece by default (net.core.wmem_default)."""
DESCRIPTORS_MAX = 8
CALLS_MAX = 4096
"""Requests that wait for their answers."""

Handler = Callable[[str, dict[str, Any], list[int]], Awaitable[dict[str, Any]]]
"""Operation, arguments, descriptors that it owns now -> answer. Raises TimecraftError."""


class Peer:
    """One end of a channel. Belongs to the loop that it was made in."""

    def __init__(
        self,
        connection: socket.socket,
        *,
        handle: Handler | None = None,
        tell: Callable[[str, dict[str, Any]], None] | None = None,
    ) -> None:
        """Takes over a connected socket; `handle` answers what the other end asks, `tell` takes its events."""
        connection.setblocking(False)
        self._socket = connection
        self._handle = handle
        self._tell = tell
        self._loop = asyncio.get_running_loop()
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._sending = asyncio.Lock()
        self._blocked: set[asyncio.Future[None]] = set()

    async def call(self, operation: str, descriptors: Sequence[int] = (), **arguments: object) -> dict[str, Any]:
        """Asks the other end. Raises what it raised, and WorkerLostError if it goes away first."""
        if len(self._waiting) >= CALLS_MAX:
            raise WorkerLostError(f"worker: {CALLS_MAX} requests wait for it", "see why it is slow")
        number = next(self._numbers)
        answer: asyncio.Future[dict[str, Any]] = self._loop.create_future()
        self._waiting[number] = answer
        try:
            await self._send({"id": number, "op": operation, **arguments}, descriptors)
            return await answer
        finally:
            del self._waiting[number]

    async def tell(self, event: str, **arguments: object) -> None:
        """Tells the other end, if it is there."""
        with suppress(WorkerLostError):
            await self._send({"event": event, **arguments})

    async def serve(self) -> None:
        """Reads until the other end is gone."""
        try:
            while (received := await self._receive()) is not None:
                self._take(*received)
        finally:
            self.close()

    def close(self) -> None:
        """Hangs up: what waits fails. Idempotent."""
        if self._socket.fileno() >= 0:
            self._loop.remove_reader(self._socket)
            self._loop.remove_writer(self._socket)
            self._socket.close()
        for answer in self._waiting.values():
            if not answer.done():
                answer.set_exception(_gone())
        for ready in self._blocked:
            once(ready)()  # what they try next fails

    def _take(self, message: dict[str, Any], descriptors: list[int]) -> None:
        if "op" in message and self._handle is not None:
            task = self._loop.create_task(self._answer(message, descriptors))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            return
        for descriptor in descriptors:
            os.close(descriptor)
        if "reply" in message:
            answer = self._waiting.get(message["reply"])
            if answer is None or answer.done():
                return
            if "error" in message:
                answer.set_exception(decode_error(message))
            else:
                answer.set_result(message)
        elif "event" in message and self._tell is not None:
            self._tell(message.pop("event"), message)

    async def _answer(self, message: dict[str, Any], descriptors: list[int]) -> None:
        number, operation = message.pop("id"), message.pop("op")
        assert self._handle is not None, "checked by the caller"
        try:
            answer = await self._handle(operation, message, descriptors)
        except TimecraftError as error:
            answer = encode_error(error)
        except Exception as error:  # noqa: BLE001 - the other end is to know, and to go on
            answer = encode_error(errors.EngineError(f"{operation}: {type(error).__name__}: {error}", "report it"))
        with suppress(WorkerLostError):
            await self._send({"reply": number, **answer})

    async def _send(self, message: dict[str, Any], descriptors: Sequence[int] = ()) -> None:
        data = json.dumps(message, separators=(",", ":")).encode()
        if len(data) > MESSAGE_BYTES_MAX:
            raise errors.UsageError(f"message of {len(data)} bytes: {MESSAGE_BYTES_MAX} are taken", "ask for less")
        async with self._sending:
            while True:
                try:
                    socket.send_fds(self._socket, [data], list(descriptors))
                    return
                except BlockingIOError:
                    await self._ready(self._loop.add_writer, self._loop.remove_writer)
                except OSError:
                    raise _gone() from None

    async def _receive(self) -> tuple[dict[str, Any], list[int]] | None:
        while True:
            try:
                data, descriptors, _, _ = socket.recv_fds(self._socket, MESSAGE_BYTES_MAX, DESCRIPTORS_MAX)
            except BlockingIOError:
                await self._ready(self._loop.add_reader, self._loop.remove_reader)
            except OSError:
                return None
            else:
                return (json.loads(data), list(descriptors)) if data else None

    async def _ready(self, add: Callable[..., None], remove: Callable[..., object]) -> None:
        if self._socket.fileno() < 0:
            raise _gone()
        ready: asyncio.Future[None] = self._loop.create_future()
        add(self._socket, once(ready))
        self._blocked.add(ready)
        try:
            await ready
        finally:
            self._blocked.discard(ready)
            if self._socket.fileno() >= 0:
                remove(self._socket)


def encode_error(error: TimecraftError) -> dict[str, object]:
    """An error as an answer."""
    return {"error": type(error).__name__, "message": error.message[:16384], "next_step": error.next_step}


def decode_error(answer: dict[str, Any]) -> TimecraftError:
    """The error that an answer is."""
    kind = getattr(errors, answer["error"], errors.EngineError)
    error: TimecraftError = kind(answer["message"], answer["next_step"])
    return error


def once(ready: asyncio.Future[None]) -> Callable[[], None]:
    """A callback that lets those go on who wait."""

    def do() -> None:
        if not ready.done():
            ready.set_result(None)

    return do


def _gone() -> WorkerLostError:
    return WorkerLostError("worker: it is gone", "its processes are settled, and resumed if their policy says so")


class Directory:
    """A directory of sockets. Paths beyond what an address holds (107 bytes) are reached through its descriptor."""

    def __init__(self, path: str) -> None:
        os.makedirs(path, mode=0o700, exist_ok=True)
        self.path = path
        self._descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def close(self) -> None:
        """Closes it."""
        os.close(self._descriptor)

    def listen(self, name: str) -> socket.socket:
        """A listening socket in place of what has that name."""
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            with suppress(FileNotFoundError):
                os.unlink(name, dir_fd=self._descriptor)
            listener.bind(self.address(name))
            listener.listen(4)
        except BaseException:
            listener.close()
            raise
        listener.setblocking(False)
        return listener

    def connect(self, name: str) -> socket.socket:
        """A socket that is connected to the one with that name. Raises OSError."""
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            connection.connect(self.address(name))
        except BaseException:
            connection.close()
            raise
        return connection

    def names(self) -> list[str]:
        """What is in it."""
        return sorted(os.listdir(self.path))

    def remove(self, name: str) -> None:
        """Removes a name, if it is there."""
        with suppress(FileNotFoundError):
            os.unlink(name, dir_fd=self._descriptor)

    def address(self, name: str) -> str:
        """The path of a name in it that fits a socket's address, in this process."""
        return f"/proc/self/fd/{self._descriptor}/{name}"


def peer_credentials(connection: socket.socket) -> tuple[int, int, int]:
    """(process id, uid, gid) of who is at the other end of a Unix socket, as the kernel tells."""
    pid, uid, gid = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return pid, uid, gid
