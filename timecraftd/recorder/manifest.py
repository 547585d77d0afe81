"""What a bucket says of a process: its manifest, and the keys of what belongs to it. Pure.

docs/remote.md describes the layout. Nothing that is read from a bucket is believed: whoever may write there may be
mistaken, or worse.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, TypeVar

import crc32c

from timecraftd.errors import LogDamagedError, LogVersionError
from timecraftd.labels import decode_labels
from timecraftd.model import Digest, ObjectKind, ProcessId, ProcessRecord, ProcessState, is_digest, is_process_id

FORMAT = 2
"""1 had no checksum."""
SEGMENTS_MAX = 1000
"""Segments that a manifest names itself; what is before them is in pages of as many each."""
PAGES_MAX = 10_000
OBJECTS_MAX = 4096
BLOBS_MAX = 1_000_000
"""Files of all trees of a process."""
MANIFEST_BYTES_MAX = 256 << 20
SEGMENT_BYTES_MIN = 136
"""Header, index of no block, footer."""
SEGMENT_BYTES_MAX = 1 << 40
TEXT_CHARS_MAX = 65536
MANIFESTS = "manifests/"
LOGS = "logs/"
DELETED = "deleted/"
SEGMENT_SUFFIX = ".tcl"
LOCAL_FIELDS = ("pid", "boot_id")
"""What is known of a process that means something on its own machine only."""
_U63 = 1 << 63
_NUMBER_MAX = (1 << 32) - 1
_SHARED = re.compile(r"(objects/[a-z]+|blobs)/[0-9a-f]{2}/[0-9a-f]{64}")
_CRC = re.compile(r"[0-9a-f]{8}")
_SUM = re.compile(rb',"crc32c":"([0-9a-f]{8})"}\Z')
_SUM_BYTES = 21
"""How long that is."""
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Segment:
    """A sealed segment. Times are since the start of the process."""

    number: int
    size: int
    base_seq: int
    next_seq: int
    """Sequence number behind its last record."""
    base_time_ns: int
    last_time_ns: int
    epoch: int
    index_offset: int
    """Where its index begins: from there to its end is what a reader has to know of it."""
    crc32c: str
    """Of the whole file, eight hex digits."""


@dataclass(frozen=True, slots=True)
class Page:
    """Segments that a manifest doesn't name itself."""

    key: str
    segments: int
    first_seq: int
    next_seq: int
    first_time_ns: int


@dataclass(frozen=True, slots=True)
class Manifest:
    """What of a process is in a bucket. All that it names was there before it."""

    process: ProcessRecord
    """`pid` and `boot_id` are empty."""
    complete: bool = False
    """The process has ended, and all of its log is named."""
    version: int = 1
    """Each put adds one."""
    node: str = ""
    """Who put it."""
    objects: tuple[tuple[ObjectKind, Digest, int], ...] = ()
    """With their sizes."""
    blobs: tuple[tuple[Digest, int], ...] = ()
    """Files of immutable mounts, with their sizes."""
    pages: tuple[Page, ...] = ()
    segments: tuple[Segment, ...] = ()
    """Those behind the pages' ones, in order and without a gap."""

    @property
    def next_number(self) -> int:
        """Number of the segment that comes next."""
        return len(self.pages) * SEGMENTS_MAX + len(self.segments)

    @property
    def next_seq(self) -> int:
        """Sequence number behind the last record that is named."""
        last = self.segments[-1] if self.segments else self.pages[-1] if self.pages else None
        return 0 if last is None else last.next_seq


def object_key(kind: ObjectKind, digest: Digest) -> str:
    """Where a module, config, runtime or tree is."""
    return f"objects/{kind}/{digest[:2]}/{digest}"


def blob_key(digest: Digest) -> str:
    """Where a file of a tree is."""
    return f"blobs/{digest[:2]}/{digest}"


def segment_name(number: int) -> str:
    """Name of a segment's file."""
    return f"{number:06}{SEGMENT_SUFFIX}"


def segment_key(process_id: ProcessId, number: int) -> str:
    """Where a segment is."""
    return f"{LOGS}{process_id}/{segment_name(number)}"


def manifest_key(process_id: ProcessId) -> str:
    """Where a manifest is."""
    return f"{MANIFESTS}{process_id}.json"


def deleted_key(process_id: ProcessId) -> str:
    """Where it is said that a process was deleted, until nothing of it is left."""
    return f"{DELETED}{process_id}.json"


def page_key(process_id: ProcessId, number: int) -> str:
    """Where a page of a manifest is."""
    return f"{MANIFESTS}{process_id}/pages/{number:06}.json"


def public_record(process: ProcessRecord) -> ProcessRecord:
    """A process without what means something on its own machine only."""
    return replace(process, pid=0, boot_id="")


def encode_manifest(manifest: Manifest) -> bytes:
    """The bytes of a manifest."""
    process = {name: value for name, value in asdict(manifest.process).items() if name not in LOCAL_FIELDS}
    return _json(
        {
            "format": FORMAT,
            "process": process,
            "complete": manifest.complete,
            "version": manifest.version,
            "node": manifest.node,
            "objects": [list(item) for item in manifest.objects],
            "blobs": [list(item) for item in manifest.blobs],
            "pages": [asdict(page) for page in manifest.pages],
            "segments": _rows(manifest.segments),
        }
    )


def encode_deleted(manifest: bytes, node: str, unix_ns: int) -> bytes:
    """What is said of a process that was deleted: its last manifest, by whom and when."""
    return _json(
        {"format": FORMAT, "deleted_ns": unix_ns, "node": node, "manifest": manifest.decode("utf-8", "replace")}
    )


def decode_deleted(data: bytes, process_id: ProcessId) -> Manifest:
    """The last manifest of a process that was deleted. Raises LogDamagedError, LogVersionError."""
    table = _table(data, deleted_key(process_id))
    return decode_manifest(str(table.get("manifest")).encode(), process_id)


def process_of(key: str, folder: str) -> ProcessId | None:
    """The process that a key right below a folder is of, if it is of one."""
    name = key.removeprefix(folder).removesuffix(".json")
    return ProcessId(name) if key == f"{folder}{name}.json" and is_process_id(name) else None


def named_keys(manifest: Manifest) -> Iterator[str]:
    """Where the objects and files of trees are that a manifest names."""
    yield from (object_key(kind, digest) for kind, digest, _ in manifest.objects)
    yield from (blob_key(digest) for digest, _ in manifest.blobs)


def is_shared_key(key: str) -> bool:
    """Whether processes share what is there: an object, or a file of a tree."""
    return _SHARED.fullmatch(key) is not None


def encode_page(segments: Sequence[Segment]) -> bytes:
    """The bytes of a page: it never changes."""
    return _json({"format": FORMAT, "segments": _rows(segments)})


def decode_manifest(data: bytes, process_id: ProcessId) -> Manifest:
    """The manifest of a process. Raises LogDamagedError, LogVersionError."""
    where = f"manifest of {process_id}"
    table = _table(data, where)
    try:
        process = _process(table["process"])
        _require(process.id == process_id, "it is another process's")
        pages = tuple(_page(item, process_id, number) for number, item in enumerate(_list(table["pages"], PAGES_MAX)))
        segments = tuple(map(_segment, _list(table["segments"], SEGMENTS_MAX)))
        manifest = Manifest(
            process=process,
            complete=_of(bool, table["complete"]),
            version=_number(table["version"]),
            node=_text(table["node"]),
            objects=tuple((ObjectKind(kind), _digest(digest), _number(size)) for kind, digest, size in
                          _list(table["objects"], OBJECTS_MAX)),
            blobs=tuple((_digest(digest), _number(size)) for digest, size in _list(table["blobs"], BLOBS_MAX)),
            pages=pages,
            segments=segments,
        )  # fmt: skip
        _check_row([(page.first_seq, page.next_seq) for page in pages], 0)
        _check_segments(segments, len(pages) * SEGMENTS_MAX, pages[-1].next_seq if pages else 0)
    except (ValueError, TypeError, KeyError) as error:
        raise LogDamagedError(f"{where}: {_reason(error)}") from None
    return manifest


def decode_page(data: bytes, page: Page, process_id: ProcessId) -> tuple[Segment, ...]:
    """The segments of a page. Raises LogDamagedError, LogVersionError."""
    table = _table(data, page.key)
    try:
        segments = tuple(map(_segment, _list(table["segments"], SEGMENTS_MAX)))
        number = int(page.key.removesuffix(".json").rpartition("/")[2])
        _require(page.key == page_key(process_id, number), "it is in a wrong place")
        _check_segments(segments, number * SEGMENTS_MAX, page.first_seq)
        _require(len(segments) == page.segments and segments[-1].next_seq == page.next_seq, "isn't what is named")
    except (ValueError, TypeError, KeyError) as error:
        raise LogDamagedError(f"{page.key}: {_reason(error)}") from None
    return segments


def _json(table: dict[str, object]) -> bytes:
    """An object whose last value is the checksum of what is before it."""
    text = json.dumps(table, ensure_ascii=True, separators=(",", ":")).encode("ascii")[:-1]
    return b'%s,"crc32c":"%08x"}' % (text, crc32c.crc32c(text))


def _rows(segments: Iterable[Segment]) -> list[list[Any]]:
    return [[getattr(segment, item.name) for item in fields(Segment)] for segment in segments]


def _table(data: bytes, where: str) -> dict[str, Any]:
    try:
        _require(len(data) <= MANIFEST_BYTES_MAX, "it is too big")
        table = json.loads(data)
        _require(isinstance(table, dict) and type(table.get("format")) is int, "it isn't one")
        found = _SUM.search(data, len(data) - _SUM_BYTES)
        _require(found is not None or table["format"] == 1, "it has no checksum")
        is_right = found is None or int(found[1], 16) == crc32c.crc32c(data[: found.start()])
        _require(is_right, "its checksum isn't that of its bytes")
    except (ValueError, RecursionError) as error:
        raise LogDamagedError(f"{where}: {_reason(error)}") from None
    if table["format"] > FORMAT:
        raise LogVersionError(f"{where}: has format {table['format']}, this Timecraft knows {FORMAT}")
    return dict(table)


def _process(value: Any) -> ProcessRecord:
    known = {item.name: item.type for item in fields(ProcessRecord) if item.name not in LOCAL_FIELDS}
    # Those of Timecraft that knew no labels have none.
    is_whole = isinstance(value, dict) and set(value) | {"labels"} == set(known)
    _require(is_whole, "its process has other fields")
    record = ProcessRecord(**{name: _field(str(known[name]), item) for name, item in value.items()})
    _require(is_process_id(record.id), "its process has no id")
    return record


def _field(kind: str, value: Any) -> Any:
    """A field of a process, by how its type is written."""
    if kind.endswith(" | None") and value is None:
        return None
    match kind.removesuffix(" | None"):
        case "int":
            return _number(value)
        case "bool":
            return _of(bool, value)
        case "Digest":
            return _digest(value)
        case "ProcessState":
            return ProcessState(value)
        case "Labels":
            return decode_labels(value)
        case _:
            return _text(value)


def _page(value: Any, process_id: ProcessId, number: int) -> Page:
    page = Page(**{item.name: value[item.name] for item in fields(Page)})
    _require(page.key == page_key(process_id, number), "a page is in a wrong place")
    _require(page.segments == SEGMENTS_MAX, "a page isn't full")
    for item in (page.first_seq, page.next_seq, page.first_time_ns):
        _number(item)
    return page


def _segment(value: Any) -> Segment:
    *numbers, crc = _list(value, len(fields(Segment)))
    number, size, base_seq, next_seq, base_time_ns, last_time_ns, epoch, index_offset = map(_number, numbers)
    segment = Segment(number, size, base_seq, next_seq, base_time_ns, last_time_ns, epoch, index_offset, _text(crc))
    _require(segment.number <= _NUMBER_MAX and segment.epoch <= _NUMBER_MAX, "a number is too big")
    _require(SEGMENT_BYTES_MIN <= segment.size <= SEGMENT_BYTES_MAX, "a segment has a size that can't be")
    _require(64 <= segment.index_offset <= segment.size - 72, "an index is outside of its segment")
    _require(segment.base_time_ns <= segment.last_time_ns, "a segment ends before it begins")
    _require(_CRC.fullmatch(segment.crc32c) is not None, "a checksum isn't one")
    return segment


def _check_segments(segments: Sequence[Segment], number: int, seq: int) -> None:
    numbers = [segment.number for segment in segments]
    _require(numbers == [*range(number, number + len(segments))], "segments are missing, or in a wrong order")
    _check_row([(segment.base_seq, segment.next_seq) for segment in segments], seq)


def _check_row(ranges: Iterable[tuple[int, int]], seq: int) -> None:
    """Whether each range of records begins where the one before ends."""
    for base, behind in ranges:
        _require(base == seq and behind >= base, "records are missing")
        seq = behind


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise ValueError(otherwise)


def _of(kind: type[_T], value: Any) -> _T:
    _require(type(value) is kind, f"{str(value)[:40]!r} isn't a {kind.__name__}")
    return value  # type: ignore[no-any-return]


def _number(value: Any) -> int:
    number = _of(int, value)
    _require(0 <= number < _U63, "a number is out of range")
    return number


def _text(value: Any) -> str:
    text = _of(str, value)
    _require(len(text) <= TEXT_CHARS_MAX, "a text is too long")
    return text


def _digest(value: Any) -> Digest:
    text = _text(value)
    _require(is_digest(text), "a digest isn't one")
    return Digest(text)


def _list(value: Any, most: int) -> list[Any]:
    items = _of(list, value)
    _require(len(items) <= most, "it names too much")
    return items


def _reason(error: Exception) -> str:
    return f"{error} is missing" if isinstance(error, KeyError) else str(error)
