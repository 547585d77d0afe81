"""What every call passes: who asks, may they, what became of it."""

from __future__ import annotations

import asyncio
import re
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import contextmanager
from typing import Any, Protocol

import grpc
from google.protobuf.message import DecodeError
from grpc_status import rpc_status

from timecraftd.api.errors import code_of, to_status
from timecraftd.api.identity import NOBODY, Identity, Role, current
from timecraftd.errors import AccessError, EngineError, TimecraftError, UsageError
from timecraftd.telemetry import request_id

READ = {
    "ProcessService/Get",
    "ProcessService/List",
    "ProcessService/Watch",
    "ProcessService/Wait",
    "ProcessService/Logs",
    "ModuleService/StatUpload",
    "ModuleService/GetModule",
    "ModuleService/ListModules",
    "TreeService/StatTree",
    "RecordService/ReadRecords",
    "ViewService/Trace",
    "ViewService/Replay",
    "ViewService/Describe",
    "ViewService/ListObjects",
    "NodeService/GetNode",
    "NodeService/WhoAmI",
}
"""Methods of ours that a viewer may call."""
ROLES = {
    "ProcessService/Run": Role.RUNNER,
    "ProcessService/Attach": Role.RUNNER,
    "ProcessService/Signal": Role.RUNNER,
    "ProcessService/Stop": Role.RUNNER,
    "ProcessService/Resume": Role.RUNNER,
    "ProcessService/Remove": Role.RUNNER,
    "ProcessService/Label": Role.RUNNER,
    "ModuleService/Upload": Role.RUNNER,
    "TreeService/UploadTree": Role.RUNNER,
    "ViewService/Export": Role.OPERATOR,
    "ViewService/Import": Role.OPERATOR,
    "ViewService/Prune": Role.OPERATOR,
    "NodeService/Drain": Role.OPERATOR,
}
"""Others of ours, and what they take; these are also written to the log with who called them."""
OURS = "/timecraft.v1."
HEALTH = "/grpc.health.v1.Health/"
REQUEST_ID = "x-request-id"
"""Metadata: a call's id in the node's log, the caller's or else the node's own; it comes back at the call's end."""
_REQUEST_ID_FORM = re.compile(r"[A-Za-z0-9._:-]{1,64}")


class Access(Protocol):
    """Tells who asks."""

    def identify(self, context: grpc.aio.ServicerContext[Any, Any]) -> Identity:
        """Of a call. Raises AccessError."""
        ...


class Observer(Protocol):
    """Learns of each call."""

    def called(self, method: str, code: str, seconds: float) -> None:
        """A call has ended."""
        ...


class Gate(grpc.aio.ServerInterceptor):
    """Checks, observes, and turns errors into status."""

    def __init__(self, access: Access, observer: Observer, log: Callable[..., None]) -> None:
        self._access = access
        self._observer = observer
        self._log = log
        self._wrapped: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}
        """By method: those that exist."""

    async def intercept_service(
        self, continuation: Callable[[Any], Awaitable[Any]], handler_call_details: Any
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Wraps a method."""
        method = handler_call_details.method
        if method in self._wrapped:
            return self._wrapped[method]
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        make = {
            (False, False): grpc.unary_unary_rpc_method_handler,
            (False, True): grpc.unary_stream_rpc_method_handler,
            (True, False): grpc.stream_unary_rpc_method_handler,
            (True, True): grpc.stream_stream_rpc_method_handler,
        }[handler.request_streaming, handler.response_streaming]
        behaviour = next(
            each
            for each in (handler.unary_unary, handler.unary_stream, handler.stream_unary, handler.stream_stream)
            if each is not None
        )
        wrap = self._streaming if handler.response_streaming else self._single
        parse = _parser(handler.request_deserializer, streaming=handler.request_streaming)
        self._wrapped[method] = make(
            wrap(method, parse, behaviour),
            request_deserializer=None,  # what can't be parsed is an error like others, told by us
            response_serializer=handler.response_serializer,
        )
        return self._wrapped[method]

    def _single(self, method: str, parse: Callable[[Any], Any], behaviour: Any) -> Any:
        async def call(raw: Any, context: Any) -> Any:
            with self._observed(method, context) as failed:
                try:
                    request = parse(raw)
                    self._admit(method, context, request)
                    return await behaviour(request, context)
                except TimecraftError as error:
                    failed(error)
                    await _abort(context, error)

        return call

    def _streaming(self, method: str, parse: Callable[[Any], Any], behaviour: Any) -> Any:
        async def call(raw: Any, context: Any) -> AsyncIterator[Any]:
            with self._observed(method, context) as failed:
                try:
                    request = parse(raw)
                    self._admit(method, context, request)
                    async for response in behaviour(request, context):
                        yield response
                except TimecraftError as error:
                    failed(error)
                    await _abort(context, error)

        return call

    def _admit(self, method: str, context: Any, request: Any) -> None:
        if method.startswith(HEALTH):
            return  # tells nothing but that the node is up
        identity = self._access.identify(context)
        current.set(identity)
        name = method.removeprefix(OURS)
        needed = role_needed(method)
        if identity.role < needed:
            raise AccessError(
                f"{name}: {identity.name} is {identity.role.name.lower()}, and it takes {needed.name.lower()}",
                "ask the node's operator for that role",
            )
        if name in ROLES:
            self._log("call", method=name, by=identity.name, target=getattr(request, "id", ""))

    @contextmanager
    def _observed(self, method: str, context: Any) -> Any:
        begun = time.monotonic()
        code = "OK"
        name = method.removeprefix(OURS)
        current.set(NOBODY)
        request_id.set(_request_id(context))
        context.set_trailing_metadata(((REQUEST_ID, request_id.get()),))

        def failed(error: TimecraftError) -> None:
            nonlocal code
            code = code_of(error).name
            if code == "INTERNAL" or name in ROLES or isinstance(error, AccessError):
                level = "error" if code == "INTERNAL" else "warning"
                by = current.get().name
                self._log("call failed", level=level, method=name, by=by, code=code, error=str(error))

        try:
            yield failed
        except asyncio.CancelledError:
            code = "CANCELLED"
            raise
        except grpc.aio.AbortError:
            raise
        except GeneratorExit:
            code = "CANCELLED"
            raise
        except Exception as error:
            code = "INTERNAL"
            what = f"{type(error).__name__}: {error}"
            self._log("internal error", level="error", method=name, by=current.get().name, error=what)
            hidden = EngineError(f"internal error: {type(error).__name__}", "see the node's log, and report it")
            context.set_code(grpc.StatusCode.INTERNAL)
            context.set_details(str(hidden))
            raise
        finally:
            self._observer.called(method, code, time.monotonic() - begun)


def role_needed(method: str) -> Role:
    """What it takes to call a method; of ours that nobody decided about, the most."""
    name = method.removeprefix(OURS)
    if name in READ or not method.startswith(OURS):
        return Role.VIEWER
    return ROLES.get(name, Role.OPERATOR)


async def _abort(context: Any, error: TimecraftError) -> None:
    status = rpc_status.to_status(to_status(error))
    await context.abort(status.code, status.details, (*status.trailing_metadata, (REQUEST_ID, request_id.get())))


def _request_id(context: Any) -> str:
    """The caller's if it gave a sane one, else a new one."""
    for key, value in context.invocation_metadata() or ():
        if key == REQUEST_ID and isinstance(value, str) and _REQUEST_ID_FORM.fullmatch(value):
            return value
    return secrets.token_hex(8)


def _parser(deserialize: Callable[[bytes], Any], *, streaming: bool) -> Callable[[Any], Any]:
    def parse(data: bytes) -> Any:
        try:
            return deserialize(data)
        except DecodeError:
            raise UsageError("request: its bytes aren't the message that the method takes", "see proto/") from None

    async def parse_all(messages: AsyncIterator[bytes]) -> AsyncIterator[Any]:
        async for data in messages:
            yield parse(data)

    return parse_all if streaming else parse
