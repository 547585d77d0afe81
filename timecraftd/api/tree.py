"""TreeService (proto/timecraft/v1/tree.proto)."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import suppress
from hashlib import sha256
from typing import IO, Any

from timecraftd.api.turns import PIECE_BYTES_MAX, Turns, check_digest, size_bytes
from timecraftd.api.v1 import tree_pb2 as pb
from timecraftd.api.v1 import tree_pb2_grpc
from timecraftd.embedded import Runtime
from timecraftd.errors import CapacityError, NotFoundError, ObjectDamagedError, UsageError
from timecraftd.model import Digest
from timecraftd.registry.home import state_errors
from timecraftd.registry.objects import digest_of
from timecraftd.registry.trees import read_manifest

MANIFEST_BYTES_MAX = 64 << 20
FILE_BYTES = 32
"""Of a SHA-256."""
UPLOADS = "tree-uploads"


class TreeService(tree_pb2_grpc.TreeServiceServicer):
    """Trees of a node."""

    def __init__(self, runtime: Runtime, *, uploads_bytes_max: int) -> None:
        """`uploads_bytes_max`: what has come of trees that aren't whole takes no more."""
        self._runtime = runtime
        self._uploads_bytes_max = uploads_bytes_max
        self._directory = os.path.join(runtime.config.home, UPLOADS)
        self._turns = Turns("tree")

    async def StatTree(self, request: pb.StatTreeRequest, _context: Any) -> pb.StatTreeResponse:  # noqa: N802
        """What there is of a tree."""
        check_digest(request.digest)
        async with self._turns.take(request.digest):
            if await asyncio.to_thread(self._is_here, request.digest):
                return pb.StatTreeResponse(present=True)
            wanted = [each.hex() for each in request.files]
            found = await asyncio.to_thread(self._found, request.digest, set(wanted))
        return pb.StatTreeResponse(missing=[at for at, each in enumerate(wanted) if each not in found])

    async def UploadTree(  # noqa: N802
        self, requests: AsyncIterator[pb.UploadTreeRequest], _context: Any
    ) -> pb.UploadTreeResponse:
        """Takes a tree in."""
        first = await anext(aiter(requests), None)
        if first is None:
            raise UsageError("upload: is empty", "send the digest first")
        check_digest(first.digest)
        async with self._turns.take(first.digest):
            if not await asyncio.to_thread(self._is_here, first.digest):
                await self._receive(first, requests)
        return pb.UploadTreeResponse()

    async def _receive(self, first: pb.UploadTreeRequest, requests: AsyncIterator[pb.UploadTreeRequest]) -> None:
        with state_errors(self._directory):
            others_bytes = await asyncio.to_thread(
                self._turns.others_bytes, self._directory, first.digest, self._runtime.now_ns()
            )
            incoming = Incoming(os.path.join(self._directory, first.digest), self._uploads_bytes_max - others_bytes)
            try:
                request: pb.UploadTreeRequest | None = first
                pieces = aiter(requests)
                while request is not None:
                    await asyncio.to_thread(incoming.take, request)
                    request = await anext(pieces, None)
                await asyncio.to_thread(incoming.close_file)
            finally:
                incoming.drop_file()
            await asyncio.to_thread(self._build, Digest(first.digest), incoming)

    def _build(self, digest: Digest, incoming: Incoming) -> None:
        if digest_of(incoming.manifest) != digest:
            raise UsageError(f"tree {digest[:12]}: its manifest doesn't match the digest", "upload it again")
        try:
            manifest = read_manifest(incoming.manifest)
            found = self._found(digest, {file["sha256"] for file in manifest["files"].values()})
            registry = self._runtime.registry
            with registry.home.collection_lock(exclusive=False):
                registry.trees.build(digest, manifest, found.__getitem__)
        except KeyError as error:
            raise UsageError(f"tree {digest[:12]}: its file {error.args[0]} hasn't come", "ask StatTree") from None
        except ValueError as error:
            raise UsageError(f"tree {digest[:12]}: {error}", "upload it again") from None
        shutil.rmtree(incoming.directory, ignore_errors=True)

    def _is_here(self, digest: str) -> bool:
        try:
            self._runtime.registry.trees.require(Digest(digest))
            self._runtime.registry.trees.manifest(Digest(digest))
        except (NotFoundError, ObjectDamagedError):
            return False
        return True

    def _found(self, digest: str, wanted: set[str]) -> dict[str, str]:
        """Where files of a tree are, by SHA-256: of the upload, or of another tree."""
        directory = os.path.join(self._directory, digest)
        found = self._runtime.registry.trees.holding(wanted)
        with suppress(FileNotFoundError):
            found |= {name: os.path.join(directory, name) for name in os.listdir(directory) if name in wanted}
        return found


class Incoming:
    """What has come of a tree: its manifest, and a directory of whole files named by their SHA-256."""

    def __init__(self, directory: str, room_bytes: int) -> None:
        """Goes on with what a broken upload has left. Raises OSError."""
        os.makedirs(directory, mode=0o700, exist_ok=True)
        self.directory = directory
        self.manifest = b""
        self._manifest = bytearray()
        self._room_bytes = room_bytes - size_bytes(directory)
        self._name = ""
        self._file: IO[bytes] | None = None
        self._hash = sha256()

    def take(self, request: pb.UploadTreeRequest) -> None:
        """A piece. Raises UsageError, CapacityError, OSError."""
        size = len(request.manifest) + len(request.data)
        self._room_bytes -= size
        if self._room_bytes < 0:
            raise CapacityError("node: too much is being uploaded", "try again later, or raise node.uploads_bytes_max")
        if size > PIECE_BYTES_MAX:
            raise UsageError(f"upload: a piece of {size} bytes: {PIECE_BYTES_MAX} are taken", "send smaller ones")
        self._manifest += request.manifest
        if len(self._manifest) > MANIFEST_BYTES_MAX:
            raise UsageError(f"upload: a manifest of more than {MANIFEST_BYTES_MAX} bytes", "mount a part of it")
        if request.file:
            self.close_file()
            self._open_file(request.file)
        if request.data:
            if self._file is None:
                raise UsageError("upload: data belongs to no file", "send the file's SHA-256 with its first piece")
            self._file.write(request.data)
            self._hash.update(request.data)

    def close_file(self) -> None:
        """The file that has come is whole, and so is the manifest. Raises UsageError, OSError."""
        self.manifest = bytes(self._manifest)
        if self._file is None:
            return
        if self._hash.hexdigest() != self._name:
            raise UsageError(f"upload: the file {self._name} has other bytes", "it has changed: upload it again")
        self._file.close()
        self._file = None
        os.rename(self._part, os.path.join(self.directory, self._name))

    def drop_file(self) -> None:
        """What has come of a file that isn't whole goes. Idempotent."""
        if self._file is not None:
            self._file.close()
            self._file = None
            os.unlink(self._part)

    @property
    def _part(self) -> str:
        return os.path.join(self.directory, f"{self._name}.part")

    def _open_file(self, digest: bytes) -> None:
        if len(digest) != FILE_BYTES:
            raise UsageError(f"upload: {digest[:64]!r} isn't a SHA-256", f"send its {FILE_BYTES} bytes")
        self._name, self._hash = digest.hex(), sha256()
        self._file = open(self._part, "wb")  # noqa: SIM115 - open until the next file begins
