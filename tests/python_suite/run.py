"""CPython's own tests in the Python guest: each module of suite.toml is run, recorded, replayed, and judged.

usage: python -m tests.python_suite.run [MODULE...]

Of a run of all modules `docs/python-tests.md` tells the counts.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import time
import tomllib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import timecraft_python_guest as guest

from tests.e2e.cli import COMMAND, Cli, Done
from tests.e2e.guests import BUILT

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
ARCHIVE = ROOT / "guest-python" / "artifacts" / "python311-tests.tar.xz"
DOCUMENT = ROOT / "docs" / "python-tests.md"
JOBS = 2
TIMEOUT_S = 600
SKIPS_SHOWN_MIN = 10
"""Reasons of fewer skips aren't told one by one."""


@dataclass(frozen=True, slots=True)
class Expectation:
    """Why a test fails, and what its traceback then says."""

    reason: str
    message: re.Pattern[str]


@dataclass(frozen=True, slots=True)
class Module:
    """A test module, and what of it fails."""

    name: str
    overlays: tuple[str, ...] = ()
    in_subset: bool = False
    expected: Mapping[str, Expectation] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a test ended, `text` is the reason of a skip or a traceback."""

    test: str
    kind: str
    text: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    """What came of a module."""

    module: Module
    outcomes: Sequence[Outcome]
    problems: Sequence[str]
    """What is not as it should be; none if all is well."""

    def count(self, kind: str) -> int:
        return sum(outcome.kind == kind for outcome in self.outcomes)


def read_suite(text: str) -> list[Module]:
    """The modules of a suite.toml. Raises ValueError if it expects what is in none, or one thing twice."""
    table = tomllib.loads(text)
    expected: dict[str, dict[str, Expectation]] = {name: {} for name in table["modules"]}
    for entry in table["expected"]:
        expectation = Expectation(entry["reason"], re.compile(entry["message"]))
        for group, names in entry["tests"].items():
            module = next((name for name in expected if f"{group}.".startswith(f"{name}.")), None)
            if module is None:
                raise ValueError(f"{group}: of no module that is run")
            for name in names.split():
                if expected[module].setdefault(f"{group}.{name}", expectation) is not expectation:
                    raise ValueError(f"{group}.{name}: is expected twice")
    return [
        Module(name, tuple(options.get("overlays", ())), options.get("subset", False), expected[name])
        for name, options in table["modules"].items()
    ]


def judge(module: Module, done: Done) -> Report:
    """Holds what a module's tests told against what is expected of them."""
    told = [Outcome(*json.loads(line)) for line in re.findall("\x1e(.*)\n", done.out)]
    outcomes = [outcome for outcome in told if outcome.test]
    problems = [problem for outcome in outcomes if (problem := _judge(outcome, module.expected.get(outcome.test)))]
    if not told or told[-1].test or done.code != 0:
        problems.append(f"{module.name}: didn't come to its end: {done.shown}")
    elif missing := module.expected.keys() - {outcome.test for outcome in outcomes}:
        problems += [f"{test}: is expected to fail, and there is no such test" for test in sorted(missing)]
    return Report(module, outcomes, problems)


def _judge(outcome: Outcome, expectation: Expectation | None) -> str | None:
    """What is wrong about a test's end, if anything."""
    if expectation is None:
        return f"{outcome.test}: failed\n{outcome.text}" if outcome.kind == "failed" else None
    if outcome.kind != "failed":
        return f"{outcome.test}: {outcome.kind}, and is expected to fail: {expectation.reason}"
    if not expectation.message.search(outcome.text):
        return f"{outcome.test}: failed, but not by {expectation.message.pattern!r}\n{outcome.text}"
    return None


def unpacked() -> Path:
    """The folder of the test modules, unpacked when it is first asked for."""
    content = ARCHIVE.read_bytes()
    folder = BUILT / f"python-tests-{hashlib.sha256(content).hexdigest()[:16]}"
    if not folder.exists():
        folder.parent.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as draft, tarfile.open(ARCHIVE) as archive:
            archive.extractall(f"{draft}/lib", filter="data")
            Path(draft, "lib").replace(folder)
    return folder


def execute(module: Module, cli: Cli, scratch: Path) -> Report:
    """Runs a module with an empty folder as its file system, and replays it."""
    (scratch / "tmp").mkdir(parents=True)
    mounts = {
        scratch: "/",
        HERE: "/suite:ro",
        Path(guest.stdlib()).parent: f"{guest.LIBRARY_MOUNT}:immutable",
        unpacked(): f"{guest.LIBRARY_MOUNT}/python3.11:immutable",
        Path(os.devnull): os.devnull,
    }
    flags = [part for host, place in mounts.items() for part in ("--dir", f"{host}:{place}")]
    variables = ("-e", "PYTHONHOME=/usr", "-e", "PYTHONDONTWRITEBYTECODE=1", "-e", "HOME=/tmp")
    command = (guest.module(), "/suite/guest.py", module.name, *module.overlays)
    done = call(cli, "run", *flags, *variables, *command)
    process, _, stderr = done.stderr.partition("\n")
    done = Done(done.code, done.stdout, stderr)
    report = judge(module, done)
    again = call(cli, "replay", process)
    if (again.code, again.stdout, again.stderr) != (done.code, done.stdout, done.stderr):
        return Report(module, report.outcomes, [*report.problems, f"{module.name}: replayed otherwise: {again.shown}"])
    return report


def call(cli: Cli, *args: str | Path) -> Done:
    """Runs a command to its end, whatever that is: the guest may print tracebacks."""
    done = subprocess.run(
        [COMMAND, *args], stdin=subprocess.DEVNULL, capture_output=True, timeout=TIMEOUT_S, env=cli.environment
    )
    return Done(done.returncode, done.stdout, done.stderr.decode(errors="replace"))


def execute_all(modules: Sequence[Module], home: Path) -> list[Report]:
    """Runs modules, some at a time; tells of each on standard output."""
    cli = Cli(home / "state")
    unpacked()  # once, before they ask for it together

    def timed(module: Module) -> Report:
        start_s = time.monotonic()
        report = execute(module, cli, home / module.name)
        counts = ", ".join(f"{report.count(kind)} {kind}" for kind in ("passed", "skipped", "failed"))
        print(f"{module.name}: {counts}; {time.monotonic() - start_s:.1f} s", flush=True)
        for problem in report.problems:
            print(f"  {problem}", flush=True)
        return report

    with ThreadPoolExecutor(JOBS) as pool:
        return list(pool.map(timed, modules))


def document(reports: Sequence[Report]) -> str:
    """`docs/python-tests.md`."""
    rows = [(report.module.name, *counts(report)) for report in reports]
    total = [sum(row[column] for row in rows) for column in range(1, 5)]  # type: ignore[misc]
    reasons = Counter(each.reason for report in reports for each in report.module.expected.values())
    skips = Counter(
        " ".join(outcome.text.split()) for report in reports for outcome in report.outcomes if outcome.kind == "skipped"
    )
    shown = [(reason, count) for reason, count in skips.most_common() if count >= SKIPS_SHOWN_MIN]
    others = sum(skips.values()) - sum(count for _, count in shown)
    return "\n".join(
        [
            *HEADING.splitlines(),
            "",
            *table(("module", "run", "passed", "skipped", "expected failures"), [*rows, ("all", *total)]),
            "",
            "## Why tests fail",
            "",
            "`tests/python_suite/suite.toml` names them one by one.",
            "",
            *table(("reason", "tests"), reasons.most_common()),
            "",
            "## Why tests are skipped",
            "",
            "Tests look for themselves whether they make sense; these are their words.",
            "",
            *table(("reason", "tests"), [*shown, ("other reasons", others)]),
            "",
        ]
    )


HEADING = """\
# CPython's own tests

The guest runs the test modules that come with CPython 3.11 as they are, out of the same sources as the interpreter,
with its security fixes. Each run is replayed, and must print the same. `make python-suite` does it and writes this
page; `make test` runs some of the modules, `make soak` all. A test that fails and isn't expected to, and one that is
expected to and doesn't, are both errors.
"""


def counts(report: Report) -> tuple[int, int, int, int]:
    """Run, passed, skipped, failed."""
    passed, skipped, failed = (report.count(kind) for kind in ("passed", "skipped", "failed"))
    return passed + failed, passed, skipped, failed


def table(heading: Iterable[str], rows: Iterable[Iterable[Any]]) -> list[str]:
    """A Markdown table; columns but the first hold numbers."""
    names = list(heading)
    lines = [names, ["---"] + ["--:"] * (len(names) - 1), *rows]
    return [f"| {' | '.join(str(cell).replace('|', '/') for cell in line)} |" for line in lines]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("modules", metavar="MODULE", nargs="*", help="as in suite.toml; all if none is named")
    chosen = parser.parse_args().modules
    modules = read_suite((HERE / "suite.toml").read_text())
    if unknown := set(chosen) - {module.name for module in modules}:
        parser.error(f"suite.toml has no {', '.join(sorted(unknown))}")
    with tempfile.TemporaryDirectory() as home:
        reports = execute_all([module for module in modules if not chosen or module.name in chosen], Path(home))
    problems = sum(len(report.problems) for report in reports)
    if not chosen and not problems:
        DOCUMENT.write_text(document(reports))
    print(f"{len(reports)} modules, {problems} problems")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
