"""An exported process: one tar file that replays on another machine.

Its first member, `timecraft-export.json`, names the process and every other member with size and SHA-256. Members
are objects (`objects/KIND/DIGEST`), files of trees (`blobs/SHA-256`) and the log's files (`log/NAME`). Nothing in a
file that comes from elsewhere is believed: names are matched against what is expected, sizes are bounded, digests are
checked, and nothing is visible in the state directory before all of it was checked.
"""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from functools import partial
from hashlib import sha256
from typing import IO, Any

from timecraftd.errors import ArchiveError, ProcessStateError
from timecraftd.labels import decode_labels
from timecraftd.model import (
    Digest,
    ObjectKind,
    ProcessRecord,
    ProcessState,
    is_digest,
    is_name,
    is_process_id,
)
from timecraftd.registry.home import fsync_directory, state_errors
from timecraftd.registry.registry import Registry
from timecraftd.registry.trees import mounted_trees, read_manifest

FORMAT_VERSION = 1
INDEX_NAME = "timecraft-export.json"
INDEX_BYTES_MAX = 64 << 20
CHUNK_BYTES = 1 << 20
_LOG_NAME = re.compile(r"log/[0-9A-Za-z][0-9A-Za-z_.-]{0,127}")
_OBJECT_NAME = re.compile(r"objects/(module|config|runtime|tree)/([0-9a-f]{64})")
_BLOB_NAME = re.compile(r"blobs/([0-9a-f]{64})")
# The lock means nothing elsewhere; a pointer to a ring is a path on the machine that wrote it.
_LOCAL = re.compile(r"(lock|kill|ring.*)")


@dataclass(frozen=True, slots=True)
class Member:
    """One file in an archive."""

    name: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class ArchiveBounds:
    """What an archive may be at most."""

    archive_bytes_max: int
    member_bytes_max: int
    members_max: int


def export_process(
    registry: Registry, process: ProcessRecord, target: IO[bytes], *, compress: bool, log_dir: str | None = None
) -> int:
    """Writes a process that ended, its log out of its own directory or that given; the caller holds its lock.

    Returns the number of members.
    """
    if process.state is ProcessState.RUNNING:
        raise ProcessStateError(f"process {process.id}: it runs", "stop it, or wait for its end, first")
    files = list(_files(registry, process, log_dir or registry.home.log_dir(process.id)))
    index = {
        "format": FORMAT_VERSION,
        "process": asdict(process),
        "members": [asdict(Member(name, os.path.getsize(path), _hash_file(path))) for name, path in files],
    }
    data = json.dumps(index, indent=1).encode()
    with tarfile.open(fileobj=target, mode="w|gz" if compress else "w|", format=tarfile.PAX_FORMAT) as tar:
        for name, path in [(INDEX_NAME, None), *files]:
            header = tarfile.TarInfo(name)
            header.mode = 0o600
            header.mtime = process.created_ns // 10**9
            if path is None:
                header.size = len(data)
                tar.addfile(header, io.BytesIO(data))
            else:
                header.size = os.path.getsize(path)
                with open(path, "rb") as file:
                    tar.addfile(header, file)
    return len(files) + 1


def import_process(registry: Registry, source: IO[bytes], name: str, bounds: ArchiveBounds) -> ProcessRecord:
    """Takes in an exported process. Raises ArchiveError; the state directory is then as before."""
    with _archive_errors(name), tarfile.open(fileobj=source, mode="r|*") as tar:
        members = iter(tar)
        process, expected = _read_index(tar, next(members, None), name, bounds)
        if os.path.lexists(registry.home.process_dir(process.id)):
            raise ArchiveError(
                f"{name}: process {process.id} is here already", f"remove it with `timecraft rm {process.id}`"
            )
        staging = os.path.join(registry.home.processes_dir, f".import-{process.id}-{os.getpid()}")
        with state_errors(staging):
            for part in ("log", "blobs"):
                os.makedirs(os.path.join(staging, part), mode=0o700)
        try:
            _unpack(tar, members, expected, staging, name)
            _admit(registry, process, _check_trees(process, expected, staging), staging)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    return process


def _files(registry: Registry, process: ProcessRecord, log_dir: str) -> Iterator[tuple[str, str]]:
    for kind, digest in _object_names(process):
        registry.objects.get(kind, digest)  # nothing damaged leaves
        yield f"objects/{kind}/{digest}", registry.objects.path(kind, digest)
    blobs: dict[str, str] = {}
    for digest in _trees(registry.objects.get(ObjectKind.CONFIG, process.config)):
        registry.trees.check(digest)
        yield f"objects/{ObjectKind.TREE}/{digest}", registry.objects.path(ObjectKind.TREE, digest)
        for path, file in registry.trees.manifest(digest)["files"].items():
            blobs[file["sha256"]] = os.path.join(registry.trees.path(digest), path)
    yield from ((f"blobs/{digest}", path) for digest, path in sorted(blobs.items()))
    for name in sorted(os.listdir(log_dir)):
        path = os.path.join(log_dir, name)
        if os.path.isfile(path) and not _LOCAL.fullmatch(name):
            yield f"log/{name}", path


def _object_names(process: ProcessRecord) -> list[tuple[ObjectKind, Digest]]:
    return [
        (ObjectKind.MODULE, process.module),
        (ObjectKind.CONFIG, process.config),
        (ObjectKind.RUNTIME, process.runtime),
    ]


def _trees(config: bytes) -> list[Digest]:
    return sorted({tree for tree in mounted_trees(config) if tree is not None})


def _read_index(
    tar: tarfile.TarFile, header: tarfile.TarInfo | None, name: str, bounds: ArchiveBounds
) -> tuple[ProcessRecord, dict[str, Member]]:
    if header is None or header.name != INDEX_NAME or not header.isreg():
        raise ArchiveError(f"{name}: isn't an exported process: {INDEX_NAME} doesn't come first")
    if header.size > INDEX_BYTES_MAX:
        raise ArchiveError(f"{name}: its {INDEX_NAME} is too big ({header.size} bytes)")
    file = tar.extractfile(header)
    assert file is not None, "a regular file has contents"
    try:
        index = json.loads(file.read(INDEX_BYTES_MAX))
        if index["format"] != FORMAT_VERSION:
            raise ArchiveError(
                f"{name}: has format {index['format']!r}, this Timecraft knows {FORMAT_VERSION}",
                "use the Timecraft that exported it",
            )
        process = _checked_process(index["process"])
        members = [Member(**member) for member in index["members"]]
        _check_members(members, process, bounds)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ArchiveError(f"{name}: its {INDEX_NAME} is wrong: {error}") from None
    return process, {member.name: member for member in members}


def _checked_process(value: Any) -> ProcessRecord:
    if set(value) | {"labels"} != {item.name for item in fields(ProcessRecord)}:
        raise ValueError("the process has other fields than expected")
    texts = {"name", "module_name", "message", "boot_id", "restart_of"}
    numbers = {"created_ns", "started_ns", "pid", "epoch", "log_bytes"}
    optional_numbers = {"ended_ns", "exit_code", "last_seq"}
    good = (
        all(isinstance(value[key], str) and len(value[key]) <= 8192 for key in texts)
        and all(_is_number(value[key]) for key in numbers)
        and all(value[key] is None or _is_number(value[key]) for key in optional_numbers)
        and is_process_id(value["id"])
        and (not value["name"] or is_name(value["name"]))
        and all(is_digest(value[key]) for key in ("module", "config", "runtime"))
        and value["recorded"] is True
        and isinstance(value["imported"], bool)
    )
    state = ProcessState(value["state"])
    if not good or state is ProcessState.RUNNING:
        raise ValueError("a field of the process isn't what it should be")
    labels = decode_labels(value.get("labels", []))
    return ProcessRecord(**value | {"state": state, "pid": 0, "boot_id": "", "imported": True, "labels": labels})


def _is_number(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1 << 63


def _check_members(members: list[Member], process: ProcessRecord, bounds: ArchiveBounds) -> None:
    if len(members) > bounds.members_max:
        raise ValueError(f"{len(members)} members are too many")
    names = {member.name for member in members}
    if len(names) != len(members):
        raise ValueError("two members have one name")
    for member in members:
        if not _is_number(member.size_bytes) or not 0 <= member.size_bytes <= bounds.member_bytes_max:
            raise ValueError(f"member {member.name!r} is too big")
        if not is_digest(member.sha256):
            raise ValueError(f"member {member.name!r} has no digest")
        found = _OBJECT_NAME.fullmatch(member.name) or _BLOB_NAME.fullmatch(member.name)
        if found and found[found.lastindex or 0] != member.sha256:
            raise ValueError(f"member {member.name!r} isn't named by its digest")
        if not found and (not _LOG_NAME.fullmatch(member.name) or _LOCAL.fullmatch(member.name[4:])):
            raise ValueError(f"member {member.name!r} isn't expected")
    if sum(member.size_bytes for member in members) > bounds.archive_bytes_max:
        raise ValueError("all members together are too big")
    wanted = {f"objects/{kind}/{digest}" for kind, digest in _object_names(process)}
    if {name for name in names if name.startswith("objects/") and not name.startswith("objects/tree/")} != wanted:
        raise ValueError("its objects aren't those of the process")


def _unpack(
    tar: tarfile.TarFile, members: Iterator[tarfile.TarInfo], expected: dict[str, Member], staging: str, name: str
) -> None:
    missing = dict(expected)
    for header in members:
        member = missing.pop(header.name, None)
        if member is None or not header.isreg() or header.size != member.size_bytes:
            raise ArchiveError(f"{name}: member {header.name!r} isn't what {INDEX_NAME} says")
        file = tar.extractfile(header)
        assert file is not None, "a regular file has contents"
        found = _OBJECT_NAME.fullmatch(header.name)
        target = os.path.join(staging, found[2] if found else header.name)
        digest = sha256()
        with state_errors(target), open(target, "xb") as output:
            while chunk := file.read(CHUNK_BYTES):
                digest.update(chunk)
                output.write(chunk)
            output.flush()
            os.fsync(output.fileno())
        if digest.hexdigest() != member.sha256:
            raise ArchiveError(f"{name}: bytes of member {header.name!r} don't match its digest", "export it again")
    if missing:
        raise ArchiveError(f"{name}: member {min(missing)!r} is missing", "export it again")


def _check_trees(process: ProcessRecord, members: dict[str, Member], staging: str) -> dict[Digest, dict[str, Any]]:
    """The manifests of the trees that the process needs. Raises ValueError if the archive has others, or not all."""
    manifests = {}
    with open(os.path.join(staging, process.config), "rb") as file:
        trees = _trees(file.read())
    for digest in trees:
        if f"objects/tree/{digest}" not in members:
            raise ValueError(f"tree {digest[:12]} is missing")
        with open(os.path.join(staging, digest), "rb") as file:
            manifests[digest] = read_manifest(file.read())
    files = (file["sha256"] for manifest in manifests.values() for file in manifest["files"].values())
    wanted = {f"objects/tree/{digest}" for digest in trees} | {f"blobs/{digest}" for digest in files}
    if {name for name in members if name.startswith(("objects/tree/", "blobs/"))} != wanted:
        raise ValueError("its files aren't those of the process's trees")
    return manifests


def _admit(registry: Registry, process: ProcessRecord, manifests: dict[Digest, dict[str, Any]], staging: str) -> None:
    with registry.home.collection_lock(exclusive=False):
        for kind, digest in _object_names(process):
            path = os.path.join(staging, digest)
            if os.path.exists(path):
                with open(path, "rb") as file:
                    data = file.read()
                os.unlink(path)
                stored = registry.objects.put(kind, data)
                assert stored == digest, "the digest was checked when unpacking"
        for digest, manifest in manifests.items():
            registry.trees.build(digest, manifest, partial(os.path.join, staging, "blobs"))
            os.unlink(os.path.join(staging, digest))
        with state_errors(staging):
            shutil.rmtree(os.path.join(staging, "blobs"))
            fsync_directory(os.path.join(staging, "log"))
            os.rename(staging, registry.home.process_dir(process.id))
            fsync_directory(registry.home.processes_dir)
        try:
            registry.catalogue.insert(process)
        except BaseException:
            shutil.rmtree(registry.home.process_dir(process.id), ignore_errors=True)
            raise


def _hash_file(path: str) -> str:
    digest = sha256()
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


@contextmanager
def _archive_errors(name: str) -> Iterator[None]:
    import zlib

    try:
        yield
    except (tarfile.TarError, EOFError, zlib.error, ValueError) as error:
        raise ArchiveError(f"{name}: isn't a whole exported process: {error}", "export it again") from None
