"""A cache on the disk of what was read from a store: bounded, shared by processes of the host, never believed."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from hashlib import sha256

import crc32c

CRC_BYTES = 4
SHARE_PER_SWEEP = 16
"""After so much of its bound, as a share, was written, the cache looks at its size again."""
DRAFT_S_MAX = 600.0
"""Drafts older than this belong to nobody."""


class DiskCache:
    """Values by key, each in a file with its checksum. What was used longest ago goes first. Thread-safe.

    Each process that writes may be above the bound by a sixteenth of it until it looks again. Without room, or the
    right to write, nothing is kept: a cache is no reason to fail. With a bound of 0 it has nothing.
    """

    def __init__(self, directory: str, bytes_max: int, *, now_s: Callable[[], float] = time.time) -> None:
        self.directory = directory
        self._bytes_max = bytes_max
        self._now_s = now_s
        self._lock = threading.Lock()
        self._unswept: int | None = None
        """Bytes written since the last look; None before the first."""

    def holds(self, key: str) -> bool:
        """Whether a value is there, damaged or not."""
        return bool(self._bytes_max) and os.path.exists(self._path(key))

    def get(self, key: str) -> bytes | None:
        """A value, if it is there undamaged."""
        if not self._bytes_max:
            return None
        path = self._path(key)
        try:
            with open(path, "rb") as file:
                stored = file.read()
            value = stored[:-CRC_BYTES]
            if len(stored) < CRC_BYTES or crc32c.crc32c(value).to_bytes(CRC_BYTES, "little") != stored[-CRC_BYTES:]:
                os.unlink(path)
                return None
            now_s = self._now_s()
            os.utime(path, (now_s, now_s))
        except OSError:
            return None
        return value

    def put(self, key: str, value: bytes) -> None:
        """Keeps a value, if there is room."""
        size = len(value) + CRC_BYTES
        if size > self._bytes_max // SHARE_PER_SWEEP:
            return
        self._make_room(size)
        path = self._path(key)
        draft = f"{path}.{os.getpid()}-{threading.get_ident()}.tmp"
        try:
            os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
            with open(draft, "wb") as file:
                file.write(value)
                file.write(crc32c.crc32c(value).to_bytes(CRC_BYTES, "little"))
            os.rename(draft, path)
        except OSError:
            with suppress(OSError):
                os.unlink(draft)

    def _path(self, key: str) -> str:
        name = sha256(key.encode()).hexdigest()
        return os.path.join(self.directory, name[:2], name)

    def _make_room(self, size: int) -> None:
        with self._lock:
            share = self._bytes_max // SHARE_PER_SWEEP
            if self._unswept is None or self._unswept + size > share:
                self._sweep(self._bytes_max - share)
                self._unswept = 0
            self._unswept += size

    def _sweep(self, bytes_max: int) -> None:
        """Removes the oldest values until the others take no more than this."""
        found = []
        for folder, _, names in os.walk(self.directory):
            for name in names:
                path = os.path.join(folder, name)
                with suppress(OSError):
                    stat = os.stat(path)
                    is_lost = name.endswith(".tmp") and stat.st_mtime + DRAFT_S_MAX < self._now_s()
                    found.append((0.0 if is_lost else stat.st_mtime, stat.st_size, path))
        total = sum(size for _, size, _ in found)
        for used_s, size, path in sorted(found):
            if total <= bytes_max and used_s > 0.0:
                return
            with suppress(OSError):
                os.unlink(path)
            total -= size
