"""Content-addressed objects: modules, configs, runtimes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from hashlib import sha256

from timecraftd.errors import NotFoundError, ObjectDamagedError
from timecraftd.model import Digest, ObjectInfo, ObjectKind, is_digest
from timecraftd.registry.home import state_errors, write_atomically

Fetch = Callable[[ObjectKind, Digest], bytes | None]


def digest_of(data: bytes) -> Digest:
    """The digest under which bytes are stored."""
    return Digest(sha256(data).hexdigest())


class ObjectStore:
    """A directory of objects, each named by the SHA-256 of its bytes, which is checked whenever one is read."""

    def __init__(self, directory: str, fetch: Fetch = lambda _kind, _digest: None) -> None:
        """`fetch` gets from elsewhere what isn't here, unverified; None if it isn't there either."""
        self._directory = directory
        self._fetch = fetch

    def path(self, kind: ObjectKind, digest: Digest) -> str:
        """Where an object is, or would be."""
        if not is_digest(digest):
            raise NotFoundError(f"{kind} {digest!r}: isn't a digest", f"`timecraft get {kind}` lists what there is")
        return os.path.join(self._directory, kind, digest[:2], digest)

    def put(self, kind: ObjectKind, data: bytes) -> Digest:
        """Stores bytes, durably; replaces a damaged copy of the same. Raises StateError."""
        digest = digest_of(data)
        path = self.path(kind, digest)
        with state_errors(path):
            if self._holds(path, data):
                return digest
            os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
            write_atomically(path, data)
        return digest

    def holds(self, kind: ObjectKind, digest: Digest, size_bytes: int) -> bool:
        """Whether an object of that size is there, unverified."""
        try:
            return os.stat(self.path(kind, digest)).st_size == size_bytes
        except OSError:
            return False

    def get(self, kind: ObjectKind, digest: Digest) -> bytes:
        """The bytes of an object. Raises NotFoundError, ObjectDamagedError."""
        path = self.path(kind, digest)
        try:
            with open(path, "rb") as file:
                data = file.read()
        except FileNotFoundError:
            fetched = self._fetch(kind, digest)
            if fetched is None:
                raise NotFoundError(
                    f"{kind} {digest[:12]}: is not in the store", f"bring it back with `timecraft import {kind} FILE`"
                ) from None
            if digest_of(fetched) == digest:
                self.put(kind, fetched)
            data, path = fetched, "the bucket"
        if digest_of(data) != digest:
            raise ObjectDamagedError(
                f"{kind} {digest[:12]}: bytes of {path} don't match the digest",
                f"replace it with `timecraft import {kind} FILE`",
            )
        return data

    def delete(self, kind: ObjectKind, digest: Digest) -> None:
        """Removes an object, if it is there."""
        path = self.path(kind, digest)
        with state_errors(path):
            if os.path.exists(path):
                os.unlink(path)

    def stored(self, kind: ObjectKind) -> Iterator[ObjectInfo]:
        """All objects of a kind, unverified, in order of their digests."""
        directory = os.path.join(self._directory, kind)
        shards = sorted(os.listdir(directory)) if os.path.isdir(directory) else []
        for shard in shards:
            for name in sorted(os.listdir(os.path.join(directory, shard))):
                if is_digest(name):
                    stat = os.stat(os.path.join(directory, shard, name))
                    yield ObjectInfo(kind, Digest(name), stat.st_size, stat.st_mtime_ns)

    @staticmethod
    def _holds(path: str, data: bytes) -> bool:
        try:
            if os.stat(path).st_size != len(data):
                return False
            with open(path, "rb") as file:
                return file.read() == data
        except FileNotFoundError:
            return False
