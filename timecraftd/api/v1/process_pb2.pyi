import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import field_mask_pb2 as _field_mask_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ProcessState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PROCESS_STATE_UNSPECIFIED: _ClassVar[ProcessState]
    PROCESS_STATE_QUEUED: _ClassVar[ProcessState]
    PROCESS_STATE_RUNNING: _ClassVar[ProcessState]
    PROCESS_STATE_EXITED: _ClassVar[ProcessState]
    PROCESS_STATE_TRAPPED: _ClassVar[ProcessState]
    PROCESS_STATE_KILLED: _ClassVar[ProcessState]
    PROCESS_STATE_LIMIT: _ClassVar[ProcessState]
    PROCESS_STATE_CRASHED: _ClassVar[ProcessState]
    PROCESS_STATE_FAILED: _ClassVar[ProcessState]
PROCESS_STATE_UNSPECIFIED: ProcessState
PROCESS_STATE_QUEUED: ProcessState
PROCESS_STATE_RUNNING: ProcessState
PROCESS_STATE_EXITED: ProcessState
PROCESS_STATE_TRAPPED: ProcessState
PROCESS_STATE_KILLED: ProcessState
PROCESS_STATE_LIMIT: ProcessState
PROCESS_STATE_CRASHED: ProcessState
PROCESS_STATE_FAILED: ProcessState

class Process(_message.Message):
    __slots__ = ("id", "name", "module", "module_name", "config", "runtime", "state", "created_at", "started_at", "ended_at", "exit_code", "message", "pid", "recorded", "epoch", "last_seq", "log_bytes", "restart_of", "imported", "restart", "owner", "short_id", "labels")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    MODULE_FIELD_NUMBER: _ClassVar[int]
    MODULE_NAME_FIELD_NUMBER: _ClassVar[int]
    CONFIG_FIELD_NUMBER: _ClassVar[int]
    RUNTIME_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_FIELD_NUMBER: _ClassVar[int]
    STARTED_AT_FIELD_NUMBER: _ClassVar[int]
    ENDED_AT_FIELD_NUMBER: _ClassVar[int]
    EXIT_CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    RECORDED_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    LAST_SEQ_FIELD_NUMBER: _ClassVar[int]
    LOG_BYTES_FIELD_NUMBER: _ClassVar[int]
    RESTART_OF_FIELD_NUMBER: _ClassVar[int]
    IMPORTED_FIELD_NUMBER: _ClassVar[int]
    RESTART_FIELD_NUMBER: _ClassVar[int]
    OWNER_FIELD_NUMBER: _ClassVar[int]
    SHORT_ID_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    id: str
    name: str
    module: str
    module_name: str
    config: str
    runtime: str
    state: ProcessState
    created_at: _timestamp_pb2.Timestamp
    started_at: _timestamp_pb2.Timestamp
    ended_at: _timestamp_pb2.Timestamp
    exit_code: int
    message: str
    pid: int
    recorded: bool
    epoch: int
    last_seq: int
    log_bytes: int
    restart_of: str
    imported: bool
    restart: RestartPolicy
    owner: str
    short_id: str
    labels: _containers.ScalarMap[str, str]
    def __init__(self, id: _Optional[str] = ..., name: _Optional[str] = ..., module: _Optional[str] = ..., module_name: _Optional[str] = ..., config: _Optional[str] = ..., runtime: _Optional[str] = ..., state: _Optional[_Union[ProcessState, str]] = ..., created_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., started_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., ended_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., exit_code: _Optional[int] = ..., message: _Optional[str] = ..., pid: _Optional[int] = ..., recorded: _Optional[bool] = ..., epoch: _Optional[int] = ..., last_seq: _Optional[int] = ..., log_bytes: _Optional[int] = ..., restart_of: _Optional[str] = ..., imported: _Optional[bool] = ..., restart: _Optional[_Union[RestartPolicy, _Mapping]] = ..., owner: _Optional[str] = ..., short_id: _Optional[str] = ..., labels: _Optional[_Mapping[str, str]] = ...) -> None: ...

class RestartPolicy(_message.Message):
    __slots__ = ("mode", "retries_max")
    class Mode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        MODE_UNSPECIFIED: _ClassVar[RestartPolicy.Mode]
        MODE_NO: _ClassVar[RestartPolicy.Mode]
        MODE_ON_FAILURE: _ClassVar[RestartPolicy.Mode]
        MODE_ALWAYS: _ClassVar[RestartPolicy.Mode]
        MODE_RESUME: _ClassVar[RestartPolicy.Mode]
    MODE_UNSPECIFIED: RestartPolicy.Mode
    MODE_NO: RestartPolicy.Mode
    MODE_ON_FAILURE: RestartPolicy.Mode
    MODE_ALWAYS: RestartPolicy.Mode
    MODE_RESUME: RestartPolicy.Mode
    MODE_FIELD_NUMBER: _ClassVar[int]
    RETRIES_MAX_FIELD_NUMBER: _ClassVar[int]
    mode: RestartPolicy.Mode
    retries_max: int
    def __init__(self, mode: _Optional[_Union[RestartPolicy.Mode, str]] = ..., retries_max: _Optional[int] = ...) -> None: ...

class EnvVar(_message.Message):
    __slots__ = ("name", "value", "secret")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    SECRET_FIELD_NUMBER: _ClassVar[int]
    name: str
    value: bytes
    secret: bool
    def __init__(self, name: _Optional[str] = ..., value: _Optional[bytes] = ..., secret: _Optional[bool] = ...) -> None: ...

class Mount(_message.Message):
    __slots__ = ("host", "guest", "read_only", "immutable", "tree")
    HOST_FIELD_NUMBER: _ClassVar[int]
    GUEST_FIELD_NUMBER: _ClassVar[int]
    READ_ONLY_FIELD_NUMBER: _ClassVar[int]
    IMMUTABLE_FIELD_NUMBER: _ClassVar[int]
    TREE_FIELD_NUMBER: _ClassVar[int]
    host: str
    guest: str
    read_only: bool
    immutable: bool
    tree: str
    def __init__(self, host: _Optional[str] = ..., guest: _Optional[str] = ..., read_only: _Optional[bool] = ..., immutable: _Optional[bool] = ..., tree: _Optional[str] = ...) -> None: ...

class Limits(_message.Message):
    __slots__ = ("memory_bytes", "stack_bytes", "open_files", "sockets", "disk_bytes", "cpu", "wall", "log_bytes_per_s")
    MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    STACK_BYTES_FIELD_NUMBER: _ClassVar[int]
    OPEN_FILES_FIELD_NUMBER: _ClassVar[int]
    SOCKETS_FIELD_NUMBER: _ClassVar[int]
    DISK_BYTES_FIELD_NUMBER: _ClassVar[int]
    CPU_FIELD_NUMBER: _ClassVar[int]
    WALL_FIELD_NUMBER: _ClassVar[int]
    LOG_BYTES_PER_S_FIELD_NUMBER: _ClassVar[int]
    memory_bytes: int
    stack_bytes: int
    open_files: int
    sockets: int
    disk_bytes: int
    cpu: _duration_pb2.Duration
    wall: _duration_pb2.Duration
    log_bytes_per_s: int
    def __init__(self, memory_bytes: _Optional[int] = ..., stack_bytes: _Optional[int] = ..., open_files: _Optional[int] = ..., sockets: _Optional[int] = ..., disk_bytes: _Optional[int] = ..., cpu: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., wall: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., log_bytes_per_s: _Optional[int] = ...) -> None: ...

class Network(_message.Message):
    __slots__ = ("rules", "publish", "listen", "dial", "ca_file")
    RULES_FIELD_NUMBER: _ClassVar[int]
    PUBLISH_FIELD_NUMBER: _ClassVar[int]
    LISTEN_FIELD_NUMBER: _ClassVar[int]
    DIAL_FIELD_NUMBER: _ClassVar[int]
    CA_FILE_FIELD_NUMBER: _ClassVar[int]
    rules: _containers.RepeatedScalarFieldContainer[str]
    publish: _containers.RepeatedScalarFieldContainer[str]
    listen: _containers.RepeatedScalarFieldContainer[str]
    dial: _containers.RepeatedScalarFieldContainer[str]
    ca_file: str
    def __init__(self, rules: _Optional[_Iterable[str]] = ..., publish: _Optional[_Iterable[str]] = ..., listen: _Optional[_Iterable[str]] = ..., dial: _Optional[_Iterable[str]] = ..., ca_file: _Optional[str] = ...) -> None: ...

class Recording(_message.Message):
    __slots__ = ("off", "compression", "output", "on_full", "block_bytes_max", "log_bytes_max", "durability")
    OFF_FIELD_NUMBER: _ClassVar[int]
    COMPRESSION_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_FIELD_NUMBER: _ClassVar[int]
    ON_FULL_FIELD_NUMBER: _ClassVar[int]
    BLOCK_BYTES_MAX_FIELD_NUMBER: _ClassVar[int]
    LOG_BYTES_MAX_FIELD_NUMBER: _ClassVar[int]
    DURABILITY_FIELD_NUMBER: _ClassVar[int]
    off: bool
    compression: str
    output: str
    on_full: str
    block_bytes_max: int
    log_bytes_max: int
    durability: str
    def __init__(self, off: _Optional[bool] = ..., compression: _Optional[str] = ..., output: _Optional[str] = ..., on_full: _Optional[str] = ..., block_bytes_max: _Optional[int] = ..., log_bytes_max: _Optional[int] = ..., durability: _Optional[str] = ...) -> None: ...

class ProcessSpec(_message.Message):
    __slots__ = ("module", "module_name", "name", "args", "env", "mounts", "function", "nans", "sockets", "limits", "network", "recording", "chaos_ratio", "chaos_seed", "restart", "isolated", "interruptible", "labels")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    MODULE_FIELD_NUMBER: _ClassVar[int]
    MODULE_NAME_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    ARGS_FIELD_NUMBER: _ClassVar[int]
    ENV_FIELD_NUMBER: _ClassVar[int]
    MOUNTS_FIELD_NUMBER: _ClassVar[int]
    FUNCTION_FIELD_NUMBER: _ClassVar[int]
    NANS_FIELD_NUMBER: _ClassVar[int]
    SOCKETS_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    NETWORK_FIELD_NUMBER: _ClassVar[int]
    RECORDING_FIELD_NUMBER: _ClassVar[int]
    CHAOS_RATIO_FIELD_NUMBER: _ClassVar[int]
    CHAOS_SEED_FIELD_NUMBER: _ClassVar[int]
    RESTART_FIELD_NUMBER: _ClassVar[int]
    ISOLATED_FIELD_NUMBER: _ClassVar[int]
    INTERRUPTIBLE_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    module: str
    module_name: str
    name: str
    args: _containers.RepeatedScalarFieldContainer[bytes]
    env: _containers.RepeatedCompositeFieldContainer[EnvVar]
    mounts: _containers.RepeatedCompositeFieldContainer[Mount]
    function: str
    nans: str
    sockets: str
    limits: Limits
    network: Network
    recording: Recording
    chaos_ratio: float
    chaos_seed: int
    restart: RestartPolicy
    isolated: bool
    interruptible: bool
    labels: _containers.ScalarMap[str, str]
    def __init__(self, module: _Optional[str] = ..., module_name: _Optional[str] = ..., name: _Optional[str] = ..., args: _Optional[_Iterable[bytes]] = ..., env: _Optional[_Iterable[_Union[EnvVar, _Mapping]]] = ..., mounts: _Optional[_Iterable[_Union[Mount, _Mapping]]] = ..., function: _Optional[str] = ..., nans: _Optional[str] = ..., sockets: _Optional[str] = ..., limits: _Optional[_Union[Limits, _Mapping]] = ..., network: _Optional[_Union[Network, _Mapping]] = ..., recording: _Optional[_Union[Recording, _Mapping]] = ..., chaos_ratio: _Optional[float] = ..., chaos_seed: _Optional[int] = ..., restart: _Optional[_Union[RestartPolicy, _Mapping]] = ..., isolated: _Optional[bool] = ..., interruptible: _Optional[bool] = ..., labels: _Optional[_Mapping[str, str]] = ...) -> None: ...

class RunRequest(_message.Message):
    __slots__ = ("spec", "idempotency_key")
    SPEC_FIELD_NUMBER: _ClassVar[int]
    IDEMPOTENCY_KEY_FIELD_NUMBER: _ClassVar[int]
    spec: ProcessSpec
    idempotency_key: str
    def __init__(self, spec: _Optional[_Union[ProcessSpec, _Mapping]] = ..., idempotency_key: _Optional[str] = ...) -> None: ...

class RunResponse(_message.Message):
    __slots__ = ("process", "published")
    PROCESS_FIELD_NUMBER: _ClassVar[int]
    PUBLISHED_FIELD_NUMBER: _ClassVar[int]
    process: Process
    published: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, process: _Optional[_Union[Process, _Mapping]] = ..., published: _Optional[_Iterable[str]] = ...) -> None: ...

class AttachRequest(_message.Message):
    __slots__ = ("start", "existing", "resume", "stdin", "stdin_eof", "signal", "resize", "with_stdin", "kill_on_disconnect", "trace")
    class Existing(_message.Message):
        __slots__ = ("id", "since")
        ID_FIELD_NUMBER: _ClassVar[int]
        SINCE_FIELD_NUMBER: _ClassVar[int]
        id: str
        since: _timestamp_pb2.Timestamp
        def __init__(self, id: _Optional[str] = ..., since: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...
    class Start(_message.Message):
        __slots__ = ("spec", "idempotency_key")
        SPEC_FIELD_NUMBER: _ClassVar[int]
        IDEMPOTENCY_KEY_FIELD_NUMBER: _ClassVar[int]
        spec: ProcessSpec
        idempotency_key: str
        def __init__(self, spec: _Optional[_Union[ProcessSpec, _Mapping]] = ..., idempotency_key: _Optional[str] = ...) -> None: ...
    class Resume(_message.Message):
        __slots__ = ("id", "trust")
        ID_FIELD_NUMBER: _ClassVar[int]
        TRUST_FIELD_NUMBER: _ClassVar[int]
        id: str
        trust: bool
        def __init__(self, id: _Optional[str] = ..., trust: _Optional[bool] = ...) -> None: ...
    class Resize(_message.Message):
        __slots__ = ("rows", "columns")
        ROWS_FIELD_NUMBER: _ClassVar[int]
        COLUMNS_FIELD_NUMBER: _ClassVar[int]
        rows: int
        columns: int
        def __init__(self, rows: _Optional[int] = ..., columns: _Optional[int] = ...) -> None: ...
    START_FIELD_NUMBER: _ClassVar[int]
    EXISTING_FIELD_NUMBER: _ClassVar[int]
    RESUME_FIELD_NUMBER: _ClassVar[int]
    STDIN_FIELD_NUMBER: _ClassVar[int]
    STDIN_EOF_FIELD_NUMBER: _ClassVar[int]
    SIGNAL_FIELD_NUMBER: _ClassVar[int]
    RESIZE_FIELD_NUMBER: _ClassVar[int]
    WITH_STDIN_FIELD_NUMBER: _ClassVar[int]
    KILL_ON_DISCONNECT_FIELD_NUMBER: _ClassVar[int]
    TRACE_FIELD_NUMBER: _ClassVar[int]
    start: AttachRequest.Start
    existing: AttachRequest.Existing
    resume: AttachRequest.Resume
    stdin: bytes
    stdin_eof: bool
    signal: int
    resize: AttachRequest.Resize
    with_stdin: bool
    kill_on_disconnect: bool
    trace: bool
    def __init__(self, start: _Optional[_Union[AttachRequest.Start, _Mapping]] = ..., existing: _Optional[_Union[AttachRequest.Existing, _Mapping]] = ..., resume: _Optional[_Union[AttachRequest.Resume, _Mapping]] = ..., stdin: _Optional[bytes] = ..., stdin_eof: _Optional[bool] = ..., signal: _Optional[int] = ..., resize: _Optional[_Union[AttachRequest.Resize, _Mapping]] = ..., with_stdin: _Optional[bool] = ..., kill_on_disconnect: _Optional[bool] = ..., trace: _Optional[bool] = ...) -> None: ...

class AttachResponse(_message.Message):
    __slots__ = ("started", "stdout", "stderr", "trace", "ended")
    class Started(_message.Message):
        __slots__ = ("process", "published")
        PROCESS_FIELD_NUMBER: _ClassVar[int]
        PUBLISHED_FIELD_NUMBER: _ClassVar[int]
        process: Process
        published: _containers.RepeatedScalarFieldContainer[str]
        def __init__(self, process: _Optional[_Union[Process, _Mapping]] = ..., published: _Optional[_Iterable[str]] = ...) -> None: ...
    class Ended(_message.Message):
        __slots__ = ("process", "backtrace", "stats", "restarts")
        class StatsEntry(_message.Message):
            __slots__ = ("key", "value")
            KEY_FIELD_NUMBER: _ClassVar[int]
            VALUE_FIELD_NUMBER: _ClassVar[int]
            key: str
            value: int
            def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
        PROCESS_FIELD_NUMBER: _ClassVar[int]
        BACKTRACE_FIELD_NUMBER: _ClassVar[int]
        STATS_FIELD_NUMBER: _ClassVar[int]
        RESTARTS_FIELD_NUMBER: _ClassVar[int]
        process: Process
        backtrace: _containers.RepeatedScalarFieldContainer[str]
        stats: _containers.ScalarMap[str, int]
        restarts: bool
        def __init__(self, process: _Optional[_Union[Process, _Mapping]] = ..., backtrace: _Optional[_Iterable[str]] = ..., stats: _Optional[_Mapping[str, int]] = ..., restarts: _Optional[bool] = ...) -> None: ...
    STARTED_FIELD_NUMBER: _ClassVar[int]
    STDOUT_FIELD_NUMBER: _ClassVar[int]
    STDERR_FIELD_NUMBER: _ClassVar[int]
    TRACE_FIELD_NUMBER: _ClassVar[int]
    ENDED_FIELD_NUMBER: _ClassVar[int]
    started: AttachResponse.Started
    stdout: bytes
    stderr: bytes
    trace: bytes
    ended: AttachResponse.Ended
    def __init__(self, started: _Optional[_Union[AttachResponse.Started, _Mapping]] = ..., stdout: _Optional[bytes] = ..., stderr: _Optional[bytes] = ..., trace: _Optional[bytes] = ..., ended: _Optional[_Union[AttachResponse.Ended, _Mapping]] = ...) -> None: ...

class GetRequest(_message.Message):
    __slots__ = ("id", "fields")
    ID_FIELD_NUMBER: _ClassVar[int]
    FIELDS_FIELD_NUMBER: _ClassVar[int]
    id: str
    fields: _field_mask_pb2.FieldMask
    def __init__(self, id: _Optional[str] = ..., fields: _Optional[_Union[_field_mask_pb2.FieldMask, _Mapping]] = ...) -> None: ...

class GetResponse(_message.Message):
    __slots__ = ("process",)
    PROCESS_FIELD_NUMBER: _ClassVar[int]
    process: Process
    def __init__(self, process: _Optional[_Union[Process, _Mapping]] = ...) -> None: ...

class ProcessFilter(_message.Message):
    __slots__ = ("states", "names", "modules", "ids", "labels")
    STATES_FIELD_NUMBER: _ClassVar[int]
    NAMES_FIELD_NUMBER: _ClassVar[int]
    MODULES_FIELD_NUMBER: _ClassVar[int]
    IDS_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    states: _containers.RepeatedScalarFieldContainer[ProcessState]
    names: _containers.RepeatedScalarFieldContainer[str]
    modules: _containers.RepeatedScalarFieldContainer[str]
    ids: _containers.RepeatedScalarFieldContainer[str]
    labels: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, states: _Optional[_Iterable[_Union[ProcessState, str]]] = ..., names: _Optional[_Iterable[str]] = ..., modules: _Optional[_Iterable[str]] = ..., ids: _Optional[_Iterable[str]] = ..., labels: _Optional[_Iterable[str]] = ...) -> None: ...

class ListRequest(_message.Message):
    __slots__ = ("filter", "page_size", "page_token", "fields", "remote")
    FILTER_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    FIELDS_FIELD_NUMBER: _ClassVar[int]
    REMOTE_FIELD_NUMBER: _ClassVar[int]
    filter: ProcessFilter
    page_size: int
    page_token: str
    fields: _field_mask_pb2.FieldMask
    remote: bool
    def __init__(self, filter: _Optional[_Union[ProcessFilter, _Mapping]] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ..., fields: _Optional[_Union[_field_mask_pb2.FieldMask, _Mapping]] = ..., remote: _Optional[bool] = ...) -> None: ...

class ListResponse(_message.Message):
    __slots__ = ("processes", "next_page_token")
    PROCESSES_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    processes: _containers.RepeatedCompositeFieldContainer[Process]
    next_page_token: str
    def __init__(self, processes: _Optional[_Iterable[_Union[Process, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class WatchRequest(_message.Message):
    __slots__ = ("filter",)
    FILTER_FIELD_NUMBER: _ClassVar[int]
    filter: ProcessFilter
    def __init__(self, filter: _Optional[_Union[ProcessFilter, _Mapping]] = ...) -> None: ...

class WatchResponse(_message.Message):
    __slots__ = ("process", "removed", "synced")
    PROCESS_FIELD_NUMBER: _ClassVar[int]
    REMOVED_FIELD_NUMBER: _ClassVar[int]
    SYNCED_FIELD_NUMBER: _ClassVar[int]
    process: Process
    removed: bool
    synced: bool
    def __init__(self, process: _Optional[_Union[Process, _Mapping]] = ..., removed: _Optional[bool] = ..., synced: _Optional[bool] = ...) -> None: ...

class WaitRequest(_message.Message):
    __slots__ = ("id",)
    ID_FIELD_NUMBER: _ClassVar[int]
    id: str
    def __init__(self, id: _Optional[str] = ...) -> None: ...

class WaitResponse(_message.Message):
    __slots__ = ("process",)
    PROCESS_FIELD_NUMBER: _ClassVar[int]
    process: Process
    def __init__(self, process: _Optional[_Union[Process, _Mapping]] = ...) -> None: ...

class SignalRequest(_message.Message):
    __slots__ = ("id", "signal", "idempotency_key")
    ID_FIELD_NUMBER: _ClassVar[int]
    SIGNAL_FIELD_NUMBER: _ClassVar[int]
    IDEMPOTENCY_KEY_FIELD_NUMBER: _ClassVar[int]
    id: str
    signal: int
    idempotency_key: str
    def __init__(self, id: _Optional[str] = ..., signal: _Optional[int] = ..., idempotency_key: _Optional[str] = ...) -> None: ...

class SignalResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class StopRequest(_message.Message):
    __slots__ = ("id", "patience", "idempotency_key")
    ID_FIELD_NUMBER: _ClassVar[int]
    PATIENCE_FIELD_NUMBER: _ClassVar[int]
    IDEMPOTENCY_KEY_FIELD_NUMBER: _ClassVar[int]
    id: str
    patience: _duration_pb2.Duration
    idempotency_key: str
    def __init__(self, id: _Optional[str] = ..., patience: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., idempotency_key: _Optional[str] = ...) -> None: ...

class StopResponse(_message.Message):
    __slots__ = ("process",)
    PROCESS_FIELD_NUMBER: _ClassVar[int]
    process: Process
    def __init__(self, process: _Optional[_Union[Process, _Mapping]] = ...) -> None: ...

class ResumeRequest(_message.Message):
    __slots__ = ("id", "trust", "idempotency_key")
    ID_FIELD_NUMBER: _ClassVar[int]
    TRUST_FIELD_NUMBER: _ClassVar[int]
    IDEMPOTENCY_KEY_FIELD_NUMBER: _ClassVar[int]
    id: str
    trust: bool
    idempotency_key: str
    def __init__(self, id: _Optional[str] = ..., trust: _Optional[bool] = ..., idempotency_key: _Optional[str] = ...) -> None: ...

class ResumeResponse(_message.Message):
    __slots__ = ("process", "published")
    PROCESS_FIELD_NUMBER: _ClassVar[int]
    PUBLISHED_FIELD_NUMBER: _ClassVar[int]
    process: Process
    published: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, process: _Optional[_Union[Process, _Mapping]] = ..., published: _Optional[_Iterable[str]] = ...) -> None: ...

class RemoveRequest(_message.Message):
    __slots__ = ("id", "force", "idempotency_key", "remote", "now")
    ID_FIELD_NUMBER: _ClassVar[int]
    FORCE_FIELD_NUMBER: _ClassVar[int]
    IDEMPOTENCY_KEY_FIELD_NUMBER: _ClassVar[int]
    REMOTE_FIELD_NUMBER: _ClassVar[int]
    NOW_FIELD_NUMBER: _ClassVar[int]
    id: str
    force: bool
    idempotency_key: str
    remote: bool
    now: bool
    def __init__(self, id: _Optional[str] = ..., force: _Optional[bool] = ..., idempotency_key: _Optional[str] = ..., remote: _Optional[bool] = ..., now: _Optional[bool] = ...) -> None: ...

class RemoveResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class LabelRequest(_message.Message):
    __slots__ = ("id", "labels", "removed")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    ID_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    REMOVED_FIELD_NUMBER: _ClassVar[int]
    id: str
    labels: _containers.ScalarMap[str, str]
    removed: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, id: _Optional[str] = ..., labels: _Optional[_Mapping[str, str]] = ..., removed: _Optional[_Iterable[str]] = ...) -> None: ...

class LabelResponse(_message.Message):
    __slots__ = ("process",)
    PROCESS_FIELD_NUMBER: _ClassVar[int]
    process: Process
    def __init__(self, process: _Optional[_Union[Process, _Mapping]] = ...) -> None: ...

class LogsRequest(_message.Message):
    __slots__ = ("id", "follow", "since")
    ID_FIELD_NUMBER: _ClassVar[int]
    FOLLOW_FIELD_NUMBER: _ClassVar[int]
    SINCE_FIELD_NUMBER: _ClassVar[int]
    id: str
    follow: bool
    since: _timestamp_pb2.Timestamp
    def __init__(self, id: _Optional[str] = ..., follow: _Optional[bool] = ..., since: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class LogsResponse(_message.Message):
    __slots__ = ("outputs", "start_at", "caught_up")
    class Output(_message.Message):
        __slots__ = ("time", "stream", "data")
        TIME_FIELD_NUMBER: _ClassVar[int]
        STREAM_FIELD_NUMBER: _ClassVar[int]
        DATA_FIELD_NUMBER: _ClassVar[int]
        time: _duration_pb2.Duration
        stream: int
        data: bytes
        def __init__(self, time: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., stream: _Optional[int] = ..., data: _Optional[bytes] = ...) -> None: ...
    OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    START_AT_FIELD_NUMBER: _ClassVar[int]
    CAUGHT_UP_FIELD_NUMBER: _ClassVar[int]
    outputs: _containers.RepeatedCompositeFieldContainer[LogsResponse.Output]
    start_at: _timestamp_pb2.Timestamp
    caught_up: bool
    def __init__(self, outputs: _Optional[_Iterable[_Union[LogsResponse.Output, _Mapping]]] = ..., start_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., caught_up: _Optional[bool] = ...) -> None: ...
