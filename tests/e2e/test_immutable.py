"""Immutable mounts: what a guest reads there is kept once, in a tree, and not copied into its log."""

import hashlib
import json
import shutil
import zlib
from pathlib import Path
from random import Random

import pytest

from tests.e2e.cli import Cli, guest, kill9, wait_for
from timecraftd.recorder.reader import read_log

FILE_BYTES = 10 << 20
LOG_BYTES_MAX = 100 << 10
STEP_BYTES = 64 << 10


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A directory with a file that doesn't compress."""
    data = tmp_path / "data"
    (data / "dir").mkdir(parents=True)
    (data / "dir" / "big").write_bytes(Random(1).randbytes(FILE_BYTES))
    (data / "link").symlink_to("dir/big")
    return data


def read(cli: Cli, data: Path, *args: str, name: str = "dir/big") -> tuple[str, bytes]:
    """Runs a guest that reads a file of an immutable mount; the process and what it printed."""
    process, done = cli.run("--dir", f"{data}:/data:immutable", guest("readfile"), *args, f"/data/{name}")
    return process, done.stdout


def tree_dir(cli: Cli) -> Path:
    """The one tree that there is."""
    (tree,) = (path for path in (cli.home / "trees").iterdir() if len(path.name) == 64)
    return tree


def log_bytes(cli: Cli, process: str) -> int:
    return sum(path.stat().st_size for path in cli.segments(process))


def checksum_of(data: Path) -> str:
    return f"{zlib.crc32((data / 'dir' / 'big').read_bytes()):08x}"


@pytest.mark.parametrize("name", ["dir/big", "link"])
def test_the_log_is_small_and_needs_the_directory_no_more(cli: Cli, data: Path, name: str):
    """Replays read the tree: what became of the directory makes no difference."""
    checksum = checksum_of(data)
    process, out = read(cli, data, name=name)
    assert checksum in out.decode()
    assert log_bytes(cli, process) < LOG_BYTES_MAX
    (data / "dir" / "big").write_bytes(b"something else")
    assert cli.replay(process).stdout == out
    shutil.rmtree(data)
    assert cli.replay(process).stdout == out
    assert "the same to the end" in cli.replay(process, "--verify").out
    references = [record.reference for record in read_log(cli.process_dir(process) / "log") if record.reference]
    assert sum(reference.length for reference in references) == FILE_BYTES
    assert {(reference.mount, reference.path) for reference in references} == {(0, b"dir/big")}


def test_a_run_sees_the_directory_as_it_is_when_it_starts(cli: Cli, data: Path):
    """A change makes another tree; the first one stays what it was."""
    first, before = read(cli, data)
    (data / "dir" / "big").write_bytes(Random(2).randbytes(FILE_BYTES))
    second, after = read(cli, data)
    assert before != after
    assert (cli.replay(first).stdout, cli.replay(second).stdout) == (before, after)
    assert len(cli("get", "tree", "-q").out.split()) == 2


def test_a_single_file_is_mounted_in_a_directory(cli: Cli, data: Path):
    """`--dir FILE:GUEST:immutable` shows FILE beneath GUEST, and nothing that lies beside it."""
    (data / "dir" / "secret").write_text("x")
    process, out = read(cli, data / "dir" / "big", name="big")
    assert checksum_of(data) in out.decode()
    assert [path.name for path in tree_dir(cli).iterdir()] == ["big"]
    assert cli.replay(process).stdout == out


def test_nothing_can_be_written(cli: Cli, data: Path):
    """Not even a new file, and the tree is what it was."""
    done = cli.run("--dir", f"{data}:/data:immutable", guest("counter"), "/data/out", code=1)[1]
    assert "Read-only file system" in done.stderr
    assert "FAIL" not in cli("doctor").out


def test_traces_show_bytes_or_where_they_were(cli: Cli, data: Path):
    """As text and as JSON."""
    (data / "dir" / "big").write_text("in clear text\n" * 1000)
    process, _ = read(cli, data)
    shown = '{"in clear text\\nin clear text\\nin c"..., 65536}'
    assert shown in cli("trace", "syscall", process, "--call", "fd_read").out
    assert "in clear text" in cli("export", "log", process).out
    shutil.rmtree(tree_dir(cli))
    assert "{<dir/big+0>, 65536}" in cli("trace", "syscall", process, "--call", "fd_read").out


def test_lost_and_changed_files_are_named(cli: Cli, data: Path):
    """A replay never delivers other bytes than those that were read; running again brings the tree back."""
    process, out = read(cli, data)
    tree = tree_dir(cli)
    file = tree / "dir" / "big"
    file.chmod(0o600)
    with file.open("r+b") as damaged:
        damaged.seek(FILE_BYTES // 2)
        damaged.write(b"damaged")
    said = cli.replay(process, code=125).stderr
    assert f"refers to {file}: has changed since the guest read it; import it again from an export" in said
    assert f"{file} isn't as it was" in cli("doctor", code=1).out
    assert "isn't as it was" in cli("export", "process", process, "-o", "-", code=125).stderr
    assert read(cli, data)[1] == out
    assert cli.replay(process).stdout == out
    shutil.rmtree(tree)
    said = cli.replay(process, code=127).stderr
    assert f"process {process}: tree {tree.name[:12]}: is not in the store; import the process from an export" in said
    assert json.loads(cli("describe", "process", process, "-o", "json").stdout)["replayable"] is False
    assert read(cli, data)[1] == out
    assert cli.replay(process).stdout == out


def test_an_exported_process_brings_its_trees(cli: Cli, data: Path, tmp_path: Path):
    """And is replayed where neither directory nor tree ever was."""
    process, out = read(cli, data)
    cli("export", "process", process, "-o", tmp_path / "process.tgz")
    shutil.rmtree(data)
    shutil.rmtree(cli.home / "trees")
    there = Cli(tmp_path / "there")
    there("import", tmp_path / "process.tgz")
    assert there.replay(process).stdout == out
    (tree,) = json.loads(there("get", "tree", "-o", "json").stdout)
    assert tree["size_bytes"] > FILE_BYTES
    assert "FAIL" not in there("doctor").out
    digest = hashlib.sha256((tree_dir(there) / "dir" / "big").read_bytes()).hexdigest()
    assert digest in there("describe", "tree", tree["id"]).out
    assert f"(immutable, tree {tree['id'][:12]})" in there("describe", "process", process).out


def test_prune_removes_trees_that_nothing_mounts(cli: Cli, data: Path):
    """Not before the last process that needs one is gone."""
    first, _ = read(cli, data)
    second, out = read(cli, data)
    cli("rm", first)
    assert "tree" not in cli("prune").out
    assert cli.replay(second).stdout == out
    cli("rm", second)
    assert f"tree {tree_dir(cli).name}" in cli("prune").out
    assert [path.name for path in (cli.home / "trees").iterdir() if path.name[0] != "."] == []


def test_a_killed_process_goes_on_in_the_middle_of_a_file(cli: Cli, data: Path):
    """Its place in the file is found again, though the directory is gone."""
    command = ["--dir", f"{data}:/data:immutable", guest("readfile"), "-step", "/data/dir/big"]
    host = cli.start("run", *command, stdin=-1)
    process = host.stderr.readline().decode().strip()
    steps = [host.stdout.readline()]
    host.stdin.write(b"xx")
    host.stdin.flush()
    steps += [host.stdout.readline(), host.stdout.readline()]
    kill9(host)
    expected = [b"%08x\n" % zlib.crc32((data / "dir" / "big").read_bytes()[: STEP_BYTES * n]) for n in (1, 2, 3)]
    assert steps == expected
    checksum = checksum_of(data)
    shutil.rmtree(data)
    out = cli("resume", process, stdin=b"x" * 200).stdout
    assert out.endswith(f"{FILE_BYTES} bytes, 160 reads, crc32 {checksum}\n".encode())
    assert cli.replay(process).stdout.endswith(out[-60:])
    assert log_bytes(cli, process) < LOG_BYTES_MAX


def test_what_a_killed_run_left_of_a_tree_harms_nobody(cli: Cli, tmp_path: Path):
    """Trees appear whole or not at all."""
    data = tmp_path / "data"
    data.mkdir()
    (data / "a").write_bytes(b"a" * 1000)
    with (data / "z").open("wb") as file:
        file.truncate(1 << 30)
    host = cli.start("run", "--dir", f"{data}:/data:immutable", guest("readfile"), "/data/a")
    wait_for(lambda: list((cli.home / "trees").glob(".draft-*/z")), "a tree in the making")
    kill9(host)
    assert [path.name[:7] for path in (cli.home / "trees").iterdir()] == [".draft-"]
    with (data / "z").open("wb") as file:
        file.truncate(1000)
    process, out = read(cli, data, name="a")
    assert cli.replay(process).stdout == out
    cli("prune")
    assert not list((cli.home / "trees").glob(".draft-*"))
    assert "FAIL" not in cli("doctor").out


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ("/etc/passwd", "is a symbolic link that leads outside; remove it, or mount it as ro"),
        ("../../secret", "is a symbolic link that leads outside"),
    ],
)
def test_links_that_lead_outside_are_refused(cli: Cli, data: Path, target: str, says: str):
    """Before anything runs."""
    (data / "dir" / "escape").symlink_to(target)
    refused = cli("run", "--dir", f"{data}:/data:immutable", guest("hello"), code=125)
    assert f"mount {data}/dir/escape: {says}" in refused.stderr
    assert cli("ps", "-aq").out == ""
