"""Manifests: what is written is read again, and nothing else is believed."""

from __future__ import annotations

import json
from dataclasses import replace

import crc32c
import pytest
from hypothesis import given
from hypothesis import strategies as st

from timecraftd.errors import LogDamagedError, LogVersionError
from timecraftd.model import Digest, ObjectKind, ProcessId, ProcessRecord, ProcessState
from timecraftd.recorder.manifest import (
    SEGMENTS_MAX,
    Manifest,
    Page,
    Segment,
    decode_deleted,
    decode_manifest,
    decode_page,
    encode_deleted,
    encode_manifest,
    encode_page,
    page_key,
)

ID = ProcessId("01890a5d-ac96-774b-bcce-b302099a8057")
DIGEST = Digest("ab" * 32)


def segment(number: int) -> Segment:
    """One with ten records."""
    return Segment(number, 1000, 10 * number, 10 * number + 10, number, number + 1, 0, 800, "0123abcd")


PAGE = Page(page_key(ID, 0), SEGMENTS_MAX, 0, 10 * SEGMENTS_MAX, 0)
PROCESS = ProcessRecord(
    ID, "web", DIGEST, "web.wasm", DIGEST, DIGEST, ProcessState.EXITED, 1, 2, ended_ns=3, exit_code=0, last_seq=9
)
MANIFEST = Manifest(
    PROCESS, True, 3, "node-1", ((ObjectKind.MODULE, DIGEST, 12),), ((DIGEST, 7),), (PAGE,),
    (segment(SEGMENTS_MAX), segment(SEGMENTS_MAX + 1)),
)  # fmt: skip


def test_what_is_written_is_read_again():
    assert decode_manifest(encode_manifest(MANIFEST), ID) == MANIFEST
    segments = tuple(map(segment, range(SEGMENTS_MAX)))
    assert decode_page(encode_page(segments), PAGE, ID) == segments
    assert (MANIFEST.next_number, MANIFEST.next_seq) == (SEGMENTS_MAX + 2, 10 * SEGMENTS_MAX + 20)


def test_what_means_something_on_one_machine_only_is_not_in_it():
    text = encode_manifest(replace(MANIFEST, process=replace(PROCESS, pid=7, boot_id="boot")))
    assert decode_manifest(text, ID) == MANIFEST


def changed(**values):
    """The manifest's text with other values and its right checksum; a name may be a path."""
    table = json.loads(encode_manifest(MANIFEST))
    del table["crc32c"]
    for name, value in values.items():
        *path, last = name.split("__")
        place = table
        for step in path:
            place = place[int(step) if step.isdigit() else step]
        place[int(last) if last.isdigit() else last] = value
    text = json.dumps(table).encode()[:-1]
    return text + b',"crc32c":"%08x"}' % crc32c.crc32c(text)


@pytest.mark.parametrize(
    "values",
    [
        {"format": True},
        {"complete": 1},
        {"version": -1},
        {"version": 1 << 63},
        {"process": []},
        {"process__id": "01890a5d-ac96-774b-bcce-b302099a8058"},
        {"process__state": "asleep"},
        {"process__last_seq": "9"},
        {"process__module": "../../etc/passwd"},
        {"process__pid": 7},
        {"objects__0__0": "secret"},
        {"objects__0__1": "x" * 64},
        {"objects__0__2": None},
        {"blobs__0": ["ab"]},
        {"pages__0__key": "manifests/other/pages/000000.json"},
        {"pages__0__segments": 999},
        {"pages__0__first_seq": 1},
        {"segments__0__0": SEGMENTS_MAX + 1},
        {"segments__0__1": 100},
        {"segments__0__7": 999},
        {"segments__1__2": 10 * SEGMENTS_MAX + 11},
        {"segments__1__8": "../../../"},
        {"segments__1": [1, 2]},
        {"segments": [[]] * (SEGMENTS_MAX + 1)},
    ],
)
def test_what_can_not_be_is_refused(values):
    with pytest.raises(LogDamagedError, match=str(ID)):
        decode_manifest(changed(**values), ID)


def test_a_newer_format_is_told_from_damage():
    with pytest.raises(LogVersionError):
        decode_manifest(changed(format=3), ID)


def test_manifests_of_the_first_format_have_no_checksum_and_are_read():
    text = changed(format=1)
    assert decode_manifest(text[: text.rindex(b',"crc32c"')] + b"}", ID) == MANIFEST


@given(st.binary(max_size=200) | st.recursive(st.none() | st.integers() | st.text(), st.lists).map(
    lambda value: json.dumps(value).encode()))  # fmt: skip
def test_anything_else_is_refused(data):
    with pytest.raises(LogDamagedError):
        decode_manifest(data, ID)
    with pytest.raises(LogDamagedError):
        decode_page(data, PAGE, ID)


@pytest.mark.parametrize(
    ("text", "decode", "step"),
    [
        (encode_manifest(MANIFEST), decode_manifest, 1),
        (encode_deleted(encode_manifest(MANIFEST), "node-1", 5), decode_deleted, 1),
        (encode_page([*map(segment, range(SEGMENTS_MAX))]), lambda data, _: decode_page(data, PAGE, ID), 601),
    ],
)
def test_each_flipped_bit_is_found(text, decode, step):
    for at in range(0, 8 * len(text), step):
        flipped = bytearray(text)
        flipped[at // 8] ^= 1 << at % 8
        with pytest.raises(LogDamagedError):
            decode(bytes(flipped), ID)
