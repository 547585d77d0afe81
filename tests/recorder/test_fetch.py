"""The cache on the disk, and reads of a store that fails."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random

import pytest

from tests.recorder.fake_remote import FakeStore
from timecraftd.config import RemoteConfig
from timecraftd.errors import RemoteError
from timecraftd.model import ProcessId, ProcessRecord, ProcessState
from timecraftd.recorder.cache import DiskCache
from timecraftd.recorder.fetch import CHUNK_BYTES, RUN_BYTES, RUNS_MAX, Remote, RemoteLog
from timecraftd.recorder.manifest import Manifest, Segment, encode_manifest, manifest_key, segment_key

ID = ProcessId("0199f3a1-0000-7000-8000-000000000000")
SIZE = 3 * RUN_BYTES + 1234


def kept_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def values(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_a_damaged_value_is_no_value(tmp_path: Path):
    """Whichever byte changes, and however short the file is."""
    cache = DiskCache(str(tmp_path), 1 << 20)
    for at in (0, 5, 11, 14):
        cache.put("key", b"hello world")
        assert cache.get("key") == b"hello world"
        (path,) = values(tmp_path)
        data = bytearray(path.read_bytes())
        data[at] ^= 1
        path.write_bytes(data)
        assert cache.get("key") is None
        assert not cache.holds("key")
    cache.put("key", b"hello world")
    (path,) = values(tmp_path)
    path.write_bytes(b"ab")
    assert cache.get("key") is None


def test_what_was_used_longest_ago_goes_first(tmp_path: Path):
    """The bound holds for several writers at once, each with its share of a sixteenth."""
    now_s = [1000.0]
    bound = 16 * 1000
    cache = DiskCache(str(tmp_path), bound, now_s=lambda: now_s[0])
    for number in range(10):
        now_s[0] += 1
        cache.put(str(number), bytes(900))
        cache.get(str(number))
    for number in range(10, 40):
        now_s[0] += 1
        cache.put(str(number), bytes(900))
        assert cache.get(str(number)) is not None
        assert cache.get("0") is not None, "used again and again"
        assert kept_bytes(tmp_path) <= bound
    assert cache.get("1") is None
    others = [DiskCache(str(tmp_path), bound) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda number: others[number % 4].put(f"x{number}", bytes(900)), range(200)))
    assert kept_bytes(tmp_path) <= bound + 4 * bound // 16


def test_a_cache_that_can_not_be_written_is_none(tmp_path: Path):
    """A value that is too large, a file in the way: nothing fails."""
    cache = DiskCache(str(tmp_path), 1600)
    cache.put("big", bytes(101))
    assert cache.get("big") is None
    (tmp_path / "file").write_bytes(b"")
    nowhere = DiskCache(str(tmp_path / "file"), 1 << 20)
    nowhere.put("key", b"value")
    assert nowhere.get("key") is None
    DiskCache(str(tmp_path), 0).put("key", b"value")


@pytest.fixture
def stored(tmp_path: Path):
    """A log of two segments of chance bytes in a store, and a remote to read it."""
    store = FakeStore()
    data = [Random(number).randbytes(SIZE) for number in range(2)]
    digest = "0" * 64
    process = ProcessRecord(ID, "", digest, "m", digest, digest, ProcessState.EXITED, 1, 1)
    segments = tuple(
        Segment(number, SIZE, number * 10, number * 10 + 10, 0, 0, 0, SIZE - 200, f"{number:08x}")
        for number in range(2)
    )
    store.objects[manifest_key(ID)] = (encode_manifest(Manifest(process, segments=segments)), "tag")
    for number in range(2):
        store.objects[segment_key(ID, number)] = (data[number], "tag")
    config = RemoteConfig(url="s3://bucket/prefix", cache_bytes_max=64 << 20)
    remote = Remote(config, str(tmp_path / "cache"), store=lambda: store)
    log = RemoteLog(remote, ID)
    log.segments()
    store.requests.clear()
    yield store, data, log
    remote.close()


def test_parts_are_what_is_stored(stored):
    """Any of them, in any order, from the store and then from the cache; a damaged value of that is fetched again."""
    store, data, log = stored
    random = Random(1)
    for turn in range(40):
        number, offset = random.randrange(2), random.randrange(SIZE)
        length = random.choice([1, 100, CHUNK_BYTES, RUN_BYTES, 3 * RUN_BYTES])
        assert log.fetch(number, offset, length) == data[number][offset : offset + length]
        if turn == 30:
            for path in values(Path(log._remote.cache.directory)):
                path.write_bytes(path.read_bytes()[:-1] + b"?")
    store.requests.clear()
    for number in range(2):
        assert log.fetch(number, 0, SIZE) == data[number]
        assert log.fetch(number, 0, SIZE) == data[number]


def test_who_reads_on_is_expected(stored):
    """What comes next is under way, in runs, over the border of a segment; it is bounded, and nothing comes twice."""
    store, data, log = stored
    read = b""
    for number in range(2):
        for offset in range(0, SIZE, CHUNK_BYTES):
            read += log.fetch(number, offset, CHUNK_BYTES)
            assert len(log._runs) <= RUNS_MAX
    assert read == b"".join(data)
    assert len(store.requests) <= 4 + 2 * (SIZE // RUN_BYTES + 1)


def test_what_fails_ahead_of_a_reader_is_asked_for_again(stored):
    """An outage that is over when the reader comes there costs nothing."""
    store, data, log = stored
    store.fault = lambda _operation, key: RemoteError(f"{key}: out of order") if "000001" in key else None
    for offset in range(0, SIZE, CHUNK_BYTES):
        assert log.fetch(0, offset, CHUNK_BYTES) == data[0][offset : offset + CHUNK_BYTES]
    store.fault = lambda _operation, _key: None
    assert log.fetch(1, 0, SIZE) == data[1]


def test_a_failure_names_the_segment_and_passes(stored):
    """An outage ends a read; the next one goes on."""
    store, data, log = stored
    store.fault = lambda _operation, key: RemoteError(f"{key}: out of order")
    with pytest.raises(RemoteError, match=r"000000\.tcl: out of order"):
        log.fetch(0, 0, 10)
    store.fault = lambda _operation, _key: None
    assert log.fetch(0, 0, 10) == data[0][:10]
    del store.objects[segment_key(ID, 1)]
    with pytest.raises(RemoteError, match=r"000001\.tcl: is gone"):
        log.fetch(1, 0, 10)
    store.objects[segment_key(ID, 1)] = (data[1][:1000], "tag")
    with pytest.raises(RemoteError, match="shorter"):
        log.fetch(1, 0, 2000)
    assert os.path.isdir(log._remote.cache.directory)
