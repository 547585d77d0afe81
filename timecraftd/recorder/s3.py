"""A store that speaks S3: Amazon's, and those of others. The only place that knows aiobotocore."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from random import Random
from typing import Any

import crc32c as crc32c_
from aiobotocore.config import AioConfig
from aiobotocore.session import get_session
from botocore import exceptions

from timecraftd.config import RemoteConfig
from timecraftd.errors import NotFoundError, RemoteError
from timecraftd.recorder.remote import (
    MULTIPART_BYTES_MIN,
    Capabilities,
    ConflictError,
    FilePart,
    RemoteInfo,
    Retries,
    TransientError,
    parse_url,
)

PART_BYTES = 8 << 20
PARTS_MAX = 10_000
RATE_BYTES_PER_S_MIN = 128 << 10
"""A transfer that is slower is given up, and begun again."""
CONNECT_S_MAX = 10.0
DELETE_KEYS_MAX = 1000
CHUNK_BYTES = 1 << 20
METADATA = "crc32c"
NEXT_STEP = "see `timecraft doctor` and docs/remote.md"
TRANSIENT_CODES = frozenset({
    "BadDigest", "InternalError", "OperationAborted", "RequestTimeout", "RequestTimeoutException", "ServiceUnavailable",
    "SlowDown", "Throttling", "ThrottlingException", "TooManyRequests", "XAmzContentChecksumMismatch",
    "XAmzContentSHA256Mismatch",
})  # fmt: skip
"""Bytes that were changed on their way are among them: they are sent again."""
CONFLICT_CODES = frozenset({"PreconditionFailed", "ConditionalRequestConflict"})
TRANSIENT_ERRORS = (
    exceptions.HTTPClientError, exceptions.ConnectionError, exceptions.ResponseStreamingError,
    exceptions.IncompleteReadError, exceptions.CredentialRetrievalError, exceptions.MetadataRetrievalError,
    exceptions.ChecksumError,
)  # fmt: skip


class S3Store:
    """Objects below a prefix of a bucket. Belongs to the event loop that first uses it."""

    def __init__(
        self,
        config: RemoteConfig,
        *,
        retries: Retries | None = None,
        random: Random | None = None,
        timeout_s: Callable[[float | None], Any] = asyncio.timeout,
    ) -> None:
        """Raises ConfigError; nothing is connected yet. Credentials are those of AWS's standard chain."""
        self.url = config.url.rstrip("/")
        self._bucket, self._prefix = parse_url(config.url)
        self._config = config
        self.retries = retries or Retries(random=random)
        self._random = random or Random()  # noqa: S311 - names what is tried, and is no secret
        self._timeout_s = timeout_s
        self._room = asyncio.Semaphore(config.uploads_max)
        self._stack = AsyncExitStack()
        self._client: Any = None
        self._opening = asyncio.Lock()
        self._capabilities: Capabilities | None = None

    async def close(self) -> None:
        """Ends connections. Idempotent."""
        await self._stack.aclose()
        self._client = None

    # ---- reading

    async def get(self, key: str, *, offset: int = 0, length: int | None = None) -> bytes:
        """Bytes of an object; fewer than asked for at its end. Raises NotFoundError."""
        if length == 0:
            return b""
        last = "" if length is None else offset + length - 1
        options = {"Range": f"bytes={offset}-{last}"} if offset or length is not None else {}
        try:
            return (await self._read(key, options))[0]
        except _OutOfRangeError:
            return b""

    async def get_tagged(self, key: str) -> tuple[bytes, str]:
        """An object and its ETag. Raises NotFoundError."""
        return await self._read(key, {})

    async def head(self, key: str) -> RemoteInfo | None:
        """What there is, if it is there."""
        try:
            found = await self._call("head_object", key)
        except NotFoundError:
            return None
        metadata = {name.lower(): value for name, value in found.get("Metadata", {}).items()}
        return RemoteInfo(key, found["ContentLength"], _unix_ns(found.get("LastModified")), metadata.get(METADATA))

    async def list(self, prefix: str, *, delimiter: str = "", start_after: str = "") -> AsyncIterator[RemoteInfo]:
        """Objects in the order of their keys, and common prefixes if there is a delimiter."""
        options: dict[str, Any] = {"Prefix": self._prefix + prefix}
        options |= {"Delimiter": delimiter} if delimiter else {}
        options |= {"StartAfter": self._prefix + start_after} if start_after else {}
        while True:
            found = await self._call("list_objects_v2", None, **options)
            infos = [
                RemoteInfo(self._relative(item["Key"]), item["Size"], _unix_ns(item["LastModified"]))
                for item in found.get("Contents", ())
            ]
            infos += [RemoteInfo(self._relative(item["Prefix"]), 0) for item in found.get("CommonPrefixes", ())]
            for info in sorted(infos, key=lambda info: info.key):
                yield info
            if not found.get("IsTruncated"):
                return
            options["ContinuationToken"] = found["NextContinuationToken"]

    # ---- writing

    async def put(
        self,
        key: str,
        data: bytes | FilePart,
        *,
        crc32c: int | None = None,
        if_none_match: bool = False,
        if_match: str | None = None,
    ) -> str:
        """Writes an object, whole or not at all; its ETag. Raises ConflictError if the condition doesn't hold."""
        abilities = await self.probe()
        if crc32c is None:
            crc32c = await asyncio.to_thread(checksum, data)
        conditions: dict[str, str] = {}
        if abilities.conditional:
            conditions |= {"IfNoneMatch": "*"} if if_none_match else {}
            conditions |= {"IfMatch": if_match} if if_match is not None else {}
        else:
            await self._check_condition(key, if_none_match=if_none_match, if_match=if_match)
        metadata = {"Metadata": {METADATA: f"{crc32c:08x}"}}
        if isinstance(data, FilePart) and len(data) > MULTIPART_BYTES_MIN:
            return await self._put_parts(key, data, conditions, metadata, abilities)
        sums = await _sums(data, abilities, crc32c)
        return str((await self._send("put_object", key, data, {**sums, **conditions, **metadata}))["ETag"])

    async def delete(self, keys: Sequence[str]) -> None:
        """Removes what is there of these."""
        for begin in range(0, len(keys), DELETE_KEYS_MAX):
            batch = [{"Key": self._prefix + key} for key in keys[begin : begin + DELETE_KEYS_MAX]]
            answer = await self._call("delete_objects", None, Delete={"Objects": batch, "Quiet": True})
            for failed in answer.get("Errors", ()):
                if failed.get("Code") not in ("NoSuchKey", "404"):
                    raise RemoteError(
                        f"{self.url}: {failed.get('Key')} can't be removed: {failed.get('Message')}", NEXT_STEP
                    )

    async def probe(self) -> Capabilities:
        """What the store does; found out by writing and removing an object, once."""
        async with self._opening:
            if self._capabilities is None:
                self._capabilities = await self._probe()
        return self._capabilities

    async def _probe(self) -> Capabilities:
        key = f"probe/{self._random.getrandbits(64):016x}"
        body = b"timecraft"
        md5 = _md5(body)
        await self._send("put_object", key, body, {"ContentMD5": md5})
        try:
            conditional = await self._is_refused(key, body, ContentMD5=md5, IfNoneMatch="*")
            conditional = conditional and await self._is_refused(key, body, ContentMD5=md5, IfMatch='"0"')
            wrong = base64.b64encode(b"\0\0\0\0").decode()
            sums = await self._is_refused(key, body, ChecksumCRC32C=wrong)
            return Capabilities(conditional=conditional, checksums=sums)
        finally:
            with contextlib.suppress(RemoteError):
                await self._call("delete_object", key)

    async def _is_refused(self, key: str, body: bytes, **options: str) -> bool:
        """Whether a store keeps from doing what it shouldn't, for the reason that it shouldn't."""
        try:
            await self._send("put_object", key, body, dict(options), retried=False)
        except ConflictError:
            return True
        except RemoteError as error:
            if isinstance(error, TransientError) and "BadDigest" not in error.message:
                raise  # it says nothing of what the store does
            return "ChecksumCRC32C" in options and ("BadDigest" in error.message or "InvalidRequest" in error.message)
        return False

    async def _check_condition(self, key: str, *, if_none_match: bool, if_match: str | None) -> None:
        """For stores that don't: between this and the write somebody else may write."""
        if not if_none_match and if_match is None:
            return
        try:
            found = await self._call("head_object", key)
        except NotFoundError:
            found = None
        if (if_none_match and found) or (if_match is not None and (not found or found["ETag"] != if_match)):
            raise ConflictError(f"{self.url}/{key}: is there already, or has changed")

    async def _put_parts(
        self, key: str, data: FilePart, conditions: dict[str, str], metadata: dict[str, Any], abilities: Capabilities
    ) -> str:
        algorithm = {"ChecksumAlgorithm": "CRC32C"} if abilities.checksums else {}
        upload = (await self._call("create_multipart_upload", key, **metadata, **algorithm))["UploadId"]
        try:
            size = max(PART_BYTES, -(-len(data) // PARTS_MAX))
            async with asyncio.TaskGroup() as tasks:
                sending = [
                    tasks.create_task(self._put_part(key, upload, number, part, abilities))
                    for number, part in enumerate(_parts(data, size), start=1)
                ]
            parts = [task.result() for task in sending]
            done = await self._call(
                "complete_multipart_upload", key, UploadId=upload, MultipartUpload={"Parts": parts}, **conditions
            )
            return str(done["ETag"])
        except BaseException as error:
            # What was sent is paid for until it is given up.
            with contextlib.suppress(RemoteError):
                await asyncio.shield(self._call("abort_multipart_upload", key, UploadId=upload))
            if isinstance(error, BaseExceptionGroup):
                raise error.exceptions[0] from None
            raise

    async def _put_part(
        self, key: str, upload: str, number: int, where: tuple[str, int, int], abilities: Capabilities
    ) -> dict[str, Any]:
        async with self._room:
            with FilePart(*where) as part:
                sums = await _sums(part, abilities, None)
                sent = await self._send("upload_part", key, part, {"UploadId": upload, "PartNumber": number, **sums})
        named = {name: value for name, value in sums.items() if name.startswith("Checksum")}
        return {"PartNumber": number, "ETag": sent["ETag"], **named}

    # ---- requests

    async def _send(
        self, operation: str, key: str, body: bytes | FilePart, options: dict[str, Any], *, retried: bool = True
    ) -> dict[str, Any]:
        async def attempt() -> dict[str, Any]:
            if isinstance(body, FilePart):
                body.seek(0)
            async with self._asking(operation, key, len(body)) as client:
                answer: dict[str, Any] = await getattr(client, operation)(
                    Bucket=self._bucket, Key=self._prefix + key, Body=body, ContentLength=len(body), **options
                )
                return answer

        return await (self.retries(attempt) if retried else attempt())

    async def _call(self, operation: str, key: str | None, **options: Any) -> dict[str, Any]:
        named = {} if key is None else {"Key": self._prefix + key}

        async def attempt() -> dict[str, Any]:
            async with self._asking(operation, key or "", 0) as client:
                answer: dict[str, Any] = await getattr(client, operation)(Bucket=self._bucket, **named, **options)
                return answer

        return await self.retries(attempt)

    async def _read(self, key: str, options: dict[str, str]) -> tuple[bytes, str]:
        async def attempt() -> tuple[bytes, str]:
            async with self._asking("get_object", key, 0) as client:
                found = await client.get_object(Bucket=self._bucket, Key=self._prefix + key, **options)
                chunks = []
                async with found["Body"] as body:
                    while chunk := await self._within(body.read(CHUNK_BYTES)):
                        chunks.append(chunk)
                return b"".join(chunks), str(found["ETag"])

        return await self.retries(attempt)

    async def _within(self, work: Awaitable[bytes]) -> bytes:
        async with self._timeout_s(self._config.request_s_max):
            return await work

    @asynccontextmanager
    async def _asking(self, operation: str, key: str, size: int) -> AsyncIterator[Any]:
        """A client, for one request that sends so many bytes; what goes wrong is an error of ours."""
        reading = operation == "get_object"  # bounded piece by piece: however big it is
        bound = None if reading else self._config.request_s_max + size / RATE_BYTES_PER_S_MIN
        try:
            async with self._timeout_s(bound):
                yield await self._connected()
        except exceptions.ClientError as error:
            raise self._refused(error, operation, key) from None
        except TRANSIENT_ERRORS as error:
            raise TransientError(f"{self.url}: {error}", NEXT_STEP) from None
        except exceptions.BotoCoreError as error:
            raise RemoteError(f"{self.url}: {error}", NEXT_STEP) from None
        except TimeoutError:
            raise TransientError(f"{self.url}: no answer in time ({operation})", NEXT_STEP) from None
        except OSError as error:
            raise TransientError(f"{self.url}: {error}", NEXT_STEP) from None

    async def _connected(self) -> Any:
        if self._client is None:
            config = self._config
            client = get_session().create_client(
                "s3",
                region_name=config.region or None,
                endpoint_url=config.endpoint_url or None,
                config=AioConfig(
                    s3={"addressing_style": config.addressing},
                    signature_version="s3v4",
                    connect_timeout=CONNECT_S_MAX,
                    read_timeout=config.request_s_max,
                    max_pool_connections=2 * config.uploads_max + 4,
                    retries={"total_max_attempts": 1},  # ours see what they can be for
                    request_checksum_calculation="when_required",
                    response_checksum_validation="when_required",
                ),
            )
            self._client = await self._stack.enter_async_context(client)
        return self._client

    def _refused(self, error: exceptions.ClientError, operation: str, key: str) -> RemoteError | NotFoundError:
        said = error.response.get("Error", {})
        code, status = str(said.get("Code", "")), error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        where = f"{self.url}/{key}" if key else self.url
        if code == "InvalidRange":
            return _OutOfRangeError(where)
        if code == "NoSuchBucket":
            return RemoteError(f"{self.url}: there is no such bucket", "create it, or correct remote.url")
        if code in ("NoSuchKey", "NotFound", "404"):
            return NotFoundError(f"{where}: is not there", "see `timecraft doctor`")
        if code in CONFLICT_CODES or status == 412:
            return ConflictError(f"{where}: is there already, or has changed")
        message = f"{where}: {operation}: {code} {said.get('Message', '')}".rstrip()
        if (status >= 500 and status != 501) or status in (408, 429) or code in TRANSIENT_CODES:
            return TransientError(message, NEXT_STEP)
        next_step = "set the machine's clock" if code == "RequestTimeTooSkewed" else NEXT_STEP
        return RemoteError(message, next_step)

    def _relative(self, key: str) -> str:
        return key.removeprefix(self._prefix)


class _OutOfRangeError(RemoteError):
    """A range that begins behind an object's end."""


def checksum(data: bytes | FilePart) -> int:
    """CRC-32C."""
    if isinstance(data, bytes):
        return int(crc32c_.crc32c(data))
    total = 0
    for chunk in _chunks(data):
        total = int(crc32c_.crc32c(chunk, total))
    return total


async def _sums(data: bytes | FilePart, abilities: Capabilities, crc32c: int | None) -> dict[str, str]:
    """What lets the store see that bytes were changed on their way."""
    if not abilities.checksums:
        return {"ContentMD5": await asyncio.to_thread(_md5, data)}
    known = await asyncio.to_thread(checksum, data) if crc32c is None else crc32c
    return {"ChecksumCRC32C": base64.b64encode(known.to_bytes(4, "big")).decode()}


def _md5(data: bytes | FilePart) -> str:
    found = hashlib.md5(usedforsecurity=False)
    for chunk in (data,) if isinstance(data, bytes) else _chunks(data):
        found.update(chunk)
    return base64.b64encode(found.digest()).decode()


def _chunks(data: FilePart) -> Iterator[bytes]:
    data.seek(0)
    while chunk := data.read(CHUNK_BYTES):
        yield chunk
    data.seek(0)


def _parts(data: FilePart, size: int) -> Iterator[tuple[str, int, int]]:
    for begin in range(0, len(data), size):
        yield data.path, data.offset + begin, min(size, len(data) - begin)


def _unix_ns(time: Any) -> int:
    return 0 if time is None else int(time.timestamp() * 1e9)
