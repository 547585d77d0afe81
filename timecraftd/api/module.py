"""ModuleService (proto/timecraft/v1/module.proto)."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Iterator
from typing import IO, Any

from timecraftd.api.convert import module_message, page_size
from timecraftd.api.turns import PIECE_BYTES_MAX, Turns, check_digest
from timecraftd.api.v1 import module_pb2 as pb
from timecraftd.api.v1 import module_pb2_grpc
from timecraftd.embedded import Runtime
from timecraftd.errors import CapacityError, ModuleError, NotFoundError, ObjectDamagedError, StateBusyError, UsageError
from timecraftd.model import Digest, ModuleRecord, ObjectKind
from timecraftd.registry.files import MODULE_BYTES_MAX
from timecraftd.registry.home import state_errors
from timecraftd.registry.objects import digest_of

NAME_CHARS_MAX = 255


class ModuleService(module_pb2_grpc.ModuleServiceServicer):
    """Modules of a node."""

    def __init__(self, runtime: Runtime, *, uploads_bytes_max: int) -> None:
        self._runtime = runtime
        self._uploads_bytes_max = uploads_bytes_max
        self._directory = os.path.join(runtime.config.home, "uploads")
        self._turns = Turns("module")

    async def Upload(  # noqa: N802
        self, requests: AsyncIterator[pb.UploadRequest], _context: Any
    ) -> pb.UploadResponse:
        """Takes a module in."""
        first = await anext(aiter(requests), None)
        if first is None:
            raise UsageError("upload: is empty", "send the digest first")
        _check(first)
        async with self._turns.take(first.digest):
            module = await asyncio.to_thread(self._known, first.digest)
            if module is None:
                module = await self._receive(first, requests)
        return pb.UploadResponse(module=module_message(module))

    async def _receive(self, first: pb.UploadRequest, requests: AsyncIterator[pb.UploadRequest]) -> ModuleRecord:
        with state_errors(self._directory), self._opened(first) as file:
            size = first.offset
            request: pb.UploadRequest | None = first
            pieces = aiter(requests)
            while request is not None:
                size += len(request.data)
                if len(request.data) > PIECE_BYTES_MAX or size > first.size_bytes:
                    raise UsageError("upload: is more than was announced", "begin again")
                if request.data:
                    await asyncio.to_thread(file.write, request.data)
                request = await anext(pieces, None)
            if size < first.size_bytes:
                raise UsageError(
                    f"upload: ended after {size} of {first.size_bytes} bytes", "go on at the offset of StatUpload"
                )
            await asyncio.to_thread(file.flush)
            return await asyncio.to_thread(self._take, file.name, first)

    async def StatUpload(self, request: pb.StatUploadRequest, _context: Any) -> pb.StatUploadResponse:  # noqa: N802
        """How far an upload has come."""
        check_digest(request.digest)
        # One that is under way may be whole in a moment, and nothing left of it.
        async with self._turns.take(request.digest):
            known = await asyncio.to_thread(self._known, request.digest)
            if known is not None:
                return pb.StatUploadResponse(offset=known.size_bytes, module=module_message(known))
            return pb.StatUploadResponse(offset=await asyncio.to_thread(self._uploaded, request.digest))

    async def GetModule(self, request: pb.GetModuleRequest, _context: Any) -> pb.GetModuleResponse:  # noqa: N802
        """One module."""
        record = await asyncio.to_thread(self._runtime.registry.resolve_module, request.module)
        return pb.GetModuleResponse(module=module_message(record))

    async def ListModules(self, request: pb.ListModulesRequest, _context: Any) -> pb.ListModulesResponse:  # noqa: N802
        """A page of modules, newest first."""
        size = page_size(request.page_size)
        modules = await asyncio.to_thread(self._modules)
        if request.page_token:
            at = next((at for at, each in enumerate(modules) if _token(each) == request.page_token), None)
            if at is None:
                raise UsageError("page_token: isn't of this list any more", "list from the beginning")
            modules = modules[at + 1 :]
        page = modules[:size]
        token = _token(page[-1]) if len(modules) > size else ""
        return pb.ListModulesResponse(modules=map(module_message, page), next_page_token=token)

    def _modules(self) -> list[ModuleRecord]:
        registry = self._runtime.registry
        stored = (info.digest for info in registry.objects.stored(ObjectKind.MODULE))
        records = filter(None, map(registry.module_record, stored))
        return sorted(records, key=lambda record: (record.created_ns, record.digest), reverse=True)

    def _known(self, digest: str) -> ModuleRecord | None:
        """A module that is here, whole."""
        registry = self._runtime.registry
        record = registry.module_record(Digest(digest))
        if record is None:
            return None
        try:
            registry.objects.get(ObjectKind.MODULE, record.digest)
        except (NotFoundError, ObjectDamagedError):
            return None
        return record

    def _uploaded(self, digest: str) -> int:
        try:
            return os.path.getsize(self._path(digest))
        except FileNotFoundError:
            return 0

    @contextlib.contextmanager
    def _opened(self, first: pb.UploadRequest) -> Iterator[IO[bytes]]:
        """The file of an upload, where it is to go on."""
        others_bytes = self._turns.others_bytes(self._directory, first.digest, self._runtime.now_ns())
        if others_bytes + first.size_bytes > self._uploads_bytes_max:
            raise CapacityError("node: too much is being uploaded", "try again later, or raise node.uploads_bytes_max")
        with open(self._path(first.digest), "ab") as file:
            if file.tell() < first.offset:
                # Another one went on with it since.
                raise StateBusyError(f"upload: {file.tell()} bytes have come, not {first.offset}", "ask StatUpload")
            file.truncate(first.offset)
            file.seek(first.offset)
            yield file

    def _take(self, path: str, first: pb.UploadRequest) -> ModuleRecord:
        with open(path, "rb") as file:
            data = file.read()
        os.unlink(path)
        if digest_of(data) != first.digest:
            raise ModuleError(f"{first.name or 'module'}: its bytes don't match the digest", "upload it again")
        with self._runtime.registry.home.collection_lock(exclusive=False):
            return self._runtime.store_module(data, first.name or first.digest[:12])

    def _path(self, digest: str) -> str:
        return os.path.join(self._directory, digest)


def _check(first: pb.UploadRequest) -> None:
    check_digest(first.digest)
    if first.size_bytes > MODULE_BYTES_MAX:
        raise UsageError(f"size_bytes {first.size_bytes}: is more than {MODULE_BYTES_MAX}", "correct it")
    if len(first.name) > NAME_CHARS_MAX or not first.name.isprintable():
        raise UsageError("name: is too long, or has control characters", f"give one of at most {NAME_CHARS_MAX}")


def _token(module: ModuleRecord) -> str:
    return module.digest
