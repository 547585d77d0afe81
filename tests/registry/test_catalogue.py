"""The catalogue and how things are found in it."""

from __future__ import annotations

import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from timecraftd.errors import AmbiguousIdError, NotFoundError, StateBusyError, StateError, StateVersionError
from timecraftd.model import Digest, ProcessRecord, ProcessState, new_process_id
from timecraftd.registry.catalogue import Catalogue, resolve_digest

T0 = 1_800_000_000_000_000_000


def make(number: int, **changes: object) -> ProcessRecord:
    """A process; later numbers are later processes."""
    process = ProcessRecord(
        id=new_process_id(T0 + number * 1_000_000, number.to_bytes(10, "big")),
        name="",
        module=Digest("a" * 64),
        module_name="m.wasm",
        config=Digest("b" * 64),
        runtime=Digest("c" * 64),
        state=ProcessState.EXITED,
        created_ns=T0,
        started_ns=T0,
    )
    return replace(process, **changes)


@pytest.fixture
def catalogue(tmp_path):
    """An empty catalogue."""
    catalogue = Catalogue(str(tmp_path / "catalogue.db"))
    yield catalogue
    catalogue.close()


def test_rows_come_back_as_they_went(catalogue):
    """All fields, None too."""
    process = make(1, name="web", exit_code=3, ended_ns=T0 + 5, last_seq=None, recorded=False, message="a'b")
    catalogue.insert(process)
    assert catalogue.get(process.id) == process
    catalogue.update(process.id, state=ProcessState.CRASHED, exit_code=None)
    assert catalogue.get(process.id) == replace(process, state=ProcessState.CRASHED, exit_code=None)
    catalogue.delete(process.id)
    with pytest.raises(NotFoundError):
        catalogue.get(process.id)


def test_newest_first(catalogue):
    """Ids sort by time."""
    for number in (3, 1, 2):
        catalogue.insert(make(number, state=ProcessState.RUNNING if number == 1 else ProcessState.EXITED))
    assert [process.id for process in catalogue.processes()] == [make(n).id for n in (3, 2, 1)]
    assert catalogue.processes(running_only=True) == [make(1, state=ProcessState.RUNNING)]
    assert [process.id for process in catalogue.created_since(T0 + 2_000_000)] == [make(n).id for n in (2, 3)]


def test_resolve(catalogue):
    """By id, name and unique prefix."""
    one, two = make(1, name="web"), make(2, name="web")
    far = make(10**9)
    for process in (one, two, far):
        catalogue.insert(process)
    assert catalogue.resolve(one.id.upper()) == one
    assert catalogue.resolve("web") == two
    assert catalogue.resolve(far.id[:8]) == far
    with pytest.raises(AmbiguousIdError, match=f"fits several: {one.id} .*{two.id}.*; give more of the id"):
        catalogue.resolve(one.id[:8])
    with pytest.raises(NotFoundError, match="did you mean web"):
        catalogue.resolve("wen")
    with pytest.raises(NotFoundError, match="at least 4 characters"):
        catalogue.resolve("01a")
    with pytest.raises(NotFoundError, match="there is no such process"):
        catalogue.resolve("%' OR 1=1 --")


def test_short_ids_are_unique(catalogue):
    """Two processes of one millisecond get longer ones."""
    first = make(1)
    second = replace(first, id=new_process_id(T0 + 1_000_000, (1 << 40).to_bytes(10, "big")))
    third = make(5)
    for process in (first, second, third):
        catalogue.insert(process)
    assert catalogue.short_id(third.id) == third.id[:13]
    for process in (first, second, third):
        assert catalogue.resolve(catalogue.short_id(process.id)) == process


def test_an_older_schema_is_brought_up_to_date(tmp_path):
    """What was there stays, with what it didn't have left empty."""
    path = str(tmp_path / "catalogue.db")
    old = Catalogue(path)
    old.insert(make(1, name="web"))
    old.close()
    database = sqlite3.connect(path)
    database.executescript("ALTER TABLE processes DROP COLUMN labels; PRAGMA user_version = 1")
    database.close()
    new = Catalogue(path)
    assert new.processes() == [make(1, name="web")]
    new.update(make(1).id, labels=(("hold", "case"),))
    assert new.get(make(1).id).held == "case"
    new.close()


def test_a_newer_schema_is_refused(tmp_path):
    """Both versions are named, and nothing is changed."""
    path = str(tmp_path / "catalogue.db")
    Catalogue(path).close()
    database = sqlite3.connect(path)
    database.execute("PRAGMA user_version = 9")
    database.close()
    with pytest.raises(StateVersionError, match="has schema 9, this Timecraft knows 2"):
        Catalogue(path)


def test_a_file_that_is_no_database(tmp_path):
    """Told, not overwritten."""
    path = tmp_path / "catalogue.db"
    path.write_bytes(b"not a database" * 100)
    with pytest.raises(StateError, match="file is not a database"):
        Catalogue(str(path))
    assert path.read_bytes().startswith(b"not a database")


def test_a_locked_catalogue_is_told(tmp_path):
    """After the patience is over."""
    path = str(tmp_path / "catalogue.db")
    catalogue = Catalogue(path, busy_timeout_s=0.01)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StateBusyError, match="another process keeps it locked"):
        catalogue.insert(make(1))
    other.execute("ROLLBACK")
    other.close()
    catalogue.insert(make(1))
    catalogue.close()


def test_many_create_it_at_once(tmp_path):
    """The first runs on a machine may start together."""
    count = 8
    barrier = threading.Barrier(count)

    def create(path):
        barrier.wait()
        Catalogue(str(path)).close()

    with ThreadPoolExecutor(count) as pool:
        for number in range(40):
            list(pool.map(create, [tmp_path / f"{number}.db"] * count))


def test_an_id_twice_is_an_error(catalogue):
    """Ids are unique."""
    catalogue.insert(make(1))
    with pytest.raises(StateError):
        catalogue.insert(make(1))


def test_ids_are_uuids_in_order_of_time():
    """Version 7, variant 2."""
    early, late = new_process_id(T0, b"\xff" * 10), new_process_id(T0 + 1_000_000, b"\0" * 10)
    assert early < late
    assert (early[14], early[19]) == ("7", "b")


def test_digests_by_prefix_and_name():
    """With the same errors as processes."""
    digests = [Digest("abcd" + "0" * 60), Digest("abce" + "0" * 60)]
    assert resolve_digest("module", "abcd", digests, {}) == digests[0]
    assert resolve_digest("module", "x.wasm", digests, {"x.wasm": digests[1]}) == digests[1]
    with pytest.raises(NotFoundError):
        resolve_digest("module", "abc", digests, {})
    with pytest.raises(AmbiguousIdError):
        resolve_digest("module", "0000", [Digest("0000" + "1" * 60), Digest("0000" + "2" * 60)], {})
