"""What is measured of logs on the disk and in a store: how fast they are written, what `sync` costs, how soon a record
in the middle of a large one is found, and how fast all of it is read. The disk alone, and plain requests, are beside.
"""

from __future__ import annotations

import asyncio
import json
import mmap
import os
import shutil
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from random import Random

ROOT = Path(__file__).resolve().parent.parent
MIB = 1 << 20
POURED_MIB = 2048
CHUNK = 64 << 10
SYNCS = 500
LINE = 100
OPENS = 50
LARGE_MIB = 1024
RECORD = 4096
GUESTS = 200
GUEST_WRITE = 4096
GUEST_PAUSE = "10ms"
SHARED_S = 10.0
PROCESS = "00000000-0000-0000-0000-000000000001"
"""Of logs that child.py records."""

# ---- writing


def written(bench) -> None:
    """One guest that writes as fast as it can, text and what can't be compressed; and the disk by itself."""
    from measures import add_log_stats, log_dir

    it, samples, log = bench.contenders, bench.samples, log_dir("log-write")
    total = bench.count(POURED_MIB) * MIB

    def turn(kind: str) -> None:
        result = it.timecraft("pour", (kind, total, CHUNK), log=log)
        stats, name = result.stats, f"log-write.{kind}"
        samples.add(name, stats["log_bytes_raw"] / MIB / (stats["run_ns"] / 1e9), "MiB/s")
        samples.add(f"{name}.compressed", stats["log_bytes_raw"] / stats["log_bytes_stored"], "x")
        add_log_stats(bench, name, result)
        shutil.rmtree(log)

    turns: dict[str, Callable[[], None]] = {kind: lambda kind=kind: turn(kind) for kind in ("text", "random")}
    turns["disk"] = lambda: samples.add("log-write.disk", disk_rate(log.parent, total), "MiB/s")
    bench.take_turns(turns, lambda: samples.ratio("log-write.random", "log-write.disk"), 3)


def disk_rate(folder: Path, total: int) -> float:
    """MiB/s of writes of a MiB past the page cache, as those of bulk data are."""
    path = folder / "disk"
    with mmap.mmap(-1, MIB) as buffer:
        buffer.write(os.urandom(MIB))
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_DIRECT, 0o600)
        try:
            begun = time.perf_counter()
            for _ in range(total // MIB):
                os.write(descriptor, buffer)
            os.fdatasync(descriptor)
            return total / MIB / (time.perf_counter() - begun)
        finally:
            os.close(descriptor)
            path.unlink()


def synced(bench) -> None:
    """Lines of a program that waits for the disk before each, those of one that doesn't, and the disk by itself."""
    from measures import log_dir

    it, samples, log = bench.contenders, bench.samples, log_dir("log-sync")
    lines = bench.count(SYNCS)

    def turn(durability: str) -> None:
        result = it.timecraft("pour", ("text", lines * LINE, LINE), log=log, durability=durability)
        samples.add(f"log-sync.{durability}", result.printed["pour"] / 1e3, "us")
        shutil.rmtree(log)

    turns: dict[str, Callable[[], None]] = {mode: lambda mode=mode: turn(mode) for mode in ("sync", "flush")}
    turns["disk"] = lambda: samples.add("log-sync.disk", sync_us(log.parent, lines), "us")
    bench.take_turns(turns, lambda: samples.ratio("log-sync.sync", "log-sync.disk"))


def sync_us(folder: Path, count: int) -> float:
    """Median of an append of one page and its fdatasync."""
    path = folder / "disk"
    spans = []
    with open(path, "wb", buffering=0) as file:
        for _ in range(count):
            begun = time.perf_counter()
            file.write(bytes(4096))
            os.fdatasync(file.fileno())
            spans.append((time.perf_counter() - begun) * 1e6)
    path.unlink()
    return statistics.median(spans)


def shared(bench) -> None:
    """Many guests of one node that write all the time, but not more than the disk takes."""
    from contenders import GUESTS as BUILT
    from network import state
    from node import METRICS_PORT, node

    from timecraftd.api.v1 import process_pb2

    guest = BUILT / "pour.wasm"
    settings = f'metrics_listen = "127.0.0.1:{METRICS_PORT}"\n[record]\nring_bytes = "4MiB"'

    def metric(name: str) -> float:
        with urllib.request.urlopen(f"http://127.0.0.1:{METRICS_PORT}/metrics") as answer:
            lines = answer.read().decode().splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(f"timecraft_{name} "))

    def turn() -> None:
        with state(bench, "pour"), node(bench, settings) as (client, _):
            module = client.upload(guest.read_bytes(), "pour.wasm")
            args = [b"pour", b"text", str(1 << 40).encode(), str(GUEST_WRITE).encode(), GUEST_PAUSE.encode()]
            spec = process_pb2.ProcessSpec(module=module, args=args)
            for _ in range(bench.count(GUESTS)):
                client.processes.Run(process_pb2.RunRequest(spec=spec))
            names = ("log_raw_bytes_total", "log_ring_stalled_seconds_total")
            time.sleep(1.1)  # what was found is told again for a second
            before, begun = [metric(name) for name in names], time.perf_counter()
            time.sleep(bench.count(SHARED_S))
            (raw, stalled), seconds = [metric(name) for name in names], time.perf_counter() - begun
        bench.samples.add("log-shared.rate", (raw - before[0]) / MIB / seconds, "MiB/s")
        waited = 100 * (stalled - before[1]) / seconds / bench.count(GUESTS)
        bench.samples.add("log-shared.stalled", waited, "% of run")

    bench.take_turns({"shared": turn}, lambda: None, 3)


# ---- reading


def opened(bench) -> None:
    """A record anywhere in a large log, and all of it, from the disk and from a local S3 server."""
    from measures import log_dir

    it, log = bench.contenders, log_dir("log-open")
    it.timecraft("pour", ("random", bench.count(LARGE_MIB) * MIB, RECORD), log=log)
    folder = log.parent / "log-open-s3"
    try:
        for _ in range(min(bench.rounds, 3)):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            command = [str(it.python), __file__, str(folder), str(log), str(bench.count(OPENS))]
            done = subprocess.run(command, check=True, capture_output=True, text=True, env=it.environment)
            for measure, (value, unit) in json.loads(done.stdout.splitlines()[-1]).items():
                bench.samples.add(measure, value, unit)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.rmtree(log)


def look(folder: Path, log: str, count: int) -> dict[str, tuple[float, str]]:
    """What `opened` measures, in a process that has the package alone."""
    from timecraftd.recorder.logs import Logs, load_native

    logs = Logs()
    records, random = logs.info(log).records, Random(1)
    numbers = [random.randrange(records) for _ in range(count)]

    def find(source: object, number: int) -> float:
        begun = time.perf_counter()
        reader = load_native().LogReader(source)
        reader.seek_seq(number)
        (line,) = reader.trace(1, json=True)
        spent = (time.perf_counter() - begun) * 1e3
        assert json.loads(line)["seq"] == number
        return spent

    def read(source: object) -> float:
        begun = time.perf_counter()
        found = logs.verify(source)
        assert found.records == records
        assert not found.gaps
        return found.bytes / MIB / (time.perf_counter() - begun)

    local = sorted(find(log, number) for number in numbers)
    values = {
        "log-open.disk.p50": (statistics.median(local), "ms"),
        "log-open.disk.p99": (local[count * 99 // 100], "ms"),
        "log-read.disk": (read(log), "MiB/s"),
    }
    with in_store(folder, log) as (fresh, counted):
        spans = []
        for number in numbers:
            source = fresh()
            counted.clear()
            spans.append(find(source, number))
            most = max(values.get("log-open.s3.requests", (0,))[0], len(counted))
            values["log-open.s3.requests"] = (most, "requests")
            fetched = max(values.get("log-open.s3.fetched", (0,))[0], sum(counted) / 1024)
            values["log-open.s3.fetched"] = (fetched, "KiB")
        spans.sort()
        values["log-open.s3.p50"] = (statistics.median(spans), "ms")
        values["log-open.s3.p99"] = (spans[count * 99 // 100], "ms")
        values["log-read.s3"] = (read(fresh()), "MiB/s")
        values["log-read.s3/disk"] = (values["log-read.s3"][0] / values["log-read.disk"][0], "x")
    return values


@contextmanager
def in_store(folder: Path, log: str) -> Iterator[tuple[Callable[[], object], list[int]]]:
    """The log in a local S3 server: makes sources that know nothing yet, but are connected; bytes of each request."""
    from tests.s3 import BUCKET, ENVIRONMENT, serving
    from timecraftd.config import RemoteConfig
    from timecraftd.model import Digest, LogSource, ProcessId, ProcessRecord, ProcessState
    from timecraftd.recorder.fetch import Remote, RemoteLog
    from timecraftd.recorder.manifest import Manifest, encode_manifest, manifest_key, segment_key
    from timecraftd.recorder.remote import FilePart
    from timecraftd.recorder.s3 import S3Store
    from timecraftd.recorder.segments import file_sums, sealed_segment, segment_files

    os.environ.update(ENVIRONMENT)
    process_id, counted = ProcessId(PROCESS), []

    class Counting(S3Store):
        async def get(self, key: str, *, offset: int = 0, length: int | None = None) -> bytes:
            data = await super().get(key, offset=offset, length=length)
            counted.append(len(data))
            return data

    async def send(config: RemoteConfig) -> int:
        store, segments = S3Store(config), []
        for number, path, size in segment_files(log):
            crc, _ = file_sums(path, digested=False)
            segments.append(replace(sealed_segment(path, number).segment, crc32c=f"{crc:08x}"))
            with FilePart(path, 0, size) as part:
                await store.put(segment_key(process_id, number), part, crc32c=crc)
        nothing = Digest("0" * 64)
        process = ProcessRecord(process_id, "", nothing, "", nothing, nothing, ProcessState.EXITED, 1, 1)
        manifest = Manifest(process, complete=True, segments=tuple(segments))
        await store.put(manifest_key(process_id), encode_manifest(manifest))
        await store.close()
        return manifest.next_seq

    with serving(folder / "s3") as server:
        config = RemoteConfig(
            url=f"s3://{BUCKET}/bench", endpoint_url=server.endpoint, region="us-east-1", addressing="path",
            cache_bytes_max=0,
        )  # fmt: skip
        next_seq, remotes = asyncio.run(send(config)), []

        def fresh() -> LogSource:
            remotes.append(Remote(config, str(folder / "cache"), store=lambda: Counting(config)))
            remotes[-1].run(lambda store: store.head("nothing"))
            return LogSource(str(folder / "nowhere"), PROCESS, RemoteLog(remotes[-1], process_id), next_seq)

        try:
            yield fresh, counted
        finally:
            for remote in remotes:
                remote.close()


CASES = {"log-write": written, "log-sync": synced, "log-shared": shared, "log-open": opened}

if __name__ == "__main__":
    sys.path.append(str(ROOT))
    where, which, opens = sys.argv[1:]
    print(json.dumps(look(Path(where), which, int(opens))))
