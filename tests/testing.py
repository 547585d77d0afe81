"""Fakes for tests; never imported by timecraftd."""

from __future__ import annotations

import itertools
import json
import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from timecraftd.config import Config, load_config
from timecraftd.embedded import Runtime
from timecraftd.engine.runtime import Engine
from timecraftd.errors import LogError, ModuleError
from timecraftd.recorder.logs import Logs

BUILD_INFO = {
    "version": "0.1.0",
    "profile": "debug",
    "engine": "fake",
    "engine_version": "1.0",
    "compiler": "none",
    "target": "x86_64-unknown-linux-gnu",
    "cpu_features": "sse2",
    "flags": "nan=canonical",
    "log_format": "2",
}


class FakeClock:
    """A clock that tests move."""

    def __init__(self, now_ns: int = 1_800_000_000_000_000_000) -> None:
        self.ns = now_ns

    def __call__(self) -> int:
        return self.ns

    def advance(self, seconds: float) -> None:
        """Lets time pass."""
        self.ns += round(seconds * 1e9)


@dataclass
class FakeOutcome:
    """An end of a guest."""

    kind: str = "exit"
    code: int = 0
    message: str = ""
    backtrace: list[str] = field(default_factory=list)
    last_seq: int | None = 7
    memory_digest: str = ""
    stats: dict[str, int] = field(default_factory=dict)
    artifact: str = "compiled"


class FakeGuest:
    """A guest that ends at once, or when it is killed."""

    def __init__(self, outcome: FakeOutcome | None, ended: Callable[[FakeOutcome], None]) -> None:
        self._outcome = outcome
        self._killed = threading.Event()
        self._ended = ended
        self.interrupts = 0
        """Those that it hasn't noticed."""
        if outcome is not None:
            ended(outcome)

    def wait(self, timeout_s: float | None = None) -> FakeOutcome | None:
        """The end."""
        if self._outcome is None:
            while not self._killed.wait(0.01):
                if timeout_s is not None:
                    return None
        return self._outcome

    def kill(self, signal: int) -> None:
        """Ends the guest."""
        if self._outcome is None:
            self._outcome = FakeOutcome("killed", 128 + signal, f"killed by signal {signal}")
            self._ended(self._outcome)
            self._killed.set()

    def interrupt(self) -> bool:
        """Notes one."""
        self.interrupts += 1
        return self.interrupts == 1


@dataclass
class FakeModuleInfo:
    """A module's description."""

    imports: list[tuple[str, str, str]] = field(default_factory=list)
    exports: list[tuple[str, str]] = field(default_factory=lambda: [("_start", "func ()")])
    memory_min_bytes: int = 65536
    memory_max_bytes: int | None = None
    functions: int = 1


@dataclass
class FakeLogInfo:
    """A log's summary."""

    records: int = 8
    last_seq: int | None = 7
    segments: int = 1
    blocks: int = 1
    bytes_stored: int = 100
    bytes_raw: int = 200
    start_unix_ns: int = 1_800_000_000_000_000_000
    last_time_ns: int = 5_000_000
    epochs: int = 1
    end: tuple[str, int, str] | None = None
    incomplete_from: int | None = None


@dataclass
class FakeRecovery:
    """What recovery did."""

    records_recovered: int = 0
    bytes_cut: int = 0
    last_seq: int | None = 7
    ended: bool = False


class FakeNative(ModuleType):
    """`timecraftd._native` without a guest: a module in text form is a JSON object that says what happens.

    `(module {"stdout": "hi", "kind": "exit", "code": 0})`; with `"kind": "block"` the guest runs until it is killed.
    A log is one file with that script and the end.
    """

    def __init__(self, name: str = "timecraftd._native") -> None:
        super().__init__(name)
        self.info: dict[str, str] = dict(BUILD_INFO)
        self.specs: list[Any] = []
        self.fail_run: Exception | None = None
        self.replay_outcome: FakeOutcome | None = None
        self.compiled: set[str] = set()
        native = self

        class LogReader:
            """Reads the fake log."""

            def __init__(self, log_dir: str, trees: Sequence[str | None] = ()) -> None:
                self._log = native.read_log(log_dir)
                self._trace = iter(
                    [f"{number} fd_write(1, ...) = 0" for number in range(int(self._log.get("records", 2)))]
                )
                self._output = [(1, 1, self._log.get("stdout", "")), (2, 2, self._log.get("stderr", ""))]

            def seek_time(self, time_ns: int) -> None:
                """Ignored."""

            def clock(self) -> list[tuple[int, int]]:
                """One epoch."""
                return [(0, FakeLogInfo().start_unix_ns)]

            def trace(self, records_max: int, **_: object) -> list[str]:
                """All lines."""
                return list(itertools.islice(self._trace, records_max))

            def output(self, bytes_max: int) -> list[tuple[int, int, bytes]]:
                """All output."""
                output, self._output = self._output, []
                return [(time_ns, stream, text.encode()) for time_ns, stream, text in output if text]

        class TrafficReader:
            """Reads the fake log as traffic: the query, and a line that is unfinished."""

            ended, is_over, notes = True, False, ("a note",)

            def __init__(self, log_dir: str, query: Any) -> None:
                native.read_log(log_dir)
                native.specs.append(query)
                self._text = [f"{query.layer} as {query.form}\n".encode()]

            def read(self, bytes_max: int) -> bytes | None:
                """All there is."""
                return self._text.pop() if self._text else None

            def finish(self) -> bytes:
                """The rest."""
                return b"unfinished\n"

        self.LogReader = LogReader
        self.TrafficReader = TrafficReader

    def build_info(self, nans: str = "canonical") -> dict[str, str]:
        """The build."""
        return dict(self.info)

    def to_wasm(self, source: bytes) -> bytes:
        """The magic and the script."""
        if source.startswith(b"\0asm"):
            return source
        if source.startswith(b"(module"):
            return b"\0asm" + source[7:].strip().removesuffix(b")")
        raise ModuleError("module: is neither wasm nor its text format")

    def inspect_module(self, wasm: bytes) -> FakeModuleInfo:
        """What the script says."""
        return FakeModuleInfo(memory_min_bytes=script_of(wasm).get("memory_min_bytes", 65536))

    def is_compiled(self, digest: str, artifact_dir: str, nans: str = "canonical") -> bool:
        """Whether it was compiled by itself."""
        return digest in self.compiled

    def compile_module(self, wasm_path: str, digest: str, artifact_dir: str, artifact_bytes_max: int) -> str:
        """Notes it."""
        self.compiled.add(digest)
        return "compiled"

    def run(self, spec: Any) -> FakeGuest:
        """Does what the script says."""
        self.specs.append(spec)
        if self.fail_run is not None:
            raise self.fail_run
        script = script_of(Path(spec.module.path).read_bytes())
        for descriptor, key in ((spec.stdout_fd, "stdout"), (spec.stderr_fd, "stderr")):
            if descriptor is not None and script.get(key):
                os.write(descriptor, script[key].encode())
        log_dir = spec.log.dir if spec.log else None
        if log_dir:
            Path(log_dir, "log.json").write_text(json.dumps(script))

        def ended(outcome: FakeOutcome) -> None:
            if log_dir:
                end = (outcome.kind, outcome.code, outcome.message)
                Path(log_dir, "log.json").write_text(json.dumps(script | {"end": end}))

        return FakeGuest(self._outcome_of(script), ended)

    def replay(self, spec: Any) -> FakeGuest:
        """Says again what the log says."""
        self.specs.append(spec)
        script = self.read_log(spec.log)
        for descriptor, key in ((spec.stdout_fd, "stdout"), (spec.stderr_fd, "stderr")):
            if descriptor is not None and script.get(key):
                os.write(descriptor, script[key].encode())
        if self.replay_outcome is not None:
            outcome = self.replay_outcome
        elif "end" in script:
            outcome = FakeOutcome(*script["end"])
        else:
            outcome = FakeOutcome("log_ended", 0)
        return FakeGuest(outcome, lambda _: None)

    def resume(self, spec: Any) -> FakeGuest:
        """Runs again."""
        return self.run(spec.run)

    def recover_log(self, log_dir: str) -> FakeRecovery:
        """Nothing to do."""
        return FakeRecovery(ended="end" in self.read_log(log_dir))

    def log_info(self, log_dir: str) -> FakeLogInfo:
        """The summary."""
        end = self.read_log(log_dir).get("end")
        return FakeLogInfo(end=tuple(end) if end else None)

    def read_log(self, log_dir: str) -> dict[str, Any]:
        """The script of a log."""
        path = Path(log_dir, "log.json")
        if not path.exists():
            raise LogError(f"log {log_dir}: has no segment")
        log: dict[str, Any] = json.loads(path.read_text())
        return log

    @staticmethod
    def _outcome_of(script: dict[str, Any]) -> FakeOutcome | None:
        if script.get("kind") == "block":
            return None
        return FakeOutcome(
            script.get("kind", "exit"), script.get("code", 0), script.get("message", ""), script.get("backtrace", [])
        )


def script_of(wasm: bytes) -> dict[str, Any]:
    """The script in a fake module."""
    script: dict[str, Any] = json.loads(wasm.removeprefix(b"\0asm") or b"{}")
    return script


def module(**script: object) -> bytes:
    """A fake module, as wasm."""
    return b"\0asm" + json.dumps(script).encode()


def make_runtime(home: Path, native: FakeNative | None = None, clock: FakeClock | None = None, **env: str) -> Runtime:
    """A runtime on fakes, with ids that repeat from run to run."""
    fake = native or FakeNative()
    numbers = itertools.count(1)
    return Runtime(
        make_config(home, **env),
        engine=Engine(lambda: fake),
        logs=Logs(lambda: fake),
        now_ns=clock or FakeClock(),
        random_bytes=lambda size: next(numbers).to_bytes(size, "big"),
    )


def make_config(home: Path, **env: str) -> Config:
    """A configuration of its own, whatever the environment says."""
    return load_config({"TIMECRAFT_HOME": str(home), "HOME": str(home.parent), **env})
