"""The registry as one thing: home, objects, trees and catalogue, opened when first needed."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

from timecraftd.errors import NotFoundError, ObjectDamagedError, StateFullError
from timecraftd.model import Digest, ModuleRecord, ObjectInfo, ObjectKind, ProcessId, is_digest
from timecraftd.registry.catalogue import Catalogue, resolve_digest
from timecraftd.registry.home import Home, ProcessLock, state_errors
from timecraftd.registry.objects import ObjectStore

if TYPE_CHECKING:
    from timecraftd.registry.trees import Trees

ARTIFACT_AGE_NS_MIN = 3600 * 10**9
"""Files in the artifact cache younger than this may be in the making."""


class Elsewhere(Protocol):
    """Where objects are that a state directory lacks."""

    def object(self, kind: ObjectKind, digest: Digest) -> bytes | None:
        """Bytes of an object, unverified; None if it isn't there. Raises RemoteError."""

    def save_blob(self, digest: Digest, size: int, path: str) -> None:
        """Writes a tree's file to a path, verified. Raises RemoteError."""


class Registry:
    """What a state directory holds."""

    def __init__(
        self, home: Home, now_ns: Callable[[], int] = time.time_ns, elsewhere: Elsewhere | None = None
    ) -> None:
        """What isn't here is looked for elsewhere, if there is such a place."""
        self.home = home
        self._elsewhere = elsewhere
        fetch = {} if elsewhere is None else {"fetch": elsewhere.object}
        self.objects = ObjectStore(home.objects_dir, **fetch)
        self._now_ns = now_ns

    @cached_property
    def catalogue(self) -> Catalogue:
        """The catalogue of processes and modules."""
        return Catalogue(self.home.catalogue_path)

    @cached_property
    def trees(self) -> Trees:
        """The trees that immutable mounts show."""
        from timecraftd.registry.trees import Trees  # not needed by most runs

        save = None if self._elsewhere is None else self._elsewhere.save_blob
        return Trees(self.home.trees_dir, self.objects, self._now_ns, save)

    def put_catalogue_aside(self, now_ns: int) -> None:
        """Leaves a catalogue that can't be read where nobody looks for it; the next use makes a new one."""
        self.close()
        self.__dict__.pop("catalogue", None)
        path = self.home.catalogue_path
        with state_errors(path):
            for suffix in ("", "-wal", "-shm"):
                if os.path.exists(path + suffix):
                    os.rename(path + suffix, f"{path}.damaged-{now_ns}{suffix}")

    def close(self) -> None:
        """Closes what was opened."""
        if "catalogue" in self.__dict__:
            self.catalogue.close()

    def lock(self, process_id: ProcessId) -> ProcessLock:
        """The lock of a process, not taken."""
        return ProcessLock(self.home.process_dir(process_id))

    def create_process_dir(self, process_id: ProcessId) -> str:
        """Makes the directories of a new process; returns that of its log."""
        log_dir = self.home.log_dir(process_id)
        with state_errors(log_dir):
            os.mkdir(self.home.process_dir(process_id), 0o700)
            os.mkdir(log_dir, 0o700)
        return log_dir

    def remove_process(self, process_id: ProcessId) -> None:
        """Removes a process's row and directory; the caller holds its lock."""
        import shutil  # slow to import, and not needed to run anything

        directory = self.home.process_dir(process_id)

        def remove_directory() -> None:
            with state_errors(directory):
                shutil.rmtree(directory, ignore_errors=not os.path.isdir(directory))

        try:
            self.catalogue.delete(process_id)
        except StateFullError:  # its log is what takes the room
            remove_directory()
            self.catalogue.delete(process_id)
        remove_directory()

    def resolve_object(self, kind: ObjectKind, reference: str) -> Digest:
        """An object by digest, prefix or name. Raises NotFoundError, AmbiguousIdError."""
        infos = list(self.objects.stored(kind))
        names: dict[str, Digest] = {}
        if kind is ObjectKind.MODULE:
            for info in sorted(infos, key=lambda info: info.modified_ns):
                record = self.catalogue.module(info.digest)
                if record is not None:
                    names[record.name] = info.digest
        return resolve_digest(kind, reference, [info.digest for info in infos], names)

    def resolve_module(self, reference: str) -> ModuleRecord:
        """A module by digest, prefix or name. Raises NotFoundError, AmbiguousIdError."""
        if is_digest(reference):  # without a look at all the others
            record = self.catalogue.module(Digest(reference))
            if record is not None and self.objects.holds(ObjectKind.MODULE, record.digest, record.size_bytes):
                return record
        digest = self.resolve_object(ObjectKind.MODULE, reference)
        record = self.module_record(digest)
        if record is None:
            raise NotFoundError(
                f"module {digest[:12]}: is not in the catalogue", "bring it back with `timecraft import module FILE`"
            )
        return record

    def unreferenced(self, without: Collection[ProcessId] = ()) -> list[ObjectInfo]:
        """Objects that no process, but those left out, refers to; the caller holds the collection lock."""
        referenced = self.catalogue.references(without)
        unused = [info for kind in ObjectKind for info in self.objects.stored(kind) if info.digest not in referenced]
        if any(info.kind is ObjectKind.TREE for info in unused):
            mounted = self._mounted_trees(referenced)
            unused = [info for info in unused if info.kind is not ObjectKind.TREE or info.digest not in mounted]
        return unused

    def _mounted_trees(self, referenced: Collection[Digest]) -> set[Digest]:
        """The trees that these configs name; all trees if one of the configs is damaged."""
        from timecraftd.registry.trees import mounted_trees

        configs = [info.digest for info in self.objects.stored(ObjectKind.CONFIG) if info.digest in referenced]
        try:
            trees = (tree for digest in configs for tree in mounted_trees(self.objects.get(ObjectKind.CONFIG, digest)))
            return {tree for tree in trees if tree is not None}
        except (ObjectDamagedError, ValueError):
            return {info.digest for info in self.objects.stored(ObjectKind.TREE)}

    def object_bytes(self, info: ObjectInfo) -> int:
        """What an object takes, its directory too if it is a tree."""
        if info.kind is not ObjectKind.TREE:
            return info.size_bytes
        from timecraftd.registry.trees import tree_bytes

        try:
            return info.size_bytes + tree_bytes(self.trees.manifest(info.digest))
        except (NotFoundError, ObjectDamagedError):
            return info.size_bytes

    def delete_object(self, info: ObjectInfo) -> None:
        """Removes an object and what is known of it."""
        if info.kind is ObjectKind.MODULE:
            self.catalogue.delete_module(info.digest)
        if info.kind is ObjectKind.TREE:
            self.trees.remove(info.digest)
        self.objects.delete(info.kind, info.digest)

    def stale_artifacts(self, now_ns: int) -> list[tuple[str, int]]:
        """(path, bytes) of cached machine code whose module isn't in the store."""
        kept = {info.digest for info in self.objects.stored(ObjectKind.MODULE)}
        stale = []
        with os.scandir(self.home.artifacts_dir) as entries:
            for entry in entries:
                stat = entry.stat(follow_symlinks=False)
                young = now_ns - stat.st_mtime_ns < ARTIFACT_AGE_NS_MIN
                if entry.is_file(follow_symlinks=False) and entry.name[:64] not in kept and not young:
                    stale.append((entry.path, stat.st_size))
        return sorted(stale)

    def module_record(self, digest: Digest) -> ModuleRecord | None:
        """What is known of a module."""
        return self.catalogue.module(digest)
