"""Logs that are in a bucket only: read as those on the disk are, with few requests, by machines that never ran them."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from pathlib import Path
from random import Random

import pytest

from tests.bucket import publish
from tests.e2e.cli import Cli, guest
from tests.s3 import BUCKET, BUILD_S, ENVIRONMENT, S3, serving
from timecraftd.config import RemoteConfig
from timecraftd.model import LogSource, ProcessId
from timecraftd.recorder.fetch import Remote, RemoteLog
from timecraftd.recorder.logs import Logs, TraceQuery, load_native
from timecraftd.recorder.s3 import S3Store

pytestmark = pytest.mark.timeout(BUILD_S + 100)

MIB = 1 << 20
LARGE_BYTES = 24 * MIB


class CountingStore(S3Store):
    """Notes how much was fetched."""

    def __init__(self, config: RemoteConfig) -> None:
        super().__init__(config)
        self.fetched: list[tuple[str, int]] = []

    async def get(self, key: str, *, offset: int = 0, length: int | None = None) -> bytes:
        data = await super().get(key, offset=offset, length=length)
        self.fetched.append((key, len(data)))
        return data


@pytest.fixture(scope="module")
def s3(tmp_path_factory):
    """A server for all tests of this file; each has a prefix of its own."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in ENVIRONMENT.items():
            patch.setenv(name, value)
        with serving(tmp_path_factory.mktemp("s3")) as server:
            yield server


@pytest.fixture
def config(s3: S3, tmp_path: Path) -> RemoteConfig:
    return RemoteConfig(
        url=f"s3://{BUCKET}/{tmp_path.name}", endpoint_url=s3.endpoint, region="us-east-1", addressing="path",
        cache_bytes_max=64 * MIB,
    )  # fmt: skip


def machine(home: Path, config: RemoteConfig) -> Cli:
    """A state directory that knows the bucket."""
    cli = Cli(home)
    cli.environment |= ENVIRONMENT | {
        "TIMECRAFT_REMOTE_URL": config.url,
        "TIMECRAFT_REMOTE_ENDPOINT_URL": config.endpoint_url,
        "TIMECRAFT_REMOTE_REGION": config.region,
        "TIMECRAFT_REMOTE_ADDRESSING": config.addressing,
        "TIMECRAFT_REMOTE_CACHE_BYTES_MAX": str(config.cache_bytes_max),
    }
    return cli


def send(config: RemoteConfig, cli: Cli, process: str, **options):
    """Uploads a process."""

    async def work():
        store = S3Store(config)
        try:
            return await publish(store, cli.home, process, **options)
        finally:
            await store.close()

    return asyncio.run(work())


@pytest.fixture
def there(tmp_path: Path, config: RemoteConfig) -> Cli:
    """The machine that runs processes."""
    cli = machine(tmp_path / "there", config)
    yield cli
    cli.close()


@pytest.fixture
def here(tmp_path: Path, config: RemoteConfig) -> Cli:
    """A machine that has never seen any of them."""
    cli = machine(tmp_path / "here", config)
    yield cli
    cli.close()


def test_another_machine_reads_what_is_in_the_bucket(there: Cli, here: Cli, tmp_path: Path):
    """List, replay, trace, output, description, export: the same bytes as where it ran."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "big").write_bytes(Random(1).randbytes(300_000))
    process, run = there.run(f"--dir={tmp_path}/data:/data:immutable", guest("readfile"), "/data/big")
    shutil.rmtree(tmp_path / "data")

    assert here("ps", "-a", "-q").out == ""
    listed = json.loads(here("ps", "--remote", "-o", "json").out)
    assert [item["id"] for item in listed] == [process]
    assert here("ps", "--remote").out.splitlines()[1].startswith(process[:13])
    assert here.replay(process).stdout == run.stdout
    for command in (
        ["logs", process], ["trace", "syscall", process], ["trace", "network", process], ["export", "log", process],
        ["trace", "syscall", process, "-o", "json"],
    ):  # fmt: skip
        assert here(*command).stdout == there(*command).stdout, command
    described, known = (json.loads(cli("describe", "process", process, "-o", "json").out) for cli in (here, there))
    assert described["replayable"]
    assert described["imported"]
    assert described["store"] == {"complete": True, "segments": 1, "next_seq": known["log"]["last_seq"] + 1}
    assert described["log"] | {"bytes_raw": None} == known["log"] | {"bytes_raw": None}
    here("export", "process", process, "-o", tmp_path / "exported.tar")
    there("rm", process)
    assert there("import", tmp_path / "exported.tar").out.strip() == process
    assert there.replay(process).stdout == run.stdout
    assert not here.process_dir(process).exists(), "nothing of the log is kept but in the cache"
    assert process[:13] in here("ps", "-a").out


def test_a_log_is_read_from_the_disk_and_from_the_bucket(there: Cli, config: RemoteConfig, scratch: Path):
    """Whichever segments are gone; a shortened id will do."""
    (scratch / "data").write_bytes(Random(2).randbytes(5 * MIB))
    there.environment["TIMECRAFT_RECORD_SEGMENT_BYTES_MAX"] = str(MIB)
    process, run = there.run(f"--dir={scratch}:/data", guest("readfile"), "/data/data")
    whole = there("trace", "syscall", process).stdout
    segments = there.segments(process)
    assert len(segments) > 4
    manifest = send(config, there, process)
    for gone in (segments[:2], [segments[3]], segments[-1:], segments):
        for path in gone:
            path.unlink(missing_ok=True)
        assert there.replay(process).stdout == run.stdout
        assert there("trace", "syscall", process[:-1]).stdout == whole
    assert manifest.next_seq > 0

    there.environment["TIMECRAFT_REMOTE_URL"] += "/elsewhere"
    nowhere = there("replay", process, code=None)
    assert nowhere.code == 127
    assert "is neither in" in nowhere.stderr


def open_at(config: RemoteConfig, cache: Path, process: str, move: str, to: int) -> tuple[str, CountingStore]:
    """A record as a line of a trace, by a machine without a cache, and what it took."""
    store = CountingStore(config)
    remote = Remote(config, str(cache), store=lambda: store)
    reader = load_native().LogReader(LogSource("/nonexistent", process, RemoteLog(remote, ProcessId(process))))
    getattr(reader, move)(to)
    (line,) = reader.trace(1, json=True)
    remote.close()
    return line, store


def test_any_place_of_a_large_log_takes_three_requests(there: Cli, config: RemoteConfig, scratch: Path):
    """By record and by time; all of it in order, ahead of the reader, with requests of a MiB."""
    (scratch / "data").write_bytes(Random(3).randbytes(LARGE_BYTES))
    there.environment["TIMECRAFT_RECORD_SEGMENT_BYTES_MAX"] = str(8 * MIB)
    process, _ = there.run(f"--dir={scratch}:/data", guest("readfile"), "/data/data")
    lines = there("trace", "syscall", process, "-o", "json").out.splitlines()
    records = [json.loads(line) for line in lines]
    manifest = send(config, there, process)
    assert len(manifest.segments) >= 3
    random = Random(4)
    for turn in range(8):
        record = random.choice(records)
        move, to = (("seek_seq", record["seq"]), ("seek_time", record["time_ns"]))[turn % 2]
        found, store = open_at(config, scratch.parent / f"cache-{turn}", process, move, to)
        assert json.loads(found) == record
        assert len(store.fetched) <= 3, store.fetched
        assert sum(size for _, size in store.fetched) <= MIB, store.fetched

    store = CountingStore(config)
    cache = scratch.parent / "cache"
    remote = Remote(config, str(cache), store=lambda: store)
    source = LogSource("/nonexistent", process, RemoteLog(remote, ProcessId(process)))
    query = TraceQuery(json=True)
    traced = [line for batch in Logs().trace(source, query) for line in batch]
    assert traced == lines
    fetched = sum(size for _, size in store.fetched)
    assert fetched < 1.2 * sum(segment.size for segment in manifest.segments) + 2 * MIB
    assert len(store.fetched) < 3 * fetched / MIB
    before = len(store.fetched)
    source = LogSource("/nonexistent", process, RemoteLog(remote, ProcessId(process)))
    assert [line for batch in Logs().trace(source, query) for line in batch] == lines
    assert len(store.fetched) - before < 12, "almost all of it was kept"
    remote.close()


def test_what_is_deleted_meanwhile_is_named(there: Cli, here: Cli, s3: S3, config: RemoteConfig, scratch: Path):
    """A replay of a log whose end somebody deletes says so, and not that the log is damaged."""
    (scratch / "data").write_bytes(Random(5).randbytes(4 * MIB))
    there.environment["TIMECRAFT_RECORD_SEGMENT_BYTES_MAX"] = str(MIB)
    process, _ = there.run(f"--dir={scratch}:/data", guest("readfile"), "/data/data")
    send(config, there, process)
    logs = s3.bucket / config.url.rpartition("/")[2] / "logs" / process
    (logs / "000002.tcl").unlink()
    for command in (["replay", process], ["trace", "syscall", process], ["export", "process", process, "-o", "x"]):
        failed = here(*command, code=None, cwd=scratch)
        assert failed.code == 125
        assert f"logs/{process}/000002.tcl: is gone, somebody deleted it meanwhile" in failed.stderr


def test_a_process_that_was_lost_with_its_machine(there: Cli, here: Cli, config: RemoteConfig, scratch: Path):
    """What was uploaded of it is replayed, and it is told where that ends and why."""
    (scratch / "data").write_bytes(Random(6).randbytes(4 * MIB))
    there.environment["TIMECRAFT_RECORD_SEGMENT_BYTES_MAX"] = str(MIB)
    process, _ = there.run(f"--dir={scratch}:/data", guest("readfile"), "/data/data")
    manifest = send(config, there, process, complete=False, segments_max=2)
    replayed = here("replay", process, code=125)
    assert f"ends with record {manifest.next_seq - 1}, where what is in the bucket ends" in replayed.stderr
    assert "node there" in replayed.stderr
    assert here("ps", "-a", "-q").out == "", "it may still run: the catalogue is for what is over"
    here("logs", process)
    here("trace", "syscall", process)
    assert process[:13] in here("ps", "--remote").out


@pytest.mark.parametrize("command", [("trace", "syscall", "-f"), ("trace", "network", "-f"), ("logs", "-f")])
def test_what_runs_elsewhere_is_followed(
    there: Cli, here: Cli, config: RemoteConfig, scratch: Path, command: tuple[str, ...]
):
    """As more of it comes into the bucket, and to its end."""
    (scratch / "data").write_bytes(Random(7).randbytes(4 * MIB))
    there.environment["TIMECRAFT_RECORD_SEGMENT_BYTES_MAX"] = str(MIB)
    process, _ = there.run(f"--dir={scratch}:/data", guest("readfile"), "/data/data")
    for segments in (1, 2):
        send(config, there, process, complete=False, segments_max=segments)
        if segments == 1:
            follower = here.start(*command, process)
            if command[1] == "syscall":
                assert follower.stdout.readline()
    assert follower.poll() is None
    send(config, there, process)
    shown, told = follower.communicate(timeout=60)
    assert follower.returncode == 0, told
    assert (shown.splitlines() or [b""])[-1] == (there(*command, process).stdout.splitlines() or [b""])[-1]


def test_a_catalogue_is_made_anew(there: Cli, here: Cli, config: RemoteConfig):
    """From manifests, and from the logs that are on the disk."""
    there.environment["TIMECRAFT_REMOTE_URL"] = ""
    kept = [there.run(guest("hello"))[0] for _ in range(2)]
    there.environment["TIMECRAFT_REMOTE_URL"] = config.url
    sent = there.run("--name=sent", guest("hello"))[0]
    shutil.rmtree(there.process_dir(sent))
    for path in there.home.glob("catalogue.db*"):
        path.unlink()
    assert there("ps", "-a", "-q").out == ""
    rebuilt = there("catalogue", "rebuild").out
    assert "3 processes" in rebuilt
    assert set(there("ps", "-a", "-q", "--no-trunc").out.split()) == {*kept, sent}
    assert there.process(kept[0])["state"] == "exited"
    assert there.process("sent")["id"] == sent
    for process in (*kept, sent):
        there.replay(process)
    assert "0 processes" in there("catalogue", "rebuild").out
    (there.home / "catalogue.db").write_bytes(b"this is no database" * 1000)
    for path in there.home.glob("catalogue.db-*"):
        path.unlink()
    assert "3 processes" in there("catalogue", "rebuild").out
    assert "1 process" in here("catalogue", "rebuild").out


def test_the_cache_keeps_to_its_bound(there: Cli, here: Cli, config: RemoteConfig, scratch: Path):
    """A log larger than the cache is read, and the cache stays what it may be."""
    (scratch / "data").write_bytes(Random(7).randbytes(12 * MIB))
    process, run = there.run(f"--dir={scratch}:/data", guest("readfile"), "/data/data")
    send(config, there, process)
    here.environment["TIMECRAFT_REMOTE_CACHE_BYTES_MAX"] = str(4 * MIB)
    for _ in range(2):
        assert here.replay(process).stdout == run.stdout
        kept = sum(
            os.stat(os.path.join(folder, name)).st_size
            for folder, _, names in os.walk(here.home / "remote-cache")
            for name in names
        )
        assert 0 < kept <= 4 * MIB
