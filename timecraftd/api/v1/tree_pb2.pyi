from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable
from typing import ClassVar as _ClassVar, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor

class UploadTreeRequest(_message.Message):
    __slots__ = ("digest", "manifest", "file", "data")
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    MANIFEST_FIELD_NUMBER: _ClassVar[int]
    FILE_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    digest: str
    manifest: bytes
    file: bytes
    data: bytes
    def __init__(self, digest: _Optional[str] = ..., manifest: _Optional[bytes] = ..., file: _Optional[bytes] = ..., data: _Optional[bytes] = ...) -> None: ...

class UploadTreeResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class StatTreeRequest(_message.Message):
    __slots__ = ("digest", "files")
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    FILES_FIELD_NUMBER: _ClassVar[int]
    digest: str
    files: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, digest: _Optional[str] = ..., files: _Optional[_Iterable[bytes]] = ...) -> None: ...

class StatTreeResponse(_message.Message):
    __slots__ = ("present", "missing")
    PRESENT_FIELD_NUMBER: _ClassVar[int]
    MISSING_FIELD_NUMBER: _ClassVar[int]
    present: bool
    missing: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, present: _Optional[bool] = ..., missing: _Optional[_Iterable[int]] = ...) -> None: ...
