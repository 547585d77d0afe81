"""Exported processes, honest and hostile."""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.testing import FakeNative, make_runtime, module
from timecraftd.embedded import Runtime, Streams
from timecraftd.engine.request import RunRequest
from timecraftd.errors import ArchiveError, ProcessStateError
from timecraftd.model import ProcessState
from timecraftd.registry.archive import INDEX_NAME, ArchiveBounds, export_process, import_process

BOUNDS = ArchiveBounds(1 << 20, 1 << 20, 100)
Files = dict[str, bytes]


@pytest.fixture
def here(tmp_path: Path) -> Runtime:
    """A runtime with one process."""
    runtime = make_runtime(tmp_path / "here", FakeNative())
    runtime.start(module(stdout="hello"), "hello.wasm", RunRequest(args=(b"hello",)), Streams(), None).wait()
    return runtime


@pytest.fixture
def there(tmp_path: Path) -> Runtime:
    """Another machine."""
    return make_runtime(tmp_path / "there", FakeNative())


def exported(runtime: Runtime, *, compress: bool = False) -> bytes:
    """The archive of the one process."""
    target = io.BytesIO()
    export_process(runtime.registry, runtime.processes()[0], target, compress=compress)
    return target.getvalue()


def unpacked(archive: bytes) -> Files:
    """Members by name, in order."""
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        return {header.name: tar.extractfile(header).read() for header in tar}


def packed(files: Files, **kinds: bytes) -> bytes:
    """An archive of members; `kinds` gives some another type."""
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as tar:
        for name, data in files.items():
            header = tarfile.TarInfo(name)
            header.size = len(data)
            if name in kinds:
                header.type, header.linkname, header.size = kinds[name], "/etc/passwd", 0
            tar.addfile(header, io.BytesIO(data))
    return target.getvalue()


def imported(runtime: Runtime, archive: bytes, bounds: ArchiveBounds = BOUNDS) -> Any:
    """Imports bytes."""
    return import_process(runtime.registry, io.BytesIO(archive), "x.tar", bounds)


@pytest.mark.parametrize("compress", [False, True])
def test_a_process_travels(here, there, compress):
    """And replays on the other machine."""
    process = imported(there, exported(here, compress=compress))
    original = here.processes()[0]
    assert there.process(process.id) == replace(original, pid=0, boot_id="", imported=True)
    assert there.engine.replay(there.replay_spec(process)).wait().kind == "exit"


def test_machine_bound_files_stay(here):
    """Locks and pointers to rings mean nothing elsewhere."""
    log_dir = Path(here.registry.home.log_dir(here.processes()[0].id))
    for name in ("lock", "ring", "ring.buf", "ring.new"):
        (log_dir / name).write_text("/etc/passwd")
    assert [name for name in unpacked(exported(here)) if name.startswith("log/")] == ["log/log.json"]


def test_twice_is_refused(here, there):
    """The second import changes nothing."""
    archive = exported(here)
    imported(there, archive)
    with pytest.raises(ArchiveError, match="is here already"):
        imported(there, archive)
    assert len(there.processes()) == 1


def test_a_running_process_is_not_exported(here):
    """Its log isn't whole."""
    process = replace(here.processes()[0], state=ProcessState.RUNNING)
    with pytest.raises(ProcessStateError, match="it runs"):
        export_process(here.registry, process, io.BytesIO(), compress=False)


def with_index(change: Callable[[dict[str, Any]], object]) -> Callable[[Files], bytes]:
    """A hostile archive: the index changed."""

    def make(files: Files) -> bytes:
        index = json.loads(files[INDEX_NAME])
        change(index)
        return packed({**files, INDEX_NAME: json.dumps(index).encode()})

    return make


def member(index: dict[str, Any], name: str) -> dict[str, Any]:
    """The member of the index that has a name."""
    return next(member for member in index["members"] if member["name"] == name)


def traversal(files: Files, name: str) -> bytes:
    """A member that would land elsewhere, listed as if it were honest."""
    index = json.loads(files[INDEX_NAME])
    member(index, "log/log.json")["name"] = name
    renamed = {name if key == "log/log.json" else key: data for key, data in files.items()}
    return packed({**renamed, INDEX_NAME: json.dumps(index).encode()})


HOSTILE: dict[str, tuple[Callable[[Files], bytes], str]] = {
    "not a tar": (lambda _: b"hello" * 200, "isn't a whole exported process"),
    "empty": (lambda _: b"", "isn't a whole exported process"),
    "another tar": (lambda _: packed({"a": b""}), "doesn't come first"),
    "index is a link": (lambda f: packed(f, **{INDEX_NAME: tarfile.SYMTYPE}), "doesn't come first"),
    "index is no JSON": (lambda f: packed({**f, INDEX_NAME: b"{"}), "is wrong"),
    "index is too deep": (lambda f: packed({**f, INDEX_NAME: b"[" * 100_000}), "is wrong"),
    "newer format": (with_index(lambda i: i.update(format=2)), "has format 2, this Timecraft knows 1"),
    "parent directory": (lambda f: traversal(f, "log/../../../evil"), "isn't expected"),
    "absolute": (lambda f: traversal(f, "/tmp/evil"), "isn't expected"),
    "ring pointer": (lambda f: traversal(f, "log/ring"), "isn't expected"),
    "hidden": (lambda f: traversal(f, "log/.x"), "isn't expected"),
    "process id is a path": (with_index(lambda i: i["process"].update(id="../../x")), "isn't what it should be"),
    "process runs": (with_index(lambda i: i["process"].update(state="running")), "isn't what it should be"),
    "unknown state": (with_index(lambda i: i["process"].update(state="x")), "is wrong"),
    "number is text": (with_index(lambda i: i["process"].update(created_ns="1")), "isn't what it should be"),
    "extra field": (with_index(lambda i: i["process"].update(x=1)), "other fields"),
    "process is a list": (with_index(lambda i: i.update(process=[])), "is wrong"),
    "huge member": (with_index(lambda i: member(i, "log/log.json").update(size_bytes=1 << 40)), "too big"),
    "negative member": (with_index(lambda i: member(i, "log/log.json").update(size_bytes=-1)), "too big"),
    "wrong size": (with_index(lambda i: member(i, "log/log.json").update(size_bytes=1)), "isn't what"),
    "wrong digest": (with_index(lambda i: member(i, "log/log.json").update(sha256="0" * 64)), "don't match"),
    "member twice": (with_index(lambda i: i["members"].append(i["members"][0])), "one name"),
    "object missing": (with_index(lambda i: i["members"].pop(0)), "aren't those of the process"),
    "member missing": (lambda f: packed({k: v for k, v in f.items() if k != "log/log.json"}), "is missing"),
    "member not listed": (lambda f: packed({**f, "log/more": b"x"}), "isn't what"),
    "member is a link": (lambda f: packed(f, **{"log/log.json": tarfile.SYMTYPE}), "isn't what"),
    "member is a device": (lambda f: packed(f, **{"log/log.json": tarfile.CHRTYPE}), "isn't what"),
    "truncated": (lambda f: packed(f)[:2200], "isn't a whole exported process|is missing"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_archives_leave_no_trace(here, there, tmp_path, case):
    """A clear error, and the state directory is as before."""
    make, says = HOSTILE[case]
    archive = make(unpacked(exported(here)))
    assert there.processes() == []
    with pytest.raises(ArchiveError, match=says):
        imported(there, archive)
    assert there.processes() == []
    assert os.listdir(there.registry.home.processes_dir) == []
    assert not [info for kind in ("module", "config", "runtime") for info in there.registry.objects.stored(kind)]
    assert sorted(os.listdir(tmp_path)) == ["here", "there"]


def test_bounds_hold(here, there):
    """In number and in sum."""
    archive = exported(here)
    with pytest.raises(ArchiveError, match="too many"):
        imported(there, archive, ArchiveBounds(1 << 20, 1 << 20, 2))
    with pytest.raises(ArchiveError, match="together are too big"):
        imported(there, archive, ArchiveBounds(100, 1 << 20, 100))


def test_a_damaged_object_does_not_leave(here):
    """Export verifies too."""
    process = here.processes()[0]
    Path(here.registry.objects.path("config", process.config)).write_bytes(b"{}")
    with pytest.raises(Exception, match="don't match the digest"):
        exported(here)
