#!/usr/bin/env python3
"""Measures Timecraft beside wasmtime, wazero and native Go, and holds the medians against targets.toml.

`make bench` builds what this needs and runs it. Results go to benchmarks/results, one JSON file a run.
docs/benchmarks.md says what is measured, and how to read it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import time
import tomllib
from pathlib import Path

from contenders import BUILD, ROOT, WASMTIME, WAZERO, BenchError, Contenders
from measures import CASES as ALONE
from measures import Bench
from network import CASES as ON_THE_NETWORK
from node import CASES as ON_A_NODE
from python_guest import CASES as IN_PYTHON
from storage import CASES as ON_DISK
from uploads import CASES as TO_A_STORE

HERE = Path(__file__).resolve().parent
ROUNDS, ROUNDS_QUICK = 7, 2
SCALE_QUICK = 0.1
CASES = ALONE | ON_THE_NETWORK | IN_PYTHON | ON_A_NODE | ON_DISK | TO_A_STORE


def main() -> int:
    options = parse()
    target_dir = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    library = options.library or target_dir / "release" / "lib_native.so"
    BUILD.mkdir(exist_ok=True)
    try:
        contenders = Contenders(library)
        contenders.prepare()
        rounds = options.rounds or (ROUNDS_QUICK if options.quick else ROUNDS)
        bench = Bench(contenders, rounds, SCALE_QUICK if options.quick else 1.0)
        if contenders.build_info()["profile"] != "release":
            raise BenchError(f"{library} isn't an optimised build")
        report = {"environment": environment(contenders), "rounds": rounds, "quick": options.quick, "cases": {}}
        failures = run_cases(bench, options.only, report["cases"])
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    targets = tomllib.loads((HERE / "targets.toml").read_text())["target"]
    rows = judge(bench, targets)
    report["measures"] = rows
    report["failures"] = failures
    show(rows)
    for failure in failures:
        print(f"NOT MEASURED {failure}", file=sys.stderr)
    print(f"\nwritten to {write(report, options)}")
    return 1 if failures else 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measures Timecraft beside wasmtime, wazero and native Go.")
    parser.add_argument("--only", metavar="NAME", action="append", help=f"one of {', '.join(CASES)}, or a prefix")
    parser.add_argument("--rounds", type=int, metavar="N", help=f"turns of each contender (default: {ROUNDS})")
    parser.add_argument("--quick", action="store_true", help="two rounds of a tenth of the work: does it run at all?")
    parser.add_argument("--library", type=Path, help="the extension to measure (default: the release build)")
    parser.add_argument("--name", default="run", help="goes into the name of the file of results")
    return parser.parse_args()


def run_cases(bench: Bench, only: list[str] | None, cases: dict) -> list[str]:
    """Runs the cases asked for. One that can't be measured doesn't keep the others from it."""
    chosen = [name for name in CASES if not only or any(name.startswith(wanted) for wanted in only)]
    if not chosen:
        raise BenchError(f"no case is named {', '.join(only or [])}: there are {', '.join(CASES)}")
    failures = []
    for name in chosen:
        print(f"{name}...", end=" ", flush=True)
        begin, before = time.monotonic(), processor_time()
        try:
            CASES[name](bench)
        except BenchError as error:
            failures.append(f"{name}: {error}")
        except subprocess.CalledProcessError as error:
            failures.append(f"{name}: {error}: {error.stderr}")
        except KeyboardInterrupt:
            failures.append(f"{name} and what comes after it: interrupted")
            break
        seconds = time.monotonic() - begin
        others = (processor_time() - before) / seconds / (os.cpu_count() or 1)
        cases[name] = {"seconds": round(seconds, 1), "others_share_of_cpu": round(max(others, 0.0), 3)}
        print(f"{seconds:.0f} s, others had {max(others, 0):.0%} of the processors", flush=True)
    return failures


def processor_time() -> float:
    """Seconds of processor time that the machine spent on others than this program and its children."""
    with open("/proc/stat") as stat:
        user, nice, system, _, _, irq, softirq, steal = map(int, stat.readline().split()[1:9])
    busy = (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")
    times = os.times()
    return busy - (times.user + times.system + times.children_user + times.children_system)


def environment(contenders: Contenders) -> dict:
    with open("/proc/cpuinfo") as info:
        model = re.search(r"^model name\s*: (.*)$", info.read(), re.MULTILINE)
    go = subprocess.run(["go", "env", "GOVERSION"], check=False, capture_output=True, text=True, cwd=ROOT)
    commit = subprocess.run(["git", "rev-parse", "HEAD"], check=False, capture_output=True, text=True, cwd=ROOT)
    return {
        "timecraft": contenders.build_info(),
        "commit": commit.stdout.strip(),
        "cpu": model[1] if model else platform.machine(),
        "cpus": os.cpu_count(),
        "kernel": platform.release().partition("-")[0],
        "python": platform.python_version(),
        "go": go.stdout.strip(),
        "wasmtime": WASMTIME,
        "wazero": WAZERO.removeprefix("v"),
        "load_average": os.getloadavg(),
    }


def judge(bench: Bench, targets: list[dict]) -> list[dict]:
    """A row for each measure: median, spread, target, verdict."""
    bounds = {target["measure"]: target for target in targets}
    rows = []
    for measure, values in bench.samples.values.items():
        median = statistics.median(values)
        bound = bounds.get(measure, {})
        verdict = "informational"
        if bound:
            met = median <= bound.get("max", median) and median >= bound.get("min", median)
            verdict = "met" if met else "missed"
        rows.append({
            "measure": measure, "unit": bench.samples.units[measure], "median": median, "lowest": min(values),
            "highest": max(values), "verdict": verdict, "samples": values,
            **{key: bound[key] for key in ("max", "min", "original") if key in bound},
        })  # fmt: skip
    return rows


def show(rows: list[dict]) -> None:
    def line(row: dict) -> str:
        target = f"<= {row['max']:g}" if "max" in row else f">= {row['min']:g}" if "min" in row else ""
        spread = f"{row['lowest']:.4g} to {row['highest']:.4g}"
        shown = "" if row["verdict"] == "informational" else row["verdict"]
        return f"{row['measure']:52} {row['median']:10.4g} {row['unit']:12} {spread:22} {target:10} {shown}"

    print(f"\n{'measure':52} {'median':>10} {'unit':12} {'spread':22} {'target':10} verdict")
    for row in rows:
        if row["verdict"] != "informational":
            print(line(row))
    print("\nfor information")
    for row in rows:
        if row["verdict"] == "informational":
            print(line(row))


def write(report: dict, options: argparse.Namespace) -> Path:
    """Keeps the results; those of quick or partial runs aside, where git ignores them."""
    whole = not options.quick and not options.only
    folder = HERE / "results" if whole else BUILD / "results"
    folder.mkdir(exist_ok=True)
    path = folder / f"{time.strftime('%Y-%m-%d')}-{options.name}.json"
    path.write_text(json.dumps(report, indent=1) + "\n")
    return path.relative_to(ROOT)


if __name__ == "__main__":
    sys.exit(main())
