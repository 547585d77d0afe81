"""Errors on the wire: google.rpc.Status with an ErrorInfo that names the class, and back."""

from __future__ import annotations

from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc import StatusCode

from timecraftd import errors
from timecraftd.errors import TimecraftError

DOMAIN = "timecraft"
MESSAGE_CHARS_MAX = 4096
"""Of a message and of a next step: they travel in headers, which are bounded to 8 KiB by default."""
RETRY_S = 1

CODES: tuple[tuple[type[TimecraftError], StatusCode], ...] = (
    (errors.NotFoundError, StatusCode.NOT_FOUND),
    (errors.AmbiguousIdError, StatusCode.INVALID_ARGUMENT),
    (errors.UsageError, StatusCode.INVALID_ARGUMENT),
    (errors.ModuleError, StatusCode.INVALID_ARGUMENT),
    (errors.MountError, StatusCode.INVALID_ARGUMENT),
    (errors.PolicyError, StatusCode.INVALID_ARGUMENT),
    (errors.ArchiveError, StatusCode.INVALID_ARGUMENT),
    (errors.PythonError, StatusCode.INVALID_ARGUMENT),
    (errors.UnsupportedError, StatusCode.UNIMPLEMENTED),
    (errors.ProcessStateError, StatusCode.FAILED_PRECONDITION),
    (errors.NetworkError, StatusCode.FAILED_PRECONDITION),
    (errors.ReplayRefusedError, StatusCode.FAILED_PRECONDITION),
    (errors.ReplayDivergedError, StatusCode.ABORTED),
    (errors.LogDamagedError, StatusCode.DATA_LOSS),
    (errors.ObjectDamagedError, StatusCode.DATA_LOSS),
    (errors.StateBusyError, StatusCode.UNAVAILABLE),
    (errors.WorkerLostError, StatusCode.UNAVAILABLE),
    (errors.CapacityError, StatusCode.RESOURCE_EXHAUSTED),
)
"""Class to code, the first that fits; INTERNAL else. AccessError says itself which of its two it is."""


def code_of(error: TimecraftError) -> StatusCode:
    """The status code of an error."""
    if isinstance(error, errors.AccessError):
        return StatusCode.PERMISSION_DENIED if error.is_known else StatusCode.UNAUTHENTICATED
    return next((code for kind, code in CODES if isinstance(error, kind)), StatusCode.INTERNAL)


def to_status(error: TimecraftError) -> status_pb2.Status:
    """What goes over the wire: what happened, why, and what to do."""
    code = code_of(error)
    message = error.message[:MESSAGE_CHARS_MAX]
    info = error_details_pb2.ErrorInfo(
        reason=error.code,
        domain=DOMAIN,
        metadata={"class": type(error).__name__, "next_step": error.next_step[: MESSAGE_CHARS_MAX // 4]},
    )
    details: list[any_pb2.Any] = [_packed(info)]
    if code in (StatusCode.RESOURCE_EXHAUSTED, StatusCode.UNAVAILABLE):
        details.append(_packed(error_details_pb2.RetryInfo(retry_delay=duration_pb2.Duration(seconds=RETRY_S))))
    return status_pb2.Status(code=code.value[0], message=message, details=details)


def from_status(status: status_pb2.Status) -> TimecraftError | None:
    """The error that a status of ours is; None if it is somebody else's."""
    for detail in status.details:
        info = error_details_pb2.ErrorInfo()
        if detail.Unpack(info) and info.domain == DOMAIN:
            kind = getattr(errors, info.metadata.get("class", ""), None)
            if not (isinstance(kind, type) and issubclass(kind, TimecraftError)):
                kind = TimecraftError
            return kind(status.message, info.metadata.get("next_step", ""))
    return None


def _packed(message: error_details_pb2.ErrorInfo | error_details_pb2.RetryInfo) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(message)
    return packed
