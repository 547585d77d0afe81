"""What is measured of guests on the network. All goes over the loopback of this machine, and both sides share its
processors; guests are reached as users reach them, by the command line's flags."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from child import guest_memory, host_memory
from contenders import BUILD, GUESTS, PRINTED, BenchError
from measures import MIB, Bench

READY_S = 60.0
STOP_S = 10.0
LOAD = str(BUILD / "native" / "load")
RECORDINGS = {"unrecorded": ["--no-record"], "recorded": []}
GUEST_PORT = 8080
HTTP_CONNECTIONS = (1, 8)
HTTP_S = 4.0
STREAM_MESSAGES = 20_000
DIALS = 10_000
DIALS_AT_ONCE = 64
IDLE_CONNECTIONS = 10_000


class Server:
    """A program that runs until the measurement is done, and what it has printed."""

    def __init__(self, process: subprocess.Popen, output: Path, errors: Path) -> None:
        self.process = process
        self._output = output
        self._errors = errors

    def wait_for(self, word: str, errors: bool = False) -> str:
        """What follows the word in a line that begins with it."""
        deadline = time.monotonic() + READY_S
        while time.monotonic() < deadline:
            for line in (self._errors if errors else self._output).read_text().splitlines():
                if line.startswith(f"{word} "):
                    return line.removeprefix(f"{word} ")
            if self.process.poll() is not None:
                raise BenchError(f"a server ended: {self._errors.read_text()[-1000:]}")
            time.sleep(0.01)
        raise BenchError(f"a server didn't say {word!r}")

    def cpu_s(self) -> float:
        """Processor time that it has used."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def memory(self) -> int:
        """Resident bytes beyond the guest's own."""
        now = host_memory(self.process.pid)
        return now["anonymous"] + now["file"] + now["shared"] - guest_memory(self.process.pid)


@contextmanager
def state(bench: Bench, guest: str) -> Iterator[None]:
    """A state directory for a while, with the guest's machine code in it."""
    it = bench.contenders
    it.child("compile", it.spec(guest))
    shutil.rmtree(it.home, ignore_errors=True)
    it.home.mkdir()
    (it.home / "artifacts").symlink_to(it.artifacts)
    yield
    shutil.rmtree(it.home)


@contextmanager
def serving(bench: Bench, command: list[str], **options) -> Iterator[Server]:
    """Runs a program in the background."""
    name = "-".join(Path(part).name for part in command[:2])
    output, errors = BUILD / f"{name}.out", BUILD / f"{name}.err"
    with (
        open(output, "wb") as out,
        open(errors, "wb") as err,
        subprocess.Popen(
            command, stdout=out, stderr=err, cwd=BUILD, env=bench.contenders.environment, **options
        ) as process,
    ):
        try:
            yield Server(process, output, errors)
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()


def run(bench: Bench, guest: str, args: list[str], flags: list[str]) -> list[str]:
    """The command that runs a guest."""
    module = str(GUESTS / f"{guest}.wasm")
    return [str(bench.contenders.python), "-m", "timecraftd.cli", "run", *flags, module, *args]


@contextmanager
def published(bench: Bench, guest: str, args: list[str], flags: list[str]) -> Iterator[tuple[Server, str]]:
    """A guest that listens at its port, and where the host finds that."""
    command = run(bench, guest, [f":{GUEST_PORT}", *args], ["-p", f"127.0.0.1:0:{GUEST_PORT}", *flags])
    with state(bench, guest), serving(bench, command) as server:
        server.wait_for("listening")
        yield server, server.wait_for("published", errors=True).removesuffix(f":{GUEST_PORT}")


def measured(bench: Bench, command: list[str]) -> dict[str, float]:
    """Runs a program to its end: what it printed as NAME VALUE UNIT."""
    done = subprocess.run(
        command, check=False, capture_output=True, text=True, cwd=BUILD, env=bench.contenders.environment
    )
    if done.returncode:
        raise BenchError(f"{' '.join(command)[-200:]}: {done.stdout[-500:]}{done.stderr[-1000:]}")
    return {name: float(value) for name, value, _ in PRINTED.findall(done.stdout)}


def http(bench: Bench) -> None:
    """A hello server of Go's net/http, connections kept alive: native, and as a guest behind a published port."""
    samples, seconds = bench.samples, HTTP_S * max(bench.scale, 0.1)

    def ask(name: str, server: Server, address: str) -> None:
        for connections in HTTP_CONNECTIONS:
            before = server.cpu_s()
            found = measured(bench, [LOAD, "http", address, str(connections), f"{seconds}s"])
            case = f"http-{connections}.{name}"
            samples.add(case, found["rate"], "requests/s")
            # What to look at if the machine is busy.
            samples.add(f"{case}.cpu", 1e6 * (server.cpu_s() - before) / found["requests"], "us/request")
            for part in ("p50", "p99", "p999"):
                samples.add(f"{case}.{part}", found[part], "us")

    def native() -> None:
        with serving(bench, [str(BUILD / "native" / "httphello"), "127.0.0.1:0"]) as server:
            ask("native", server, server.wait_for("listening"))

    def guest(name: str) -> None:
        with published(bench, "httphello", [], RECORDINGS[name]) as (server, address):
            ask(name, server, address)

    def ratios() -> None:
        for connections in HTTP_CONNECTIONS:
            case = f"http-{connections}"
            samples.ratio(f"{case}.recorded", f"{case}.unrecorded")
            samples.ratio(f"{case}.recorded", f"{case}.native")
            cpu = samples.last(f"{case}.recorded.cpu") / samples.last(f"{case}.unrecorded.cpu")
            samples.add(f"{case}.recorded/unrecorded.cpu", cpu, "x")
            added = samples.last(f"{case}.recorded.p99") - samples.last(f"{case}.unrecorded.p99")
            samples.add(f"{case}.recorded.p99_added", added, "us")

    turns = {"native": native, **{name: lambda name=name: guest(name) for name in RECORDINGS}}
    bench.take_turns(turns, ratios)


def guests_stream(bench: Bench) -> None:
    """Messages of 64 KiB from one guest to another, each run by a command of its own, beside native programs."""
    samples, count = bench.samples, str(bench.count(STREAM_MESSAGES))

    def native() -> None:
        program = str(BUILD / "native" / "stream")
        with serving(bench, [program, "receive", "127.0.0.1:0"]) as server:
            command = [program, "send", server.wait_for("listening"), count]
            samples.add("guests-stream.native", measured(bench, command)["stream"], "MiB/s")

    def guests(name: str) -> None:
        flags = ["-q", *RECORDINGS[name]]
        receiver = run(bench, "stream", ["receive", f":{GUEST_PORT}"], ["--name", "rx", "--net", "in guest:*", *flags])
        with state(bench, "stream"), serving(bench, receiver) as server:
            server.wait_for("listening")
            sender = run(bench, "stream", ["send", f"rx:{GUEST_PORT}", count], ["--net", "guest:rx", *flags])
            samples.add(f"guests-stream.{name}", measured(bench, sender)["stream"], "MiB/s")

    def ratios() -> None:
        for name in RECORDINGS:
            samples.ratio(f"guests-stream.{name}", "guests-stream.native")

    bench.take_turns({"native": native, **{name: lambda name=name: guests(name) for name in RECORDINGS}}, ratios)


def dials(bench: Bench) -> None:
    """Connections that a guest makes through the gateway to a server on the host's loopback, 64 at a time."""
    count = str(bench.count(DIALS))

    def guest(name: str) -> None:
        with state(bench, "dials"), serving(bench, [LOAD, "accept"]) as server:
            port = server.wait_for("listening").rpartition(":")[2]
            flags = ["-q", "--net", f"host:{port}", *RECORDINGS[name]]
            command = run(bench, "dials", [f"10.86.0.1:{port}", count, str(DIALS_AT_ONCE)], flags)
            bench.samples.add(f"dials.{name}", measured(bench, command)["dials"], "dials/s")

    bench.take_turns({name: lambda name=name: guest(name) for name in RECORDINGS}, lambda: None)


def idle(bench: Bench) -> None:
    """What `timecraft run` needs for a connection that nobody speaks on, beyond what the guest itself needs."""
    count = bench.count(IDLE_CONNECTIONS)
    limits = ["--max-sockets", str(count + 100), "--max-open-files", str(count + 200)]

    def guest(name: str) -> None:
        with published(bench, "idle", [str(count)], [*limits, *RECORDINGS[name]]) as (server, address):
            before = server.memory()
            with serving(bench, [LOAD, "hold", address, str(count)], stdin=subprocess.PIPE):
                server.wait_for("holding")
                each = (server.memory() - before) / count
            bench.samples.add(f"idle.{name}.memory_of_connection", each / 1024, "KiB")
            bench.samples.add(f"idle.{name}.memory_beyond_guest", before / MIB, "MiB")

    bench.take_turns({name: lambda name=name: guest(name) for name in RECORDINGS}, lambda: None, rounds_max=3)


CASES = {"http": http, "guests-stream": guests_stream, "dials": dials, "idle": idle}
