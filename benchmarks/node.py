"""What is measured of the node daemon, by a client in this process: how soon it is ready, how fast it answers, starts
processes and carries their output, and what many guests cost it."""

from __future__ import annotations

import signal
import sqlite3
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from contenders import BUILD, GUESTS, ROOT, BenchError
from measures import MIB, Bench
from network import serving, state

TEST_GUESTS = ROOT / "tests" / "guests"
FINISHED = 10_000
RUNNING = 100
CALLS = 2000
SHORT = 400
CLIENTS = 8
IDLE = 1000
FLOOD_MIB = 512
METRICS_PORT = 27464
READY_S = 60.0
FLOOD = """(module
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 2)
  (data (i32.const 0) "\\10\\00\\00\\00\\00\\00\\01\\00")
  (func (export "_start") (local i32)
    (loop
      (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))
      (br_if 0 (i32.lt_u (local.tee 0 (i32.add (local.get 0) (i32.const 1))) (i32.const %d))))))
"""


class Client:
    """Speaks with the node of the bench's state directory."""

    def __init__(self, bench: Bench) -> None:
        import grpc

        from timecraftd.api.v1 import module_pb2_grpc, node_pb2_grpc, process_pb2_grpc

        self.channel = grpc.insecure_channel(f"unix:{bench.contenders.home}/node.sock")
        grpc.channel_ready_future(self.channel).result(READY_S)
        self.processes = process_pb2_grpc.ProcessServiceStub(self.channel)
        self.modules = module_pb2_grpc.ModuleServiceStub(self.channel)
        self.node = node_pb2_grpc.NodeServiceStub(self.channel)

    def upload(self, data: bytes, name: str) -> str:
        import hashlib

        from timecraftd.api.v1 import module_pb2

        first = module_pb2.UploadRequest(digest=hashlib.sha256(data).hexdigest(), size_bytes=len(data), name=name)
        pieces = (module_pb2.UploadRequest(data=data[at : at + MIB]) for at in range(0, len(data), MIB))
        return self.modules.Upload(iter([first, *pieces])).module.digest

    def run(self, module: str) -> str:
        from timecraftd.api.v1 import process_pb2

        spec = process_pb2.ProcessSpec(module=module)
        return self.processes.Run(process_pb2.RunRequest(spec=spec)).process.id

    def wait(self, process: str) -> None:
        from timecraftd.api.v1 import process_pb2

        self.processes.Wait(process_pb2.WaitRequest(id=process))

    def attach(self, module: str, took: Callable[[int], None]) -> None:
        """Tells of each piece of output how long it is."""
        from timecraftd.api.v1 import process_pb2

        start = process_pb2.AttachRequest.Start(spec=process_pb2.ProcessSpec(module=module))
        for response in self.processes.Attach(iter([process_pb2.AttachRequest(start=start)])):
            if response.stdout:
                took(len(response.stdout))


@contextmanager
def node(bench: Bench, settings: str = "") -> Iterator[tuple[Client, float]]:
    """A daemon on the bench's state directory: a client, and the seconds to READY."""
    it = bench.contenders
    config = BUILD / "node.toml"
    config.write_text(
        f'[node]\nname = "bench"\nprocesses_max = 4096\nworker_processes_max = 4096\non_stop = "stop"\n{settings}\n'
    )
    log = BUILD / "python--m.err"
    begun = time.perf_counter()
    with serving(bench, [str(it.python), "-m", "timecraftd", "--config", str(config)]) as daemon:
        while b"ready node=" not in log.read_bytes():
            if daemon.process.poll() is not None or time.perf_counter() - begun > READY_S:
                raise BenchError(f"node: isn't ready: {log.read_text()[-500:]}")
            time.sleep(0.001)
        ready_s = time.perf_counter() - begun
        client = Client(bench)
        try:
            yield client, ready_s
        finally:
            client.channel.close()
            daemon.process.send_signal(signal.SIGTERM)
            daemon.process.wait(READY_S)


def ready(bench: Bench) -> None:
    """To READY with many finished processes in the catalogue."""
    hello = TEST_GUESTS / "hello.wat"
    with state(bench, "hello"):
        with node(bench) as (client, _):
            process = client.run(client.upload(hello.read_bytes(), "hello.wat"))
            client.wait(process)
        fill(bench.contenders.home / "catalogue.db", process, bench.count(FINISHED))

        def turn() -> None:
            with node(bench) as (_, ready_s):
                bench.samples.add("node-ready", ready_s * 1e3, "ms")

        bench.take_turns({"ready": turn}, lambda: None)


def fill(catalogue: Path, process: str, count: int) -> None:
    """Many rows like that of one process."""
    with sqlite3.connect(catalogue) as database:
        names = [row[1] for row in database.execute("PRAGMA table_info(processes)")]
        row = list(database.execute("SELECT * FROM processes WHERE id = ?", (process,)).fetchone())
        at = names.index("id")
        rows = [[*row[:at], f"{process[:-8]}{number:08x}", *row[at + 1 :]] for number in range(count)]
        database.executemany(f"INSERT OR IGNORE INTO processes VALUES ({', '.join('?' * len(names))})", rows)


def calls(bench: Bench) -> None:
    """A control call while guests run."""
    from timecraftd.api.v1 import process_pb2

    sleeper = TEST_GUESTS / "sleep_forever.wat"
    with state(bench, "hello"), node(bench, '[record]\nring_bytes = "4MiB"') as (client, _):
        module = client.upload(sleeper.read_bytes(), "sleeper.wat")
        ids = [client.run(module) for _ in range(bench.count(RUNNING))]

        def turn() -> None:
            spans = []
            for number in range(bench.count(CALLS)):
                begun = time.perf_counter()
                client.processes.Get(process_pb2.GetRequest(id=ids[number % len(ids)]))
                spans.append((time.perf_counter() - begun) * 1e3)
            spans.sort()
            bench.samples.add("node-call.p50", spans[len(spans) // 2], "ms")
            bench.samples.add("node-call.p99", spans[len(spans) * 99 // 100], "ms")

        bench.take_turns({"calls": turn}, lambda: None)


def first_output(bench: Bench) -> None:
    """A Go hello, its machine code cached: from the request to its first output."""
    hello = GUESTS / "hello.wasm"
    with state(bench, "hello"), node(bench, '[record]\nring_bytes = "4MiB"') as (client, _):
        module = client.upload(hello.read_bytes(), "hello.wasm")

        def first() -> None:
            begun = time.perf_counter()
            spans: list[float] = []
            client.attach(module, lambda _: spans.append((time.perf_counter() - begun) * 1e3))
            bench.samples.add("node-first-output", spans[0], "ms")

        first()
        bench.take_turns({"first": first}, lambda: None)


def rate(bench: Bench) -> None:
    """Processes that begin and end in a second, asked for by some clients at once: a tiny one, and a Go hello."""
    guests = {"tiny": TEST_GUESTS / "hello.wat", "go": GUESTS / "hello.wasm"}
    with state(bench, "hello"), node(bench, '[record]\nring_bytes = "4MiB"') as (client, _):
        modules = {name: client.upload(guest.read_bytes(), guest.name) for name, guest in guests.items()}

        def turn(name: str) -> None:
            count = bench.count(SHORT)
            begun = time.perf_counter()
            with ThreadPoolExecutor(CLIENTS) as clients:
                list(clients.map(lambda _: client.wait(client.run(modules[name])), range(count)))
            bench.samples.add(f"node-rate.{name}", count / (time.perf_counter() - begun), "processes/s")

        bench.take_turns({name: partial(turn, name) for name in guests}, lambda: None)


def stdout(bench: Bench) -> None:
    """Output of an attached guest, recorded."""
    size = bench.count(FLOOD_MIB)
    source = FLOOD % (size * 16)
    with state(bench, "hello"), node(bench) as (client, _):
        module = client.upload(source.encode(), "flood.wat")

        def turn() -> None:
            came: list[int] = []
            begun = time.perf_counter()
            client.attach(module, came.append)
            if sum(came) != size * MIB:
                raise BenchError(f"node: {sum(came)} bytes of {size * MIB} came")
            bench.samples.add("node-stdout", size / (time.perf_counter() - begun), "MiB/s")

        bench.take_turns({"stdout": turn}, lambda: None)


def idle(bench: Bench) -> None:
    """Many guests that wait: what they take beyond their own memories, and what telling of them takes."""
    sleeper = TEST_GUESTS / "sleep_forever.wat"
    # Promised 64 MiB each, not all of them would run on a small machine.
    settings = f'memory_bytes_reckoned = "1MiB"\nmetrics_listen = "127.0.0.1:{METRICS_PORT}"\n'
    with state(bench, "hello"), node(bench, f'{settings}[record]\nring_bytes = "4MiB"') as (client, _):
        before = taken_bytes()
        module = client.upload(sleeper.read_bytes(), "sleeper.wat")
        count = bench.count(IDLE)
        for _ in range(count):
            client.run(module)
        # One page of linear memory each is the guests' own.
        bench.samples.add("node-idle.memory", (taken_bytes() - before - count * 65536) / MIB * IDLE / count, "MiB")

        def turn() -> None:
            time.sleep(1.1)  # what was found is told again for a second
            begun = time.perf_counter()
            with urllib.request.urlopen(f"http://127.0.0.1:{METRICS_PORT}/metrics") as answer:
                answer.read()
            bench.samples.add("node-metrics", (time.perf_counter() - begun) * 1e3, "ms")

        bench.take_turns({"metrics": turn}, lambda: None)


def taken_bytes() -> int:
    """Memory of the machine that can't be had, that of tmpfs included."""
    fields = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
    return (int(fields["MemTotal"].split()[0]) - int(fields["MemAvailable"].split()[0])) * 1024


CASES = {
    "node-ready": ready,
    "node-call": calls,
    "node-start": first_output,
    "node-rate": rate,
    "node-stdout": stdout,
    "node-idle": idle,
}
