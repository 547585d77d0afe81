"""Reads logs and objects from a store, by ranges, through a cache on the disk and with read-ahead."""

from __future__ import annotations

import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from functools import cached_property, partial
from hashlib import sha256
from typing import TYPE_CHECKING, Any, TypeVar

import crc32c

from timecraftd.errors import LogError, NotFoundError, RemoteError
from timecraftd.model import Digest, ObjectKind, ProcessId, is_process_id
from timecraftd.recorder.cache import DiskCache
from timecraftd.recorder.manifest import (
    MANIFESTS,
    Manifest,
    Page,
    Segment,
    blob_key,
    decode_manifest,
    decode_page,
    manifest_key,
    object_key,
    segment_key,
)
from timecraftd.recorder.remote import RemoteLoop, RemoteStore, open_store

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from timecraftd.config import RemoteConfig

_T = TypeVar("_T")
CHUNK_BYTES = 128 << 10
"""What is fetched and kept at least, aligned."""
RUN_BYTES = 1 << 20
"""What is fetched at once ahead of a reader, aligned."""
RUNS_MAX = 8
"""Runs that are under way, or waiting for their reader."""
STREAK_MIN = 2
"""Reads that follow on one another before anything is fetched ahead."""
MANIFEST_AGE_S_MAX = 2.0
MANIFESTS_MAX = 16
"""Manifests that are kept in memory, for so long."""
LISTED_MAX = 16
"""Manifests that are fetched at one time for a list."""
PART_BYTES = 8 << 20
NEXT_STEP = "`timecraft ps --remote` lists what is there"


class Remote:
    """What is in the bucket, for those who wait by blocking. Thread-safe; nothing is connected before it is asked."""

    def __init__(
        self,
        config: RemoteConfig,
        cache_dir: str,
        *,
        store: Callable[[], RemoteStore] | None = None,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self.url = config.url.rstrip("/")
        self.cache = DiskCache(cache_dir, config.cache_bytes_max)
        self._open = store or partial(open_store, config)
        self._now_s = now_s
        self._lock = threading.Lock()
        self._known: OrderedDict[ProcessId, tuple[float, Manifest | None]] = OrderedDict()

    @cached_property
    def _loop(self) -> RemoteLoop:
        return RemoteLoop()

    @cached_property
    def _store(self) -> RemoteStore:
        return self._open()

    def close(self) -> None:
        """Ends connections. Idempotent."""
        if "_store" in self.__dict__:
            self._loop.run(self._store.close())
        if "_loop" in self.__dict__:
            self._loop.close()

    # ---- requests

    def _connected(self) -> tuple[RemoteLoop, RemoteStore]:
        """Both are made by the first thread that asks."""
        with self._lock:
            return self._loop, self._store

    def run(self, work: Callable[[RemoteStore], Coroutine[Any, Any, _T]]) -> _T:
        """What a piece of work on the bucket returns or raises."""
        loop, store = self._connected()
        return loop.run(work(store))

    def start(self, work: Callable[[RemoteStore], Coroutine[Any, Any, _T]]) -> Future[_T]:
        """Begins a piece of work on the bucket, which ends if the future is cancelled."""
        loop, store = self._connected()
        return loop.start(work(store))

    def begin(self, key: str, offset: int, length: int) -> Future[bytes]:
        """Begins to fetch a part of an object."""
        loop, store = self._connected()
        return loop.start(store.get(key, offset=offset, length=length))

    def get(self, key: str, offset: int = 0, length: int | None = None) -> bytes | None:
        """Bytes of an object, None if it isn't there. Raises RemoteError."""
        try:
            return self.run(lambda store: store.get(key, offset=offset, length=length))
        except NotFoundError:
            return None

    # ---- processes

    def manifest(self, process_id: ProcessId) -> Manifest | None:
        """What is there of a process, as it was at most a moment ago. Raises RemoteError, LogDamagedError."""
        with self._lock:
            known = self._known.get(process_id)
        if known is not None and self._now_s() - known[0] < MANIFEST_AGE_S_MAX:
            return known[1]
        data = self.get(manifest_key(process_id))
        manifest = None if data is None else decode_manifest(data, process_id)
        with self._lock:
            self._known[process_id] = (self._now_s(), manifest)
            self._known.move_to_end(process_id)
            while len(self._known) > MANIFESTS_MAX:
                self._known.popitem(last=False)
        return manifest

    def segments(self, process_id: ProcessId) -> tuple[Segment, ...]:
        """Segments of a process that are there, in order. Raises RemoteError, LogDamagedError."""
        manifest = self.manifest(process_id)
        if manifest is None:
            return ()
        paged = [segment for page in manifest.pages for segment in self._page(page, process_id)]
        return (*paged, *manifest.segments)

    def _page(self, page: Page, process_id: ProcessId) -> tuple[Segment, ...]:
        name = f"{self.url} {page.key} {page.next_seq}"
        kept = self.cache.get(name)
        data = self.get(page.key) if kept is None else kept
        if data is None:
            raise RemoteError(f"{self.url}/{page.key}: is missing", NEXT_STEP)
        segments = decode_page(data, page, process_id)
        if kept is None:
            self.cache.put(name, data)
        return segments

    def ids(self, prefix: str = "", most: int | None = None) -> list[ProcessId]:
        """Ids of processes, oldest first; so many at most."""

        async def collect(store: RemoteStore) -> list[ProcessId]:
            found: list[ProcessId] = []
            async for info in store.list(MANIFESTS + prefix, delimiter="/"):
                name = info.key.removeprefix(MANIFESTS)
                if name.endswith(".json") and is_process_id(name.removesuffix(".json")):
                    found.append(ProcessId(name.removesuffix(".json")))
                    if len(found) == most:
                        break
            return found

        return self.run(collect)

    def manifests(self, before: str = "") -> Iterator[Manifest]:
        """All processes, or those with ids before one, newest first, as they come.

        One that goes meanwhile is left out, and so is one whose manifest is damaged. Raises RemoteError.
        """
        waiting: OrderedDict[ProcessId, Future[bytes]] = OrderedDict()
        ids = (process_id for process_id in reversed(self.ids()) if not before or process_id < before)
        while True:
            while len(waiting) < LISTED_MAX and (process_id := next(ids, None)) is not None:
                loop, store = self._connected()
                waiting[process_id] = loop.start(store.get(manifest_key(process_id)))
            if not waiting:
                return
            process_id, future = waiting.popitem(last=False)
            try:
                yield decode_manifest(future.result(), process_id)
            except (NotFoundError, LogError):
                continue

    # ---- objects

    def object(self, kind: ObjectKind, digest: Digest) -> bytes | None:
        """An object's bytes, unverified; None if it isn't there. Raises RemoteError."""
        return self.get(object_key(kind, digest))

    def save_blob(self, digest: Digest, size: int, path: str) -> None:
        """Writes a tree's file to a path, verified. Raises RemoteError, OSError."""
        key = blob_key(digest)
        hashed = sha256()
        with open(path, "xb") as file:
            for data in self.parts(key, size):
                hashed.update(data)
                file.write(data)
        if hashed.hexdigest() != digest:
            raise RemoteError(f"{self.url}/{key}: its bytes don't match its name", NEXT_STEP)

    def save_segment(self, process_id: ProcessId, segment: Segment, path: str) -> None:
        """Writes a segment to a path that doesn't exist, whole and verified or not at all.

        Raises RemoteError, OSError.
        """
        key = segment_key(process_id, segment.number)
        draft = f"{path}.{os.getpid()}.new"
        found = 0
        try:
            with open(draft, "xb") as file:
                for data in self.parts(key, segment.size):
                    found = crc32c.crc32c(data, found)
                    file.write(data)
                file.flush()
                os.fsync(file.fileno())
            if f"{found:08x}" != segment.crc32c:
                raise RemoteError(f"{self.url}/{key}: its checksum isn't the one in its manifest", NEXT_STEP)
            os.rename(draft, path)
        finally:
            if os.path.exists(draft):
                os.unlink(draft)

    def parts(self, key: str, size: int) -> Iterator[bytes]:
        """An object of a known size, some MiB at a time. Raises RemoteError."""
        for offset in range(0, size, PART_BYTES):
            length = min(PART_BYTES, size - offset)
            yield checked(self.get(key, offset, length), length, f"{self.url}/{key}")


def checked(data: bytes | None, length: int, name: str) -> bytes:
    """A part of an object that was there when its manifest was read. Raises RemoteError."""
    if data is None:
        raise RemoteError(f"{name}: is gone, somebody deleted it meanwhile", NEXT_STEP)
    if len(data) != length:
        raise RemoteError(f"{name}: is shorter than its manifest says", NEXT_STEP)
    return data


class RemoteLog:
    """The stored segments of one process, as the extension asks for them. See `timecraftd.model.SegmentStore`."""

    def __init__(self, remote: Remote, process_id: ProcessId) -> None:
        """Asks for nothing yet."""
        self._remote = remote
        self._process_id = process_id
        self._lock = threading.Lock()
        self._segments: dict[int, Segment] = {}
        self._streak = 0
        self._position = (-1, 0)
        """Segment and offset behind the last read."""
        self._runs: OrderedDict[tuple[int, int], Future[bytes]] = OrderedDict()
        """What is fetched ahead, by segment and offset."""

    def segments(self) -> Sequence[Segment]:
        """See SegmentStore."""
        found = self._remote.segments(self._process_id)
        with self._lock:
            self._segments = {segment.number: segment for segment in found}
        return found

    def name(self, number: int) -> str:
        """See SegmentStore."""
        return f"{self._remote.url}/{segment_key(self._process_id, number)}"

    def fetch(self, number: int, offset: int, length: int) -> bytes:
        """See SegmentStore."""
        segment = self._segments[number]
        end = min(offset + length, segment.size)
        self._look_ahead(segment, offset, end)
        first = offset - offset % CHUNK_BYTES
        chunks: list[bytes | None] = [self._kept(segment, at) for at in range(first, end, CHUNK_BYTES)]
        at = 0
        while at < len(chunks):
            behind = at
            while behind < len(chunks) and chunks[behind] is None:
                behind += 1
            if behind > at:
                chunks[at:behind] = self._load(segment, first + at * CHUNK_BYTES, first + behind * CHUNK_BYTES)
            at = behind + 1
        return b"".join(chunk for chunk in chunks if chunk is not None)[offset - first : end - first]

    def _load(self, segment: Segment, offset: int, end: int) -> list[bytes]:
        """Chunks, with one request."""
        length = min(end, segment.size) - offset
        key = segment_key(self._process_id, segment.number)
        data = checked(self._remote.get(key, offset, length), length, self.name(segment.number))
        return self._keep(segment, offset, data)

    def _keep(self, segment: Segment, offset: int, data: bytes) -> list[bytes]:
        chunks = [data[at : at + CHUNK_BYTES] for at in range(0, len(data), CHUNK_BYTES)]
        for index, chunk in enumerate(chunks):
            self._remote.cache.put(self._key(segment, offset + index * CHUNK_BYTES), chunk)
        return chunks

    def _kept(self, segment: Segment, offset: int) -> bytes | None:
        """A chunk that was fetched before, or is on its way."""
        start = offset - offset % RUN_BYTES
        with self._lock:
            run = self._runs.get((segment.number, start))
        if run is not None:
            with suppress(RemoteError, NotFoundError, CancelledError):
                if len(data := run.result()) == min(RUN_BYTES, segment.size - start):
                    return data[offset - start : offset - start + CHUNK_BYTES]
            with self._lock:  # who needs it asks again, and is told what is wrong
                self._runs.pop((segment.number, start), None)
        chunk = self._remote.cache.get(self._key(segment, offset))
        whole = min(CHUNK_BYTES, segment.size - offset)
        return chunk if chunk is not None and len(chunk) == whole else None

    def _key(self, segment: Segment, offset: int) -> str:
        # The checksum is a part of it: a segment that was replaced is another one.
        return f"{self.name(segment.number)} {segment.size} {segment.crc32c} {offset}"

    # ---- read-ahead

    def _look_ahead(self, segment: Segment, offset: int, end: int) -> None:
        """Takes note of a read; once reads have followed on one another, begins to fetch what comes next."""
        if offset == segment.index_offset:
            return  # what lies where doesn't tell where a reader goes
        with self._lock:
            number, behind = self._position
            follows = number + 1 == segment.number or (
                number == segment.number and behind <= offset <= behind + RUN_BYTES
            )
            self._streak = self._streak + 1 if follows and number >= 0 else 0
            self._position = (segment.number, end)
            wanted = list(self._next_runs(segment, offset)) if self._streak >= STREAK_MIN else []
            gone = [run for run in self._runs if run not in wanted]
            passed = [(run, self._runs.pop(run)) for run in gone]
        for run, future in passed:
            self._settle(run, future)
        for run in wanted:
            self._begin(run)

    def _settle(self, run: tuple[int, int], future: Future[bytes]) -> None:
        """Keeps what was fetched ahead; gives up what wasn't."""
        number, offset = run
        if not future.cancel():
            with suppress(RemoteError, NotFoundError, CancelledError):
                self._keep(self._segments[number], offset, future.result())

    def _begin(self, run: tuple[int, int]) -> None:
        number, offset = run
        segment = self._segments[number]
        with self._lock:
            if run in self._runs:
                return
        length = min(RUN_BYTES, segment.size - offset)
        chunks = range(offset, offset + length, CHUNK_BYTES)
        if all(self._remote.cache.holds(self._key(segment, at)) for at in chunks):
            return
        future = self._remote.begin(segment_key(self._process_id, number), offset, length)
        with self._lock:
            self._runs[run] = future

    def _next_runs(self, segment: Segment, offset: int) -> Iterator[tuple[int, int]]:
        """The run of a read and those behind it; of the next segments first the end, where the index is."""
        left = RUNS_MAX
        starts = list(range(offset - offset % RUN_BYTES, segment.size, RUN_BYTES))
        while left:
            for start in starts[:left]:
                yield segment.number, start
            left -= min(left, len(starts))
            following = self._segments.get(segment.number + 1)
            if following is None:
                return
            segment = following
            starts = list(range(0, segment.size, RUN_BYTES))
            tail = segment.index_offset - segment.index_offset % RUN_BYTES
            starts.sort(key=lambda start: (start < tail, start))
