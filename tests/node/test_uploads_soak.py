"""Fifty guests that write as fast as they can, to a store that comes and goes: nothing is lost, and memory is flat."""

from __future__ import annotations

import asyncio
import shutil
import threading
import time
from random import Random

import pytest

from tests.faultproxy import FaultProxy
from tests.node.conftest import Node, wait_until
from tests.node.test_uploads import MIB, check, is_complete, metric
from tests.s3 import BUILD_S, ENVIRONMENT, S3
from timecraftd.api.v1 import process_pb2

ALIVE = (process_pb2.PROCESS_STATE_QUEUED, process_pb2.PROCESS_STATE_RUNNING)
GUESTS = 50
BURST_MIB = 8
BURST = b"""(module
  (import "wasi_snapshot_preview1" "random_get" (func $random (param i32 i32) (result i32)))
  (memory (export "memory") 1)
  (func (export "_start") (local i32)
    (loop
      (drop (call $random (i32.const 0) (i32.const 65536)))
      (br_if 0 (i32.lt_u (local.tee 0 (i32.add (local.get 0) (i32.const 1))) (i32.const %d))))))
""" % (16 * BURST_MIB)
"""Fills its log with so many MiB that can't be compressed, and ends."""
FAULTS = ("none", "none", "none", "error", "reset", "denied", "slow", "cut", "hang")
GROWTH_BYTES_MAX = 64 * MIB


class Flapping:
    """A way to a server that fails in turns, each for a moment."""

    def __init__(self, port: int, random: Random) -> None:
        self.proxy = FaultProxy(port)
        self._random = random
        self._over = threading.Event()
        self._ready = threading.Event()
        self._calm = threading.Event()
        self._gone = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))
        self._thread.start()
        self._ready.wait()

    async def _serve(self) -> None:
        async with self.proxy:
            self._ready.set()
            while not self._over.is_set():
                for fault in self._random.sample(FAULTS, len(FAULTS)):
                    self.proxy.fault = fault
                    self.proxy.hang_up()
                    if await asyncio.to_thread(self._over.wait, self._random.uniform(0.1, 1.0)):
                        break
            self.proxy.fault = "none"
            self.proxy.hang_up()
            self._calm.set()
            await asyncio.to_thread(self._gone.wait)

    def calm(self) -> None:
        """From now on nothing fails."""
        self._over.set()
        assert self._calm.wait(10)

    def close(self) -> None:
        """Ends it."""
        self._over.set()
        self._gone.set()
        self._thread.join()


@pytest.mark.parametrize(
    "seconds", [4, pytest.param(600, marks=[pytest.mark.soak, pytest.mark.timeout(2400)])], ids=["short", "long"]
)
@pytest.mark.timeout(BUILD_S + 200)
def test_guests_at_full_speed_and_a_store_that_flaps(make_node, tmp_path, random, seconds):
    s3 = S3(tmp_path / "s3").start()
    flapping = Flapping(s3.port, random)
    config = s3.config("logs").replace(f":{s3.port}", f":{flapping.proxy.port}")
    node = make_node(
        f"metrics_listen = '127.0.0.1:0'\nmemory_bytes_reckoned = '1MiB'\n{config}seal_age_s = '500ms'\n"
        "request_s_max = '2s'\nlocal_bytes_max = '64MiB'\n[record]\nring_bytes = '4MiB'\n",
        ENVIRONMENT,
    )
    try:
        node.start()
        memory = [flood(node, s3, time.monotonic() + seconds / 2) for _ in range(2)]
        flapping.calm()
        settle(node, s3)
        assert memory[1] - memory[0] < GROWTH_BYTES_MAX
        print(f"daemon: {memory[0] / MIB:.0f} MiB, then {memory[1] / MIB:.0f} MiB; ", end="")
        print(f"{metric(node, 'uploaded_bytes_total') / MIB:.0f} MiB sent")
    finally:
        flapping.close()
        s3.stop()


def flood(node: Node, s3: S3, until: float) -> int:
    """Keeps guests running until then and something has failed, and removes those that are in the store.

    Returns the most memory of the daemon.
    """
    module = node.upload(BURST, "burst.wat")
    peak = 0
    while time.monotonic() < until or metric(node, "upload_failures_total") == 0:
        running = [process for process in node.home.glob("processes/*") if not is_over(node, s3, process.name)]
        for _ in range(GUESTS - len(running)):
            node.run(module)
        peak = max(peak, resident_bytes(node))
        time.sleep(0.2)
    return peak


def settle(node: Node, s3: S3) -> None:
    """Waits until all is in the store."""
    for process in node.home.glob("processes/*"):
        node.wait(process.name, 120)
        wait_until(lambda process=process: is_over(node, s3, process.name), 120)


def is_over(node: Node, s3: S3, name: str) -> bool:
    """Whether a process has ended and is in the store; then it was compared, and is gone from both."""
    process = node.get(name)
    if process.state in ALIVE or not is_complete(s3, process):
        return False
    check(node, s3, process)
    node.processes.Remove(process_pb2.RemoveRequest(id=name))
    shutil.rmtree(s3.bucket / "logs" / "logs" / name)
    return True


def resident_bytes(node: Node) -> int:
    """Memory of the daemon."""
    with open(f"/proc/{node.process.pid}/statm", "rb") as file:
        return int(file.read().split()[1]) * 4096
