"""Exported processes, honest and hostile."""

from __future__ import annotations

import io
import json
import os
import shutil
import tarfile
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from tests.testing import FakeNative, make_runtime, module
from timecraftd.embedded import Runtime
from timecraftd.engine.request import RunRequest
from timecraftd.engine.spec import MountSpec
from timecraftd.errors import ArchiveError, ObjectDamagedError, ProcessStateError
from timecraftd.model import Digest, ProcessState
from timecraftd.registry.archive import INDEX_NAME, ArchiveBounds, export_process, import_process
from timecraftd.running import Streams

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


@pytest.fixture
def mounting(tmp_path: Path) -> Runtime:
    """A runtime with one process that has an immutable mount."""
    data = tmp_path / "data"
    (data / "dir").mkdir(parents=True)
    for name in ("a", "b", "dir/a"):
        (data / name).write_text("c" if name == "b" else "text")
    (data / "dir" / "link").symlink_to("../b")
    runtime = make_runtime(tmp_path / "here", FakeNative())
    mounts = (MountSpec(str(data), "/data", read_only=True, tree=""),)
    runtime.start(module(), "m.wasm", RunRequest(args=(b"m",), mounts=mounts), Streams(), None).wait()
    shutil.rmtree(data)
    return runtime


@pytest.mark.parametrize("compress", [False, True])
def test_a_process_travels(here, there, compress):
    """And replays on the other machine."""
    process = imported(there, exported(here, compress=compress))
    original = here.processes()[0]
    assert there.process(process.id) == replace(original, pid=0, boot_id="", imported=True)
    assert there.engine.replay(there.replay_spec(process)).wait().kind == "exit"


def test_trees_travel_along(mounting, there):
    """Files that are alike once; with times and links, and checked."""
    archive = exported(mounting)
    assert len([name for name in unpacked(archive) if name.startswith("blobs/")]) == 2
    process = imported(there, archive)
    (tree,) = there.trees_of(process)
    there.registry.trees.check(Digest(os.path.basename(tree)))
    assert Path(tree, "dir", "link").read_text() == "c"
    assert there.replay_spec(process).trees == (tree,)
    assert not [name for name in os.listdir(os.path.dirname(tree)) if name.startswith(".draft")]
    (before,) = mounting.trees_of(process)
    assert os.path.basename(before) == os.path.basename(tree)


def test_a_tree_that_is_damaged_here_is_mended_by_an_import(mounting, there):
    """And a damaged one does not leave."""
    archive = exported(mounting)
    process = imported(there, archive)
    (tree,) = there.trees_of(process)
    Path(tree, "a").unlink()
    with pytest.raises(ObjectDamagedError, match="a isn't as it was"):
        exported(there)
    there.remove(process)
    imported(there, archive)
    assert Path(tree, "a").read_text() == "text"


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


def blob(files: Files, text: bytes) -> str:
    """The name of a tree's file by what it holds."""
    return next(name for name, data in files.items() if name.startswith("blobs/") and data == text)


def relisted(files: Files, changes: dict[str, bytes | None]) -> bytes:
    """An archive whose index lists other members: new ones, and none of those that are None."""
    index = json.loads(files[INDEX_NAME])
    index["members"] = [item for item in index["members"] if item["name"] not in changes]
    kept = {name: data for name, data in files.items() if name not in changes}
    for name, data in changes.items():
        if data is not None:
            kept[name] = data
            index["members"].append({"name": name, "size_bytes": len(data), "sha256": sha256(data).hexdigest()})
    return packed({**kept, INDEX_NAME: json.dumps(index).encode()})


def with_manifest(files: Files, change: Callable[[dict[str, Any]], object]) -> bytes:
    """An archive with another tree, which process, config and index agree about."""
    (name,) = (name for name in files if name.startswith("objects/tree/"))
    manifest = json.loads(files[name])
    change(manifest)
    data = json.dumps(manifest, sort_keys=True, separators=(",", ":")).encode()
    old, new = name.rpartition("/")[2], sha256(data).hexdigest()
    (config_name,) = (name for name in files if name.startswith("objects/config/"))
    config = files[config_name].replace(old.encode(), new.encode())
    index = json.loads(files[INDEX_NAME])
    index["process"]["config"] = sha256(config).hexdigest()
    changed = {config_name: None, name: None, f"objects/config/{sha256(config).hexdigest()}": config}
    return relisted({**files, INDEX_NAME: json.dumps(index).encode()}, changed | {f"objects/tree/{new}": data})


HOSTILE_TREES: dict[str, tuple[Callable[[Files], bytes], str]] = {
    "manifest missing": (
        lambda f: relisted(f, {next(name for name in f if name.startswith("objects/tree/")): None}),
        "is missing",
    ),
    "manifest too many": (lambda f: relisted(f, {f"objects/tree/{sha256(b'x').hexdigest()}": b"x"}), "aren't those of"),
    "file missing": (lambda f: relisted(f, {blob(f, b"c"): None}), "aren't those of the process's trees"),
    "file too many": (lambda f: relisted(f, {f"blobs/{sha256(b'x').hexdigest()}": b"x"}), "aren't those of"),
    "file misnamed": (lambda f: relisted(f, {f"blobs/{'0' * 64}": b"x"}), "isn't named by its digest"),
    "file is a path": (lambda f: relisted(f, {"blobs/../x": b"x"}), "isn't expected"),
    "other bytes": (lambda f: packed({**f, blob(f, b"c"): b"d"}), "don't match its digest"),
    "path leads outside": (
        lambda f: with_manifest(f, lambda m: m["files"].update({"../x": m["files"].pop("b")})),
        "manifest isn't what",
    ),
    "link leads outside": (lambda f: with_manifest(f, lambda m: m["links"].update(x="../x")), "manifest isn't what"),
    "link in place of a directory": (
        lambda f: with_manifest(f, lambda m: m.update(directories=[], links={"dir": "."})),
        "manifest isn't what",
    ),
    "wrong size": (
        lambda f: with_manifest(f, lambda m: m["files"]["b"].update(size=2)),
        "aren't those of its manifest",
    ),
    "unknown field": (lambda f: with_manifest(f, lambda m: m.update(x=1)), "aren't those of its manifest"),
}


@pytest.mark.parametrize("case", HOSTILE_TREES)
def test_hostile_trees_leave_no_trace(mounting, there, tmp_path, case):
    """Nothing is believed of a tree but what its bytes prove."""
    make, says = HOSTILE_TREES[case]
    archive = make(unpacked(exported(mounting)))
    assert there.processes() == []
    with pytest.raises(ArchiveError, match=says):
        imported(there, archive)
    assert there.processes() == []
    assert os.listdir(there.registry.home.processes_dir) == []
    made = Path(there.registry.home.path, "trees")
    assert not made.exists() or os.listdir(made) == []
    assert sorted(os.listdir(tmp_path)) == ["here", "there"]


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
