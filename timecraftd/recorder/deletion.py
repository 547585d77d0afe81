"""Deletion in a store: of processes, so that those who read them can finish; of objects that no process names.

docs/remote.md has the protocol. Each step may be the last one that is done: the next sweep goes on from there.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from random import Random

from timecraftd.errors import LogError, NotFoundError, ProcessStateError, RemoteError
from timecraftd.model import ProcessId, ProcessRecord, is_process_id, require_unheld
from timecraftd.recorder.manifest import (
    DELETED,
    LOGS,
    MANIFESTS,
    Manifest,
    decode_deleted,
    decode_manifest,
    deleted_key,
    encode_deleted,
    is_shared_key,
    manifest_key,
    named_keys,
    process_of,
)
from timecraftd.recorder.remote import ConflictError, RemoteInfo, RemoteStore
from timecraftd.recorder.sweeping import DEAD_S, FLAG, Flag, read_flag, write_flag

SWEEP_S_MAX = 600.0
"""After so long a sweep removes nothing more; what is left is the next one's."""
REMOVE_S_MAX = 240.0
"""A request to remove objects is given up after so long: less than between SWEEP_S_MAX and DEAD_S."""
READ_MAX = 16
"""Manifests that are read at one time."""
BATCH_KEYS = 1000
OBJECTS_MAX = 10_000
"""Objects that go in one sweep."""
SHARED = ("objects/", "blobs/")
LOST_NS = 86_400 * 10**9
"""Segments of a process without a manifest are nobody's after so long: uploaders name them in far less."""

Choose = Callable[[Sequence[ProcessRecord]], list[ProcessRecord]]


@dataclass
class Swept:
    """What a sweep did, or would do."""

    deleted: list[ProcessRecord] = field(default_factory=list)
    """Processes that nobody finds any more; what they take goes after the grace period."""
    removed: list[tuple[ProcessId, int]] = field(default_factory=list)
    """Processes of which nothing is left, and the bytes that they took."""
    objects: list[RemoteInfo] = field(default_factory=list)
    """Objects that went, and segments of processes that never got a manifest."""
    is_cut: bool = False
    """It took too long, and the rest is left for the next one."""


class Sweeper:
    """Deletes in a store. Its methods raise RemoteError and may be called again after that."""

    def __init__(
        self,
        store: RemoteStore,
        *,
        node: str,
        grace_s: float,
        now_ns: Callable[[], int] = time.time_ns,
        clock: Callable[[], float] = lambda: time.clock_gettime(time.CLOCK_BOOTTIME),
        random: Random | None = None,
    ) -> None:
        """`clock` tells seconds, goes on while the machine sleeps and never goes back."""
        self._store = store
        self._node = node
        self._grace_ns = round(grace_s * 1e9)
        self._now_ns = now_ns
        self._clock = clock
        self._random = random or Random()  # noqa: S311 - marks that differ, no secrets
        self._until_s = 0.0
        self._is_removing = False
        """A request to remove objects is under way, or was cut off."""

    # ---- one process

    async def delete(self, process_id: ProcessId, *, force: bool = False) -> None:
        """Hides a process: nobody finds it any more. Raises NotFoundError, LogDamagedError, ProcessStateError.

        With `force` one may go that isn't complete, or whose manifest is damaged.
        """
        key = manifest_key(process_id)
        try:
            data = await self._store.get(key)
        except NotFoundError:
            if await self._store.head(deleted_key(process_id)) is not None:
                return
            raise NotFoundError(
                f"process {process_id}: isn't in {self._store.url}", "`timecraft ps --remote` lists what is there"
            ) from None
        if not force:
            manifest = decode_manifest(data, process_id)
            require_unheld(manifest.process)
            if not manifest.complete:
                raise ProcessStateError(
                    f"process {process_id}: isn't wholly in the store: it runs on node {manifest.node}, or was lost "
                    "with it", "stop it there; if that node is gone, use `rm --remote -f`",
                )  # fmt: skip
        await self._hide(process_id, data)

    async def _hide(self, process_id: ProcessId, manifest: bytes) -> None:
        tombstone = encode_deleted(manifest, self._node, self._now_ns())
        try:
            await self._store.put(deleted_key(process_id), tombstone, if_none_match=True)
            begun_before = False
        except ConflictError:
            begun_before = True
        # Who labels it now sees what was just put, or we see the label (labelling.py).
        try:
            with contextlib.suppress(NotFoundError, LogError):
                again = await self._store.get(manifest_key(process_id))
                require_unheld(decode_manifest(again, process_id).process)
        except ProcessStateError:
            await self._store.delete([deleted_key(process_id)])
            raise
        await self._store.delete([manifest_key(process_id)])
        if begun_before:  # the grace period begins when nobody new finds it
            await self._store.put(deleted_key(process_id), tombstone)

    async def remove(self, process_id: ProcessId, *, now: bool = False) -> int | None:
        """Removes what a deleted process takes, whose grace period is over, or at once; the bytes.

        None if its manifest has come back, by a request that was long under way: it is hidden anew, unless it is held.
        """
        with contextlib.suppress(NotFoundError):
            found = await self._store.get(manifest_key(process_id))
            try:
                await self._hide(process_id, found)
            except ProcessStateError:
                return None
            if not now:
                return None
        size = 0
        for prefix in _prefixes(process_id):
            infos = [info async for info in self._store.list(prefix)]
            for begin in range(0, len(infos), BATCH_KEYS):
                await self._store.delete([info.key for info in infos[begin : begin + BATCH_KEYS]])
            size += sum(info.size for info in infos)
        await self._store.delete([deleted_key(process_id)])
        return size

    async def size(self, process_id: ProcessId) -> int:
        """What a process takes, but for its objects."""
        return sum([info.size for prefix in _prefixes(process_id) async for info in self._store.list(prefix)])

    # ---- all of the store

    async def sweep(self, choose: Choose, *, now: bool = False) -> Swept:
        """Deletes processes that are chosen among the complete ones, and removes what is due.

        `now`: those that are chosen have no grace period. Raises ConflictError if another sweep is under way, LogError
        if something can't be read that may name objects.
        """
        if not (await self._store.probe()).conditional:
            raise RemoteError(f"{self._store.url}: ignores conditions, so that nothing can be removed safely")
        flag = await self._begin()
        self._until_s = self._clock() + SWEEP_S_MAX
        self._is_removing = False
        try:
            return await self._sweep(flag, choose, now=now)
        finally:
            if not self._is_removing:  # else nobody knows what becomes of a request: the flag stays until it is dead
                with contextlib.suppress(ConflictError):
                    await self._write_flag(flag, running=False)

    async def preview(self, choose: Choose) -> Swept:
        """What a sweep would do now."""
        done, due_ns = Swept(), self._now_ns() - self._grace_ns
        found = await self._manifests()
        done.deleted = choose(found.complete)
        async for info, process_id in self._deleted():
            if info.modified_ns <= due_ns:
                done.removed.append((process_id, await self.size(process_id)))
            else:
                await self._note_deleted(process_id, found)
            found.ids.add(process_id)
        done.objects = [info async for info in self._unnamed(found, due_ns)]
        return done

    async def _sweep(self, flag: Flag, choose: Choose, *, now: bool) -> Swept:
        info = await self._store.head(FLAG)
        if info is None:
            raise RemoteError(f"{self._store.url}/{FLAG}: is gone, somebody removed it", "try again")
        done, due_ns = Swept(), info.modified_ns - self._grace_ns
        found = await self._manifests()
        chosen = choose(found.complete)
        for process in chosen:
            if self._clock() >= self._until_s:
                return replace(done, is_cut=True)
            with contextlib.suppress(NotFoundError, ProcessStateError):  # it has changed meanwhile
                await self.delete(process.id)
                done.deleted.append(process)
        at_once = {process.id for process in done.deleted} if now or not self._grace_ns else set()
        # Looked for after the manifests: who is deleted meanwhile is found in one place or the other.
        async for info, process_id in self._deleted():
            if self._clock() >= self._until_s:
                return replace(done, is_cut=True)
            found.ids.add(process_id)
            size = None
            if info.modified_ns <= due_ns or process_id in at_once:
                size = await self.remove(process_id, now=process_id in at_once)
            if size is None:
                await self._note_deleted(process_id, found)
            else:
                done.removed.append((process_id, size))
        if found.unreadable:
            raise LogError(
                f"{self._store.url}/{found.unreadable[0]}: can't be read, so nobody knows which objects it needs, and "
                "all stay", "use the Timecraft that wrote it, or delete it with `timecraft rm --remote -f`",
            )  # fmt: skip
        await self._remove_objects(flag, found, due_ns, done)
        return done

    async def _remove_objects(self, flag: Flag, found: _Found, due_ns: int, done: Swept) -> None:
        unnamed = [info async for info in self._unnamed(found, due_ns)]
        for begin in range(0, len(unnamed), BATCH_KEYS):
            batch = unnamed[begin : begin + BATCH_KEYS]
            is_ours = (await read_flag(self._store)).mark == flag.mark
            if not is_ours or self._clock() >= self._until_s:
                done.is_cut = True
                return
            self._is_removing = True
            try:
                async with asyncio.timeout(REMOVE_S_MAX):
                    await self._store.delete([info.key for info in batch])
            except TimeoutError:
                raise RemoteError(f"{self._store.url}: doesn't remove what it is asked to in time") from None
            self._is_removing = False
            done.objects += batch

    async def _unnamed(self, found: _Found, due_ns: int) -> AsyncIterator[RemoteInfo]:
        """What nobody names and is no younger; so many at most."""
        count = 0
        for prefix in SHARED:
            async for info in self._store.list(prefix):
                if is_shared_key(info.key) and info.key not in found.keys and info.modified_ns <= due_ns:
                    yield info
                    count += 1
                    if count == OBJECTS_MAX:
                        return
        lost = [info.key async for info in self._store.list(LOGS, delimiter="/") if self._is_lost(info.key, found)]
        for prefix in lost[: OBJECTS_MAX - count]:
            infos = [info async for info in self._store.list(prefix)]
            if max((info.modified_ns for info in infos), default=0) <= due_ns - LOST_NS:
                for info in infos[: OBJECTS_MAX - count]:
                    yield info
                    count += 1

    def _is_lost(self, prefix: str, found: _Found) -> bool:
        """Whether a folder of segments is of a process that there is no manifest of."""
        name = prefix.removeprefix(LOGS).removesuffix("/")
        return is_process_id(name) and name not in found.ids

    async def _manifests(self) -> _Found:
        """What all manifests say."""
        listed = [info.key async for info in self._store.list(MANIFESTS, delimiter="/")]
        keys = [(key, process_id) for key in listed if (process_id := process_of(key, MANIFESTS)) is not None]
        found = _Found(ids={process_id for _, process_id in keys})
        for begin in range(0, len(keys), READ_MAX):
            read = [self._read(key) for key, _ in keys[begin : begin + READ_MAX]]
            for (key, process_id), data in zip(keys[begin:], await asyncio.gather(*read), strict=False):
                if data is not None:
                    found.note(key, partial(decode_manifest, data, process_id))
        return found

    async def _deleted(self) -> AsyncIterator[tuple[RemoteInfo, ProcessId]]:
        for info in [info async for info in self._store.list(DELETED)]:
            if (process_id := process_of(info.key, DELETED)) is not None:
                yield info, process_id

    async def _note_deleted(self, process_id: ProcessId, found: _Found) -> None:
        """Those who read a deleted process need its objects, too."""
        data = await self._read(deleted_key(process_id))
        if data is not None:
            found.note(deleted_key(process_id), lambda: replace(decode_deleted(data, process_id), complete=False))

    async def _read(self, key: str) -> bytes | None:
        with contextlib.suppress(NotFoundError):
            return await self._store.get(key)
        return None  # it went meanwhile

    # ---- the flag

    async def _begin(self) -> Flag:
        before = await read_flag(self._store)
        if before.running and not await self._is_dead():
            raise ConflictError(f"{self._store.url}: {before.node or 'somebody'} sweeps it", "wait until that is done")
        return await self._write_flag(before, running=True)

    async def _write_flag(self, before: Flag, *, running: bool) -> Flag:
        return await write_flag(self._store, before, running=running, node=self._node, random=self._random)

    async def _is_dead(self) -> bool:
        """Whether the flag is too old, by the store's clock alone."""
        key = f"probe/{self._random.getrandbits(64):016x}"
        await self._store.put(key, b"")
        probe, flag = await self._store.head(key), await self._store.head(FLAG)
        await self._store.delete([key])
        return probe is not None and flag is not None and probe.modified_ns - flag.modified_ns >= DEAD_S * 1e9


@dataclass
class _Found:
    """What manifests say together."""

    complete: list[ProcessRecord] = field(default_factory=list)
    """Processes that are wholly there, with what their logs take."""
    ids: set[str] = field(default_factory=set)
    """Of processes with manifests, readable or not, and of those that were deleted."""
    keys: set[str] = field(default_factory=set)
    """Of objects that are named."""
    unreadable: list[str] = field(default_factory=list)
    """Keys of manifests that can't be understood."""

    def note(self, key: str, decode: Callable[[], Manifest]) -> None:
        """Adds one."""
        try:
            manifest = decode()
        except LogError:
            self.unreadable.append(key)
            return
        self.keys.update(named_keys(manifest))
        if manifest.complete:
            size = manifest.process.log_bytes or sum(segment.size for segment in manifest.segments)
            self.complete.append(replace(manifest.process, log_bytes=size))


def _prefixes(process_id: ProcessId) -> tuple[str, str]:
    """Segments, and pages of manifests."""
    return f"{LOGS}{process_id}/", f"{MANIFESTS}{process_id}/"
