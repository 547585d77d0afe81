"""Stores of logs beyond the disk: what they do, how long one tries, and how those wait who know no event loop."""

from __future__ import annotations

import asyncio
import io
import os
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from random import Random
from typing import Any, Protocol, TypeVar
from urllib.parse import urlsplit

from timecraftd.config import RemoteConfig
from timecraftd.errors import ConfigError, RemoteError

_T = TypeVar("_T")
MULTIPART_BYTES_MIN = 16 << 20
"""Files above this size go in parts."""
ATTEMPTS_MAX = 5
BACKOFF_S_MIN = 0.1
BACKOFF_S_MAX = 5.0


class ConflictError(RemoteError):
    """A conditional write whose condition doesn't hold."""


class TransientError(RemoteError):
    """A failure that may be gone at the next attempt: an outage, a reset, a time-out, too many requests."""


@dataclass(frozen=True, slots=True)
class RemoteInfo:
    """What a store says of an object without its bytes."""

    key: str
    size: int
    modified_ns: int = 0
    """Since the Unix epoch, by the store's clock; 0 for a common prefix."""
    crc32c: str | None = None
    """What was said of it when it was put, eight hex digits. Listings don't tell it."""


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a store does beyond the least."""

    conditional: bool
    """Honours If-None-Match and If-Match. Without that, who writes a manifest last wins."""
    checksums: bool
    """Compares what comes with a CRC-32C. Without that it is sent Content-MD5."""


class FilePart(io.RawIOBase):
    """A range of a file, read as it is sent; may be read again."""

    def __init__(self, path: str, offset: int, length: int) -> None:
        """Raises OSError. Owns a descriptor until it is closed."""
        super().__init__()
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self.path = path
        self.offset = offset
        self.length = length
        self._position = 0

    def __len__(self) -> int:
        return self.length

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """As of files."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self.length}[whence]
        self._position = max(base + offset, 0)
        return self._position

    def tell(self) -> int:
        """As of files."""
        return self._position

    def read(self, size: int | None = -1) -> bytes:
        """As of files, but a file that has become shorter is an error: it was to be sent whole."""
        left = max(self.length - self._position, 0)
        wanted = left if size is None or size < 0 else min(size, left)
        data = os.pread(self._descriptor, wanted, self.offset + self._position) if wanted else b""
        if wanted and not data:
            raise OSError(f"{self.path}: has become shorter")
        self._position += len(data)
        return data

    def close(self) -> None:
        """Closes the descriptor. Idempotent."""
        if not self.closed:
            os.close(self._descriptor)
        super().close()


class RemoteStore(Protocol):
    """Objects by key, relative to where the store's URL leads. Each method raises RemoteError.

    What is transient is tried again a few times, with waits, before it is raised.
    """

    @property
    def url(self) -> str:
        """Where it is, for people."""

    async def get(self, key: str, *, offset: int = 0, length: int | None = None) -> bytes:
        """Bytes of an object; fewer than asked for at its end. Raises NotFoundError."""

    async def get_tagged(self, key: str) -> tuple[bytes, str]:
        """An object and its ETag. Raises NotFoundError."""

    async def head(self, key: str) -> RemoteInfo | None:
        """What there is, if it is there."""

    async def put(
        self,
        key: str,
        data: bytes | FilePart,
        *,
        crc32c: int | None = None,
        if_none_match: bool = False,
        if_match: str | None = None,
    ) -> str:
        """Writes an object, whole or not at all; its ETag. Raises ConflictError if the condition doesn't hold.

        `crc32c` is that of the data, which is found out otherwise.
        """

    def list(self, prefix: str, *, delimiter: str = "", start_after: str = "") -> AsyncIterator[RemoteInfo]:
        """Objects in the order of their keys, and common prefixes if there is a delimiter."""

    async def delete(self, keys: Sequence[str]) -> None:
        """Removes what is there of these."""

    async def probe(self) -> Capabilities:
        """What the store does; found out by writing and removing an object, once."""

    async def close(self) -> None:
        """Ends connections. Idempotent."""


class Retries:
    """Tries again what is transient, with waits that grow and differ."""

    def __init__(
        self,
        *,
        attempts_max: int = ATTEMPTS_MAX,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        random: Random | None = None,
    ) -> None:
        self._attempts_max = attempts_max
        self._sleep = sleep
        self._random = random or Random()  # noqa: S311 - spreads load
        self.count = 0
        """Attempts that were not the first."""

    async def __call__(self, attempt: Callable[[], Coroutine[Any, Any, _T]]) -> _T:
        """What an attempt returns, or the last one's TransientError."""
        for number in range(1, self._attempts_max):
            try:
                return await attempt()
            except TransientError:
                self.count += 1
                await self._sleep(backoff_s(number, BACKOFF_S_MIN, BACKOFF_S_MAX, self._random))
        return await attempt()


def backoff_s(attempt: int, least_s: float, most_s: float, random: Random) -> float:
    """A wait after the n-th failure, from 1 on: half to all of what doubles each time, up to a bound."""
    ceiling = min(least_s * float(1 << min(attempt - 1, 32)), most_s)
    return ceiling * (0.5 + random.random() / 2)


def parse_url(url: str) -> tuple[str, str]:
    """Bucket, and prefix of keys with a slash at its end if there is one. Raises ConfigError."""
    parts = urlsplit(url)
    if parts.scheme != "s3" or not parts.netloc or parts.query or parts.fragment:
        raise ConfigError(f"remote.url {url!r}: isn't s3://BUCKET or s3://BUCKET/PREFIX", "correct it")
    prefix = parts.path.strip("/")
    return parts.netloc, f"{prefix}/" if prefix else ""


def open_store(config: RemoteConfig) -> RemoteStore:
    """The store that a configuration names. Raises ConfigError."""
    from timecraftd.recorder.s3 import S3Store  # takes a while, and most commands need none

    return S3Store(config)


class RemoteLoop:
    """An event loop in a thread of its own, for those who wait by blocking. Thread-safe."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="timecraft-remote", daemon=True)
        self._thread.start()

    def start(self, work: Coroutine[Any, Any, _T]) -> Future[_T]:
        """Begins, and doesn't wait."""
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def run(self, work: Coroutine[Any, Any, _T]) -> _T:
        """What the coroutine returns or raises; if the wait is interrupted the coroutine is cancelled."""
        future = self.start(work)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def close(self) -> None:
        """Cancels what runs, and waits until nothing of it does, in other threads neither. Idempotent."""
        if not self._loop.is_closed():
            self.run(self._wind_up())
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    async def _wind_up(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await self._loop.shutdown_default_executor()
