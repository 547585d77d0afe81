"""What is measured of Python programs: how soon they begin, how fast they compute and answer. The same programs run in
CPython outside, the one of Debian if this is Debian: its build is the one that most people have."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from contenders import BUILD, BenchError, Contenders, Result
from measures import MIB, Bench, log_dir
from network import GUEST_PORT, LOAD, RECORDINGS, Server, measured, serving, state

PROGRAMS = Path(__file__).resolve().parent / "guests" / "python"
SUITE = ("json", "regex", "nbody", "richards")
ECHO_CONNECTIONS = 8
ECHO_S = 4.0
HELLO = "print(1)"


def native(it: Contenders) -> str:
    return shutil.which("python3.11", path="/usr/bin") or str(it.python)


def interpreter(it: Contenders) -> tuple[Path, tuple[tuple[str, str, bool, str], ...]]:
    """The module, and its library as the command mounts it; the digest of the mount doesn't matter here."""
    (folder,) = it.python.parent.parent.glob("lib/python3*/site-packages/timecraft_python_guest")
    return folder / "python.wasm", ((str(folder / "lib"), "/usr/lib", True, "0" * 64),)


def start(bench: Bench) -> None:
    """`print(1)`: inside the runtime, and as a command, its machine code cached."""
    it, samples, log = bench.contenders, bench.samples, log_dir("python-start")
    module, library = interpreter(it)
    run = {"args": ("-c", HELLO), "mounts": library, "env": ("PYTHONHOME=/usr",)}
    it.timecraft(module, **run)

    def inside(name: str, log: Path | None) -> None:
        stats = it.timecraft(module, log=log, **run).stats
        samples.add(f"python-start.{name}.inside", (stats["load_ns"] + stats["run_ns"]) / 1e6, "ms")
        for part in ("load", "instantiate", "run", "cpu"):
            samples.add(f"python-start.{name}.inside.{part}", stats[f"{part}_ns"] / 1e6, "ms")
        samples.add(f"python-start.{name}.inside.calls", stats["calls"], "calls")

    def wall(name: str, result: Result) -> None:
        samples.add(f"python-start.{name}", result.wall_ns / 1e6, "ms")
        samples.add(f"python-start.{name}.cpu", result.stats["cpu_ns"] / 1e6, "ms")
        samples.add(f"python-start.{name}.memory", result.peak_rss / MIB, "MiB")

    with state(bench, module):
        it.timecraft_command("run", "-q", "-c", HELLO)
        turns = {
            "inside": lambda: inside("recorded", log),
            "inside-unrecorded": lambda: inside("unrecorded", None),
            "command": lambda: wall("recorded.command", it.timecraft_command("run", "-q", "-c", HELLO)),
            "native": lambda: wall("native.command", it.command([native(it), "-c", HELLO])),
        }
        bench.take_turns(turns, lambda: None)


def suite(bench: Bench) -> None:
    """What programs compute, in processor time that they measure themselves."""
    it, samples = bench.contenders, bench.samples
    program, scale = str(PROGRAMS / "suite.py"), str(bench.scale)

    def add(name: str, result: Result) -> None:
        if set(result.printed) != set(SUITE):
            raise BenchError(f"python: {name} printed {', '.join(result.printed)}")
        for part in SUITE:
            samples.add(f"python-{part}.{name}", result.printed[part], "us")

    def ratios() -> None:
        for part in SUITE:
            samples.ratio(f"python-{part}.recorded", f"python-{part}.native")
            samples.ratio(f"python-{part}.recorded-native-nan", f"python-{part}.native")

    def guest(*flags: str) -> Result:
        return it.timecraft_command("run", "-q", *flags, program, scale)

    with state(bench, interpreter(it)[0]):
        guest("--nan", "native")
        turns = {
            "native": lambda: add("native", it.command([native(it), program, scale])),
            "recorded": lambda: add("recorded", guest()),
            "recorded-native-nan": lambda: add("recorded-native-nan", guest("--nan", "native")),
        }
        bench.take_turns(turns, ratios)


def echo(bench: Bench) -> None:
    """Lines of 64 bytes that an asyncio server sends back: native, and as a guest behind a published port."""
    it, samples, seconds = bench.contenders, bench.samples, ECHO_S * max(bench.scale, 0.1)
    program = str(PROGRAMS / "echo.py")

    def ask(name: str, server: Server, address: str) -> None:
        before = server.cpu_s()
        found = measured(bench, [LOAD, "echo", address, str(ECHO_CONNECTIONS), f"{seconds}s"])
        samples.add(f"python-echo.{name}", found["rate"], "requests/s")
        samples.add(f"python-echo.{name}.cpu", 1e6 * (server.cpu_s() - before) / found["requests"], "us/request")
        samples.add(f"python-echo.{name}.p99", found["p99"], "us")

    def outside() -> None:
        with serving(bench, [native(it), program]) as server:
            ask("native", server, server.wait_for("listening"))

    def guest(name: str) -> None:
        flags = ["-p", f"127.0.0.1:0:{GUEST_PORT}", *RECORDINGS[name]]
        command = [str(it.python), "-m", "timecraftd.cli", "run", *flags, program, str(GUEST_PORT)]
        with state(bench, interpreter(it)[0]), serving(bench, command) as server:
            server.wait_for("listening")
            ask(name, server, server.wait_for("published", errors=True).removesuffix(f":{GUEST_PORT}"))

    def ratios() -> None:
        samples.ratio("python-echo.recorded", "python-echo.native")
        samples.ratio("python-echo.recorded", "python-echo.unrecorded")
        cpu = samples.last("python-echo.recorded.cpu") / samples.last("python-echo.unrecorded.cpu")
        samples.add("python-echo.recorded/unrecorded.cpu", cpu, "x")

    bench.take_turns({"native": outside, **{name: lambda name=name: guest(name) for name in RECORDINGS}}, ratios)


def package(bench: Bench) -> None:
    """The size of what is downloaded."""
    folder = BUILD / "wheel"
    shutil.rmtree(folder, ignore_errors=True)
    guest = Path(__file__).resolve().parent.parent / "guest-python"
    command = ["-m", "pip", "wheel", "--quiet", "--no-deps", "--no-index", "--no-build-isolation", "-w", str(folder)]
    bench.contenders.command([str(bench.contenders.python), *command, str(guest)])
    (wheel,) = folder.iterdir()
    bench.samples.add("python-package.size", os.stat(wheel).st_size / MIB, "MiB")


CASES = {"python-start": start, "python-suite": suite, "python-echo": echo, "python-package": package}
