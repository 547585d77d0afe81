"""Guests as their files describe them (tests/guests/README.md), and a bench that runs and replays them in this process.

The bench speaks to the extension alone, without registry or command line: that is fast, and twin runs need switches
that no command has.
"""

from __future__ import annotations

import ast
import hashlib
import os
import shlex
import shutil
import threading
import tomllib
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from timecraftd import _native
from timecraftd.engine.spec import MIB, LimitSpec, LogSpec, ModuleSpec, MountSpec, ReplaySpec, RunSpec, Sockets

GUESTS = Path(__file__).resolve().parents[1] / "guests"
BUILT = GUESTS / "build"
LIMITS = LimitSpec(memory_bytes=1024 * MIB)
"""Bounds what growing guests grow to: their memory is hashed."""
WAIT_S = 100.0
HEADERS = {"expect", "args", "env", "stdin", "mount", "nan"}
SPECIAL_KEYS = {"name", "guest", "mounts", "exit", "stdin", "stdin_file", "stdout", "stdout_file", "varies"}
PLAIN_KEYS = {
    "args", "env", "sockets", "files", "symlinks", "copy", "stdout_match", "stdout_ends", "stdout_has", "stderr_has",
    "result", "unchanged",
}  # fmt: skip


@dataclass(frozen=True)
class Case:
    """One guest, what it is given, and what must come out."""

    name: str
    module: Path
    expect: Literal["exit", "trap", "error", "forever", "any"] = "exit"
    exit: int = 0
    args: list[str] = field(default_factory=list)
    env: dict[str, str] = field(default_factory=dict)
    stdin: bytes = b""
    mounts: list[str] = field(default_factory=list)
    sockets: Sockets = "auto"
    files: dict[str, Any] = field(default_factory=dict)
    symlinks: dict[str, str] = field(default_factory=dict)
    copy: dict[str, str] = field(default_factory=dict)
    stdout: bytes | None = None
    stderr: bytes | None = None
    stdout_match: Literal["exact", "prefix", "varies"] = "exact"
    stdout_errnos: Path | None = None
    """File with a text, a colon and the accepted errnos per line."""
    stdout_ends: str = ""
    stdout_has: list[str] = field(default_factory=list)
    stderr_has: list[str] = field(default_factory=list)
    result: dict[str, str] = field(default_factory=dict)
    unchanged: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Ran:
    """How a run or a replay ended, and what it wrote."""

    outcome: _native.Outcome
    stdout: bytes
    stderr: bytes

    @property
    def end(self) -> tuple[str, int, bytes, bytes]:
        """What must be equal between a run and its replays."""
        return (self.outcome.kind, self.outcome.code, self.stdout, self.stderr)


def wat_case(path: Path) -> Case:
    """The case that a .wat file's header describes. Raises ValueError for lines it doesn't know: they'd go untested."""
    case = Case(path.stem, path)
    for line in path.read_text().splitlines():
        key, colon, value = line.removeprefix(";;").strip().partition(":")
        if not line.startswith(";;"):
            break
        if colon and key in HEADERS:
            case = _with_header(case, key, value.strip())
    if not path.read_text().startswith(";; expect: "):
        raise ValueError(f"{path}: doesn't begin with ;; expect:")
    return case


def _with_header(case: Case, key: str, value: str) -> Case:
    if key == "expect":
        return _with_expectation(case, value)
    if key == "args":
        return replace(case, args=shlex.split(value))
    if key == "env":
        return replace(case, env=dict(item.split("=", 1) for item in shlex.split(value)))
    if key == "stdin":
        return replace(case, stdin=_literal(value))
    if key == "mount":
        return replace(case, mounts=[*case.mounts, value])
    return case  # nan: the default is what the header says


def _with_expectation(case: Case, text: str) -> Case:
    for word in _words(text):
        key, equals, value = word.partition("=")
        if not equals:
            case = replace(case, expect=key)  # type: ignore[arg-type]
        elif key == "exit":
            case = replace(case, exit=int(value))
        elif key in ("stdout", "stderr"):
            case = replace(case, **{key: _literal(value)})
        elif key == "stdout_file":
            case = replace(case, stdout_errnos=case.module.parent / _literal(value).decode())
        else:
            raise ValueError(f"{case.module}: unknown expectation {word}")
    if case.expect not in ("exit", "trap", "error", "forever", "any"):
        raise ValueError(f"{case.module}: unknown expectation {case.expect}")
    return case


def _words(text: str) -> list[str]:
    """Words, in which quoted parts keep their blanks, quotes and escapes."""
    words, quoted = [""], False
    for at, char in enumerate(text):
        if char == '"' and text[at - 1 : at] != "\\":
            quoted = not quoted
        if char == " " and not quoted:
            words.append("")
        else:
            words[-1] += char
    return [word for word in words if word]


def _literal(text: str) -> bytes:
    value = ast.literal_eval(f"b{text}")
    assert isinstance(value, bytes)
    return value


def toml_cases(path: Path, built: Path) -> list[Case]:
    """The cases of a cases.toml. Raises ValueError for keys it doesn't know."""
    return [_toml_case(table, path, built) for table in tomllib.loads(path.read_text())["case"]]


def _toml_case(table: dict[str, Any], path: Path, built: Path) -> Case:
    if unknown := table.keys() - SPECIAL_KEYS - PLAIN_KEYS:
        raise ValueError(f"{path}: {table['name']}: unknown keys {', '.join(sorted(unknown))}")
    values: dict[str, Any] = {key: table[key] for key in PLAIN_KEYS if key in table}
    if "stdin_file" in table:
        values["stdin"] = (path.parent / table["stdin_file"]).read_bytes()
    elif "stdin" in table:
        values["stdin"] = table["stdin"].encode()
    if "stdout_file" in table:
        values["stdout"] = (path.parent / table["stdout_file"]).read_bytes()
    elif "stdout" in table:
        values["stdout"] = table["stdout"].encode()
    if table.get("varies"):
        values["stdout_match"] = "varies"
    module = built / f"{table.get('guest', table['name'])}.wasm"
    return Case(table["name"], module, exit=table.get("exit", 0), mounts=table.get("mounts", []), **values)


WAT_CASES = [wat_case(path) for path in sorted(GUESTS.glob("*.wat"))]
GO_CASES = toml_cases(GUESTS / "go" / "cases.toml", BUILT)
C_CASES = toml_cases(GUESTS / "c" / "cases.toml", BUILT / "c")
REAL_CASES = toml_cases(GUESTS / "real" / "cases.toml", BUILT / "real")
CASES = {case.name: case for case in [*REAL_CASES, *WAT_CASES, *GO_CASES]}
"""By name; where a .wat and a Go guest share one (hello), it is Go's."""


def prepare(case: Case, scratch: Path) -> Case:
    """Fills a new scratch folder; returns the case with that folder's path filled in."""
    for mount in case.mounts:
        (scratch / mount.split(":")[0]).mkdir(parents=True, exist_ok=True)
    for name, content in case.files.items():
        path = scratch / name
        (path if name.endswith("/") else path.parent).mkdir(parents=True, exist_ok=True)
        if not name.endswith("/"):
            path.write_text(content if isinstance(content, str) else content["repeat"] * content["times"])
    for source, target in case.copy.items():
        folder = GUESTS / ("real" if case in REAL_CASES else "go")
        shutil.copytree(folder / source, scratch / target, dirs_exist_ok=True)
    for name, target in case.symlinks.items():
        (scratch / name).parent.mkdir(parents=True, exist_ok=True)
        (scratch / name).symlink_to(target.replace("{scratch}", str(scratch)))
    return replace(case, args=[arg.replace("{scratch}", str(scratch)) for arg in case.args])


def mounts_of(case: Case, scratch: Path) -> list[MountSpec]:
    """The case's mounts, on the folders of a scratch folder."""
    parts = [mount.split(":") for mount in case.mounts]
    tree = {"immutable": "no registry, no digest"}
    return [MountSpec(str(scratch / host), guest, mode != [], tree.get("".join(mode))) for host, guest, *mode in parts]


class Pipe:
    """A pipe whose output a thread collects."""

    def __init__(self) -> None:
        self._read_end, self.write_end = os.pipe2(os.O_CLOEXEC)
        self._data = b""
        self._thread = threading.Thread(target=self._collect, daemon=True)
        self._thread.start()

    def _collect(self) -> None:
        with open(self._read_end, "rb") as file:
            self._data = file.read()

    def finish(self) -> bytes:
        """What was written; all other write ends are closed by now."""
        os.close(self.write_end)
        self._thread.join(WAIT_S)
        assert not self._thread.is_alive(), "somebody still holds the pipe of a guest that ended"
        return self._data


class Bench:
    """Runs guests with logs in `work`, and machine code in a folder that all share."""

    def __init__(self, work: Path, artifacts: Path) -> None:
        self.work = work
        self.artifacts = artifacts
        self.trees: tuple[str | None, ...] = ()

    def module_spec(self, module: Path, sockets: Sockets = "auto") -> ModuleSpec:
        """Where a module's wasm lies. Raises ModuleError."""
        wasm = _native.to_wasm(module.read_bytes())
        path = self.work / f"{module.stem}.wasm"
        if not path.exists():
            path.write_bytes(wasm)
        return ModuleSpec(str(path), hashlib.sha256(wasm).hexdigest(), str(self.artifacts), sockets=sockets)

    def run(
        self, case: Case, scratch: Path, during: Callable[[_native.Guest], None] = lambda _: None, **changes: Any
    ) -> Ran:
        """Runs a prepared case, recorded. `during` is called while it runs. Raises ModuleError and others."""
        (self.work / "log").mkdir()
        mounts = tuple(mounts_of(case, scratch))
        self.trees = tuple(mount.host if mount.tree else None for mount in mounts)
        spec = RunSpec(
            module=self.module_spec(case.module, case.sockets),
            args=(case.module.name.encode(), *map(str.encode, case.args)),
            env=tuple(f"{key}={value}".encode() for key, value in case.env.items()),
            mounts=mounts,
            limits=LIMITS,
            log=LogSpec(str(self.work / "log"), str(uuid.uuid4()), b"{}"),
            memory_digest=True,
        )
        spec = replace(spec, **changes)
        stdin, writer = os.pipe2(os.O_CLOEXEC)
        try:
            with open(writer, "wb") as file:
                assert len(case.stdin) < 1 << 16, "fits the pipe, so that nobody needs to feed it"
                file.write(case.stdin)
            return self._collect(
                lambda out, err: _native.run(replace(spec, stdin_fd=stdin, stdout_fd=out, stderr_fd=err)), during
            )
        finally:
            os.close(stdin)

    def replay(self, module: Path, **changes: Any) -> Ran:
        """Replays what `run` recorded."""
        spec = ReplaySpec(
            self.module_spec(module),
            str(self.work / "log"),
            self.trees,
            LIMITS,
            memory_digest=True,
            **changes,
        )
        return self._collect(lambda out, err: _native.replay(replace(spec, stdout_fd=out, stderr_fd=err)))

    @staticmethod
    def _collect(
        start: Callable[[int, int], _native.Guest], during: Callable[[_native.Guest], None] = lambda _: None
    ) -> Ran:
        pipes = Pipe(), Pipe()
        outcome: _native.Outcome | None = None
        try:
            guest = start(pipes[0].write_end, pipes[1].write_end)
            during(guest)
            outcome = guest.wait(WAIT_S)
            if outcome is None:
                guest.kill(9)
                guest.wait(WAIT_S)
            del guest
        finally:
            stdout, stderr = (pipe.finish() for pipe in pipes)
        assert outcome is not None, f"the guest didn't end; it printed {stdout[-500:]!r} {stderr[-500:]!r}"
        return Ran(outcome, stdout, stderr)


def check(case: Case, ran: Ran, scratch: Path) -> None:
    """Holds an end against what the case expects."""
    shown = f"{ran.outcome.kind} {ran.outcome.code} {ran.outcome.message}\n{ran.stdout!r}\n{ran.stderr!r}"
    if case.expect == "any":
        assert ran.outcome.kind in ("exit", "trap"), shown
    else:
        assert ran.outcome.kind == case.expect, shown
    if case.expect == "exit":
        assert ran.outcome.code == case.exit, shown
    check_output(case, ran.stdout, ran.stderr)
    for name, content in case.result.items():
        assert (scratch / name).read_text() == content, name


def check_output(case: Case, stdout: bytes, stderr: bytes) -> None:
    """Holds output against what the case expects."""
    if case.stdout is not None and case.stdout_match == "exact":
        assert stdout == case.stdout
    if case.stdout is not None and case.stdout_match == "prefix":
        assert stdout[: len(case.stdout)] == case.stdout
    assert stdout.decode(errors="replace").endswith(case.stdout_ends)
    for part in case.stdout_has:
        assert part in stdout.decode(errors="replace")
    if case.stderr is not None:
        assert stderr == case.stderr
    for part in case.stderr_has:
        assert part in stderr.decode(errors="replace")
    if case.stdout_errnos is not None:
        check_errnos(case.stdout_errnos, stdout.decode())


def check_errnos(expected: Path, stdout: str) -> None:
    """Line by line: one of the accepted errnos."""
    lines, wanted = stdout.splitlines(), expected.read_text().splitlines()
    assert len(lines) == len(wanted)
    wrong = []
    for line, want in zip(lines, wanted, strict=True):
        text, _, accepted = want.rpartition(": ")
        said, _, errno = line.rpartition(": ")
        if said != text or errno not in accepted.split("|"):
            wrong.append(f"{line!r}, expected {want!r}")
    assert not wrong, "\n".join(wrong)


def contents(folder: Path) -> dict[str, tuple[object, ...]]:
    """All below a folder: kinds, bytes, link targets, modes and times. Equal if nothing was changed."""
    found: dict[str, tuple[object, ...]] = {}
    for path in sorted(folder.rglob("*")):
        stat = path.lstat()
        if path.is_symlink():
            content: object = os.readlink(path)
        else:
            content = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None
        found[str(path.relative_to(folder))] = (stat.st_mode, stat.st_mtime_ns, content)
    return found
