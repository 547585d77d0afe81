"""The documented format, read by a second implementation: golden logs, damage, versions."""

import hashlib
import shutil
from pathlib import Path

import pytest

from timecraftd.errors import LogDamagedError, LogVersionError
from timecraftd.recorder.reader import Record, Reference, Region, read_log

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
DUMPS = sorted(GOLDEN.glob("v*/*.txt"))


def joined(items) -> str:
    return ",".join(items) or "-"


def regions(found: tuple[Region, ...]) -> str:
    return joined(f"{ptr}:{data.hex()}" for ptr, data in found)


def dump_line(record: Record) -> str:
    """As `crates/timecraft-log/examples/make_golden.rs` writes it."""
    head = f"{record.seq} {record.time_ns} {record.call} {record.errno} {joined(map(str, record.args))}"
    return f"{head} {regions(record.written)} {regions(record.sent)} {int(record.digested)}"


@pytest.mark.parametrize("dump", DUMPS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_golden_logs_are_read_as_they_were_written(dump):
    assert [dump_line(record) for record in read_log(dump.with_suffix(""))] == dump.read_text().splitlines()


def test_there_are_golden_logs():
    assert len(DUMPS) >= 9


def test_a_digest_is_that_of_the_bytes_it_stands_for():
    whole = list(read_log(GOLDEN / "v1" / "large"))[2]
    digested = list(read_log(GOLDEN / "v1" / "digest"))[2]
    ((ptr, data),) = whole.sent
    expected = hashlib.sha256(ptr.to_bytes(4, "little") + len(data).to_bytes(4, "little") + data).digest()
    assert digested.digested
    assert digested.sent == ((len(data), expected),)


def test_a_digest_stands_for_data_alone():
    """What a call sends beside its data is as it was: here an address, and what points to it."""
    plain, addressed, *_ = read_log(GOLDEN / "v2" / "kept")
    assert [len(record.sent) for record in (plain, addressed)] == [1, 3]
    assert addressed.sent[:2] == ((8, bytes([1] * 8)), (4096, bytes([7] * 128)))
    state = hashlib.sha256()
    for ptr, data in ((64, bytes([2] * 8)), (9000, b"d" * 100)):
        state.update(ptr.to_bytes(4, "little") + len(data).to_bytes(4, "little") + data)
    assert addressed.sent[2] == (108, state.digest())


def record_of(call: int, written: bytes) -> Record:
    return Record(5, 0, call, 0, (), ((64, written),), (), digested=False)


def test_a_referring_record_tells_where_its_bytes_are():
    """Bit 0x4000 of a call says so; in control records it means nothing."""
    data = bytes.fromhex("02000000 0010000000000000 00040000 78563412") + b"lib/x.py"
    assert record_of(0x4002, data).reference == Reference(2, 4096, 1024, 0x12345678, b"lib/x.py")
    assert record_of(2, data).reference is None
    assert record_of(0xFF00, data).reference is None
    with pytest.raises(LogDamagedError, match="record 5: its reference is cut off"):
        print(record_of(0x4002, data[:19]).reference)


@pytest.fixture
def log(tmp_path):
    return Path(shutil.copytree(GOLDEN / "v1" / "raw", tmp_path / "log"))


def test_a_torn_tail_ends_the_log(log):
    segment = log / "000000.tcl"
    whole = list(read_log(log))
    segment.write_bytes(segment.read_bytes()[:3000])
    found = list(read_log(log))
    assert 0 < len(found) < len(whole)
    assert found == whole[: len(found)]


@pytest.mark.parametrize("at", [0, 40, 63, 64, 80, 139, 200, 2000])
def test_a_flipped_bit_is_an_error(log, at):
    segment = log / "000000.tcl"
    data = bytearray(segment.read_bytes())
    data[at] ^= 0x40
    segment.write_bytes(data)
    with pytest.raises(LogDamagedError, match=r"000000\.tcl"):
        list(read_log(log))


def test_a_newer_version_is_refused(log):
    segment = log / "000000.tcl"
    data = bytearray(segment.read_bytes())
    data[4] = 9
    segment.write_bytes(data)
    with pytest.raises(LogVersionError, match="version 9 is newer"):
        list(read_log(log))


def test_a_missing_segment_is_an_error(tmp_path):
    log = Path(shutil.copytree(GOLDEN / "v1" / "lz4_segments", tmp_path / "log"))
    shutil.copy(log / "000000.tcl", log / "000002.tcl")
    with pytest.raises(LogDamagedError, match="begins with record 0"):
        list(read_log(log))
