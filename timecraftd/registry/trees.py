"""Trees: content-addressed directories that never change. Immutable mounts show them to guests.

A tree is an object of its own kind, its *manifest*: all directories, files (size, time of change, SHA-256) and symbolic
links, as canonical JSON. Beside it the directory itself lies in the state directory, ready to be mounted.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import stat
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import file_digest, sha256
from typing import Any

from timecraftd.errors import MountError, NotFoundError, ObjectDamagedError
from timecraftd.model import Digest, ObjectKind, is_digest
from timecraftd.registry.home import fsync_directory, state_errors, write_atomically
from timecraftd.registry.objects import ObjectStore, digest_of

MANIFEST_VERSION = 1
TREE_ENTRIES_MAX = 100_000
"""Files, links and directories of a tree."""
TREE_BYTES_MAX = 16 << 30
CHUNK_BYTES = 1 << 20
SEARCHED_MAX = 64
"""Trees that are searched for a file that another one needs."""
RESTORES_MAX = 8
"""Files that are fetched at one time."""
FSYNC_FILES_MAX = 64
"""More new files than this are made durable all at once."""
SETTLED_NS = 2 * 10**9
"""What changed less than this ago may change again with the same time stamp, so it is not relied on."""
FICLONE = 0x40049409
"""The ioctl that shares a file's blocks with another file, on file systems that can."""
NEXT_STEP = "import the process from an export, or run one again with the same directory"
_DRAFT = ".draft-"
_KNOWN = ".known"


@dataclass(frozen=True, slots=True)
class Entry:
    """What a directory holds, by its path within that directory."""

    path: str
    stat: os.stat_result

    @property
    def identity(self) -> str:
        """Differs once contents or place differ, but for changes that the file system gives one time stamp."""
        found = self.stat
        return f"{found.st_mode} {found.st_ino} {found.st_size} {found.st_mtime_ns} {found.st_ctime_ns}"


class Trees:
    """The trees of a state directory."""

    def __init__(
        self,
        directory: str,
        objects: ObjectStore,
        now_ns: Callable[[], int],
        save_blob: Callable[[Digest, int, str], None] | None = None,
    ) -> None:
        """`save_blob` writes a file, by digest and size, that is not here to a path, verified. It may be called
        from several threads.
        """
        self._save_blob = save_blob
        self._directory = directory
        self._objects = objects
        self._now_ns = now_ns

    def path(self, digest: Digest) -> str:
        """The directory of a tree, there or not."""
        return os.path.join(self._directory, digest)

    def snapshot(self, source: str) -> Digest:
        """Makes a tree of a directory, or of a single file, as it is now; fast if it was done before.

        The caller holds the collection lock. Raises MountError, StateError.
        """
        source = os.path.abspath(source)
        begun_ns = self._now_ns()
        base, entries = _scan_source(source)
        fingerprint = _fingerprint(entries)
        known = _read_json(self._known_path(source))
        if known is not None and known["source"] == fingerprint and os.path.isdir(self.path(Digest(known["tree"]))):
            return Digest(known["tree"])
        with self._draft() as draft:
            for entry in entries:
                _copy(os.path.join(base, entry.path), entry, os.path.join(draft, entry.path))
            digest = self._admit(draft)
        changed_ns = max((max(e.stat.st_mtime_ns, e.stat.st_ctime_ns) for e in entries), default=0)
        if changed_ns + SETTLED_NS < begun_ns:
            path = self._known_path(source)
            with state_errors(path):
                os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
                write_atomically(path, json.dumps({"source": fingerprint, "tree": digest}).encode())
        return digest

    def build(self, digest: Digest, manifest: dict[str, Any], blob: Callable[[str], str]) -> None:
        """Makes a tree out of a checked manifest; `blob` tells where the file with a SHA-256 is. Raises ValueError."""
        with self._draft() as draft:
            with state_errors(draft):
                for path in manifest["directories"]:
                    os.mkdir(os.path.join(draft, path), 0o700)
                for path, file in manifest["files"].items():
                    with open(blob(file["sha256"]), "rb") as source:
                        _write(source.fileno(), os.path.join(draft, path), file["mtime_ns"])
                for path, target in manifest["links"].items():
                    os.symlink(target, os.path.join(draft, path))
            self._admit(draft, digest)

    def manifest(self, digest: Digest) -> dict[str, Any]:
        """What a tree holds. Raises NotFoundError, ObjectDamagedError."""
        try:
            return read_manifest(self._objects.get(ObjectKind.TREE, digest))
        except ValueError as error:
            raise ObjectDamagedError(f"tree {digest[:12]}: {error}", NEXT_STEP) from None

    def holding(self, wanted: Collection[str]) -> dict[str, str]:
        """Where files are, by SHA-256, as far as the newest trees have them; unverified."""
        newest = sorted(self._objects.stored(ObjectKind.TREE), key=lambda info: -info.modified_ns)
        found: dict[str, str] = {}
        for info in newest[:SEARCHED_MAX]:
            if not os.path.isdir(self.path(info.digest)):
                continue
            try:
                files = self.manifest(info.digest)["files"]
            except (NotFoundError, ObjectDamagedError):
                continue
            for path, file in files.items():
                if file["sha256"] in wanted:
                    found.setdefault(file["sha256"], os.path.join(self.path(info.digest), path))
        return found

    def check(self, digest: Digest) -> None:
        """Compares every byte of a tree with its manifest. Raises NotFoundError, ObjectDamagedError."""
        expected = self.manifest(digest)
        self.require(digest)
        damage = _difference(self.path(digest), expected)
        if damage is not None:
            self._forget(lambda tree: tree == digest)  # it is made again when it is next asked for
            raise ObjectDamagedError(f"tree {digest[:12]}: {damage}", NEXT_STEP)

    def require(self, digest: Digest) -> None:
        """Whether a tree is there, unverified; else it is brought from elsewhere. Raises NotFoundError, RemoteError."""
        if os.path.isdir(self.path(digest)):
            return
        if self._save_blob is None:
            raise NotFoundError(f"tree {digest[:12]}: is not in the store", NEXT_STEP)
        self._restore(digest, self._save_blob)

    def _restore(self, digest: Digest, save_blob: Callable[[Digest, int, str], None]) -> None:
        """Makes a tree of files that are elsewhere. Raises NotFoundError, RemoteError, ObjectDamagedError."""
        from concurrent.futures import ThreadPoolExecutor

        manifest = self.manifest(digest)
        with self._draft() as blobs, ThreadPoolExecutor(RESTORES_MAX) as pool:
            sizes = {file["sha256"]: file["size"] for file in manifest["files"].values()}
            work = [pool.submit(save_blob, Digest(sha), size, os.path.join(blobs, sha)) for sha, size in sizes.items()]
            try:
                for each in work:
                    each.result()
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
            try:
                self.build(digest, manifest, lambda sha: os.path.join(blobs, sha))
            except ValueError as error:
                raise ObjectDamagedError(str(error), NEXT_STEP) from None

    def remove(self, digest: Digest) -> None:
        """Removes a tree's directory, if it is there."""
        with state_errors(self._directory), suppress(FileNotFoundError):
            aside = self._aside()
            os.rename(self.path(digest), aside)
            shutil.rmtree(aside)

    def sweep(self) -> None:
        """Removes what interrupted work has left, and what is known of trees that are gone.

        The caller holds the collection lock, exclusively.
        """
        if not os.path.isdir(self._directory):
            return
        with state_errors(self._directory):
            for name in os.listdir(self._directory):
                stored = is_digest(name) and os.path.exists(self._objects.path(ObjectKind.TREE, Digest(name)))
                if name.startswith(_DRAFT) or (is_digest(name) and not stored):
                    shutil.rmtree(os.path.join(self._directory, name))
            self._forget(lambda tree: not os.path.isdir(self.path(tree)))

    def _known_path(self, source: str) -> str:
        """The file that says which tree was made of a directory, and what the directory looked like."""
        return os.path.join(self._directory, _KNOWN, sha256(os.fsencode(source)).hexdigest())

    def _forget(self, is_meant: Callable[[Digest], bool]) -> None:
        known = os.path.join(self._directory, _KNOWN)
        for name in os.listdir(known) if os.path.isdir(known) else []:
            found = _read_json(os.path.join(known, name))
            if found is None or is_meant(Digest(found["tree"])):
                with suppress(FileNotFoundError):
                    os.unlink(os.path.join(known, name))

    # ---- drafts, which become trees by being renamed

    def _aside(self) -> str:
        return os.path.join(self._directory, f"{_DRAFT}{os.getpid()}-{os.urandom(6).hex()}")

    @contextmanager
    def _draft(self) -> Iterator[str]:
        draft = self._aside()
        with state_errors(draft):
            os.makedirs(self._directory, mode=0o700, exist_ok=True)
            os.mkdir(draft, 0o700)
        try:
            yield draft
        finally:
            shutil.rmtree(draft, ignore_errors=True)

    def _admit(self, draft: str, expected: Digest | None = None) -> Digest:
        """Makes a draft a tree, unless that is there and undamaged. Raises ValueError if another one is expected."""
        with state_errors(draft):
            manifest = _manifest(draft)
            digest = digest_of(manifest)
            if expected not in (None, digest):
                raise ValueError(f"tree {expected}: its files aren't those of its manifest")
            with self._lock():
                if os.path.isdir(self.path(digest)):
                    self._objects.put(ObjectKind.TREE, manifest)
                    try:
                        self.check(digest)
                    except ObjectDamagedError:
                        # Guests may have it mounted: they go on with it as it is.
                        os.rename(self.path(digest), self._aside())
                    else:
                        return digest
                _flush(draft)
                os.rename(draft, self.path(digest))
                fsync_directory(self._directory)
                # Last, so that what is listed is there.
                self._objects.put(ObjectKind.TREE, manifest)
        return digest

    @contextmanager
    def _lock(self) -> Iterator[None]:
        descriptor = os.open(os.path.join(self._directory, ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def survey(source: str, is_left_out: Callable[[str], bool] | None = None) -> tuple[bytes, dict[str, str]]:
    """What a tree of a directory, or of a single file, would hold: its manifest, and by SHA-256 where its files are.

    `is_left_out` decides of each directory in it; what a tree can't hold is left out too then. Raises MountError.
    """
    source = os.path.abspath(source)
    base, entries = _scan_source(source, is_left_out)
    try:
        manifest = _manifest(base, entries)
    except OSError as error:
        raise MountError(
            f"mount {error.filename or base}: {error.strerror}", "make it readable, or remove it"
        ) from None
    files = json.loads(manifest)["files"]
    return manifest, {file["sha256"]: os.path.join(base, path) for path, file in files.items()}


def mounted_trees(config: bytes) -> list[Digest | None]:
    """The tree of each mount in a config object, None for mounts that have none. Raises ValueError."""
    try:
        trees = [mount.get("tree") for mount in json.loads(config)["mounts"]]
        if all(tree is None or is_digest(tree) for tree in trees):
            return trees
    except (KeyError, TypeError, AttributeError, RecursionError):
        pass
    raise ValueError("a config names trees that can't be")


def read_manifest(data: bytes) -> dict[str, Any]:
    """A manifest, which may come from elsewhere. Raises ValueError."""
    try:
        value = json.loads(data)
        if _is_manifest(value):
            return dict(value)
    except (KeyError, TypeError, AttributeError, RecursionError):
        pass
    raise ValueError("a tree's manifest isn't what this Timecraft writes")


def _is_manifest(value: Any) -> bool:
    directories, files, links = value["directories"], value["files"], value["links"]
    paths, parents = [*directories, *files, *links], {"", *directories}
    return (
        value["version"] == MANIFEST_VERSION
        and len(paths) == len(set(paths)) <= TREE_ENTRIES_MAX
        and all(_is_inner(path) and os.path.dirname(path) in parents for path in paths)
        and all(is_digest(file["sha256"]) and abs(file["mtime_ns"]) < 1 << 62 for file in files.values())
        and all(file["size"] >= 0 for file in files.values())
        and tree_bytes(value) <= TREE_BYTES_MAX
        and all(_stays_inside(path, target) for path, target in links.items())
    )


def tree_bytes(manifest: dict[str, Any]) -> int:
    """Size of all files of a tree."""
    return sum(file["size"] for file in manifest["files"].values())


def _is_inner(path: str) -> bool:
    return "\0" not in path and not {"", ".", ".."}.intersection(path.split("/"))


def _stays_inside(path: str, target: str) -> bool:
    """Whether a symbolic link never leads above the tree's root, at least by its text."""
    depth = path.count("/")
    for part in target.split("/"):
        depth += {"..": -1, ".": 0, "": 0}.get(part, 1)
        if depth < 0:
            return False
    return bool(target) and not target.startswith("/") and "\0" not in target


def _scan_source(source: str, is_left_out: Callable[[str], bool] | None = None) -> tuple[str, list[Entry]]:
    """What is to become a tree: the directory, and what it holds or, for a file, that file alone."""
    try:
        found = os.stat(source)
        if stat.S_ISREG(found.st_mode):
            return os.path.dirname(source), [Entry(os.path.basename(source), found)]
        return source, _scan(source, is_left_out)
    except OSError as error:
        where = error.filename if isinstance(error.filename, str) else source
        raise MountError(f"mount {where}: {error.strerror}", "correct --dir, or make it readable") from None


def _scan(root: str, is_left_out: Callable[[str], bool] | None = None) -> list[Entry]:
    """All that a directory holds, in order of paths. Raises OSError; MountError for what a tree can't have.

    `is_left_out` is that of `survey`.
    """
    entries: list[Entry] = []
    pending = [""]
    while pending:
        folder = pending.pop()
        with os.scandir(os.path.join(root, folder)) as found:
            for item in found:
                path = f"{folder}/{item.name}" if folder else item.name
                if is_left_out is not None and _is_spared(root, path, item, is_left_out):
                    continue
                entries.append(Entry(path, item.stat(follow_symlinks=False)))
                if item.is_dir(follow_symlinks=False):
                    pending.append(path)
                elif not item.is_file(follow_symlinks=False):
                    _check_special(root, path, item.is_symlink())
        if len(entries) > TREE_ENTRIES_MAX:
            raise MountError(f"mount {root}: holds more than {TREE_ENTRIES_MAX} files", "mount a part of it")
    if sum(entry.stat.st_size for entry in entries) > TREE_BYTES_MAX:
        raise MountError(f"mount {root}: holds more than {TREE_BYTES_MAX >> 30} GiB", "mount a part of it")
    return sorted(entries, key=lambda entry: entry.path)


def _is_spared(root: str, path: str, item: os.DirEntry[str], is_left_out: Callable[[str], bool]) -> bool:
    if item.is_dir(follow_symlinks=False):
        return is_left_out(item.path)
    if item.is_file(follow_symlinks=False):
        return not os.access(item.path, os.R_OK)
    try:
        _check_special(root, path, item.is_symlink())
    except MountError:
        return True
    return False


def _check_special(root: str, path: str, is_link: bool) -> None:
    place = os.path.join(root, path)
    if not is_link:
        raise MountError(f"mount {place}: is no file, directory or symbolic link", "remove it, or mount it as ro")
    real = os.path.realpath(root)
    if not _stays_inside(path, os.readlink(place)) or os.path.commonpath([real, os.path.realpath(place)]) != real:
        raise MountError(f"mount {place}: is a symbolic link that leads outside", "remove it, or mount it as ro")


def _fingerprint(entries: list[Entry]) -> str:
    """Of what the file system says of a directory's contents, without reading them."""
    return sha256(
        "\0".join(f"{entry.path}\0{entry.identity}" for entry in entries).encode(errors="surrogateescape")
    ).hexdigest()


def _manifest(root: str, entries: list[Entry] | None = None) -> bytes:
    """The manifest of a directory, or of some entries of one. Raises OSError, MountError."""
    directories, files, links = [], {}, {}
    for path, found in ((entry.path, entry.stat) for entry in (_scan(root) if entries is None else entries)):
        place = os.path.join(root, path)
        if stat.S_ISDIR(found.st_mode):
            directories.append(path)
        elif stat.S_ISLNK(found.st_mode):
            links[path] = os.readlink(place)
        else:
            with open(place, "rb", buffering=0) as file:
                digest = file_digest(file, "sha256").hexdigest()
            files[path] = {"size": found.st_size, "mtime_ns": found.st_mtime_ns, "sha256": digest}
    value = {"version": MANIFEST_VERSION, "directories": directories, "files": files, "links": links}
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode("ascii")


def _difference(root: str, expected: dict[str, Any]) -> str | None:
    """Where a directory isn't what a manifest says, if anywhere."""
    try:
        found = json.loads(_manifest(root))
    except (OSError, MountError) as error:
        return str(error)
    for part in ("directories", "files", "links"):
        then, now = (_items(manifest[part]) for manifest in (expected, found))
        if then != now:
            return f"{os.path.join(root, min(then ^ now)[0])} isn't as it was"
    return None


def _items(part: dict[str, object] | list[str]) -> set[tuple[str, str]]:
    """A part of a manifest, to be compared with another one's."""
    return {(path, json.dumps(part[path]) if isinstance(part, dict) else "") for path in part}


def _copy(source: str, entry: Entry, target: str) -> None:
    """Copies one entry of a directory. Raises MountError if it isn't what it was, StateError."""
    if stat.S_ISDIR(entry.stat.st_mode):
        with state_errors(target):
            os.mkdir(target, 0o700)
        return
    try:
        if stat.S_ISLNK(entry.stat.st_mode):
            os.symlink(os.readlink(source), target)
            return
        descriptor = os.open(source, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise MountError(f"mount {source}: {error.strerror}", "make it readable, or remove it") from None
    with open(descriptor, "rb", buffering=0), state_errors(target):
        _write(descriptor, target, entry.stat.st_mtime_ns)
        if Entry(entry.path, os.fstat(descriptor)).identity != entry.identity:
            raise MountError(f"mount {source}: has changed while it was read", "try again")


def _write(source: int, target: str, mtime_ns: int) -> None:
    """Makes a file of a tree, which shares its blocks with the source where the file system can do that."""
    with open(target, "xb") as output:
        try:
            fcntl.ioctl(output.fileno(), FICLONE, source)
        except OSError:
            while chunk := os.read(source, CHUNK_BYTES):
                output.write(chunk)
            output.flush()
        os.fchmod(output.fileno(), 0o400)
        os.utime(output.fileno(), ns=(mtime_ns, mtime_ns))


def _flush(root: str) -> None:
    """Makes a directory durable with all that it holds."""
    entries = _scan(root)
    if len(entries) > FSYNC_FILES_MAX:
        os.sync()
        return
    for path in [entry.path for entry in entries if not stat.S_ISLNK(entry.stat.st_mode)] + [""]:
        descriptor = os.open(os.path.join(root, path), os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _read_json(path: str) -> dict[str, str] | None:
    try:
        with open(path, "rb") as file:
            value = json.loads(file.read())
    except (OSError, ValueError):
        return None
    keys = {"source", "tree"}
    return value if isinstance(value, dict) and set(value) == keys and is_digest(str(value["tree"])) else None
