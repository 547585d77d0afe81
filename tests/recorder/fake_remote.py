"""A store of logs in memory, which fails as it is told to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from timecraftd.errors import NotFoundError, RemoteError
from timecraftd.recorder.remote import Capabilities, ConflictError, FilePart, RemoteInfo, TransientError
from timecraftd.recorder.s3 import checksum


@dataclass
class FakeStore:
    """As S3 is with conditional writes; without, conditions are looked at before each write."""

    url: str = "s3://fake"
    objects: dict[str, tuple[bytes, str]] = field(default_factory=dict)
    """Bytes and ETag by key."""
    requests: list[tuple[str, str]] = field(default_factory=list)
    """What was asked, and of which key, faults included."""
    fault: Callable[[str, str], Exception | str | None] = lambda _operation, _key: None
    """Asked before each request. An exception is raised, `lost` does the work and loses the answer."""
    conditional: bool = True
    now_ns: Callable[[], int] = lambda: 1
    turn: Callable[[str, str], Awaitable[None]] = lambda *_: asyncio.sleep(0)
    """Awaited before each request."""
    modified: dict[str, int] = field(default_factory=dict)
    """When objects were put, by `now_ns`."""
    _tags: int = 0

    async def close(self) -> None:
        """Nothing is open."""

    async def probe(self) -> Capabilities:
        """What the fake was told to do."""
        return Capabilities(conditional=self.conditional, checksums=True)

    async def get(self, key: str, *, offset: int = 0, length: int | None = None) -> bytes:
        """As the protocol says."""
        data = (await self._get("get", key))[0]
        return data[offset:] if length is None else data[offset : offset + length]

    async def get_tagged(self, key: str) -> tuple[bytes, str]:
        """As the protocol says."""
        return await self._get("get", key)

    async def head(self, key: str) -> RemoteInfo | None:
        """As the protocol says."""
        try:
            data, _ = await self._get("head", key)
        except NotFoundError:
            return None
        return RemoteInfo(key, len(data), self.modified.get(key, 1), f"{checksum(data):08x}")

    async def put(
        self,
        key: str,
        data: bytes | FilePart,
        *,
        crc32c: int | None = None,
        if_none_match: bool = False,
        if_match: str | None = None,
    ) -> str:
        """As the protocol says."""
        lost = await self._asked("put", key)
        body = data if isinstance(data, bytes) else data.read()
        found = self.objects.get(key)
        if (if_none_match and found) or (if_match is not None and (found is None or found[1] != if_match)):
            raise ConflictError(f"{key}: has changed")
        if crc32c is not None and checksum(body) != crc32c:
            raise RemoteError(f"{key}: BadDigest")
        self._tags += 1
        self.objects[key] = (body, f'"{self._tags}"')
        self.modified[key] = self.now_ns()
        if lost:
            raise TransientError(f"{key}: the answer was lost")
        return self.objects[key][1]

    async def list(self, prefix: str, *, delimiter: str = "", start_after: str = "") -> AsyncIterator[RemoteInfo]:
        """As the protocol says."""
        await self._asked("list", prefix)
        told = set()
        for key in sorted(self.objects):
            if key.startswith(prefix) and key > start_after:
                inner, found, _ = key[len(prefix) :].partition(delimiter) if delimiter else (key, "", "")
                shown = prefix + inner + delimiter if found else key
                if shown not in told:
                    told.add(shown)
                    info = RemoteInfo(key, len(self.objects[key][0]), self.modified.get(key, 1))
                    yield RemoteInfo(shown, 0) if found else info

    async def delete(self, keys: Sequence[str]) -> None:
        """As the protocol says."""
        for key in keys:
            lost = await self._asked("delete", key)
            self.objects.pop(key, None)
            if lost:
                raise TransientError(f"{key}: the answer was lost")

    async def _get(self, operation: str, key: str) -> tuple[bytes, str]:
        await self._asked(operation, key)
        if key not in self.objects:
            raise NotFoundError(f"{key}: is not there")
        return self.objects[key]

    async def _asked(self, operation: str, key: str) -> bool:
        await self.turn(operation, key)
        self.requests.append((operation, key))
        fault = self.fault(operation, key)
        if isinstance(fault, Exception):
            raise fault
        return fault == "lost"
