"""A node as its clients see it: where it is, who asks, calls and their errors."""

from __future__ import annotations

import hashlib
import os
import re
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from timecraftd.errors import (
    AccessError,
    NodeError,
    NotFoundError,
    StateBusyError,
    TimecraftError,
    UnsupportedError,
    UsageError,
)
from timecraftd.model import Digest, ModuleFile

# gRPC's core writes what it meets to standard error, which is the guest's; errors come by exceptions too.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

import grpc
from google.rpc import status_pb2

from timecraftd.api import errors as wire_errors
from timecraftd.api.v1 import (
    module_pb2,
    module_pb2_grpc,
    node_pb2_grpc,
    process_pb2_grpc,
    tree_pb2,
    tree_pb2_grpc,
    view_pb2_grpc,
)

CALL_S = 30.0
"""Bound of calls that don't wait for a guest."""
MESSAGE_BYTES_MAX = 64 << 20
PIECE_BYTES = 1 << 20
"""Of uploads and archives."""
UPLOAD_TRIES = 3
SOCKET_PATH_BYTES_MAX = 107
_STATUS_KEY = "grpc-status-details-bin"
_HOST_PORT = re.compile(r"(\[[0-9a-fA-F:.%]+\]|[a-zA-Z0-9_.-]+):([0-9]{1,5})")
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a node is."""

    address: str
    """`unix:PATH` with an absolute path, or `HOST:PORT`."""

    @property
    def is_local(self) -> bool:
        """Whether the node is on this machine, and the same paths mean the same there."""
        return self.address.startswith("unix:")


@dataclass(frozen=True, slots=True)
class Credentials:
    """Who asks, and whom they trust. Names of PEM files; empty is none."""

    ca_file: str = ""
    """Authorities of the node's certificate; empty: the system's."""
    cert_file: str = ""
    key_file: str = ""
    token: str = ""


def parse_endpoint(text: str) -> Endpoint:
    """An endpoint from `unix:PATH`, a path (with a slash in it), or `HOST:PORT`. Raises UsageError."""
    path = text.removeprefix("unix:")
    if path != text or "/" in text:
        absolute = os.path.abspath(path)
        if len(os.fsencode(absolute)) > SOCKET_PATH_BYTES_MAX:
            raise UsageError(f"node {text}: is longer than the path of a socket may be", "use a shorter path")
        return Endpoint(f"unix:{absolute}")
    found = _HOST_PORT.fullmatch(text)
    if found is None or not 0 < int(found[2]) < 1 << 16:
        raise UsageError(
            f"node {text!r}: isn't an address", "give HOST:PORT, or the path of a socket such as ./node.sock"
        )
    return Endpoint(text)


def idempotency_key() -> str:
    """A key for one mutating call, and for its repetition."""
    return uuid.uuid4().hex


class NodeClient:
    """Calls to one node."""

    def __init__(self, endpoint: Endpoint, credentials: Credentials | None = None) -> None:
        """Connects at the first call. Raises NotFoundError for files of `credentials` that can't be read."""
        self.endpoint = endpoint
        credentials = credentials or Credentials()
        options = [
            ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
            ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
            # The daemon may have been restarted a moment ago.
            ("grpc.initial_reconnect_backoff_ms", 100),
        ]
        if endpoint.is_local:
            self._channel = grpc.insecure_channel(endpoint.address, options)
        else:
            ca, key, certificate = map(_pem, (credentials.ca_file, credentials.key_file, credentials.cert_file))
            self._channel = grpc.secure_channel(
                endpoint.address, grpc.ssl_channel_credentials(ca, key, certificate), options
            )
        self._metadata = (("authorization", f"Bearer {credentials.token}"),) if credentials.token else ()
        self.processes = process_pb2_grpc.ProcessServiceStub(self._channel)  # type: ignore[no-untyped-call]
        self.modules = module_pb2_grpc.ModuleServiceStub(self._channel)  # type: ignore[no-untyped-call]
        self.node = node_pb2_grpc.NodeServiceStub(self._channel)  # type: ignore[no-untyped-call]
        self.trees = tree_pb2_grpc.TreeServiceStub(self._channel)  # type: ignore[no-untyped-call]
        self.views = view_pb2_grpc.ViewServiceStub(self._channel)  # type: ignore[no-untyped-call]

    def close(self) -> None:
        """Ends all calls."""
        self._channel.close()

    def call(self, method: Any, request: Any, timeout_s: float | None = CALL_S) -> Any:
        """The answer to a call with one answer; `request` may be an iterator of messages. Raises TimecraftError."""
        with self.errors(timeout_s):
            return method(request, timeout=timeout_s, metadata=self._metadata)

    def stream(self, method: Any, request: Any) -> Stream:
        """The answers to a call with many. Their errors come as they are taken."""
        with self.errors(None):
            return Stream(self, method(request, metadata=self._metadata))

    def upload(self, source: bytes | ModuleFile, name: str) -> module_pb2.Module:
        """Brings a module to the node, if it isn't there. Raises ModuleError, NotFoundError, and what `call` raises."""
        digest = source.digest if isinstance(source, ModuleFile) else hashlib.sha256(source).hexdigest()
        for left in reversed(range(UPLOAD_TRIES)):
            stat = self.call(self.modules.StatUpload, module_pb2.StatUploadRequest(digest=digest))
            if stat.HasField("module"):
                there: module_pb2.Module = stat.module
                return there
            try:
                data = _read(source) if isinstance(source, ModuleFile) else source
                pieces = _pieces(data, stat.offset, digest, name)
                taken: module_pb2.Module = self.call(self.modules.Upload, pieces, None).module
                return taken
            except (NodeError, StateBusyError):
                if not left:
                    raise
        raise AssertionError("the last try returns or raises")

    def upload_tree(self, manifest: bytes, files: Mapping[str, str]) -> Digest:
        """Brings a tree to the node as far as it isn't there: its manifest, and by SHA-256 where its files are.

        Raises MountError, and what `call` raises.
        """
        digest = Digest(hashlib.sha256(manifest).hexdigest())
        if self.call(self.trees.StatTree, tree_pb2.StatTreeRequest(digest=digest)).present:
            return digest
        for left in reversed(range(UPLOAD_TRIES)):
            names = list(files)
            asked = tree_pb2.StatTreeRequest(digest=digest, files=map(bytes.fromhex, names))
            there = self.call(self.trees.StatTree, asked)
            if there.present:
                break
            missing = {names[at]: files[names[at]] for at in there.missing}
            try:
                self.call(self.trees.UploadTree, _tree_pieces(digest, manifest, missing), None)
                break
            except (NodeError, StateBusyError):
                if not left:
                    raise
        return digest

    @contextmanager
    def errors(self, timeout_s: float | None) -> Iterator[None]:
        """Turns gRPC's errors into ours."""
        try:
            yield
        except grpc.RpcError as error:
            raise self.error(error, timeout_s) from None

    def error(self, error: Any, timeout_s: float | None = None) -> TimecraftError:
        """Ours for one of gRPC's."""
        for key, value in error.trailing_metadata() or ():
            if key == _STATUS_KEY:
                ours = wire_errors.from_status(status_pb2.Status.FromString(value))
                if ours is not None:
                    return ours
        code, details = error.code(), error.details() or ""
        where = f"node {self.endpoint.address}"
        if code is grpc.StatusCode.UNAVAILABLE:
            return NodeError(f"{where}: can't be reached: {_reason(details)}", self._where_to_look())
        if code is grpc.StatusCode.DEADLINE_EXCEEDED:
            after = "in time" if timeout_s is None else f"within {timeout_s:g} s"
            return NodeError(f"{where}: didn't answer {after}", "try again, or see what the node is busy with")
        if code is grpc.StatusCode.UNIMPLEMENTED:
            return UnsupportedError(f"{where}: doesn't know this call", "`timecraft version` shows both versions")
        if code in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED):
            return AccessError(f"{where}: {details}", "give a valid token or certificate: `timecraft context set`")
        return NodeError(f"{where}: {code.name.lower().replace('_', ' ')}: {details}", "see the node's log")

    def _where_to_look(self) -> str:
        if self.endpoint.is_local:
            return "see that timecraftd runs, and that you may connect to its socket"
        return "see that timecraftd listens there (node.listen), and that its certificate is one that you trust (CA)"


class Stream:
    """The answers to a call, one after the other."""

    def __init__(self, client: NodeClient, call: Any) -> None:
        self._client = client
        self._call = call

    def __iter__(self) -> Stream:
        return self

    def __next__(self) -> Any:
        try:
            return next(self._call)
        except grpc.RpcError as error:
            raise self._client.error(error) from None

    def cancel(self) -> None:
        """Ends the call; may be called from a signal handler or another thread. Who waits gets NodeError."""
        self._call.cancel()


def pages(list_page: Callable[[str], Any], items: Callable[[Any], Sequence[_T]]) -> Iterator[_T]:
    """All items of a list that comes in pages; `list_page` takes a token."""
    token = ""
    while True:
        page = list_page(token)
        yield from items(page)
        token = page.next_page_token
        if not token:
            return


def _pieces(data: bytes, offset: int, digest: str, name: str) -> Iterable[module_pb2.UploadRequest]:
    first = module_pb2.UploadRequest(digest=digest, size_bytes=len(data), name=name, offset=offset)
    first.data = data[offset : offset + PIECE_BYTES]
    yield first
    for at in range(offset + PIECE_BYTES, len(data), PIECE_BYTES):
        yield module_pb2.UploadRequest(data=data[at : at + PIECE_BYTES])


def _tree_pieces(digest: str, manifest: bytes, files: Mapping[str, str]) -> Iterator[tree_pb2.UploadTreeRequest]:
    yield tree_pb2.UploadTreeRequest(digest=digest)
    for at in range(0, len(manifest), PIECE_BYTES):
        yield tree_pb2.UploadTreeRequest(manifest=manifest[at : at + PIECE_BYTES])
    for name, path in files.items():
        yield tree_pb2.UploadTreeRequest(file=bytes.fromhex(name))
        with open(path, "rb", buffering=0) as file:
            while data := file.read(PIECE_BYTES):
                yield tree_pb2.UploadTreeRequest(data=data)


def _pem(path: str) -> bytes | None:
    if not path:
        return None
    try:
        with open(path, "rb") as file:
            return file.read(PIECE_BYTES)
    except OSError as error:
        raise NotFoundError(f"{path}: {error.strerror}", "correct it with `timecraft context set`") from None


def _reason(details: str) -> str:
    """The end of gRPC's chain of reasons, which is the cause."""
    return details.rpartition(": ")[2] or "nothing answers"


def _read(source: ModuleFile) -> bytes:
    from timecraftd.registry.files import read_module

    return read_module(source.path)[0]
