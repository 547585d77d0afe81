import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from timecraftd.api.v1 import process_pb2 as _process_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ObjectKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    OBJECT_KIND_UNSPECIFIED: _ClassVar[ObjectKind]
    OBJECT_KIND_PROCESS: _ClassVar[ObjectKind]
    OBJECT_KIND_MODULE: _ClassVar[ObjectKind]
    OBJECT_KIND_CONFIG: _ClassVar[ObjectKind]
    OBJECT_KIND_RUNTIME: _ClassVar[ObjectKind]
    OBJECT_KIND_TREE: _ClassVar[ObjectKind]
    OBJECT_KIND_LOG: _ClassVar[ObjectKind]
OBJECT_KIND_UNSPECIFIED: ObjectKind
OBJECT_KIND_PROCESS: ObjectKind
OBJECT_KIND_MODULE: ObjectKind
OBJECT_KIND_CONFIG: ObjectKind
OBJECT_KIND_RUNTIME: ObjectKind
OBJECT_KIND_TREE: ObjectKind
OBJECT_KIND_LOG: ObjectKind

class TraceRequest(_message.Message):
    __slots__ = ("id", "layer", "form", "timestamps", "verbose", "color", "follow", "start_offset", "start_at", "duration", "calls", "host", "port", "side", "skip_damaged")
    class Layer(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        LAYER_UNSPECIFIED: _ClassVar[TraceRequest.Layer]
        LAYER_SYSCALL: _ClassVar[TraceRequest.Layer]
        LAYER_NETWORK: _ClassVar[TraceRequest.Layer]
        LAYER_REQUEST: _ClassVar[TraceRequest.Layer]
    LAYER_UNSPECIFIED: TraceRequest.Layer
    LAYER_SYSCALL: TraceRequest.Layer
    LAYER_NETWORK: TraceRequest.Layer
    LAYER_REQUEST: TraceRequest.Layer
    ID_FIELD_NUMBER: _ClassVar[int]
    LAYER_FIELD_NUMBER: _ClassVar[int]
    FORM_FIELD_NUMBER: _ClassVar[int]
    TIMESTAMPS_FIELD_NUMBER: _ClassVar[int]
    VERBOSE_FIELD_NUMBER: _ClassVar[int]
    COLOR_FIELD_NUMBER: _ClassVar[int]
    FOLLOW_FIELD_NUMBER: _ClassVar[int]
    START_OFFSET_FIELD_NUMBER: _ClassVar[int]
    START_AT_FIELD_NUMBER: _ClassVar[int]
    DURATION_FIELD_NUMBER: _ClassVar[int]
    CALLS_FIELD_NUMBER: _ClassVar[int]
    HOST_FIELD_NUMBER: _ClassVar[int]
    PORT_FIELD_NUMBER: _ClassVar[int]
    SIDE_FIELD_NUMBER: _ClassVar[int]
    SKIP_DAMAGED_FIELD_NUMBER: _ClassVar[int]
    id: str
    layer: TraceRequest.Layer
    form: str
    timestamps: str
    verbose: bool
    color: bool
    follow: bool
    start_offset: _duration_pb2.Duration
    start_at: _timestamp_pb2.Timestamp
    duration: _duration_pb2.Duration
    calls: _containers.RepeatedScalarFieldContainer[str]
    host: str
    port: int
    side: str
    skip_damaged: bool
    def __init__(self, id: _Optional[str] = ..., layer: _Optional[_Union[TraceRequest.Layer, str]] = ..., form: _Optional[str] = ..., timestamps: _Optional[str] = ..., verbose: _Optional[bool] = ..., color: _Optional[bool] = ..., follow: _Optional[bool] = ..., start_offset: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., start_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., duration: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., calls: _Optional[_Iterable[str]] = ..., host: _Optional[str] = ..., port: _Optional[int] = ..., side: _Optional[str] = ..., skip_damaged: _Optional[bool] = ...) -> None: ...

class TraceResponse(_message.Message):
    __slots__ = ("text", "notes")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    NOTES_FIELD_NUMBER: _ClassVar[int]
    text: bytes
    notes: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, text: _Optional[bytes] = ..., notes: _Optional[_Iterable[str]] = ...) -> None: ...

class ReplayRequest(_message.Message):
    __slots__ = ("id", "until_seq", "until_time", "trace", "verify", "other_module")
    ID_FIELD_NUMBER: _ClassVar[int]
    UNTIL_SEQ_FIELD_NUMBER: _ClassVar[int]
    UNTIL_TIME_FIELD_NUMBER: _ClassVar[int]
    TRACE_FIELD_NUMBER: _ClassVar[int]
    VERIFY_FIELD_NUMBER: _ClassVar[int]
    OTHER_MODULE_FIELD_NUMBER: _ClassVar[int]
    id: str
    until_seq: int
    until_time: _duration_pb2.Duration
    trace: bool
    verify: bool
    other_module: str
    def __init__(self, id: _Optional[str] = ..., until_seq: _Optional[int] = ..., until_time: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., trace: _Optional[bool] = ..., verify: _Optional[bool] = ..., other_module: _Optional[str] = ...) -> None: ...

class ReplayResponse(_message.Message):
    __slots__ = ("stdout", "stderr", "trace", "ended")
    class Ended(_message.Message):
        __slots__ = ("kind", "code", "message", "backtrace", "last_seq", "log_incomplete")
        KIND_FIELD_NUMBER: _ClassVar[int]
        CODE_FIELD_NUMBER: _ClassVar[int]
        MESSAGE_FIELD_NUMBER: _ClassVar[int]
        BACKTRACE_FIELD_NUMBER: _ClassVar[int]
        LAST_SEQ_FIELD_NUMBER: _ClassVar[int]
        LOG_INCOMPLETE_FIELD_NUMBER: _ClassVar[int]
        kind: str
        code: int
        message: str
        backtrace: _containers.RepeatedScalarFieldContainer[str]
        last_seq: int
        log_incomplete: bool
        def __init__(self, kind: _Optional[str] = ..., code: _Optional[int] = ..., message: _Optional[str] = ..., backtrace: _Optional[_Iterable[str]] = ..., last_seq: _Optional[int] = ..., log_incomplete: _Optional[bool] = ...) -> None: ...
    STDOUT_FIELD_NUMBER: _ClassVar[int]
    STDERR_FIELD_NUMBER: _ClassVar[int]
    TRACE_FIELD_NUMBER: _ClassVar[int]
    ENDED_FIELD_NUMBER: _ClassVar[int]
    stdout: bytes
    stderr: bytes
    trace: bytes
    ended: ReplayResponse.Ended
    def __init__(self, stdout: _Optional[bytes] = ..., stderr: _Optional[bytes] = ..., trace: _Optional[bytes] = ..., ended: _Optional[_Union[ReplayResponse.Ended, _Mapping]] = ...) -> None: ...

class DescribeRequest(_message.Message):
    __slots__ = ("kind", "id")
    KIND_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    kind: ObjectKind
    id: str
    def __init__(self, kind: _Optional[_Union[ObjectKind, str]] = ..., id: _Optional[str] = ...) -> None: ...

class DescribeResponse(_message.Message):
    __slots__ = ("json",)
    JSON_FIELD_NUMBER: _ClassVar[int]
    json: str
    def __init__(self, json: _Optional[str] = ...) -> None: ...

class ListObjectsRequest(_message.Message):
    __slots__ = ("kind", "ids", "page_size", "page_token")
    KIND_FIELD_NUMBER: _ClassVar[int]
    IDS_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    kind: ObjectKind
    ids: _containers.RepeatedScalarFieldContainer[str]
    page_size: int
    page_token: str
    def __init__(self, kind: _Optional[_Union[ObjectKind, str]] = ..., ids: _Optional[_Iterable[str]] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListObjectsResponse(_message.Message):
    __slots__ = ("json", "next_page_token")
    JSON_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    json: _containers.RepeatedScalarFieldContainer[str]
    next_page_token: str
    def __init__(self, json: _Optional[_Iterable[str]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class ExportRequest(_message.Message):
    __slots__ = ("kind", "id", "compress", "skip_damaged")
    KIND_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    COMPRESS_FIELD_NUMBER: _ClassVar[int]
    SKIP_DAMAGED_FIELD_NUMBER: _ClassVar[int]
    kind: ObjectKind
    id: str
    compress: bool
    skip_damaged: bool
    def __init__(self, kind: _Optional[_Union[ObjectKind, str]] = ..., id: _Optional[str] = ..., compress: _Optional[bool] = ..., skip_damaged: _Optional[bool] = ...) -> None: ...

class ExportResponse(_message.Message):
    __slots__ = ("data", "notes")
    DATA_FIELD_NUMBER: _ClassVar[int]
    NOTES_FIELD_NUMBER: _ClassVar[int]
    data: bytes
    notes: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, data: _Optional[bytes] = ..., notes: _Optional[_Iterable[str]] = ...) -> None: ...

class ImportRequest(_message.Message):
    __slots__ = ("data", "name")
    DATA_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    data: bytes
    name: str
    def __init__(self, data: _Optional[bytes] = ..., name: _Optional[str] = ...) -> None: ...

class ImportResponse(_message.Message):
    __slots__ = ("id",)
    ID_FIELD_NUMBER: _ClassVar[int]
    id: str
    def __init__(self, id: _Optional[str] = ...) -> None: ...

class PruneRequest(_message.Message):
    __slots__ = ("older_than", "keep", "crashed", "dry_run", "idempotency_key", "max_size_bytes", "states", "exit_codes", "exit_nonzero", "remote", "now")
    OLDER_THAN_FIELD_NUMBER: _ClassVar[int]
    KEEP_FIELD_NUMBER: _ClassVar[int]
    CRASHED_FIELD_NUMBER: _ClassVar[int]
    DRY_RUN_FIELD_NUMBER: _ClassVar[int]
    IDEMPOTENCY_KEY_FIELD_NUMBER: _ClassVar[int]
    MAX_SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    STATES_FIELD_NUMBER: _ClassVar[int]
    EXIT_CODES_FIELD_NUMBER: _ClassVar[int]
    EXIT_NONZERO_FIELD_NUMBER: _ClassVar[int]
    REMOTE_FIELD_NUMBER: _ClassVar[int]
    NOW_FIELD_NUMBER: _ClassVar[int]
    older_than: _duration_pb2.Duration
    keep: int
    crashed: bool
    dry_run: bool
    idempotency_key: str
    max_size_bytes: int
    states: _containers.RepeatedScalarFieldContainer[_process_pb2.ProcessState]
    exit_codes: _containers.RepeatedScalarFieldContainer[int]
    exit_nonzero: bool
    remote: bool
    now: bool
    def __init__(self, older_than: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., keep: _Optional[int] = ..., crashed: _Optional[bool] = ..., dry_run: _Optional[bool] = ..., idempotency_key: _Optional[str] = ..., max_size_bytes: _Optional[int] = ..., states: _Optional[_Iterable[_Union[_process_pb2.ProcessState, str]]] = ..., exit_codes: _Optional[_Iterable[int]] = ..., exit_nonzero: _Optional[bool] = ..., remote: _Optional[bool] = ..., now: _Optional[bool] = ...) -> None: ...

class PruneResponse(_message.Message):
    __slots__ = ("removed",)
    class Removed(_message.Message):
        __slots__ = ("kind", "id", "size_bytes")
        KIND_FIELD_NUMBER: _ClassVar[int]
        ID_FIELD_NUMBER: _ClassVar[int]
        SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
        kind: str
        id: str
        size_bytes: int
        def __init__(self, kind: _Optional[str] = ..., id: _Optional[str] = ..., size_bytes: _Optional[int] = ...) -> None: ...
    REMOVED_FIELD_NUMBER: _ClassVar[int]
    removed: _containers.RepeatedCompositeFieldContainer[PruneResponse.Removed]
    def __init__(self, removed: _Optional[_Iterable[_Union[PruneResponse.Removed, _Mapping]]] = ...) -> None: ...
