"""The standard streams of a guest that somebody is attached to."""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import AsyncIterator, Callable
from contextlib import suppress

from timecraftd.supervisor.channel import once

PIPE_BYTES = 1 << 20
READ_BYTES_MAX = 256 << 10
STDOUT, STDERR, TRACE = 1, 2, 3


class Stdio:
    """Pipes to and from a guest. The guest waits if nobody reads: memory is bounded by the pipes."""

    def __init__(self, *, trace: bool, stdin: bool) -> None:
        """Opens the pipes. Raises OSError if there are no descriptors left."""
        self._loop = asyncio.get_running_loop()
        self._ours: dict[int, int] = {}
        self._theirs: list[int] = []
        try:
            read_end, write_end = os.pipe2(os.O_CLOEXEC)
            self._theirs.append(read_end)
            self._stdin: int | None = write_end
            for stream in (STDOUT, STDERR, *([TRACE] if trace else [])):
                read_end, write_end = os.pipe2(os.O_CLOEXEC)
                self._ours[stream] = read_end
                self._theirs.append(write_end)
                os.set_blocking(read_end, False)
                with suppress(OSError):  # bounded for users by fs.pipe-user-pages-soft; smaller ones do too
                    fcntl.fcntl(write_end, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
            os.set_blocking(self._stdin, False)
        except BaseException:
            self.close()
            raise
        if not stdin:
            self.close_stdin()
        self.has_trace = trace

    def outputs(self) -> list[int]:
        """For a replay: the ends to write to."""
        return self._theirs[1:]

    def descriptors(self) -> list[int]:
        """For the worker: the guest's ends, then those to take output from when we are gone."""
        return [*self._theirs, *self._ours.values()]

    def handed_over(self) -> None:
        """The worker has its duplicates of the guest's ends."""
        for descriptor in self._theirs:
            os.close(descriptor)
        self._theirs.clear()

    async def write(self, data: bytes) -> None:
        """Writes to the guest's standard input, waiting for room. What a guest that reads no more gets is lost."""
        view = memoryview(data)
        while view and self._stdin is not None:
            try:
                view = view[os.write(self._stdin, view) :]
            except BlockingIOError:
                await _until(self._loop.add_writer, self._loop.remove_writer, self._stdin)
            except OSError:
                self.close_stdin()

    def close_stdin(self) -> None:
        """The guest finds the end of its standard input. Idempotent."""
        if self._stdin is not None:
            self._loop.remove_writer(self._stdin)
            os.close(self._stdin)
            self._stdin = None

    async def output(self) -> AsyncIterator[tuple[int, bytes]]:
        """(stream, bytes) until the guest has closed all of them."""
        while self._ours:
            for stream, descriptor in list(self._ours.items()):
                try:
                    data = os.read(descriptor, READ_BYTES_MAX)
                except BlockingIOError:
                    continue
                if data:
                    yield stream, data
                else:
                    os.close(self._ours.pop(stream))
            if self._ours:
                await self._readable()

    async def drain(self) -> None:
        """Takes output that nobody wants any more: the guest goes on, and its log has it."""
        async for _ in self.output():
            pass

    def close(self) -> None:
        """Closes all. Idempotent."""
        self.handed_over()
        self.close_stdin()
        for descriptor in self._ours.values():
            self._loop.remove_reader(descriptor)
            os.close(descriptor)
        self._ours.clear()

    async def _readable(self) -> None:
        ready: asyncio.Future[None] = self._loop.create_future()
        for descriptor in self._ours.values():
            self._loop.add_reader(descriptor, once(ready))
        try:
            await ready
        finally:
            for descriptor in self._ours.values():
                self._loop.remove_reader(descriptor)


async def _until(add: Callable[..., None], remove: Callable[..., object], descriptor: int) -> None:
    ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    add(descriptor, once(ready))
    try:
        await ready
    finally:
        remove(descriptor)
