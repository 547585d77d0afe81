#!/usr/bin/env python3
"""The demonstration behind `make demo`: record a Go program, look into its log, replay it, compare the output."""

from __future__ import annotations

import difflib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TIMECRAFT = ROOT / ".venv" / "bin" / "timecraft"
GUEST = ROOT / "tests" / "guests" / "build" / "mapdemo.wasm"
DATA = ROOT / "tests" / "guests" / "go" / "mapdemo" / "data"
HOME = ROOT / "build" / "demo-state"
DESCRIBED = ("module name", "state", "records", "bytes stored", "replayable")
TRACED = ("random_get", '"raven.txt", 0', "fd_read(", "fd_write", "poll_oneoff", "proc_exit")
RANDOM = ("It is", "First words", "Five words", "Wrote")
"""What another run prints otherwise: time, random numbers, the order of a hash map, how long it took."""
COLUMNS = 110

COLOUR = sys.stdout.isatty() and "NO_COLOR" not in os.environ


def paint(code: str, text: str) -> str:
    return f"\033[{code}m{text}\033[0m" if COLOUR else text


def say(text: str) -> None:
    print(f"\n{paint('1', text)}", flush=True)


def timecraft(*arguments: str, shown: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run the command and show it as one would type it. Its failure is the demonstration's."""
    print(paint("36", f"$ timecraft {shown or ' '.join(arguments)}"), flush=True)
    done = subprocess.run(
        [TIMECRAFT, *arguments],
        capture_output=True,
        text=True,
        env=os.environ | {"TIMECRAFT_HOME": str(HOME)},
        check=False,
    )
    if done.returncode:
        sys.exit(f"{done.stdout}{done.stderr}\nerror: timecraft {arguments[0]} exited with {done.returncode}")
    return done


def show(lines: Iterable[str]) -> None:
    for line in lines:
        print(f"  {line[: COLUMNS - 1] + '…' if len(line) > COLUMNS else line}")


def main() -> int:
    if HOME.exists():
        shutil.rmtree(HOME)
    HOME.parent.mkdir(exist_ok=True)
    (HOME.parent / ".gitignore").write_text("*\n")
    with tempfile.TemporaryDirectory(prefix="timecraft-demo-") as folder:
        data = Path(folder, "data")
        shutil.copytree(DATA, data)

        say("1. A Go program, compiled to WebAssembly, runs in the sandbox: it sees one folder and nothing else.")
        arguments = ("run", "--dir", f"{data}:/data", str(GUEST))
        live = timecraft(*arguments, shown="run --dir data:/data mapdemo.wasm")
        show(live.stdout.splitlines())
        process = live.stderr.splitlines()[0].strip()

        say(f"2. Everything that entered it was recorded, as process {process}.")
        described = timecraft("describe", "process", process).stdout.splitlines()
        show(line.strip() for line in described if line.strip().startswith(DESCRIBED))

        say("3. The record explains the run, system call by system call.")
        traced = timecraft("trace", "syscall", process).stdout.splitlines()
        show(sorted(next((line for line in traced if call in line), "") for call in TRACED))
        print(paint("2", f"  … {len(traced)} lines in all"))

    # The folder is gone now: what follows can't look at it.
    say("4. The folder is gone. A replay needs none: time, random numbers, files come from the record; nothing waits.")
    start = time.monotonic()
    replayed = timecraft("replay", process)
    elapsed_ms = 1000 * (time.monotonic() - start)
    difference = list(
        difflib.unified_diff(live.stdout.splitlines(), replayed.stdout.splitlines(), "run", "replay", lineterm="")
    )
    if difference:
        print("\n".join(difference))
        sys.exit("error: the replay's output differs from the run's")
    lines = len(live.stdout.splitlines())
    show(line for line in replayed.stdout.splitlines() if line.startswith(RANDOM))
    print(f"  … and the rest: {paint('32', 'identical')}, {lines} lines, in {elapsed_ms:.0f} ms")

    say("Look further:")
    print(f"  export TIMECRAFT_HOME={HOME.relative_to(ROOT)}")
    short = process.split("-")[0]
    for command, meaning in (
        (f"replay --trace {short}", "the calls beside the output"),
        (f"export process {short} -o run.tar.gz", "one file, which replays on another machine"),
        ("run --dir DIR:/data YOUR.wasm", "your own program: GOOS=wasip1 GOARCH=wasm go build"),
    ):
        print(f"  {f'.venv/bin/timecraft {command}':58} {paint('2', meaning)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
