"""Sends logs to a store while they grow. The file system is the queue: what is sealed and isn't there yet is to go.

What of a process is in the store is in a small file beside its log. Losing that file costs a look at the store.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any, Protocol

from timecraftd.config import RemoteConfig
from timecraftd.errors import LogDamagedError, LogError, NotFoundError, RemoteError, TimecraftError
from timecraftd.labels import Labels
from timecraftd.model import Digest, ObjectKind, ProcessId, ProcessRecord
from timecraftd.recorder.labelling import sent_labels
from timecraftd.recorder.manifest import (
    SEGMENTS_MAX,
    Manifest,
    Page,
    Segment,
    blob_key,
    decode_manifest,
    deleted_key,
    encode_manifest,
    encode_page,
    manifest_key,
    object_key,
    page_key,
    public_record,
    segment_key,
)
from timecraftd.recorder.remote import ConflictError, FilePart, RemoteStore, TransientError, backoff_s
from timecraftd.recorder.segments import Sealed, file_sums, sealed_segment, segment_files
from timecraftd.recorder.sweeping import Presence, SweptError

STATE_FILE = "upload.json"
STEP_SEGMENTS_MAX = 8
STEP_BYTES_MAX = 64 << 20
"""After so much of one process it is the next one's turn."""
LOOK_S = 0.25
"""How often it is looked for what running processes have sealed."""
LOOK_ALL_S = 60.0
"""How often for what anybody else has left."""
BACKOFF_S_MIN = 0.5
BACKOFF_S_MAX = 60.0
KNOWN_MAX = 100_000
"""Processes that are remembered to be in the store."""
SWEPT_S = 1.0
"""How often it is looked whether a sweep of the store is over,"""
SWEPT_LOOKS_MAX = 60
"""and how often by who sends particular processes."""
MARK_AGE_S_MAX = 60.0
"""So old may be what is known of the store's last sweep when objects are looked for."""


@dataclass(frozen=True, slots=True)
class LocalObject:
    """An object, or a file of a tree, on the disk."""

    kind: ObjectKind | None
    """None: a file of a tree."""
    digest: Digest
    path: str
    size: int

    @property
    def key(self) -> str:
        """Where it is to be."""
        return blob_key(self.digest) if self.kind is None else object_key(self.kind, self.digest)


class Source(Protocol):
    """A state directory. Called in threads; each raises TimecraftError."""

    def processes(self, *, recent_only: bool) -> list[ProcessRecord]:
        """Recorded processes that run or are new; or all, with those whose hosts died recovered."""

    def process(self, process_id: ProcessId) -> ProcessRecord:
        """One of them. Raises NotFoundError."""

    def directory(self, process_id: ProcessId) -> str:
        """Of a process; its log is in `log` below."""

    def objects(self, process: ProcessRecord) -> list[LocalObject]:
        """What a replay needs beside the log."""

    def recover(self, process: ProcessRecord) -> None:
        """Has the last segment of a process that has ended sealed."""


@dataclass(slots=True)
class Totals:
    """What was done so far."""

    segments: int = 0
    bytes: int = 0
    objects: int = 0
    failures: int = 0
    conflicts: int = 0


@dataclass(slots=True)
class _Process:
    """What is to be sent of a process."""

    id: ProcessId
    manifest: Manifest | None = None
    """As it is in the store, as far as is known."""
    etag: str | None = None
    waiting_bytes: int = 0
    """Of its log, sealed or not, what isn't in the store."""
    waiting_segments: int = 0
    oldest_ns: int | None = None
    """When the first of them was sealed, Unix time."""
    failures: int = 0
    retry_at: float = 0.0
    problem: str = ""
    kept_back: bool = False
    """The store couldn't be reached."""
    is_verified: bool = True
    """No sweep has removed objects between our look for them and the manifest that names them."""
    is_deleted: bool = False
    """Somebody has deleted it from the store: it isn't sent again."""
    loaded: bool = False
    busy: bool = False


@dataclass(frozen=True, slots=True)
class Status:
    """An uploader at one moment."""

    processes: int = 0
    """Of which something isn't in the store."""
    waiting_segments: int = 0
    waiting_bytes: int = 0
    lag_s: float = 0.0
    """Age of the oldest sealed segment that isn't in the store."""
    sending: int = 0
    failing: int = 0
    """Processes whose last attempt failed."""
    problem: str = ""
    """What the last one said."""
    is_full: bool = False
    """The budget of what isn't in the store is used up."""
    conditional: bool | None = None
    """Whether the store honours conditions; None: nobody knows yet."""
    retries: int = 0
    totals: Totals = field(default_factory=Totals)


class DeletedError(RemoteError):
    """A process that isn't sent because somebody has deleted it from the store."""


class Uploader:
    """Belongs to one event loop; `status` may be called from any thread."""

    def __init__(
        self,
        store: RemoteStore,
        source: Source,
        config: RemoteConfig,
        *,
        node: str,
        log: Callable[..., None],
        on_full: Callable[[bool], None] = lambda _full: None,
        now_ns: Callable[[], int] = time.time_ns,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        random: Random | None = None,
    ) -> None:
        """`on_full` is told when the budget is used up, and when it isn't any more."""
        self._store = store
        self._source = source
        self._config = config
        self._node = node
        self._log = log
        self._on_full = on_full
        self._now_ns = now_ns
        self._sleep = sleep
        self._random = random or Random()  # noqa: S311 - spreads load
        self._waiting: OrderedDict[ProcessId, _Process] = OrderedDict()
        self._deleted: set[ProcessId] = set()
        self._done: OrderedDict[ProcessId, tuple[int, Labels]] = OrderedDict()
        """Processes that are wholly in the store, with their epochs and labels."""
        self._work = asyncio.Condition()
        self._clock = asyncio.get_running_loop().time
        self._presence = Presence(store, node=node, clock=self._clock, random=self._random)
        self._full = False
        self._conditional: bool | None = None
        self.totals = Totals()

    # ---- what there is to do

    async def run(self) -> None:
        """Sends until it is cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._look_for_work())
            for _ in range(self._config.uploads_max):
                tasks.create_task(self._serve())

    async def push(self, process_ids: Sequence[ProcessId]) -> None:
        """Sends all that is sealed of these processes. Raises TimecraftError at the first that can't be sent."""
        for process_id in process_ids:
            item = self._waiting.setdefault(process_id, _Process(process_id))
            while await self._unswept_step(item):
                pass
            if not item.waiting_bytes:
                self._waiting.pop(process_id, None)

    def status(self) -> Status:
        """How it stands."""
        items = list(self._waiting.values())
        oldest = min((item.oldest_ns for item in items if item.oldest_ns is not None), default=None)
        problems = [item.problem for item in items if item.problem]
        return Status(
            processes=len(items),
            waiting_segments=sum(item.waiting_segments for item in items),
            waiting_bytes=sum(item.waiting_bytes for item in items),
            lag_s=0.0 if oldest is None else max(self._now_ns() - oldest, 0) / 1e9,
            sending=sum(item.busy for item in items),
            failing=len(problems),
            problem=problems[-1] if problems else "",
            is_full=self._full,
            conditional=self._conditional,
            retries=getattr(getattr(self._store, "retries", None), "count", 0),
            totals=replace(self.totals),
        )

    async def _look_for_work(self) -> None:
        all_at = 0.0
        while True:
            everything = self._clock() >= all_at
            try:
                found = await asyncio.to_thread(self._source.processes, recent_only=not everything)
                found = await asyncio.to_thread(self._unfinished, found)
                if everything:
                    all_at = self._clock() + LOOK_ALL_S
                for process in found:
                    self._waiting.setdefault(process.id, _Process(process.id))
                await asyncio.to_thread(self._measure, list(self._waiting.values()))
            except (TimecraftError, OSError) as error:
                self._log("uploads: the state directory can't be read", level="error", error=str(error))
            self._tell_if_full()
            async with self._work:
                self._work.notify_all()
            await self._sleep(LOOK_S)

    def _unfinished(self, processes: list[ProcessRecord]) -> list[ProcessRecord]:
        """Without those that are wholly in the store."""
        sent = [process for process in processes if process.id not in self._deleted]
        return [process for process in sent if process.state.is_alive or not self._is_complete(process)]

    def _is_complete(self, process: ProcessRecord) -> bool:
        if self._done.get(process.id) == (process.epoch, process.labels):
            return True
        if process.id in self._waiting:
            return False
        if not os.path.isdir(self._source.directory(process.id)):
            return True  # it is here by its name only
        item = _Process(process.id)
        self._load(item)
        if item.is_deleted:
            self._note_deleted(item)
            return True
        if item.manifest is None or not item.is_verified or not _is_whole(item.manifest, process):
            return False
        self._note_done(process)
        return True

    def _note_done(self, process: ProcessRecord) -> None:
        self._done[process.id] = (process.epoch, process.labels)
        if len(self._done) > KNOWN_MAX:
            self._done.popitem(last=False)

    def _note_deleted(self, item: _Process) -> None:
        self._deleted.add(item.id)
        if len(self._deleted) > KNOWN_MAX:
            self._deleted.pop()

    def _measure(self, items: list[_Process]) -> None:
        """What of these processes isn't in the store."""
        for item in items:
            next_number = item.manifest.next_number if item.manifest else 0
            files = [each for each in segment_files(self._log_dir(item.id)) if each[0] >= next_number]
            item.waiting_bytes = sum(size for _, _, size in files)
            item.waiting_segments = len(files)
            item.oldest_ns = None
            for number, path, _ in files[:1]:
                with contextlib.suppress(FileNotFoundError):
                    found = sealed_segment(path, number)
                    item.oldest_ns = found.modified_ns if found else None

    def _tell_if_full(self) -> None:
        used = sum(item.waiting_bytes for item in self._waiting.values())
        most = self._config.local_bytes_max
        # Released well below the bound, so that it isn't switched with each segment.
        full = self._config.when_full == "wait" and (used > most or (self._full and used > most * 0.9))
        if full != self._full:
            self._full = full
            what = "the budget of logs that aren't in the store is used up, guests wait" if full else "guests go on"
            self._log(f"uploads: {what}", level="warning" if full else "info", bytes=used, bytes_max=most)
        self._on_full(full)

    # ---- workers

    async def _serve(self) -> None:
        while True:
            item = await self._take()
            item.busy = True
            try:
                more = await self._step(item)
                self._succeeded(item)
                if more:
                    self._waiting.move_to_end(item.id)
                elif not item.waiting_bytes and item.manifest is not None and item.manifest.complete:
                    self._waiting.pop(item.id, None)
                else:
                    item.retry_at = self._clock() + LOOK_S
            except NotFoundError:
                self._waiting.pop(item.id, None)  # removed meanwhile
            except DeletedError as error:
                self._waiting.pop(item.id, None)
                self._note_deleted(item)
                self._log("uploads: not sent any more", level="warning", process=item.id, error=str(error))
            except SweptError:
                item.retry_at = self._clock() + SWEPT_S
            except (TimecraftError, OSError) as error:
                self._failed(item, error)
            finally:
                item.busy = False

    async def _take(self) -> _Process:
        """The process whose turn it is."""
        while True:
            now = self._clock()
            for item in self._waiting.values():
                if not item.busy and item.retry_at <= now:
                    self._waiting.move_to_end(item.id)
                    return item
            async with self._work:
                await self._work.wait()

    def _succeeded(self, item: _Process) -> None:
        if item.failures:
            self._log("uploads: go on", process=item.id)
        item.failures, item.problem, item.kept_back = 0, "", False
        soon = self._clock() + BACKOFF_S_MIN
        for other in self._waiting.values():
            if other.kept_back:  # by what this one wasn't
                other.retry_at = min(other.retry_at, soon)

    def _failed(self, item: _Process, error: Exception) -> None:
        item.failures += 1
        item.problem = str(error)
        item.kept_back = isinstance(error, TransientError)
        wait_s = backoff_s(item.failures, BACKOFF_S_MIN, BACKOFF_S_MAX, self._random)
        item.retry_at = self._clock() + wait_s
        self.totals.failures += 1
        if item.failures == 1 or wait_s >= BACKOFF_S_MAX / 2:
            self._log("uploads: failed, to be tried again", level="warning", process=item.id, error=str(error))

    # ---- one process

    async def _step(self, item: _Process) -> bool:
        """Sends some of a process; whether there is more. Raises TimecraftError, OSError."""
        process = await asyncio.to_thread(self._look_at, item)
        if not item.loaded:
            await asyncio.to_thread(self._load, item)
            if item.manifest is None and not item.is_deleted:
                await self._find(item)
            item.loaded = True
        if item.is_deleted:
            raise deleted(item.id)
        if self._conditional is None:
            self._conditional = (await self._store.probe()).conditional
            if not self._conditional:
                self._log("uploads: the store ignores conditions: who writes last wins", level="warning")
        sealed, rest = await asyncio.to_thread(self._sealed, item, process)
        if rest and not process.state.is_alive:
            raise LogDamagedError(f"process {item.id}: segment {rest[0]} isn't sealed", "`timecraft log verify` it")
        some = _some(sealed)
        if item.manifest is None and not some and process.state.is_alive:
            return False
        manifest = item.manifest or Manifest(public_record(process), version=0)
        mark = None
        if item.manifest is None:
            mark = await self._presence.mark(MARK_AGE_S_MAX)
            manifest = await self._send_objects(process, manifest, mark)
        async for named in self._send_segments(item.id, some):
            manifest = replace(manifest, segments=(*manifest.segments, named))
        manifest = await self._paged(item.id, manifest)
        whole = not process.state.is_alive and len(some) == len(sealed)
        record = replace(public_record(process), labels=sent_labels(process, item.manifest))
        manifest = replace(manifest, process=record, complete=whole, node=self._node)
        if item.manifest != manifest:
            try:
                if not await self._put_manifest(item, replace(manifest, version=manifest.version + 1)):
                    return True
            except DeletedError:
                await self._store.delete([segment_key(item.id, sealed.segment.number) for sealed in some])
                raise
        if not item.is_verified:
            await self._verify(item, process, mark)
        await asyncio.to_thread(self._measure, [item])
        return len(some) < len(sealed)

    def _look_at(self, item: _Process) -> ProcessRecord:
        process = self._source.process(item.id)
        if not os.path.isdir(self._source.directory(item.id)):
            raise NotFoundError(f"process {item.id}: its directory is gone", "remove it with `timecraft rm`")
        return process

    def _sealed(self, item: _Process, process: ProcessRecord) -> tuple[list[Sealed], list[int]]:
        """Sealed segments that are to be sent, and numbers of those that aren't sealed."""
        next_number = item.manifest.next_number if item.manifest else 0
        sealed: list[Sealed] = []
        rest: list[int] = []
        for attempt in range(2):
            sealed, rest = [], []
            for number, path, _ in segment_files(self._log_dir(item.id)):
                if number >= next_number:
                    found = sealed_segment(path, number)
                    if found is None or rest:
                        rest.append(number)
                    else:
                        sealed.append(found)
            if not rest or process.state.is_alive or attempt:
                break
            self._source.recover(process)
        if sealed and sealed[0].segment.number != next_number:
            raise LogDamagedError(f"process {item.id}: segment {next_number} is neither here nor in the store")
        return sealed, rest

    async def _unswept_step(self, item: _Process) -> bool:
        """The same, once nobody sweeps the store."""
        for _ in range(SWEPT_LOOKS_MAX):
            try:
                return await self._step(item)
            except SweptError:
                await self._sleep(SWEPT_S)
        return await self._step(item)

    async def _send_objects(self, process: ProcessRecord, manifest: Manifest, mark: str) -> Manifest:
        objects = await asyncio.to_thread(self._source.objects, process)
        room = asyncio.Semaphore(self._config.uploads_max)

        async def send(item: LocalObject) -> None:
            async with room:
                await self._send_object(item, mark)

        await gathered([send(item) for item in objects])
        return replace(
            manifest,
            objects=tuple((item.kind, item.digest, item.size) for item in objects if item.kind is not None),
            blobs=tuple((item.digest, item.size) for item in objects if item.kind is None),
        )

    async def _send_object(self, item: LocalObject, mark: str) -> None:
        """Sends an object unless it was there at a sweep's mark, or later."""
        if self._presence.holds(item.key, mark):
            return
        found = await self._store.head(item.key)
        if found is None or found.size != item.size:
            crc, digest = await asyncio.to_thread(file_sums, item.path)
            if digest != item.digest:
                raise LogError(f"{item.path}: its bytes aren't those of its name", "`timecraft doctor` tells more")
            with FilePart(item.path, 0, item.size) as part:
                try:
                    await self._store.put(item.key, part, crc32c=crc, if_none_match=found is None)
                except ConflictError:
                    pass  # it has come by another way
                else:
                    self.totals.objects += 1
                    self.totals.bytes += item.size
        self._presence.note(item.key, mark)

    async def _send_segments(self, process_id: ProcessId, some: Sequence[Sealed]) -> AsyncIterator[Segment]:
        """Sends one after another; while one goes, the checksum of the next is made."""
        sums = [self._sum(sealed) for sealed in some[:1]]
        try:
            for number, sealed in enumerate(some):
                crc = await sums.pop()
                sums = [self._sum(each) for each in some[number + 1 : number + 2]]
                yield await self._send_segment(process_id, sealed, crc)
        finally:
            for each in sums:
                each.cancel()
            await asyncio.gather(*sums, return_exceptions=True)

    @staticmethod
    def _sum(sealed: Sealed) -> asyncio.Task[int]:
        async def work() -> int:
            return (await asyncio.to_thread(file_sums, sealed.path, digested=False))[0]

        return asyncio.create_task(work())

    async def _send_segment(self, process_id: ProcessId, sealed: Sealed, crc: int) -> Segment:
        segment = replace(sealed.segment, crc32c=f"{crc:08x}")
        key = segment_key(process_id, segment.number)
        with FilePart(sealed.path, 0, segment.size) as part:
            try:
                await self._store.put(key, part, crc32c=crc, if_none_match=True)
            except ConflictError:
                found = await self._store.head(key)
                if found is None or (found.size, found.crc32c) != (segment.size, segment.crc32c):
                    self.totals.conflicts += 1
                    raise ConflictError(f"{key}: the store has another one", "see docs/remote.md") from None
            else:
                self.totals.segments += 1
                self.totals.bytes += segment.size
        return segment

    async def _paged(self, process_id: ProcessId, manifest: Manifest) -> Manifest:
        """With as many segments as one manifest may name itself; the others go to pages."""
        while len(manifest.segments) > SEGMENTS_MAX:
            first, rest = manifest.segments[:SEGMENTS_MAX], manifest.segments[SEGMENTS_MAX:]
            key, data = page_key(process_id, len(manifest.pages)), encode_page(first)
            try:
                await self._store.put(key, data, if_none_match=True)
            except ConflictError:
                if await self._store.get(key) != data:
                    self.totals.conflicts += 1
                    raise ConflictError(f"{key}: the store has another one", "see docs/remote.md") from None
            page = Page(key, len(first), first[0].base_seq, first[-1].next_seq, first[0].base_time_ns)
            manifest = replace(manifest, pages=(*manifest.pages, page), segments=rest)
        return manifest

    # ---- manifests

    async def _put_manifest(self, item: _Process, manifest: Manifest) -> bool:
        """Puts it; False if there was another one, that of the log that is here, which is gone on from."""
        key, data = manifest_key(item.id), encode_manifest(manifest)
        item.is_verified = item.is_verified and item.etag is not None
        try:
            etag = await self._store.put(key, data, if_none_match=item.etag is None, if_match=item.etag)
        except ConflictError:
            try:
                found, etag = await self._store.get_tagged(key)
            except NotFoundError:
                if item.etag is None:
                    raise TransientError(f"{key}: has come and gone meanwhile") from None
                await self._set_deleted(item)
                raise deleted(item.id) from None
            if found != data:  # else it was our own, whose answer got lost
                await self._decide(item, decode_manifest(found, item.id), etag)
                return False
        item.manifest, item.etag = manifest, etag
        await asyncio.to_thread(self._save, item)
        return True

    async def _find(self, item: _Process) -> None:
        """What the store knows of a process of which we know nothing."""
        try:
            found, etag = await self._store.get_tagged(manifest_key(item.id))
        except NotFoundError:
            if await self._store.head(deleted_key(item.id)) is not None:
                await self._set_deleted(item)
            return
        item.is_verified = False
        await self._decide(item, decode_manifest(found, item.id), etag)

    async def _set_deleted(self, item: _Process) -> None:
        item.is_deleted = True
        await asyncio.to_thread(self._save, item)

    async def _verify(self, item: _Process, process: ProcessRecord, mark: str | None) -> None:
        """Sees that what a manifest names is there; it is if nobody swept the store since a mark. Raises SweptError.

        Who sweeps it from now on finds the manifest.
        """
        now = await self._presence.mark()
        if now != mark:
            assert item.manifest is not None, "it was put"
            await self._send_again(item, item.manifest.segments)
            sizes = [(object_key(kind, digest), size) for kind, digest, size in item.manifest.objects]
            sizes += [(blob_key(digest), size) for digest, size in item.manifest.blobs]
            missing = {key for key, size in sizes if not await self._is_there(key, size, now)}
            if missing:
                for each in await asyncio.to_thread(self._source.objects, process):
                    if each.key in missing:
                        await self._send_object(each, now)
        item.is_verified = True
        await asyncio.to_thread(self._save, item)

    async def _send_again(self, item: _Process, segments: Sequence[Segment]) -> None:
        """Sends what is gone: who sweeps takes segments for nobody's that are there for long without a manifest."""
        files = await asyncio.to_thread(segment_files, self._log_dir(item.id))
        paths = {number: path for number, path, _ in files}
        for segment in segments:
            if await self._store.head(segment_key(item.id, segment.number)) is None and segment.number in paths:
                sealed = await asyncio.to_thread(sealed_segment, paths[segment.number], segment.number)
                if sealed is not None:
                    await self._send_segment(item.id, sealed, await self._sum(sealed))

    async def _is_there(self, key: str, size: int, mark: str) -> bool:
        if self._presence.holds(key, mark):
            return True
        found = await self._store.head(key)
        return found is not None and found.size == size

    async def _decide(self, item: _Process, found: Manifest, etag: str) -> None:
        """Goes on from a manifest that isn't the one that we know. Raises ConflictError if it isn't of this log."""
        if not await asyncio.to_thread(self._is_of, item.id, found):
            self.totals.conflicts += 1
            raise ConflictError(
                f"process {item.id}: the store has more of it than there is here, or something else, from {found.node}",
                "its log goes on elsewhere, or remote.url is wrong; see docs/remote.md",
            )
        item.manifest, item.etag = found, etag
        await asyncio.to_thread(self._save, item)

    def _is_of(self, process_id: ProcessId, manifest: Manifest) -> bool:
        """Whether all that a manifest names is of the log that is here; of that, the front may be gone."""
        files = {number: path for number, path, _ in segment_files(self._log_dir(process_id))}
        first = min(files, default=manifest.next_number if manifest.complete else 0)
        for segment in manifest.segments:
            if segment.number < first:
                continue
            sealed = sealed_segment(files[segment.number], segment.number) if segment.number in files else None
            if sealed is None or replace(sealed.segment, crc32c=segment.crc32c) != segment:
                return False
        return True

    def _log_dir(self, process_id: ProcessId) -> str:
        return os.path.join(self._source.directory(process_id), "log")

    # ---- what is known of the store

    def _load(self, item: _Process) -> None:
        state = read_state(self._source.directory(item.id), item.id, self._place)
        if state is not None:
            item.manifest, item.etag = state.manifest, state.etag
            item.is_verified, item.is_deleted = state.is_verified, state.is_deleted

    def _save(self, item: _Process) -> None:
        path = os.path.join(self._source.directory(item.id), STATE_FILE)
        text = encode_manifest(item.manifest).decode() if item.manifest else None
        state = {"format": 1, "store": self._place, "etag": item.etag, "manifest": text}
        state |= {"verified": item.is_verified, "deleted": item.is_deleted}
        temporary = f"{path}.tmp"
        with open(temporary, "w", encoding="ascii") as file:
            json.dump(state, file)
        os.rename(temporary, path)

    @property
    def _place(self) -> str:
        return place_of(self._config)


@dataclass(frozen=True, slots=True)
class Sent:
    """What of a process is in the store, as far as was written down beside its log."""

    manifest: Manifest | None
    """As it was last put."""
    etag: str | None
    is_verified: bool
    is_deleted: bool


def deleted(process_id: ProcessId) -> DeletedError:
    """The error that somebody has deleted a process."""
    return DeletedError(f"process {process_id}: was deleted from the store", "what there is of its log is here")


def read_state(directory: str, process_id: ProcessId, place: str | None = None) -> Sent | None:
    """What was sent of a process; None if nothing was, or to another place."""
    try:
        with open(os.path.join(directory, STATE_FILE), "rb") as file:
            state = json.load(file)
        if place in (None, state["store"]):
            text = state["manifest"]
            manifest = None if text is None else decode_manifest(text.encode(), process_id)
            return Sent(manifest, state["etag"], state.get("verified") is not False, state.get("deleted") is True)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, LogError):
        pass
    return None


def place_of(config: RemoteConfig) -> str:
    """A store and a place in it, as state files name it."""
    return f"{config.endpoint_url} {config.url.rstrip('/')}"


def is_stored(directory: str, process: ProcessRecord, config: RemoteConfig) -> bool:
    """Whether all of a process that has ended is in the store, as far as was written down beside its log.

    One that somebody has deleted there counts as well: nothing of it is to be sent.
    """
    state = read_state(directory, process.id, place_of(config))
    if state is None or state.manifest is None or state.is_deleted:
        return state is not None and state.is_deleted
    return state.is_verified and _is_whole(state.manifest, process)


def _is_whole(manifest: Manifest, process: ProcessRecord) -> bool:
    """Whether a manifest says all that there is to say of a process."""
    stored = manifest.process
    return manifest.complete and (stored.epoch, stored.labels) == (process.epoch, sent_labels(process, manifest))


async def gathered(work: list[Any]) -> None:
    """Does all of it; the first error ends the rest."""
    try:
        async with asyncio.TaskGroup() as tasks:
            for each in work:
                tasks.create_task(each)
    except BaseExceptionGroup as error:
        raise error.exceptions[0] from None


def _some(sealed: list[Sealed]) -> list[Sealed]:
    """As many as are sent in one turn: at least one."""
    total = 0
    for count, each in enumerate(sealed[:STEP_SEGMENTS_MAX]):
        total += each.segment.size
        if count and total > STEP_BYTES_MAX:
            return sealed[:count]
    return sealed[:STEP_SEGMENTS_MAX]
