#!/usr/bin/env python3
"""Run a wasi-testsuite folder: each test recorded, then replayed; both must give what the test's JSON file says.

A test is NAME.wasm (or NAME.wat). NAME.json, if present, may have `args`, `env`, `root` (a folder beside it; the guest
sees a fresh copy as `/`, read-write), `stdin`, `exit_code` (default 0), `stdout` and `stderr` (compared if given).
A test that names no `root` sees no files at all. Standard library only.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT_S = 60
KNOWN_KEYS = {"args", "env", "root", "stdin", "exit_code", "stdout", "stderr"}


@dataclass(frozen=True)
class Case:
    """One test of a suite: what to run, and what must come out."""

    module: Path
    args: list[str] = field(default_factory=list)
    env: dict[str, str] = field(default_factory=dict)
    root: str | None = None
    stdin: str = ""
    exit_code: int = 0
    stdout: str | None = None
    stderr: str | None = None

    @property
    def name(self) -> str:
        return self.module.stem


@dataclass(frozen=True)
class Ended:
    """How a program ended."""

    code: int
    stdout: bytes
    stderr: bytes


def cases(suite: Path) -> list[Case]:
    """The tests of a suite, by name. Raises ValueError on keys it doesn't know: they would go untested."""
    found = []
    for module in sorted([*suite.glob("*.wasm"), *suite.glob("*.wat")]):
        description = module.with_suffix(".json")
        options = json.loads(description.read_text()) if description.exists() else {}
        if unknown := options.keys() - KNOWN_KEYS:
            raise ValueError(f"{description}: unknown keys {', '.join(sorted(unknown))}")
        if "root" in options and not (suite / options["root"]).is_dir():
            raise ValueError(f"{description}: no folder {options['root']}")
        found.append(Case(module, **options))
    return found


def execute(command: list[str], home: Path, stdin: str) -> Ended:
    """Run a command with a state directory of its own, and nothing else of ours in its environment."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("TIMECRAFT_")}
    done = subprocess.run(
        command,
        input=stdin.encode(),
        capture_output=True,
        env=environment | {"TIMECRAFT_HOME": str(home)},
        timeout=TIMEOUT_S,
        check=False,
    )
    return Ended(done.returncode, done.stdout, done.stderr)


def differences(case: Case, ended: Ended) -> list[str]:
    """How an end differs from what the test expects."""
    found = []
    if ended.code != case.exit_code:
        found.append(f"exit code {ended.code}, expected {case.exit_code}")
    for stream, expected in (("stdout", case.stdout), ("stderr", case.stderr)):
        actual = getattr(ended, stream)
        if expected is not None and actual != expected.encode():
            found.append(f"{stream} {actual!r}, expected {expected.encode()!r}")
    return found


def run_command(timecraft: str, case: Case, root: Path | None) -> list[str]:
    """The command line that runs a test recorded."""
    command = [timecraft, "run"]
    if root is not None:
        command += ["--dir", f"{root}:/"]
    for key, value in case.env.items():
        command += ["-e", f"{key}={value}"]
    return [*command, str(case.module), *case.args]


def check(timecraft: str, case: Case) -> list[str]:
    """Record and replay one test; returns what was wrong."""
    with tempfile.TemporaryDirectory(prefix="conformance-") as scratch:
        home = Path(scratch, "home")
        root = None
        if case.root is not None:
            root = Path(scratch, "root")
            shutil.copytree(case.module.parent / case.root, root, symlinks=True)
        try:
            live = execute(run_command(timecraft, case, root), home, case.stdin)
            first, _, rest = live.stderr.partition(b"\n")
            live = Ended(live.code, live.stdout, rest)
            process = first.decode(errors="replace").strip()
            if not process or " " in process:
                return [f"recorded: no process id on the first line of stderr: {first!r}, then {rest[:2000]!r}"]
            wrong = [f"recorded: {text}" for text in differences(case, live)]
            if root is not None:
                shutil.rmtree(root)  # a replay that looked at it would fail
            again = execute([timecraft, "replay", process], home, "")
        except subprocess.TimeoutExpired as error:
            return [f"did not end within {TIMEOUT_S} s: {error.cmd[1]}"]
        wrong += [f"replayed: {text}" for text in differences(case, again)]
        if again != live:
            wrong.append(f"the replay differs from the run: {again}, {live}")
        elif wrong:
            wrong.append(f"stderr: {live.stderr[-2000:].decode(errors='replace')}")
        return wrong


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("suite", type=Path, nargs="+", help="folder of tests")
    parser.add_argument("--timecraft", default=str(ROOT / ".venv/bin/timecraft"), help="the command to test")
    parser.add_argument("-j", "--jobs", type=int, default=os.cpu_count() or 1, help="tests at a time")
    parser.add_argument("-v", "--verbose", action="store_true", help="name the tests that pass, too")
    options = parser.parse_args(arguments)

    start = time.monotonic()
    passed = failed = 0
    for suite in options.suite:
        try:
            selected = cases(suite)
        except (OSError, ValueError) as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
        if not selected:
            print(f"error: no tests in {suite}", file=sys.stderr)
            return 2
        with ThreadPoolExecutor(options.jobs) as pool:
            results = pool.map(lambda case: check(options.timecraft, case), selected)
            for case, wrong in zip(selected, results, strict=True):
                passed += not wrong
                failed += bool(wrong)
                if wrong or options.verbose:
                    print(f"{'FAIL' if wrong else 'ok  '} {suite.name}/{case.name}", *wrong, sep="\n     ", flush=True)
    names = ", ".join(suite.name for suite in options.suite)
    print(f"{names}: {passed} passed, {failed} failed (recorded and replayed, {time.monotonic() - start:.1f} s)")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
