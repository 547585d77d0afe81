"""Reads a log without the extension: the format of docs/log-format.md in pure Python, as proof and as fallback.

Slow and simple on purpose: it keeps to sealed or unsealed segments, walks their blocks from the front, and checks
every checksum on the way. Records that are only in a ring are `timecraftd.recorder.ring`'s.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import crc32c
import lz4.block

from timecraftd.errors import LogDamagedError, LogVersionError

VERSION = 2
SEGMENT_HEADER = struct.Struct("<4sHH16sIIQQQII")
BLOCK_HEADER = struct.Struct("<4sHBBIIQIIQQQQQII")
INDEX_MAGIC = b"TCLI"
CODEC_RAW, CODEC_LZ4 = 0, 1
REFERRING = 0x4000
"""Bit of a call: the first written region says where its bytes are."""
CONTROL_BASE = 0xFF00
REFERENCE = struct.Struct("<IQII")
ARGS_MAX = 16
REGIONS_MAX = 1088
U32 = 0xFFFFFFFF
U64 = 0xFFFFFFFFFFFFFFFF

SAME_SLOT, SAME_ARGS, SAME_LAYOUT, NUMBERS, CLOCK, DIGESTED = 1, 2, 4, 8, 16, 32
TAG_KNOWN = 63

Region = tuple[int, bytes]


@dataclass(frozen=True, slots=True)
class Reference:
    """Where bytes that a guest has read are to be found."""

    mount: int
    """Its number in the process's config."""
    offset: int
    length: int
    crc: int
    """CRC-32C of the bytes."""
    path: bytes
    """Relative to the mount."""


@dataclass(frozen=True, slots=True)
class Record:
    """One host call's effect on the guest."""

    seq: int
    time_ns: int
    """Since the start of the process."""
    call: int
    errno: int
    args: tuple[int, ...]
    written: tuple[Region, ...]
    """Guest address and bytes of what the host wrote to guest memory."""
    sent: tuple[Region, ...]
    """Guest address and bytes of what the guest handed over; if digested, the last is (number of bytes, SHA-256)."""
    digested: bool

    @property
    def reference(self) -> Reference | None:
        """What stands for the first written region, if it does. Raises LogDamagedError."""
        if not self.call & REFERRING or self.call >= CONTROL_BASE:
            return None
        if not self.written or len(self.written[0][1]) < REFERENCE.size:
            raise LogDamagedError(f"record {self.seq}: its reference is cut off")
        data = self.written[0][1]
        mount, offset, length, crc = REFERENCE.unpack_from(data)
        return Reference(mount, offset, length, crc, data[REFERENCE.size :])


@dataclass(slots=True)
class _Template:
    """The previous record of one call with one outcome, within a block."""

    call: int
    errno: int
    time_ns: int
    args: list[int]
    layout: list[tuple[int, int]]
    written_count: int
    numbers: list[int]


class _Cursor:
    """Reads fields off the front of a block's body."""

    def __init__(self, body: bytes) -> None:
        self.body = body
        self.pos = 0

    def take(self, length: int) -> bytes:
        taken = self.body[self.pos : self.pos + length]
        if len(taken) < length:
            raise ValueError("a record is cut off")
        self.pos += length
        return taken

    def varint(self) -> int:
        value = shift = 0
        while True:
            byte = self.take(1)[0]
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                if value > U64:
                    raise ValueError("a number exceeds 64 bits")
                return value
            shift += 7

    def zigzag(self) -> int:
        code = self.varint()
        return (code >> 1) ^ -(code & 1)


class _BodyDecoder:
    """Decodes the records of one block."""

    def __init__(self, body: bytes, first_time_ns: int) -> None:
        self.cursor = _Cursor(body)
        self.first_time_ns = self.time_ns = first_time_ns
        self.templates: list[_Template] = []
        self.template: _Template | None = None

    def decode(self, seq: int) -> Record:
        cursor = self.cursor
        tag = cursor.take(1)[0]
        if tag & ~TAG_KNOWN:
            raise ValueError("a record has an unknown tag")
        template = self._template(tag)
        self.time_ns = (self.time_ns + cursor.varint()) & U64
        elapsed_ns = (self.time_ns - template.time_ns) & U64
        template.time_ns = self.time_ns
        if not tag & SAME_ARGS:
            self._decode_args(template)
        if not tag & SAME_LAYOUT:
            self._decode_layout(template)
        if tag & NUMBERS:
            chunks = self._decode_numbers(template, elapsed_ns if tag & CLOCK else None)
        else:
            chunks = [cursor.take(length) for _, length in template.layout]
            template.numbers = [_number(chunk) for chunk in chunks]
        regions = [(ptr, chunk) for (ptr, _), chunk in zip(template.layout, chunks, strict=True)]
        count = template.written_count
        return Record(
            seq, self.time_ns, template.call, template.errno, tuple(template.args),
            tuple(regions[:count]), tuple(regions[count:]), bool(tag & DIGESTED),
        )  # fmt: skip

    def _template(self, tag: int) -> _Template:
        if not tag & SAME_SLOT:
            slot = self.cursor.varint()
            if slot == len(self.templates):
                call, errno = self.cursor.varint(), self.cursor.varint()
                self.templates.append(_Template(call, errno, self.first_time_ns, [], [], 0, []))
            self.template = self.templates[slot] if slot < len(self.templates) else None
        if self.template is None:
            raise ValueError("a record names a template that isn't there")
        return self.template

    def _decode_args(self, template: _Template) -> None:
        code = self.cursor.varint()
        if code & 1:
            if code >> 1 > ARGS_MAX:
                raise ValueError("a record has too many arguments")
            template.args = [self.cursor.varint() for _ in range(code >> 1)]
            return
        mask = code >> 1
        if mask >> len(template.args):
            raise ValueError("a record changes an argument that isn't there")
        for i in range(len(template.args)):
            if mask >> i & 1:
                template.args[i] = (template.args[i] + self.cursor.zigzag()) & U64

    def _decode_layout(self, template: _Template) -> None:
        code = self.cursor.varint()
        count = len(template.layout)
        if code:
            template.written_count = code - 1
            sent_count = self.cursor.varint()
            if max(code - 1, sent_count) > REGIONS_MAX:
                raise ValueError("a record has too many regions")
            count = template.written_count + sent_count
        known = template.layout + [(0, 0)] * count
        template.layout = [
            ((ptr + self.cursor.zigzag()) & U32, (length + self.cursor.zigzag()) & U32) for ptr, length in known[:count]
        ]
        template.numbers = (template.numbers + [0] * count)[:count]

    def _decode_numbers(self, template: _Template, elapsed_ns: int | None) -> list[bytes]:
        for i, (_, length) in enumerate(template.layout):
            if length not in {4, 8}:
                template.numbers[i] = 0
                continue
            delta = self.cursor.zigzag() if elapsed_ns is None else elapsed_ns
            elapsed_ns = None
            template.numbers[i] = (template.numbers[i] + delta) & (U32 if length == 4 else U64)
        return [
            number.to_bytes(length, "little") if length in {4, 8} else self.cursor.take(length)
            for number, (_, length) in zip(template.numbers, template.layout, strict=True)
        ]


def _number(chunk: bytes) -> int:
    return int.from_bytes(chunk, "little") if len(chunk) in {4, 8} else 0


def read_log(directory: str | Path) -> Iterator[Record]:
    """All records of the log in `directory`, in order. A torn tail of the last segment ends it.

    Raises LogVersionError or LogDamagedError.
    """
    paths = sorted(Path(directory).glob("*.tcl"))
    next_seq: int | None = None
    for path in paths:
        try:
            base_seq, body = _open_segment(path)
            if next_seq is not None and base_seq != next_seq:
                raise ValueError(f"begins with record {base_seq}, not {next_seq}")
            next_seq = base_seq
            for record in _read_blocks(body, base_seq):
                yield record
                next_seq = record.seq + 1
        except (ValueError, lz4.block.LZ4BlockError) as error:
            raise LogDamagedError(f"{path}: {error}") from error


def _open_segment(path: Path) -> tuple[int, bytes]:
    """Number of the first record, and the bytes behind the header."""
    data = path.read_bytes()
    if len(data) < SEGMENT_HEADER.size:
        raise ValueError("shorter than a header")
    header = data[: SEGMENT_HEADER.size]
    magic, version, header_len, _process, _number, _epoch, base_seq, *_, crc = SEGMENT_HEADER.unpack(header)
    if magic != b"TCL1":
        raise ValueError("not a segment")
    if version > VERSION:
        raise LogVersionError(f"{path}: format version {version} is newer than {VERSION}", "upgrade to read it")
    if header_len != SEGMENT_HEADER.size or crc != crc32c.crc32c(header[:-4]):
        raise ValueError("corrupt header")
    return base_seq, data[SEGMENT_HEADER.size :]


def _read_blocks(data: bytes, next_seq: int) -> Iterator[Record]:
    pos = prev_len = 0
    while len(data) - pos >= BLOCK_HEADER.size and data[pos : pos + 4] != INDEX_MAGIC:
        header = data[pos : pos + BLOCK_HEADER.size]
        fields = BLOCK_HEADER.unpack(header)
        magic, version, codec, _flags, stored_len, raw_len, base_seq, record_count, block_prev_len = fields[:9]
        first_time_ns, stored_crc, header_crc = fields[9], fields[14], fields[15]
        if magic != b"TCB1" or not 1 <= version <= VERSION or header_crc != crc32c.crc32c(header[:-4]):
            raise ValueError(f"corrupt block header before record {next_seq}")
        if base_seq != next_seq or block_prev_len != prev_len:
            raise ValueError(f"a block is missing before record {next_seq}")
        stored = data[pos + BLOCK_HEADER.size : pos + BLOCK_HEADER.size + stored_len]
        if len(stored) < stored_len:
            return
        if stored_crc != crc32c.crc32c(stored):
            raise ValueError(f"corrupt block before record {next_seq}")
        body = lz4.block.decompress(stored, uncompressed_size=raw_len) if codec == CODEC_LZ4 else stored
        decoder = _BodyDecoder(body, first_time_ns)
        for _ in range(record_count):
            yield decoder.decode(next_seq)
            next_seq += 1
        prev_len = BLOCK_HEADER.size + stored_len
        pos += prev_len
