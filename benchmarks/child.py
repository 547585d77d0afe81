"""Runs one guest in a process of its own, and prints a JSON object: how it ended, counters, memory of this process.

`child.py timecraft|replay|trace|compile|wasmtime|wasmtime-compile SPEC`, SPEC being JSON. Each start is a new process,
so that the peak of its memory is that of one run.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
import uuid

KIB = 1024
RESERVATION_MIN = 1 << 30


def host_memory(pid: int | str = "self") -> dict[str, int]:
    """Resident bytes of a process: all at its peak, and now by kind."""
    wanted = {"VmHWM": "peak", "RssAnon": "anonymous", "RssFile": "file", "RssShmem": "shared"}
    found = {}
    with open(f"/proc/{pid}/status") as status:
        for line in status:
            key, _, value = line.partition(":")
            if key in wanted:
                found[wanted[key]] = int(value.split()[0]) * KIB
    return found


def guest_memory(pid: int | str = "self") -> int:
    """Resident bytes of linear memory: of the mapping in front of a big reservation of address space."""
    best = last_end = last_rss = 0
    with open(f"/proc/{pid}/smaps") as smaps:
        for line in smaps:
            first, _, rest = line.partition(" ")
            if first == "Rss:":
                last_rss = int(rest.split()[0]) * KIB
            elif "-" in first and not first.endswith(":"):
                begin, end = (int(part, 16) for part in first.split("-"))
                reserved = rest.startswith("---p") and end - begin >= RESERVATION_MIN
                if reserved and begin == last_end:
                    best = max(best, last_rss)
                last_end = end
    return best


def module_spec(spec):
    from timecraftd.engine.spec import ModuleSpec

    return ModuleSpec(path=spec["module"], digest=spec["digest"], artifact_dir=spec["artifacts"])


def run_timecraft(spec) -> dict:
    from timecraftd.engine.runtime import Engine
    from timecraftd.engine.spec import LogSpec, MountSpec, RunSpec

    output = tempfile.TemporaryFile()  # noqa: SIM115 (as long as the process)
    null = os.open(os.devnull, os.O_WRONLY)
    ring = f"/dev/shm/timecraft-bench-{os.getpid()}.ring"
    log = None
    if spec.get("log"):
        durability = spec.get("durability", "flush")
        log = LogSpec(spec["log"], str(uuid.UUID(int=1)), b"{}", ring_path=ring, durability=durability)
    mounts = tuple(MountSpec(*mount) for mount in spec["mounts"])
    env = tuple(item.encode() for item in spec.get("env", ()))
    args = tuple(os.fsencode(arg) for arg in (spec["name"], *spec["args"]))
    begin = time.perf_counter_ns()
    guest = Engine().run(
        RunSpec(module_spec(spec), args, env, mounts, stdout_fd=output.fileno(), stderr_fd=null, log=log)
    )
    touched = sample = 0
    if spec.get("sample_s"):
        guest.wait(spec["sample_s"])
        touched = guest_memory()
        sample = host_memory()
    outcome = guest.wait()
    wall_ns = time.perf_counter_ns() - begin
    output.seek(0)
    return described(outcome, wall_ns) | {"output": output.read().decode(), "touched": touched, "sample": sample}


def run_replay(spec) -> dict:
    from timecraftd.engine.runtime import Engine
    from timecraftd.engine.spec import ReplaySpec

    output = tempfile.TemporaryFile()  # noqa: SIM115 (as long as the process)
    begin = time.perf_counter_ns()
    guest = Engine().replay(ReplaySpec(module_spec(spec), spec["log"], stdout_fd=output.fileno()))
    outcome = guest.wait()
    wall_ns = time.perf_counter_ns() - begin
    output.seek(0)
    return described(outcome, wall_ns) | {"output": output.read().decode()}


def run_trace(spec) -> dict:
    """The trace of a log, as text that nobody reads: the time is that of reading, following and writing it."""
    from timecraftd.recorder.logs import Logs, TrafficQuery
    from timecraftd.timemachine.traffic import Traffic

    records, lines = Logs().info(spec["log"]).records, 0
    begin = time.perf_counter_ns()
    for text in Traffic(Logs(), spec["log"], TrafficQuery(layer=spec["layer"], verbose=spec["verbose"])).text():
        lines += text.count(b"\n")
    return {"wall_ns": time.perf_counter_ns() - begin, "stats": {"records": records, "lines": lines}}


def described(outcome, wall_ns: int) -> dict:
    if outcome.kind != "exit" or outcome.code:
        sys.exit(f"{outcome.kind} {outcome.code}: {outcome.message}")
    return {"wall_ns": wall_ns, "stats": outcome.stats, "artifact": outcome.artifact}


def run_compile(spec) -> dict:
    from timecraftd import _native  # noqa: TID251 (no facade has this alone)

    begin, cpu = time.perf_counter_ns(), time.process_time_ns()
    compiled = _native.compile_module(spec["module"], spec["digest"], spec["artifacts"], 1 << 30)
    return {"wall_ns": time.perf_counter_ns() - begin, "cpu_ns": time.process_time_ns() - cpu, "artifact": compiled}


def wasmtime_engine(spec):
    from wasmtime import Config, Engine

    config = Config()
    config.cranelift_nan_canonicalization = bool(spec.get("canonical"))
    return Engine(config)


def run_wasmtime(spec) -> dict:
    from wasmtime import ExitTrap, Linker, Module, Store, WasiConfig

    engine = wasmtime_engine(spec)
    begin = time.perf_counter_ns()
    module = Module.deserialize_file(engine, spec["artifact"])
    loaded_ns = time.perf_counter_ns() - begin
    with tempfile.NamedTemporaryFile() as output:
        wasi = WasiConfig()
        wasi.argv = [spec["name"], *spec["args"]]
        wasi.stdout_file = output.name
        wasi.stderr_file = os.devnull
        for host, guest, _ in spec["mounts"]:
            wasi.preopen_dir(host, guest)
        store = Store(engine)
        store.set_wasi(wasi)
        linker = Linker(engine)
        linker.define_wasi()
        instance = linker.instantiate(store, module)
        try:
            instance.exports(store)["_start"](store)
        except ExitTrap as end:
            if end.code:
                sys.exit(f"exit code {end.code}")
        wall_ns = time.perf_counter_ns() - begin
        with open(output.name) as text:
            return {"wall_ns": wall_ns, "load_ns": loaded_ns, "output": text.read()}


def run_wasmtime_compile(spec) -> dict:
    from wasmtime import Module

    engine = wasmtime_engine(spec)
    with open(spec["module"], "rb") as file:
        wasm = file.read()
    begin, cpu = time.perf_counter_ns(), time.process_time_ns()
    code = Module(engine, wasm).serialize()
    result = {"wall_ns": time.perf_counter_ns() - begin, "cpu_ns": time.process_time_ns() - cpu}
    with open(spec["artifact"], "wb") as file:
        file.write(code)
    return result


VERBS = {
    "timecraft": run_timecraft,
    "replay": run_replay,
    "trace": run_trace,
    "compile": run_compile,
    "wasmtime": run_wasmtime,
    "wasmtime-compile": run_wasmtime_compile,
}


def main() -> None:
    result = VERBS[sys.argv[1]](json.loads(sys.argv[2]))
    # Not ru_maxrss, which begins at what the parent had when it forked.
    result["memory"] = host_memory()
    result["peak_rss"] = result["memory"]["peak"]
    print(json.dumps(result))


if __name__ == "__main__":
    main()
