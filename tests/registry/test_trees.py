"""Trees: what they hold, what they refuse, and that they are made only when something changed."""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.testing import FakeClock
from timecraftd.errors import MountError, NotFoundError, ObjectDamagedError, StateError
from timecraftd.model import Digest, ObjectKind
from timecraftd.registry import trees as module
from timecraftd.registry.objects import ObjectStore
from timecraftd.registry.trees import TREE_BYTES_MAX, Trees, mounted_trees, read_manifest, tree_bytes

HOUR_NS = 3600 * 10**9


@pytest.fixture
def trees(tmp_path: Path) -> Trees:
    """An empty store, an hour from now: all that tests write is old."""
    clock = FakeClock(os.stat(tmp_path).st_ctime_ns + HOUR_NS)
    return Trees(str(tmp_path / "home" / "trees"), ObjectStore(str(tmp_path / "home" / "objects")), clock)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A directory of everything that a tree may hold."""
    source = tmp_path / "source"
    (source / "dir" / "empty").mkdir(parents=True)
    (source / "file").write_bytes(b"text")
    (source / "dir" / "file").write_bytes(b"other")
    (source / "dir" / "näme").write_bytes(b"")
    os.symlink("../file", source / "dir" / "link")
    os.symlink("dir", source / "also")
    os.symlink("nowhere", source / "dangling")
    os.utime(source / "file", ns=(1, 1_600_000_000_123_456_789))
    return source


def drafts(trees: Trees) -> list[str]:
    """What isn't a tree."""
    return [name for name in os.listdir(trees._directory) if name.startswith(".draft")]


@pytest.fixture
def copies(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Paths that are copied from now on."""
    copied: list[str] = []
    copy = module._copy

    def counting(source: str, *rest: Any) -> None:
        copied.append(source)
        copy(source, *rest)

    monkeypatch.setattr(module, "_copy", counting)
    return copied


def test_a_tree_holds_what_the_directory_holds(trees, source):
    """Contents, times, links and empty directories; nothing of it can be written."""
    digest = trees.snapshot(str(source))
    made = Path(trees.path(digest))
    assert sorted(path.relative_to(made) for path in made.rglob("*")) == sorted(
        path.relative_to(source) for path in source.rglob("*")
    )
    for path in source.rglob("*"):
        copy = made / path.relative_to(source)
        if path.is_symlink():
            assert copy.readlink() == path.readlink()
        elif path.is_file():
            assert copy.read_bytes() == path.read_bytes()
            assert copy.stat().st_mtime_ns == path.stat().st_mtime_ns
            assert stat.S_IMODE(copy.stat().st_mode) == 0o400
    manifest = trees.manifest(digest)
    assert (tree_bytes(manifest), len(manifest["files"])) == (9, 3)
    assert manifest["directories"] == ["dir", "dir/empty"]
    assert manifest["links"] == {"also": "dir", "dangling": "nowhere", "dir/link": "../file"}
    trees.check(digest)
    assert drafts(trees) == []


def test_a_file_alone_is_a_tree(trees, source):
    """Under its name; through a link too."""
    digest = trees.snapshot(str(source / "file"))
    assert os.listdir(trees.path(digest)) == ["file"]
    through = trees.snapshot(str(source / "dir" / "link"))
    assert Path(trees.path(through), "link").read_bytes() == b"text"


def test_what_did_not_change_is_not_read_again(trees, source, copies):
    """Nor is the same tree made twice."""
    first = trees.snapshot(str(source))
    copied = len(copies)
    assert copied == len(list(source.rglob("*")))
    assert trees.snapshot(str(source)) == first
    assert len(copies) == copied


def rewrite(source: Path) -> None:
    """Other bytes, of the same size, with the same time of change."""
    before = (source / "file").stat()
    (source / "file").write_bytes(b"next")
    os.utime(source / "file", ns=(before.st_atime_ns, before.st_mtime_ns))


def replace(source: Path) -> None:
    """Another file in place of the old one, with the same size and time."""
    (source / "new").write_bytes(b"next")
    os.utime(source / "new", ns=(1, 1_600_000_000_123_456_789))
    os.replace(source / "new", source / "file")


def retarget(source: Path) -> None:
    """A link to something else."""
    (source / "also").unlink()
    os.symlink("dir/empty", source / "also")


@pytest.mark.parametrize(
    "change",
    [
        rewrite,
        replace,
        retarget,
        lambda source: os.utime(source / "file", ns=(1, 2)),
        lambda source: (source / "dir" / "new").write_bytes(b""),
        lambda source: (source / "dir" / "file").unlink(),
        lambda source: (source / "dir" / "empty").rmdir(),
        lambda source: (source / "dir" / "empty" / "deep").mkdir(),
    ],
)
def test_every_change_is_noticed(trees, source, change: Callable[[Path], object]):
    """Also one that leaves size and time of change as they were."""
    first = trees.snapshot(str(source))
    change(source)
    second = trees.snapshot(str(source))
    assert second != first
    trees.check(first)
    trees.check(second)


def test_what_has_just_changed_is_read_again(tmp_path, source, copies):
    """It may change again within the same tick of the file system's clock."""
    newest_ns = max(path.lstat().st_ctime_ns for path in source.rglob("*"))
    clock = FakeClock(newest_ns + module.SETTLED_NS)
    trees = Trees(str(tmp_path / "home" / "trees"), ObjectStore(str(tmp_path / "home" / "objects")), clock)
    trees.snapshot(str(source))
    trees.snapshot(str(source))
    assert len(copies) == 2 * len(list(source.rglob("*")))
    clock.advance(0.001)
    trees.snapshot(str(source))
    trees.snapshot(str(source))
    assert len(copies) == 3 * len(list(source.rglob("*")))


def test_directories_that_are_alike_share_a_tree(trees, source, tmp_path):
    """It is named by what it holds, not by where that was."""
    (source / "dir" / "link").unlink()
    (source / "dir").rename(tmp_path / "dir")
    first = trees.snapshot(str(tmp_path / "dir"))
    (tmp_path / "dir").rename(tmp_path / "moved")
    assert trees.snapshot(str(tmp_path / "moved")) == first
    assert drafts(trees) == []


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda path: path.symlink_to("/etc/passwd"), "is a symbolic link that leads outside"),
        (lambda path: path.symlink_to("../.."), "is a symbolic link that leads outside"),
        (lambda path: path.symlink_to("../../source/file"), "is a symbolic link that leads outside"),
        (lambda path: path.symlink_to(path.parent / "file"), "is a symbolic link that leads outside"),
        (os.mkfifo, "is no file, directory or symbolic link"),
        (lambda path: os.truncate(os.open(path, os.O_CREAT | os.O_RDWR), TREE_BYTES_MAX + 1), "holds more than 16 GiB"),
    ],
)
def test_what_a_tree_can_not_hold_is_refused(trees, source, make, says):
    """By name, and nothing is left."""
    make(source / "dir" / "odd")
    with pytest.raises(MountError, match=says):
        trees.snapshot(str(source))
    assert not os.path.exists(trees._directory)


def test_a_link_that_leads_outside_by_way_of_another_is_refused(trees, source):
    """`also/../x` is beneath `dir`, not beneath the root."""
    os.symlink("dir/empty", source / "deep")
    os.symlink("deep/../../../../x", source / "out")
    with pytest.raises(MountError, match="out: is a symbolic link that leads outside"):
        trees.snapshot(str(source))


def test_there_is_a_bound_on_entries(trees, source, monkeypatch):
    """Of all kinds."""
    monkeypatch.setattr(module, "TREE_ENTRIES_MAX", 7)
    with pytest.raises(MountError, match="holds more than 7 files; mount a part of it"):
        trees.snapshot(str(source))


def test_a_directory_that_is_not_there_is_told(trees, tmp_path):
    """As for other mounts."""
    with pytest.raises(MountError, match="nowhere: No such file or directory"):
        trees.snapshot(str(tmp_path / "nowhere"))


def test_a_file_that_changes_while_it_is_read_is_refused(trees, source, monkeypatch):
    """No tree holds what the directory never held."""
    write = module._write

    def changing(descriptor: int, *rest: Any) -> None:
        write(descriptor, *rest)
        (source / "file").write_bytes(b"longer text")

    monkeypatch.setattr(module, "_write", changing)
    with pytest.raises(MountError, match="file: has changed while it was read; try again"):
        trees.snapshot(str(source / "file"))
    assert drafts(trees) == []


def test_a_full_disk_leaves_nothing(trees, source, monkeypatch):
    """The next step is to make room."""

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(module, "_write", full)
    with pytest.raises(StateError, match="No space left on device; free space"):
        trees.snapshot(str(source))
    assert drafts(trees) == []


def test_many_may_make_one_tree_at_once(trees, source):
    """All get the same."""
    with ThreadPoolExecutor(8) as pool:
        digests = set(pool.map(lambda _: trees.snapshot(str(source)), range(16)))
    assert len(digests) == 1
    trees.check(digests.pop())
    assert drafts(trees) == []


def change(tree: Path) -> None:
    """A bit."""
    (tree / "file").chmod(0o600)
    (tree / "file").write_bytes(b"Text")
    os.utime(tree / "file", ns=(1, 1_600_000_000_123_456_789))


@pytest.mark.parametrize(
    ("damage", "path"),
    [
        (change, "file"),
        (lambda tree: (tree / "dir" / "file").unlink(), "dir/file"),
        (lambda tree: (tree / "new").write_bytes(b""), "new"),
        (lambda tree: (tree / "dir" / "empty").rmdir(), "dir/empty"),
        (lambda tree: (tree / "also").unlink(), "also"),
        (lambda tree: os.utime(tree / "file"), "file"),
        (lambda tree: os.mkfifo(tree / "pipe"), "pipe"),
    ],
)
def test_damage_is_seen_and_mended(trees, source, damage, path):
    """A check tells where; the next run with the directory makes the tree again."""
    digest = trees.snapshot(str(source))
    damage(Path(trees.path(digest)))
    with pytest.raises(ObjectDamagedError, match=f"tree {digest[:12]}: .*{path}"):
        trees.check(digest)
    assert trees.snapshot(str(source)) == digest
    trees.check(digest)


def test_what_was_interrupted_is_swept_away(trees, source):
    """Drafts, trees without manifest, and what is known of trees that are gone."""
    digest = trees.snapshot(str(source))
    other = trees.snapshot(str(source / "file"))
    draft = Path(trees._aside())
    (draft / "dir").mkdir(parents=True)
    os.unlink(trees._objects.path(ObjectKind.TREE, other))
    trees.sweep()
    assert sorted(os.listdir(trees._directory)) == sorted([".known", ".lock", digest])
    assert len(os.listdir(Path(trees._directory, ".known"))) == 1
    trees.remove(digest)
    trees.remove(digest)
    with pytest.raises(NotFoundError, match="is not in the store"):
        trees.require(digest)
    assert trees.snapshot(str(source)) == digest


MANIFEST: dict[str, Any] = {
    "version": 1,
    "directories": ["dir"],
    "files": {"dir/file": {"size": 4, "mtime_ns": 5, "sha256": "a" * 64}},
    "links": {"dir/link": "file"},
}


def changed(**parts: Any) -> bytes:
    """A manifest that differs."""
    return json.dumps(MANIFEST | parts).encode()


def file(**parts: Any) -> dict[str, Any]:
    """A file's entry that differs."""
    return MANIFEST["files"]["dir/file"] | parts


@pytest.mark.parametrize(
    "data",
    [
        b"{",
        b"[]",
        b"[" * 100_000,
        changed(version=2),
        changed(directories=["dir", "dir"]),
        changed(directories=["dir", ".."]),
        changed(directories=["dir", "/tmp"]),
        changed(directories=["dir", "a//b"]),
        changed(directories=["dir", 1]),
        changed(directories=[]),
        changed(files={"../x": file()}),
        changed(files={"/etc/x": file()}),
        changed(files={"dir/./x": file()}),
        changed(files={"a\0b": file()}),
        changed(files={"": file()}),
        changed(files={"dir": file()}),
        changed(files={"dir/link/x": file()}),
        changed(files={"x": file(size=-1)}),
        changed(files={"x": file(size="1")}),
        changed(files={"x": file(size=TREE_BYTES_MAX + 1)}),
        changed(files={"x": file(sha256="../../x")}),
        changed(files={"x": file(mtime_ns=1 << 62)}),
        changed(files=[]),
        changed(links={"x": "/etc/passwd"}),
        changed(links={"x": ".."}),
        changed(links={"dir/x": "../../x"}),
        changed(links={"x": ""}),
        changed(links={"x": 1}),
    ],
)
def test_hostile_manifests_are_refused(data):
    """Whatever is wrong with them."""
    assert read_manifest(changed()) == MANIFEST
    with pytest.raises(ValueError, match=r"manifest|Expecting"):
        read_manifest(data)


def test_a_tree_is_built_of_the_files_that_its_manifest_names(trees, source, tmp_path):
    """And of no others."""
    digest = trees.snapshot(str(source))
    manifest = trees.manifest(digest)
    blobs = tmp_path / "blobs"
    blobs.mkdir()
    for path, entry in manifest["files"].items():
        (blobs / entry["sha256"]).write_bytes(Path(trees.path(digest), path).read_bytes())
    trees.remove(digest)
    trees.build(digest, manifest, lambda sha256: str(blobs / sha256))
    trees.check(digest)
    trees.build(digest, manifest, lambda sha256: str(blobs / sha256))
    with pytest.raises(ValueError, match="aren't those of its manifest"):
        trees.build(Digest("0" * 64), manifest, lambda sha256: str(blobs / sha256))
    assert drafts(trees) == []


@pytest.mark.parametrize(
    "config", [b"{}", b"[]", b'{"mounts": [{"tree": "../x"}]}', b'{"mounts": [1]}', b"x", b"[" * 100_000]
)
def test_configs_that_can_not_be_are_refused(config):
    """What a config says is used as a path."""
    with pytest.raises(ValueError, match=r"trees|Expecting"):
        mounted_trees(config)
