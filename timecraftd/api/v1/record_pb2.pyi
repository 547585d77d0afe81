import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ReadRecordsRequest(_message.Message):
    __slots__ = ("id", "from_seq", "from_time", "until_time", "records_max", "calls", "string_bytes_max", "follow")
    ID_FIELD_NUMBER: _ClassVar[int]
    FROM_SEQ_FIELD_NUMBER: _ClassVar[int]
    FROM_TIME_FIELD_NUMBER: _ClassVar[int]
    UNTIL_TIME_FIELD_NUMBER: _ClassVar[int]
    RECORDS_MAX_FIELD_NUMBER: _ClassVar[int]
    CALLS_FIELD_NUMBER: _ClassVar[int]
    STRING_BYTES_MAX_FIELD_NUMBER: _ClassVar[int]
    FOLLOW_FIELD_NUMBER: _ClassVar[int]
    id: str
    from_seq: int
    from_time: _duration_pb2.Duration
    until_time: _duration_pb2.Duration
    records_max: int
    calls: _containers.RepeatedScalarFieldContainer[str]
    string_bytes_max: int
    follow: bool
    def __init__(self, id: _Optional[str] = ..., from_seq: _Optional[int] = ..., from_time: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., until_time: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., records_max: _Optional[int] = ..., calls: _Optional[_Iterable[str]] = ..., string_bytes_max: _Optional[int] = ..., follow: _Optional[bool] = ...) -> None: ...

class ReadRecordsResponse(_message.Message):
    __slots__ = ("records",)
    RECORDS_FIELD_NUMBER: _ClassVar[int]
    records: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, records: _Optional[_Iterable[str]] = ...) -> None: ...
