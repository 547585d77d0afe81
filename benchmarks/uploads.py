"""What is measured of uploads: how fast sealed segments go to a local S3 server, and what memory that takes."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MIB = 1 << 20
SEGMENT_MIB = 64
SEGMENTS = 16
PROCESSES = 16
PLAIN_MIB = 16


def resident_bytes() -> int:
    """Memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def send(folder: Path, processes: int, segments: int, segment_mib: int) -> dict[str, float]:
    """Sends made-up logs; MiB a second, and the most memory beyond that before the store's client was loaded, MiB."""
    from tests.recorder.logfiles import FakeHome
    from tests.s3 import BUCKET, ENVIRONMENT, serving
    from timecraftd.config import RemoteConfig
    from timecraftd.model import ProcessState
    from timecraftd.recorder.uploader import Uploader

    os.environ.update(ENVIRONMENT)
    (folder / "home").mkdir()
    home = FakeHome(folder / "home")
    for _ in range(processes):
        home.seal(home.add(ProcessState.EXITED), *range(segments), size=segment_mib * MIB)
    before = peak = resident_bytes()
    from timecraftd.recorder.s3 import S3Store

    with serving(folder / "s3") as server:
        config = RemoteConfig(
            url=f"s3://{BUCKET}/bench", endpoint_url=server.endpoint, region="us-east-1", addressing="path"
        )
        store = S3Store(config)
        await store.probe()
        uploader = Uploader(store, home, config, node="bench", log=lambda *_, **__: None)
        begun = time.perf_counter()
        running = asyncio.create_task(uploader.run())
        while uploader.totals.segments < processes * segments or uploader.status().processes:
            peak = max(peak, resident_bytes())
            await asyncio.sleep(0.02)
        seconds = time.perf_counter() - begun
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await store.close()
    sent = processes * segments * segment_mib
    return {"rate": sent / seconds, "memory": (peak - before) / MIB}


async def put(folder: Path, count: int, size_mib: int) -> dict[str, float]:
    """Puts as many bytes by plain requests from memory, as many at one time as an uploader makes; MiB a second."""
    from aiobotocore.session import get_session

    from tests.s3 import ACCESS, BUCKET, SECRET, serving
    from timecraftd.config import RemoteConfig

    body, room = os.urandom(size_mib * MIB), asyncio.Semaphore(RemoteConfig().uploads_max)
    with serving(folder / "s3") as server:
        async with get_session().create_client(
            "s3", endpoint_url=server.endpoint, region_name="us-east-1",
            aws_access_key_id=ACCESS, aws_secret_access_key=SECRET,
        ) as client:  # fmt: skip

            async def one(number: int) -> None:
                async with room:
                    await client.put_object(Bucket=BUCKET, Key=f"plain/{number}", Body=body)

            begun = time.perf_counter()
            await asyncio.gather(*map(one, range(count)))
            return {"rate": count * size_mib / (time.perf_counter() - begun)}


def upload(bench) -> None:
    """One process with full segments, which go in parts, many with small ones, and plain requests."""
    from contenders import BUILD

    shapes = {
        "one": (1, bench.count(SEGMENTS), SEGMENT_MIB),
        "many": (PROCESSES, bench.count(SEGMENTS), SEGMENT_MIB // 16),
        "plain": (bench.count(SEGMENTS * SEGMENT_MIB // PLAIN_MIB), PLAIN_MIB),
    }

    def turn(name: str) -> None:
        folder = BUILD / "uploads"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        try:
            command = [str(bench.contenders.python), __file__, str(folder), *map(str, shapes[name])]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
        finally:
            shutil.rmtree(folder)
        found = json.loads(done.stdout)
        bench.samples.add(f"upload.{name}", found["rate"], "MiB/s")
        if "memory" in found:
            bench.samples.add(f"upload.{name}.memory", found["memory"], "MiB")

    bench.take_turns(
        {name: lambda name=name: turn(name) for name in shapes},
        lambda: bench.samples.ratio("upload.one", "upload.plain"),
    )


CASES = {"upload": upload}

if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    where, *shape = sys.argv[1:]
    work = send if len(shape) == 3 else put
    print(json.dumps(asyncio.run(work(Path(where), *map(int, shape)))))
