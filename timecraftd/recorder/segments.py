"""Segments as files: which there are, which are sealed, and what is to be known of those without reading them."""

from __future__ import annotations

import hashlib
import os
import struct
from dataclasses import dataclass

import crc32c

from timecraftd.model import Digest
from timecraftd.recorder.manifest import SEGMENT_SUFFIX, Segment

HEADER = struct.Struct("<4sHH16sIIQQQII")
FOOTER = struct.Struct("<4sHHQIIQQQQII")
CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Sealed:
    """A sealed segment on the disk; its checksum isn't known yet."""

    segment: Segment
    path: str
    modified_ns: int
    """When it was sealed, Unix time."""


def segment_files(log_dir: str) -> list[tuple[int, str, int]]:
    """(number, path, bytes) of the segments in a directory, in order; none if it is gone."""
    try:
        with os.scandir(log_dir) as entries:
            found = [
                (int(entry.name.removesuffix(SEGMENT_SUFFIX)), entry.path, entry.stat(follow_symlinks=False).st_size)
                for entry in entries
                if entry.name.endswith(SEGMENT_SUFFIX) and entry.name.removesuffix(SEGMENT_SUFFIX).isdigit()
            ]
    except FileNotFoundError:
        return []
    return sorted(found)


def sealed_segment(path: str, number: int) -> Sealed | None:
    """What a segment's header and footer say; None if it isn't sealed, or isn't the one with that number."""
    with open(path, "rb", buffering=0) as file:
        stat = os.fstat(file.fileno())
        if stat.st_size < HEADER.size + FOOTER.size:
            return None
        head = file.read(HEADER.size)
        tail = os.pread(file.fileno(), FOOTER.size, stat.st_size - FOOTER.size)
    if crc32c.crc32c(head[:-4]) != HEADER.unpack(head)[-1] or crc32c.crc32c(tail[:-4]) != FOOTER.unpack(tail)[-1]:
        return None
    magic, _, _, _, own_number, epoch, base_seq, base_time_ns, *_ = HEADER.unpack(head)
    end_magic, _, _, index_offset, index_bytes, _, _, next_seq, _, last_time_ns, *_ = FOOTER.unpack(tail)
    is_whole = index_offset + index_bytes + FOOTER.size == stat.st_size
    if (magic, end_magic, own_number, is_whole) != (b"TCL1", b"TCLF", number, True):
        return None
    last_ns = max(last_time_ns, base_time_ns)
    segment = Segment(number, stat.st_size, base_seq, next_seq, base_time_ns, last_ns, epoch, index_offset, "0" * 8)
    return Sealed(segment, path, stat.st_mtime_ns)


def file_sums(path: str, *, digested: bool = True) -> tuple[int, Digest]:
    """CRC-32C and, if asked for, SHA-256 of a file."""
    crc, digest = 0, hashlib.sha256()
    with open(path, "rb", buffering=0) as file:
        while chunk := file.read(CHUNK_BYTES):
            crc = crc32c.crc32c(chunk, crc)
            if digested:
                digest.update(chunk)
    return crc, Digest(digest.hexdigest())
