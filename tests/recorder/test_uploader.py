"""The uploader: what is in the store, whatever fails, and whoever else writes there."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace
from random import Random

import pytest

from tests.recorder.fake_remote import FakeStore
from tests.recorder.logfiles import SEGMENT_BYTES, FakeHome, segment_bytes
from timecraftd.config import RemoteConfig
from timecraftd.errors import NotFoundError, RemoteError, TimecraftError
from timecraftd.model import ProcessState
from timecraftd.recorder import uploader
from timecraftd.recorder.manifest import (
    decode_manifest,
    decode_page,
    encode_manifest,
    manifest_key,
    segment_key,
)
from timecraftd.recorder.remote import ConflictError, TransientError
from timecraftd.recorder.uploader import STATE_FILE, Uploader

CONFIG = RemoteConfig(url="s3://fake", local_bytes_max=10 * SEGMENT_BYTES)
EXITED = ProcessState.EXITED


@pytest.fixture
def home(tmp_path):
    (tmp_path / "home").mkdir()
    return FakeHome(tmp_path / "home")


@pytest.fixture
def store():
    return FakeStore()


def make(store, home, **options):
    """An uploader that doesn't wait."""

    async def sleep(_seconds):
        await asyncio.sleep(0.001)

    options = {"node": "here", "log": lambda *_, **__: None, "sleep": sleep, "random": Random(1)} | options
    return Uploader(store, home, options.pop("config", CONFIG), **options)


def push(store, home, *process_ids, **options):
    """Sends all of them."""

    async def work():
        made = make(store, home, **options)
        await made.push(process_ids)
        return made

    return asyncio.run(work())


def serve(store, home, until, **options):
    """Runs until something holds; what was logged."""
    told = []

    async def work():
        made = make(store, home, log=lambda event, **values: told.append((event, values)), **options)
        running = asyncio.create_task(made.run())
        async with asyncio.timeout(60):
            while not until(made):
                assert not running.done()
                await asyncio.sleep(0.001)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    asyncio.run(work())
    return told


def manifest_of(store, process_id):
    return decode_manifest(store.objects[manifest_key(process_id)][0], process_id)


def is_whole(store, home, process_id):
    """Whether a process is in the store, and what a manifest names is what is on the disk."""
    if manifest_key(process_id) not in store.objects or not manifest_of(store, process_id).complete:
        return False
    manifest = manifest_of(store, process_id)
    segments = [
        segment for page in manifest.pages for segment in decode_page(store.objects[page.key][0], page, process_id)
    ]
    segments += manifest.segments
    files = sorted((home.path / process_id / "log").glob("*.tcl"))
    assert [segment.number for segment in segments] == [int(path.stem) for path in files]
    for segment, path in zip(segments, files, strict=True):
        assert store.objects[segment_key(process_id, segment.number)][0] == path.read_bytes()
    return True


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """No wait is longer than a moment."""
    monkeypatch.setattr(uploader, "LOOK_S", 0.001)
    monkeypatch.setattr(uploader, "LOOK_ALL_S", 0.01)
    monkeypatch.setattr(uploader, "BACKOFF_S_MIN", 0.0001)
    monkeypatch.setattr(uploader, "BACKOFF_S_MAX", 0.001)


def test_what_a_manifest_names_was_there_before_it(store, home):
    process = home.add(EXITED)
    home.seal(process, 0, 1, 2)
    push(store, home, process)
    assert is_whole(store, home, process)
    put = [key for operation, key in store.requests if operation == "put"]
    assert put[-1] == manifest_key(process)
    assert put[-4:-1] == [segment_key(process, number) for number in range(3)]
    assert len(put) == 7
    assert {item.key for item in home.objects(home.rows[process])} == set(put[:3])
    assert manifest_of(store, process).process == replace(home.rows[process], pid=0, boot_id="")


def test_a_restart_sends_nothing_again(store, home):
    process = home.add(EXITED)
    home.seal(process, 0, 1)
    push(store, home, process)
    store.requests.clear()
    push(store, home, process)
    assert not store.requests
    (home.path / process / STATE_FILE).unlink()
    push(store, home, process)
    asked = Counter(operation for operation, _ in store.requests)
    assert asked == {"get": 2, "head": 5}, "manifest, flag of sweeps; objects and segments are looked at"


def test_what_was_sent_before_the_state_was_lost_is_looked_at_only(store, home):
    """The daemon died between segments and manifest."""
    process = home.add(EXITED)
    home.seal(process, 0, 1)
    sent = dict(store.objects)
    push(store, home, process)
    del store.objects[manifest_key(process)]
    (home.path / process / STATE_FILE).unlink()
    push(store, home, process)
    assert is_whole(store, home, process)
    assert not sent


def test_a_running_process_goes_as_it_grows(store, home):
    process = home.add()
    home.seal(process, 0)
    home.seal(process, 1, sealed=False)
    push(store, home, process)
    first = manifest_of(store, process)
    assert (len(first.segments), first.complete) == (1, False)
    home.seal(process, 1, 2)
    home.end(process)
    push(store, home, process)
    assert is_whole(store, home, process)
    assert manifest_of(store, process).version == first.version + 1


def test_a_resumed_process_goes_on(store, home):
    process = home.add(ProcessState.CRASHED)
    home.seal(process, 0)
    push(store, home, process)
    assert is_whole(store, home, process)
    home.rows[process] = replace(home.rows[process], state=ProcessState.RUNNING, epoch=1)
    home.seal(process, 1)
    serve(store, home, lambda _: len(manifest_of(store, process).segments) == 2)
    assert not manifest_of(store, process).complete
    home.end(process)
    serve(store, home, lambda _: is_whole(store, home, process))


def test_a_last_segment_that_is_not_sealed_is_sealed(store, home):
    process = home.add(ProcessState.CRASHED)
    home.seal(process, 0)
    home.seal(process, 1, sealed=False)
    push(store, home, process)
    assert home.recovered == [process]
    assert is_whole(store, home, process)


def test_many_segments_are_in_pages(store, home, monkeypatch):
    monkeypatch.setattr(uploader, "STEP_SEGMENTS_MAX", 500)
    process = home.add(EXITED)
    home.seal(process, *range(2500), size=200)
    push(store, home, process)
    assert is_whole(store, home, process)
    manifest = manifest_of(store, process)
    assert (len(manifest.pages), len(manifest.segments)) == (2, 500)
    (home.path / process / STATE_FILE).unlink()
    store.requests.clear()
    push(store, home, process)
    assert not [key for operation, key in store.requests if operation == "put"]


def test_processes_take_turns(store, home):
    """A short one doesn't wait for a long one."""
    long, short = home.add(EXITED), home.add(EXITED)
    home.seal(long, *range(100), size=200)
    home.seal(short, 0)
    serve(store, home, lambda _: is_whole(store, home, long), config=replace(CONFIG, uploads_max=1))
    put = [key for operation, key in store.requests if operation == "put"]
    assert put.index(manifest_key(short)) < put.index(segment_key(long, 50))


FAULTS = {
    "outage": lambda: TransientError("s3: down"),
    "denied": lambda: RemoteError("s3: AccessDenied"),
    "lost": lambda: "lost",
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("seed", range(5))
def test_whatever_fails_all_is_there_in_the_end(store, home, fault, seed):
    """Each third request fails, or does its work and its answer is lost."""
    processes = [home.add() for _ in range(5)]
    for process in processes:
        home.seal(process, *range(5))
        home.end(process)
    chance = Random(seed)
    store.fault = lambda *_: FAULTS[fault]() if chance.random() < 0.3 else None
    serve(store, home, lambda _: all(is_whole(store, home, process) for process in processes))
    serve(store, home, lambda made: made.status().processes == 0)


def test_an_outage_is_told_and_so_is_its_end(store, home):
    process = home.add(EXITED)
    home.seal(process, 0)
    store.fault = lambda *_: TransientError("s3: down")
    seen = []

    def until(made):
        status = made.status()
        if status.failing:
            seen.append(status)
            store.fault = lambda *_: None
        return is_whole(store, home, process) and not status.processes

    told = serve(store, home, until)
    assert "s3: down" in seen[0].problem
    assert seen[0].waiting_bytes == SEGMENT_BYTES
    assert [event for event, _ in told][:1] == ["uploads: failed, to be tried again"]
    assert told[-1][0] == "uploads: go on"


def test_one_process_that_can_not_be_sent_keeps_no_other_back(store, home):
    broken, sound = home.add(EXITED), home.add(EXITED)
    home.seal(broken, 0, 2)
    home.seal(broken, 1, sealed=False)
    home.seal(sound, 0)
    serve(store, home, lambda made: is_whole(store, home, sound) and made.status().failing == 1)
    with pytest.raises(TimecraftError, match="segment 1"):
        push(store, home, broken)


def test_a_segment_that_the_store_has_otherwise_is_not_written_over(store, home):
    process = home.add(EXITED)
    home.seal(process, 0)
    key = segment_key(process, 0)
    store.objects[key] = (b"somebody else's", '"x"')
    with pytest.raises(ConflictError, match="another one"):
        push(store, home, process)
    assert store.objects[key][0] == b"somebody else's"
    assert manifest_key(process) not in store.objects


def other(home, process, store, *numbers, size=SEGMENT_BYTES):
    """A manifest of somebody else's, with what it names."""
    made = FakeHome(home.path / "other")
    made.rows[process] = home.rows[process]
    (made.path / process / "log").mkdir(parents=True)
    for item in home.objects(home.rows[process]):
        (made.path / item.digest).write_bytes((home.path / item.digest).read_bytes())
    made.seal(process, *numbers, size=size)
    push(store, made, process, node="elsewhere")


def test_a_manifest_of_the_same_log_is_gone_on_from(store, home):
    process = home.add()
    other(home, process, store, 0)
    home.seal(process, 0, 1)
    home.end(process)
    serve(store, home, lambda _: is_whole(store, home, process))
    assert manifest_of(store, process).node == "here"


@pytest.mark.parametrize(("there", "size"), [((0, 1, 2), SEGMENT_BYTES), ((0,), SEGMENT_BYTES + 1)])
def test_a_log_that_went_on_elsewhere_is_not_written_over(store, home, there, size):
    """It has more than we have, or something else."""
    process = home.add()
    other(home, process, store, *there, size=size)
    before = dict(store.objects)
    home.seal(process, 0, 1)
    made = []
    serve(store, home, lambda it: made.append(it) or "elsewhere" in it.status().problem)
    assert store.objects == before
    assert made[-1].totals.conflicts > 0


def test_a_manifest_that_changes_meanwhile_is_read_again(store, home):
    """If-Match doesn't hold: what is there decides."""
    process = home.add()
    home.seal(process, 0)
    push(store, home, process)
    theirs = replace(manifest_of(store, process), node="elsewhere", version=7)
    store.objects[manifest_key(process)] = (encode_manifest(theirs), '"theirs"')
    home.seal(process, 1)
    home.end(process)
    serve(store, home, lambda _: is_whole(store, home, process))
    assert manifest_of(store, process).version == 8


def test_a_manifest_that_is_damaged_is_told(store, home):
    process = home.add(EXITED)
    home.seal(process, 0)
    store.objects[manifest_key(process)] = (b"{", '"x"')
    with pytest.raises(TimecraftError, match="manifest"):
        push(store, home, process)


def test_an_object_with_other_bytes_than_its_name_says_is_not_sent(store, home):
    process = home.add(EXITED)
    home.seal(process, 0)
    (home.path / home.rows[process].module).write_bytes(b"changed")
    with pytest.raises(TimecraftError, match="its bytes"):
        push(store, home, process)
    assert not [key for key in store.objects if key.startswith(("objects/module", "logs", "manifests"))]


def test_removed_processes_are_forgotten(store, home):
    process = home.add()
    home.seal(process, 0)
    serve(store, home, lambda made: made.status().processes == 1 and manifest_key(process) in store.objects)
    gone = dict(home.rows)

    def until(made):
        home.rows.clear()
        return made.status().processes == 0

    serve(store, home, until)
    with pytest.raises(NotFoundError):
        push(store, home, next(iter(gone)))


def test_the_budget_is_told_when_it_is_used_up_and_when_not(store, home):
    process = home.add()
    home.seal(process, *range(12))
    store.fault = lambda *_: TransientError("s3: down")
    full = []

    def until(_made):
        if full and full[-1]:
            store.fault = lambda *_: None
        return True in full and not full[-1]

    told = serve(store, home, until, on_full=full.append)
    assert [event for event, _ in told if "budget" in event]
    never = []
    store.fault = lambda *_: TransientError("s3: down")
    home.seal(process, *range(12, 30))
    serve(store, home, lambda _: len(never) > 20, on_full=never.append, config=replace(CONFIG, when_full="continue"))
    assert True not in never


def test_a_store_without_conditions_is_told_of_once(home):
    store = FakeStore(conditional=False)
    for _ in range(3):
        home.seal(home.add(EXITED), 0)
    told = serve(store, home, lambda made: len(store.objects) == 9 and made.status().processes == 0)
    assert [event for event, _ in told].count("uploads: the store ignores conditions: who writes last wins") == 1


def test_segments_are_what_their_headers_say(tmp_path):
    """And nothing that is torn or of another number is taken for sealed."""
    path = tmp_path / "000003.tcl"
    whole = segment_bytes(3)
    path.write_bytes(whole)
    found = uploader.sealed_segment(str(path), 3)
    assert found is not None
    assert (found.segment.base_seq, found.segment.next_seq, found.segment.size) == (30, 40, SEGMENT_BYTES)
    assert uploader.sealed_segment(str(path), 4) is None
    for length in (0, 63, 64, 500, SEGMENT_BYTES - 1):
        path.write_bytes(whole[:length])
        assert uploader.sealed_segment(str(path), 3) is None
