"""Deletion in a store, whatever is cut off when, and beside those who send and read: step by step, in many orders."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine
from pathlib import Path
from random import Random

import pytest

from tests.recorder.fake_remote import FakeStore
from tests.recorder.logfiles import FakeHome
from timecraftd.config import RemoteConfig
from timecraftd.errors import LogError, NotFoundError, ProcessStateError, RemoteError
from timecraftd.model import ProcessState
from timecraftd.recorder import uploader
from timecraftd.recorder.deletion import LOST_NS, SWEEP_S_MAX, Sweeper
from timecraftd.recorder.labelling import relabel_stored
from timecraftd.recorder.manifest import (
    DELETED,
    MANIFESTS,
    decode_manifest,
    deleted_key,
    manifest_key,
    named_keys,
    process_of,
    segment_key,
    segment_name,
)
from timecraftd.recorder.remote import ConflictError, TransientError
from timecraftd.recorder.segments import file_sums
from timecraftd.recorder.sweeping import DEAD_S, FLAG, Presence, SweptError, read_flag, write_flag
from timecraftd.recorder.uploader import DeletedError, Uploader, is_stored, read_state

CONFIG = RemoteConfig(url="s3://fake")
EXITED = ProcessState.EXITED
GRACE_S = 30.0
SECOND = 10**9
ORDERS = 250


def segment_keys(manifest):
    """Where the segments are that a manifest names."""
    return [segment_key(manifest.process.id, segment.number) for segment in manifest.segments]


def nobody(_processes):
    return []


def everybody(processes):
    return list(processes)


class World:
    """A store, whose time goes on by a second with each request, and the state directory of a machine."""

    def __init__(self, path, seed=0):
        self.now_s = 1000
        self.random = Random(seed)
        self.store = FakeStore(now_ns=lambda: self.now_s * SECOND, turn=self._turn)
        path.mkdir(parents=True, exist_ok=True)
        self.home = FakeHome(path)
        self._waiting: list[asyncio.Future[None]] | None = None

    async def _turn(self, *_):
        self.now_s += 1
        if self._waiting is not None:
            turn = asyncio.get_running_loop().create_future()
            self._waiting.append(turn)
            await turn

    def process(self, *numbers):
        """One that has exited."""
        made = self.home.add(EXITED)
        self.home.seal(made, *(numbers or (0, 1)))
        return made

    def sweeper(self):
        return Sweeper(
            self.store, node="sweeper", grace_s=GRACE_S, now_ns=lambda: self.now_s * SECOND,
            clock=lambda: float(self.now_s), random=self.random,
        )  # fmt: skip

    def uploader(self):
        async def sleep(_seconds):
            await self._turn()

        return Uploader(
            self.store, self.home, CONFIG, node="here", log=lambda *_, **__: None, sleep=sleep, random=Random(1)
        )

    def push(self, *processes):
        """Sends all of them."""

        async def work():
            await self.uploader().push(processes)

        asyncio.run(work())

    def run(self, work: Coroutine):
        return asyncio.run(work)

    # ---- steps in some order

    def interleave(self, *actors):
        """Does all of this, request by request, in an order of the seed; looks after each."""

        async def work():
            self._waiting = []
            insistence = self.random.choice((0.0, 0.5, 0.8, 0.95))
            tasks = [asyncio.create_task(actor) for actor in actors]
            try:
                while not all(task.done() for task in tasks):
                    for _ in range(4):
                        await asyncio.sleep(0)
                    if self._waiting:  # who asked last goes on for a while, in some orders for long
                        last = len(self._waiting) - 1
                        turn = last if self.random.random() < insistence else self.random.randrange(last + 1)
                        self._waiting.pop(turn).set_result(None)
                    self.check_segments()
            finally:
                self._waiting = None
            for task in tasks:
                task.result()

        asyncio.run(work())

    # ---- what must hold

    def manifests(self):
        objects = self.store.objects
        ids = [process_of(key, MANIFESTS) for key in objects if key.startswith(MANIFESTS)]
        return [decode_manifest(objects[manifest_key(process)][0], process) for process in ids if process]

    def check_segments(self):
        """What a manifest names of the log is there, at any time once its uploader has looked again."""
        for manifest in self.manifests():
            if self.is_verified(manifest.process.id):
                assert not {*segment_keys(manifest)} - self.store.objects.keys()

    def missing(self):
        """What manifests name, but isn't there."""
        named = {key for found in self.manifests() for key in (*named_keys(found), *segment_keys(found))}
        return named - self.store.objects.keys()

    def lose(self, process):
        """Leaves a segment as an uploader does that dies before it puts a manifest."""
        path = Path(self.home.directory(process), "log", segment_name(0))
        key = segment_key(process, 0)
        self.run(self.store.put(key, path.read_bytes(), crc32c=file_sums(str(path))[0]))
        self.store.modified[key] -= LOST_NS

    def left_of(self, process):
        return [key for key in self.store.objects if process in key]

    def is_verified(self, process):
        state = read_state(self.home.directory(process), process)
        return state is not None and state.is_verified


@pytest.fixture
def world(tmp_path):
    return World(tmp_path / "home")


@pytest.fixture
def inline(monkeypatch):
    """What would be done in threads is done at once: a seed is an order."""

    async def at_once(work, *args, **options):
        return work(*args, **options)

    monkeypatch.setattr(asyncio, "to_thread", at_once)


# ---- the protocol


def test_a_deleted_process_is_found_by_nobody_and_goes_after_the_grace_period(world):
    gone, kept = world.process(), world.process()
    world.push(gone, kept)
    world.run(world.sweeper().delete(gone))
    assert [manifest.process.id for manifest in world.manifests()] == [kept]
    assert len(world.left_of(gone)) == 3
    done = world.run(world.sweeper().sweep(nobody))
    assert (done.removed, done.objects) == ([], [])
    world.now_s += GRACE_S
    done = world.run(world.sweeper().sweep(nobody))
    assert done.removed == [(gone, 2000)]
    assert world.left_of(gone) == []
    assert len(world.left_of(kept)) == 3
    assert not world.missing()
    assert not world.run(read_flag(world.store)).running


def test_objects_go_when_nobody_names_them_and_they_are_old(world):
    process = world.process()
    world.push(process)
    world.store.objects["objects/foreign"] = (b"", "")
    world.run(world.sweeper().sweep(everybody, now=True))
    assert any(key.startswith("objects/module") for key in world.store.objects), "somebody named it at first"
    world.now_s += GRACE_S
    assert len(world.run(world.sweeper().sweep(nobody)).objects) == 3
    assert sorted(world.store.objects) == ["objects/foreign", FLAG]


def test_segments_of_a_process_that_never_got_a_manifest_go_after_a_day(world):
    """Its machine was lost, or goes on with it: then they come again."""
    process = world.process()
    world.lose(process)
    world.store.modified[segment_key(process, 0)] += GRACE_S * SECOND
    assert not world.run(world.sweeper().sweep(nobody)).objects
    world.now_s += 2 * GRACE_S
    assert [info.key for info in world.run(world.sweeper().preview(nobody)).objects] == [segment_key(process, 0)]
    assert [info.key for info in world.run(world.sweeper().sweep(nobody)).objects] == [segment_key(process, 0)]
    assert not world.left_of(process)
    world.push(process)
    assert not world.missing()


def test_segments_are_sent_again_that_a_sweep_has_taken_for_lost(world):
    process = world.process(0)
    world.lose(process)
    world.now_s += GRACE_S
    swept = []

    async def turn(operation, key):
        world.now_s += 1
        if (operation, key) == ("put", manifest_key(process)) and not swept:
            swept.append(key)
            assert segment_key(process, 0) in {info.key for info in (await world.sweeper().sweep(nobody)).objects}

    world.store.turn = turn
    world.push(process)
    assert swept
    assert not world.missing()


def test_a_preview_changes_nothing(world):
    gone, other = world.process(), world.process()
    world.push(gone, other)
    world.run(world.sweeper().delete(gone))
    world.now_s += GRACE_S
    before = dict(world.store.objects)
    done = world.run(world.sweeper().preview(everybody))
    assert [process.id for process in done.deleted] == [other]
    assert done.removed == [(gone, 2000)]
    assert world.store.objects == before


def test_what_is_not_wholly_there_is_deleted_by_force_alone(world):
    process = world.home.add()
    world.home.seal(process, 0)
    world.push(process)
    with pytest.raises(ProcessStateError, match=r"runs on node here, or was lost with it.*rm --remote -f"):
        world.run(world.sweeper().delete(process))
    assert world.run(world.sweeper().sweep(everybody)).deleted == []
    world.run(world.sweeper().delete(process, force=True))
    world.home.seal(process, 1)
    with pytest.raises(DeletedError):
        world.push(process)
    assert segment_key(process, 1) not in world.store.objects
    world.run(world.sweeper().remove(process, now=True))
    assert world.left_of(process) == []


def test_what_is_not_there_is_told(world):
    with pytest.raises(NotFoundError, match="ps --remote"):
        world.run(world.sweeper().delete(world.process()))


@pytest.mark.parametrize("is_known", [True, False])
def test_a_deleted_process_is_not_sent_again(world, is_known):
    """Whether what is beside its log says that it was sent, or that was lost; not when it goes on either."""
    process = world.process()
    world.push(process)
    world.run(world.sweeper().delete(process))
    path = world.home.path / process / uploader.STATE_FILE
    if is_known:
        world.home.seal(process, 2)
    else:
        path.unlink()
    for _ in range(2):
        with pytest.raises(DeletedError, match="was deleted from the store"):
            world.push(process)
    world.run(world.sweeper().remove(process, now=True))
    with pytest.raises(DeletedError):
        world.push(process)
    assert world.left_of(process) == []


def test_a_manifest_that_comes_back_is_hidden_again(world):
    """Its request was long under way; who found it by then has a grace period, too."""
    process = world.process()
    world.push(process)
    late = world.store.objects[manifest_key(process)]
    world.run(world.sweeper().delete(process))
    world.now_s += GRACE_S
    world.store.objects[manifest_key(process)] = late
    assert world.run(world.sweeper().sweep(nobody)).removed == []
    assert manifest_key(process) not in world.store.objects
    assert len(world.left_of(process)) == 3
    assert any(key.startswith("objects/module") for key in world.store.objects)
    world.now_s += GRACE_S
    assert world.run(world.sweeper().sweep(nobody)).removed == [(process, 2000)]


def test_objects_stay_while_a_manifest_can_not_be_read(world):
    process, other = world.process(), world.process()
    world.push(process, other)
    world.store.objects[manifest_key(process)] = (b"{}", '"x"')
    world.now_s += GRACE_S
    with pytest.raises(LogError, match=f"{process}.json: can't be read"):
        world.run(world.sweeper().sweep(everybody, now=True))
    assert world.left_of(other) == []
    assert any(key.startswith("objects/module") for key in world.store.objects)
    assert not world.run(read_flag(world.store)).running
    with pytest.raises(LogError):
        world.run(world.sweeper().delete(process))
    world.run(world.sweeper().delete(process, force=True))
    assert len(world.left_of(process)) == 3


# ---- the flag


def test_one_sweeps_at_a_time_and_a_dead_one_is_not_waited_for(world):
    async def flag(running):
        before = await read_flag(world.store)
        return await write_flag(world.store, before, running=running, node="other", random=world.random)

    world.run(flag(running=True))
    with pytest.raises(ConflictError, match="other sweeps it"):
        world.run(world.sweeper().sweep(nobody))
    with pytest.raises(SweptError):
        world.push(world.process())
    world.now_s += DEAD_S
    world.run(world.sweeper().sweep(nobody))
    world.push(*world.home.rows)


def test_an_uploader_ends_a_flag_that_nobody_changes(world):
    now_s = 0.0

    async def work():
        nonlocal now_s
        before = await read_flag(world.store)
        await write_flag(world.store, before, running=True, node="other", random=world.random)
        presence = Presence(world.store, node="here", clock=lambda: now_s, random=world.random)
        for _ in range(2):
            with pytest.raises(SweptError):
                await presence.mark()
            now_s = DEAD_S - 1
        now_s = DEAD_S
        mark = await presence.mark()
        presence.note("key", mark)
        assert presence.holds("key", mark)
        assert not (await read_flag(world.store)).running
        await write_flag(world.store, await read_flag(world.store), running=False, node="x", random=world.random)
        assert await presence.mark(10.0) == mark
        assert await presence.mark() != mark
        assert not presence.holds("key", mark)

    world.run(work())


def test_a_sweep_that_takes_too_long_leaves_the_rest_to_the_next(world):
    for _ in range(3):
        world.push(world.process())
    world.now_s += GRACE_S

    def choose(processes):
        world.now_s += SWEEP_S_MAX - 15
        return list(processes)

    done = world.run(world.sweeper().sweep(choose))
    assert done.is_cut
    assert 0 < len(done.deleted) <= 3
    assert not done.objects
    assert not world.run(read_flag(world.store)).running


def test_a_sweep_whose_flag_is_gone_removes_nothing(world):
    """Somebody took it for dead."""
    world.push(world.process())
    world.run(world.sweeper().sweep(everybody, now=True))
    world.now_s += GRACE_S

    def choose(_processes):
        del world.store.objects[FLAG]
        return []

    done = world.run(world.sweeper().sweep(choose))
    assert (done.objects, done.is_cut) == ([], True)


def test_a_store_without_conditions_is_not_swept(world):
    world.store.conditional = False
    with pytest.raises(RemoteError, match="ignores conditions"):
        world.run(world.sweeper().sweep(nobody))


# ---- whatever is cut off


@pytest.mark.parametrize("is_done", [True, False])
def test_what_is_cut_off_is_completed_by_the_next_sweep(tmp_path, is_done):
    """After each request of a deletion and a sweep: done with its answer lost, or not done."""
    for number in range(100):
        world = World(tmp_path / str(number))
        gone, kept = world.process(), world.process()
        world.push(gone, kept)
        begun = len(world.store.requests)

        def fault(*_, world=world, begun=begun, number=number):
            behind = len(world.store.requests) - begun - 1 - number
            return "lost" if is_done and behind == 0 else TransientError("s3: cut") if behind >= 0 else None

        async def work(world=world, gone=gone):
            await world.sweeper().delete(gone)
            world.now_s += GRACE_S
            await world.sweeper().sweep(nobody)

        world.store.fault = fault
        try:
            world.run(work())
            cut = len(world.store.requests) - begun > number
        except RemoteError:
            cut = True
        world.store.fault = lambda *_: None
        world.check_segments()
        assert not world.missing()
        was_begun = any(key.startswith(DELETED) for key in world.store.objects)
        world.now_s += DEAD_S
        for _ in range(3):
            world.run(world.sweeper().sweep(nobody))
            world.now_s += GRACE_S
        assert not was_begun or world.left_of(gone) == []
        assert len(world.left_of(gone)) in (0, 3)
        assert len(world.left_of(kept)) == 3
        assert not world.missing()
        if not cut:
            assert world.left_of(gone) == []
            return
    raise AssertionError("it takes more requests than was thought of")


# ---- beside those who send and read


async def reading(world):
    """Opens what it finds, reads all of it, and is disturbed in the grace period by nobody."""
    for _ in range(3):
        keys = [info.key async for info in world.store.list(MANIFESTS)]
        ids = [process for key in keys if (process := process_of(key, MANIFESTS))]
        if not ids:
            continue
        process = world.random.choice(ids)
        try:
            manifest = decode_manifest(await world.store.get(manifest_key(process)), process)
        except NotFoundError:
            continue
        opened_s = world.now_s
        names = [*segment_keys(manifest), *named_keys(manifest)] if world.is_verified(process) else []
        for key in names:
            try:
                await world.store.get(key)
            except NotFoundError:
                assert world.now_s - opened_s >= GRACE_S - 1, key


async def sweeping(world):
    for _ in range(3):
        try:
            await world.sweeper().sweep(nobody)
        except ConflictError:
            world.now_s += 5
        world.now_s += world.random.choice((0, 10, 40))


async def deleting(world, process):
    await world.sweeper().delete(process)


def disturb(tmp_path, seed):
    """Sends processes whose objects nobody else names any more, while all is swept; what is missing in the end."""
    world = World(tmp_path / str(seed), seed)
    old = [world.process() for _ in range(2)]
    world.push(*old)
    world.run(world.sweeper().delete(old[0]))
    world.now_s += GRACE_S
    if seed % 3:
        world.run(world.sweeper().remove(old[0]))
    new = [world.process(0), world.process()]
    if seed % 2:
        world.lose(new[0])
        world.now_s += GRACE_S

    async def sending():
        made = world.uploader()
        while True:
            try:
                return await made.push(new)
            except SweptError:
                continue

    world.interleave(sending(), sweeping(world), sweeping(world), deleting(world, old[1]), reading(world))
    assert all(world.is_verified(process) for process in new)
    return world.missing()


@pytest.mark.usefixtures("inline")
def test_what_is_named_is_there_in_whatever_order(tmp_path):
    for seed in range(ORDERS):
        assert not disturb(tmp_path, seed), seed


async def not_looking(self, item, process, mark):
    """An uploader that doesn't look at the flag after its manifest."""
    item.is_verified = True
    self._save(item)


async def without_memory(self, age_s_max=0.0):
    """One that looks only whether somebody sweeps now, not whether somebody did meanwhile."""
    flag = await read_flag(self._store)
    if flag.running:
        raise SweptError("swept")
    self._flag = flag
    return ""


async def not_sending(*_):
    """One that looks at objects alone."""


@pytest.mark.parametrize("mutant", [{"_verify": not_looking}, {"_send_again": not_sending}])
@pytest.mark.usefixtures("inline")
def test_an_uploader_that_does_not_look_behind_its_manifest_is_caught(tmp_path, monkeypatch, mutant):
    for name, method in mutant.items():
        monkeypatch.setattr(Uploader, name, method)

    def is_caught(seed):
        try:
            return bool(disturb(tmp_path, seed))
        except AssertionError:
            return True

    assert any(is_caught(seed) for seed in range(ORDERS))


@pytest.mark.parametrize("looks_back", [True, False])
def test_a_sweep_between_the_look_at_objects_and_the_manifest_is_noticed(world, monkeypatch, looks_back):
    """Though it is over by then; who looked only whether somebody sweeps now would lose objects."""
    if not looks_back:
        monkeypatch.setattr(Presence, "mark", without_memory)
    old, new = world.process(), world.process()
    world.push(old)
    world.run(world.sweeper().sweep(everybody, now=True))
    world.now_s += GRACE_S
    swept = []

    async def turn(operation, key):
        world.now_s += 1
        if (operation, key) == ("put", manifest_key(new)) and not swept:
            swept.append(key)
            assert (await world.sweeper().sweep(nobody)).objects

    world.store.turn = turn
    world.push(new)
    assert bool(world.missing()) is not looks_back


def test_a_daemon_that_dies_behind_its_manifest_looks_again(world):
    """What was swept meanwhile is sent by the next one."""
    old, new = world.process(), world.process()
    world.push(old)
    world.run(world.sweeper().sweep(everybody, now=True))
    world.now_s += GRACE_S
    world.store.fault = lambda operation, key: RemoteError("died") if manifest_key(new) in world.store.objects else None
    with pytest.raises(RemoteError, match="died"):
        world.push(new)
    world.store.fault = lambda *_: None
    assert not world.is_verified(new)
    for key in named_keys(world.manifests()[0]):
        del world.store.objects[key]
    world.push(new)
    assert not world.missing()
    assert world.is_verified(new)
    assert deleted_key(new) not in world.store.objects


@pytest.mark.usefixtures("inline")
def test_who_is_told_that_a_process_is_held_finds_it_there(tmp_path):
    """In whatever order it is deleted meanwhile; and a process that isn't held goes."""
    held = 0
    for seed in range(ORDERS):
        world = World(tmp_path / str(seed), seed)
        process = world.process()
        world.push(process)
        told = []

        async def holding(world=world, process=process, told=told):
            with contextlib.suppress(RemoteError):
                told.append(await relabel_stored(world.store, process, {"hold": "case"}, ()))

        async def deleting(world=world, process=process):
            with contextlib.suppress(ProcessStateError):
                await world.sweeper().delete(process)

        world.interleave(holding(), deleting(), sweeping(world))
        if told and told[0] is not None:
            held += 1
            assert [each.process.held for each in world.manifests()] == ["case"], seed
            world.run(world.sweeper().sweep(everybody, now=True))
            assert not world.missing()
        else:
            world.run(world.sweeper().sweep(everybody, now=True))
    assert 0 < held < ORDERS


def test_a_hold_that_somebody_else_has_set_stays(world):
    """An uploader never takes it off, and is done with it."""
    process = world.home.add(ProcessState.RUNNING)
    world.home.seal(process, 0)
    world.push(process)
    assert dict(world.run(relabel_stored(world.store, process, {"hold": ""}, ()))) == {"hold": ""}
    world.home.seal(process, 1)
    world.home.end(process)
    world.push(process)
    (manifest,) = world.manifests()
    assert (manifest.complete, manifest.process.held, len(manifest.segments)) == (True, "", 2)
    assert is_stored(world.home.directory(process), world.home.process(process), CONFIG)
