"""What is measured. Each case runs its contenders in turns, round by round, so that all meet the same load."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from child import guest_memory, host_memory
from contenders import BUILD, GUESTS, ROOT, BenchError, Contenders, Result, result_of

MIB = 1 << 20
NULL_MOUNT = (("/dev", "/dev", False),)
BIG_GUEST = ROOT / "tests" / "guests" / "build" / "real" / "std-template.wasm"
"""A Go program of 9 MB, of those that the tests build (`make guests`)."""
REQUESTS_GUEST = ROOT / "tests" / "guests" / "build" / "requests.wasm"
"""A Go program that asks a server of its own, on its own loopback; likewise."""


class Samples:
    """Values by measure, one a round, with units."""

    def __init__(self) -> None:
        self.values: dict[str, list[float]] = {}
        self.units: dict[str, str] = {}

    def add(self, measure: str, value: float, unit: str) -> None:
        self.values.setdefault(measure, []).append(value)
        self.units[measure] = unit

    def last(self, measure: str) -> float:
        return self.values[measure][-1]

    def ratio(self, above: str, below: str) -> None:
        """The ratio of two measures of the round that was just made, under `above/last part of below`."""
        if above in self.values and below in self.values:
            self.add(f"{above}/{below.rpartition('.')[2]}", self.last(above) / self.last(below), "x")


class Bench:
    """What cases need."""

    def __init__(self, contenders: Contenders, rounds: int, scale: float) -> None:
        self.contenders = contenders
        self.rounds = rounds
        self.scale = scale
        self.samples = Samples()

    def count(self, full: int) -> int:
        return max(1, int(full * self.scale))

    def take_turns(
        self, turns: dict[str, Callable[[], None]], after_round: Callable[[], None], rounds_max: int = 1000
    ) -> None:
        names = list(turns)
        for round_number in range(min(self.rounds, rounds_max)):
            for index in range(len(names)):
                turns[names[(index + round_number) % len(names)]]()
            after_round()


def log_dir(name: str, *, tmpfs: bool = False) -> Path:
    return Path("/dev/shm/timecraft-bench-logs") / name if tmpfs else BUILD / "logs" / name


def log_sizes(bench: Bench, case: str, result: Result, log: Path) -> None:
    """Bytes per record as stored, and if each block were compressed again by zstd (level 3)."""
    records = result.stats["records"]
    program = Path(__file__).with_name("recompress.py")
    shown = subprocess.run(
        [str(bench.contenders.python), str(program), str(log)],
        capture_output=True, text=True, check=True, env=bench.contenders.environment,
    ).stdout  # fmt: skip
    sizes = json.loads(shown)
    bench.samples.add(f"{case}.log_per_record", sizes["stored"] / records, "B")
    bench.samples.add(f"{case}.log_per_record_body", sizes["raw"] / records, "B")
    bench.samples.add(f"{case}.log_per_record_zstd", sizes["zstd"] / records, "B")
    bench.samples.add(f"{case}.log_per_record_zstd_1m", sizes["zstd_1m"] / records, "B")


def add_log_stats(bench: Bench, case: str, result: Result) -> None:
    stats = result.stats
    bench.samples.add(f"{case}.stalled", 100 * stats.get("ring_stalled_ns", 0) / max(stats["run_ns"], 1), "% of run")


def host_call(case: str, guest: str, args: tuple, mounts: tuple = ()):
    """A case of one host call in a loop, timed by the guest."""

    def measure(bench: Bench) -> None:
        it, samples, log = bench.contenders, bench.samples, log_dir(case)
        arguments = (bench.count(args[0]), *args[1:])
        # wasmtime hands each write to a file to another thread, which takes 20 us.
        fewer = (bench.count(args[0] // 20), *args[1:]) if mounts else arguments

        def recorded() -> None:
            result = it.timecraft(guest, arguments, mounts, log)
            samples.add(f"{case}.recorded", result.printed[guest], "ns")
            add_log_stats(bench, f"{case}.recorded", result)
            log_sizes(bench, f"{case}.recorded", result, log)
            rate = result.stats["records"] / (it.replay(guest, log).stats["run_ns"] / 1e9) / 1e6
            samples.add(f"{case}.replay.rate", rate, "M records/s")

        turns = {
            "unrecorded": lambda: samples.add(
                f"{case}.unrecorded", it.timecraft(guest, arguments, mounts).printed[guest], "ns"
            ),
            "recorded": recorded,
            "wasmtime": lambda: samples.add(f"{case}.wasmtime", it.wasmtime(guest, fewer, mounts).printed[guest], "ns"),
            "wazero": lambda: samples.add(
                f"{case}.wazero", it.wazero_run(guest, arguments, mounts).printed[guest], "ns"
            ),
        }

        def ratios() -> None:
            for above, below in (("unrecorded", "wasmtime"), ("unrecorded", "wazero"), ("recorded", "unrecorded")):
                samples.ratio(f"{case}.{above}", f"{case}.{below}")

        bench.take_turns(turns, ratios)

    return measure


def bulk_read(case: str, file_mib: int, rounds_max: int):
    """1 GiB in reads of 64 KiB of a file of random bytes on tmpfs; the log on disk, and on tmpfs."""

    def measure(bench: Bench) -> None:
        it, samples = bench.contenders, bench.samples
        folder = Path("/dev/shm/timecraft-bench")
        folder.mkdir(exist_ok=True)
        total = bench.count(1024) * MIB
        size = min(file_mib * MIB, total)
        if shutil.disk_usage(folder).free < size + 2 * total:
            raise BenchError(f"{case}: tmpfs has no room")
        path = folder / "random"
        with open(path, "wb") as file:
            file.writelines(os.urandom(MIB) for _ in range(size // MIB))
        mounts, args = ((str(folder), "/data", True),), ("/data/random", total)

        def turn(name: str, log: Path | None) -> None:
            result = it.timecraft("read64k", args, mounts, log, sample_s=0.15)
            samples.add(f"{case}.{name}", result.printed["read64k"], "us")
            beyond = (result.peak_rss - result.raw["touched"]) / MIB
            samples.add(f"{case}.{name}.memory", result.peak_rss / MIB, "MiB")
            samples.add(f"{case}.{name}.memory_beyond_guest", beyond, "MiB")
            if log:
                add_log_stats(bench, f"{case}.{name}", result)
                shutil.rmtree(log)

        turns = {
            "unrecorded": lambda: turn("unrecorded", None),
            "recorded": lambda: turn("recorded", log_dir(case)),
            "recorded-tmpfs": lambda: turn("recorded-tmpfs", log_dir(case, tmpfs=True)),
            "wasmtime": lambda: samples.add(
                f"{case}.wasmtime", it.wasmtime("read64k", args, mounts).printed["read64k"], "us"
            ),
            "wazero": lambda: samples.add(
                f"{case}.wazero", it.wazero_run("read64k", args, mounts).printed["read64k"], "us"
            ),
        }

        def ratios() -> None:
            samples.ratio(f"{case}.recorded", f"{case}.unrecorded")
            samples.ratio(f"{case}.recorded-tmpfs", f"{case}.unrecorded")
            samples.ratio(f"{case}.unrecorded", f"{case}.wasmtime")

        try:
            bench.take_turns(turns, ratios, rounds_max)
        finally:
            shutil.rmtree(folder)
            shutil.rmtree(log_dir(case, tmpfs=True).parent, ignore_errors=True)

    return measure


def cpu_bound(name: str, full: int):
    """A guest that computes, timed by itself; replays are timed by the host, as their guest sees recorded time."""

    def measure(bench: Bench) -> None:
        it, samples, log = bench.contenders, bench.samples, log_dir(name)
        args = (bench.count(full),)
        replayed: list[float] = []

        def recorded() -> None:
            result = it.timecraft(name, args, (), log)
            samples.add(f"{name}.recorded", result.printed[name], "s")
            again = it.replay(name, log)
            if again.printed != result.printed:
                raise BenchError(f"{name}: the replay printed something else")
            replayed.append(again.stats["run_ns"] / result.stats["run_ns"])
            samples.add(f"{name}.recorded.cpu", result.stats["cpu_ns"] / 1e9, "s")
            samples.add(f"{name}.replay.cpu", again.stats["cpu_ns"] / 1e9, "s")

        def unrecorded() -> None:
            result = it.timecraft(name, args)
            samples.add(f"{name}.unrecorded", result.printed[name], "s")
            samples.add(f"{name}.unrecorded.cpu", result.stats["cpu_ns"] / 1e9, "s")

        turns = {
            "unrecorded": unrecorded,
            "recorded": recorded,
            "wasmtime": lambda: samples.add(f"{name}.wasmtime", it.wasmtime(name, args).printed[name], "s"),
            "wasmtime-canonical": lambda: samples.add(
                f"{name}.wasmtime-canonical", it.wasmtime(name, args, canonical=True).printed[name], "s"
            ),
            "wazero": lambda: samples.add(f"{name}.wazero", it.wazero_run(name, args).printed[name], "s"),
            "native": lambda: samples.add(f"{name}.native", it.native(name, args).printed[name], "s"),
        }

        def ratios() -> None:
            for below in ("unrecorded", "wasmtime", "wasmtime-canonical", "wazero"):
                samples.ratio(f"{name}.recorded", f"{name}.{below}")
            samples.add(f"{name}.replay/recorded", replayed[-1], "x")
            # Time of the guest's thread alone: what to look at if the machine is busy.
            for above, below in (("recorded", "unrecorded"), ("replay", "recorded")):
                ratio = samples.last(f"{name}.{above}.cpu") / samples.last(f"{name}.{below}.cpu")
                samples.add(f"{name}.{above}/{below}.cpu", ratio, "x")

        bench.take_turns(turns, ratios)

    return measure


def start(bench: Bench) -> None:
    """A Go hello, its machine code cached: inside the runtime, and as a command."""
    it, samples, log = bench.contenders, bench.samples, log_dir("start")
    hello = str(GUESTS / "hello.wasm")
    it.timecraft("hello")
    it.timecraft_command("run", "-q", hello)
    it.wazero_run("hello")

    def inside(name: str, log: Path | None) -> None:
        result = it.timecraft("hello", log=log)
        stats = result.stats
        # run_ns begins with the instantiation.
        samples.add(f"start.{name}.inside", (stats["load_ns"] + stats["run_ns"]) / 1e6, "ms")
        for part in ("load", "instantiate", "run"):
            samples.add(f"start.{name}.inside.{part}", stats[f"{part}_ns"] / 1e6, "ms")
        samples.add(f"start.{name}.inside.wall", result.wall_ns / 1e6, "ms")

    def wall(name: str, command: Callable[[], Result]) -> None:
        result = command()
        samples.add(f"start.{name}", result.wall_ns / 1e6, "ms")
        samples.add(f"start.{name}.cpu", result.stats["cpu_ns"] / 1e6, "ms")
        samples.add(f"start.{name}.memory", result.peak_rss / MIB, "MiB")

    python = str(it.python)
    turns = {
        "inside": lambda: inside("recorded", log),
        "inside-unrecorded": lambda: inside("unrecorded", None),
        "command": lambda: wall("recorded.command", lambda: it.timecraft_command("run", "-q", hello)),
        "fly-blind": lambda: wall(
            "unrecorded.command", lambda: it.timecraft_command("run", "-q", "--fly-blind", hello)
        ),
        "version": lambda: wall("version.command", lambda: it.timecraft_command("version")),
        "wazero": lambda: wall("wazero.command", lambda: it.wazero_run("hello")),
        "wasmtime": lambda: samples.add("start.wasmtime.inside", it.wasmtime("hello").wall_ns / 1e6, "ms"),
        "python": lambda: wall("python.command", lambda: it.command([python, "-c", "pass"])),
        "native": lambda: wall("native.command", lambda: it.native("hello")),
    }
    bench.take_turns(turns, lambda: None)


def cold_compile(case: str, guest: Path, rounds_max: int):
    """From wasm to machine code in the cache, none being there."""

    def measure(bench: Bench) -> None:
        it, samples = bench.contenders, bench.samples
        if not guest.exists():
            raise BenchError(f"{case}: {guest.name} isn't built: `make guests` does it")
        empty = BUILD / "empty"

        def fresh() -> Path:
            shutil.rmtree(empty, ignore_errors=True)
            empty.mkdir()
            return empty

        def add(name: str, wall_ns: int, cpu_ns: int) -> None:
            samples.add(f"{case}.{name}", wall_ns / 1e6, "ms")
            samples.add(f"{case}.{name}.cpu", cpu_ns / 1e6, "ms")

        def child(name: str, verb: str) -> None:
            spec = it.spec(guest) | {"artifacts": str(fresh()), "artifact": str(empty / "cwasm")}
            raw = it.child(verb, spec)
            add(name, raw["wall_ns"], raw["cpu_ns"])
            samples.add(f"{case}.{name}.memory", raw["peak_rss"] / MIB, "MiB")

        def wazero(name: str, workers: int) -> None:
            command = [str(it.wazero), "compile", f"-cachedir={fresh()}", f"-workers={workers}", str(guest)]
            result = it.command(command)
            add(name, result.wall_ns, result.stats["cpu_ns"])
            samples.add(f"{case}.{name}.memory", result.peak_rss / MIB, "MiB")

        turns = {
            "timecraft": lambda: child("timecraft", "compile"),
            "wazero": lambda: wazero("wazero", 1),
            "wazero-all-cores": lambda: wazero("wazero-all-cores", os.cpu_count() or 1),
            "wasmtime": lambda: child("wasmtime", "wasmtime-compile"),
        }

        def ratios() -> None:
            for below in ("wazero", "wazero-all-cores", "wasmtime"):
                samples.ratio(f"{case}.timecraft", f"{case}.{below}")
            cpu = samples.last(f"{case}.timecraft.cpu") / samples.last(f"{case}.wazero.cpu")
            samples.add(f"{case}.timecraft/wazero.cpu", cpu, "x")

        bench.take_turns(turns, ratios, rounds_max)

    return measure


def memory(bench: Bench) -> None:
    """`timecraft run` with a small Go guest that goes on for a moment, so that its memory can be told apart."""
    it, samples = bench.contenders, bench.samples
    guest = str(GUESTS / "clock.wasm")

    def turn(name: str, command: list[str]) -> None:
        with subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=it.environment, cwd=BUILD
        ) as process:
            time.sleep(0.6)
            try:
                now, touched = host_memory(process.pid), guest_memory(process.pid)
            except ProcessLookupError:
                raise BenchError("memory: the guest ended before it was looked at") from None
            if "peak" not in now:
                raise BenchError("memory: the guest ended before it was looked at")
            process.kill()
        samples.add(f"memory.{name}.memory", now["peak"] / MIB, "MiB")
        samples.add(f"memory.{name}.memory_of_guest", touched / MIB, "MiB")
        samples.add(f"memory.{name}.memory_beyond_guest", (now["peak"] - touched) / MIB, "MiB")
        for kind in ("anonymous", "file", "shared"):
            samples.add(f"memory.{name}.memory.{kind}", now[kind] / MIB, "MiB")

    it.timecraft_command("run", "-q", guest, "1")
    run = [str(it.python), "-m", "timecraftd.cli", "run", "-q"]
    turns = {
        "recorded": lambda: turn("recorded", [*run, guest, "1000000000"]),
        "unrecorded": lambda: turn("unrecorded", [*run, "--fly-blind", guest, "1000000000"]),
        "wazero": lambda: turn("wazero", [str(it.wazero), "run", f"-cachedir={it.cache}", guest, "1000000000"]),
    }
    bench.take_turns(turns, lambda: None)
    shutil.rmtree(it.home)


def traced(layer: str, unit: str):
    """The trace of a server and its clients in one guest: each request shows twice, from either side."""

    def measure(bench: Bench) -> None:
        it, samples, log = bench.contenders, bench.samples, log_dir(f"trace-{layer}")
        connections, requests = 8, bench.count(12_500)
        ran = it.timecraft(REQUESTS_GUEST, ("-n", requests, "-c", connections), log=log)
        exchanges = 2 * connections * requests

        def turn(name: str, verbose: bool) -> None:
            spec = {"log": str(log), "layer": layer, "verbose": verbose}
            result = result_of(it.child("trace", spec))
            seconds, stats = result.wall_ns / 1e9, result.stats
            if stats["records"] != ran.stats["records"] or (layer == "request" and stats["lines"] < exchanges):
                raise BenchError(f"trace-{layer}: the trace isn't whole")
            shown = stats["records"] / 1e6 if layer == "network" else exchanges / 1e3
            samples.add(f"trace-{layer}.{name}.rate", shown / seconds, unit)
            samples.add(f"trace-{layer}.{name}.memory", result.peak_rss / MIB, "MiB")

        turns = {"text": lambda: turn("text", False), "verbose": lambda: turn("verbose", True)}
        bench.take_turns(turns, lambda: None)

    return measure


def log_crate(bench: Bench) -> None:
    """The log's own benchmark, which repeats by itself."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    done = subprocess.run(
        ["cargo", "bench", "--quiet", "--locked", "-p", "timecraft-log"],
        cwd=ROOT, env=environment, check=False, capture_output=True, text=True,
    )  # fmt: skip
    if done.returncode:
        raise BenchError(f"cargo bench: {done.stderr[-1000:]}")
    for line in done.stdout.splitlines():
        if line.startswith("{"):
            report = json.loads(line)
            bench.samples.add(f"log.{report['name']}", report["value"], report["unit"])


CASES: dict[str, Callable[[Bench], None]] = {
    "log": log_crate,
    "clock": host_call("clock", "clock", (5_000_000,)),
    "write16-stderr": host_call("write16-stderr", "write16", (1_000_000,)),
    "write16-mounted": host_call("write16-mounted", "write16", (1_000_000, "/dev/null"), NULL_MOUNT),
    "nbody": cpu_bound("nbody", 5_000_000),
    "sha256": cpu_bound("sha256", 64),
    "trace-network": traced("network", "M records/s"),
    "trace-request": traced("request", "k requests/s"),
    "start": start,
    "compile-hello": cold_compile("compile-hello", GUESTS / "hello.wasm", 5),
    "compile-big": cold_compile("compile-big", BIG_GUEST, 3),
    "memory": memory,
    "read64k-256m": bulk_read("read64k-256m", 256, 5),
    "read64k-1g": bulk_read("read64k-1g", 1024, 3),
}
