"""The programs that are compared: how to get them, how to have one run a guest once."""

from __future__ import annotations

import hashlib
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import time
import tomllib
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
BUILD = HERE / "build"
GUESTS = HERE / "guests" / "build"
WAZERO = "v1.12.0"
WASMTIME = "50.0.1"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
REQUIREMENTS = [f"wasmtime=={WASMTIME}", "zstandard>=0.23", *PROJECT["dependencies"]]
PRINTED = re.compile(r"^(\w+) (\S+) (\S+)$", re.MULTILINE)


class BenchError(Exception):
    """A message for the user; no traceback."""


@dataclass
class Result:
    """What one run gave."""

    wall_ns: int
    printed: dict[str, float] = field(default_factory=dict)
    """What the guest measured itself, by name."""
    stats: dict[str, int] = field(default_factory=dict)
    peak_rss: int = 0
    raw: dict = field(default_factory=dict)


def call(command: list[str], **options) -> subprocess.CompletedProcess:
    done = subprocess.run(command, check=False, capture_output=True, text=True, **options)
    if done.returncode:
        raise BenchError(f"{' '.join(command)[:200]}: exit code {done.returncode}\n{(done.stderr or '')[-2000:]}")
    return done


def printed(output: str) -> dict[str, float]:
    found = {}
    for name, value, _ in PRINTED.findall(output):
        try:
            found[name] = float(value)
        except ValueError:
            found[name] = float(int(value[:12], 16))  # a digest: only compared
    return found


def digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Contenders:
    """All that is compared, in `benchmarks/build`."""

    def __init__(self, library: Path) -> None:
        self.python = BUILD / "venv" / "bin" / "python"
        self.wazero = BUILD / "bin" / "wazero"
        self.package = BUILD / "package"
        self.artifacts = BUILD / "artifacts"
        self.home = BUILD / "home"
        self.cache = BUILD / "wazero-cache"
        self.library = library
        self.environment = {
            key: value
            for key, value in os.environ.items()
            if not key.startswith(("PYTHON", "TIMECRAFT")) and key not in ("GOFLAGS", "GOOS", "GOARCH")
        } | {"PYTHONPATH": str(self.package), "TIMECRAFT_HOME": str(self.home)}

    def prepare(self) -> None:
        """Gets what isn't there; nothing of it is measured."""
        if not self.python.exists():
            call([sys.executable, "-m", "venv", str(BUILD / "venv")])
        call([str(self.python), "-m", "pip", "install", "--quiet", *REQUIREMENTS])
        guest = ["--quiet", "--force-reinstall", "--no-deps", "--no-index", "--no-build-isolation"]
        call([str(self.python), "-m", "pip", "install", *guest, str(ROOT / "guest-python")])
        if not self.wazero.exists():
            source = f"github.com/tetratelabs/wazero/cmd/wazero@{WAZERO}"
            call(["go", "install", source], env=self.environment | {"GOBIN": str(self.wazero.parent)})
        # The package beside the optimised extension: that of the tree in timecraftd/ is for development, and stays.
        shutil.rmtree(self.package, ignore_errors=True)
        skip = shutil.ignore_patterns("*.so", "__pycache__")
        shutil.copytree(ROOT / "timecraftd", self.package / "timecraftd", ignore=skip)
        if not self.library.exists():
            raise BenchError(f"{self.library} is missing: `make bench` builds it")
        shutil.copyfile(self.library, self.package / "timecraftd" / "_native.abi3.so")
        call([str(self.python), "-m", "compileall", "-q", str(self.package)])
        shutil.rmtree(self.home, ignore_errors=True)
        for name in ("nbody", "sha256", "hello", "httphello", "stream"):
            target = BUILD / "native" / name
            call(["go", "build", "-o", str(target), f"./{name}"], cwd=HERE / "guests" / "go", env=self.environment)
        call(["go", "build", "-o", str(BUILD / "native" / "load"), "."], cwd=HERE / "load", env=self.environment)

    def build_info(self) -> dict[str, str]:
        program = "import json; from timecraftd import _native; print(json.dumps(_native.build_info()))"
        # Not in the root of the repository, whose timecraftd/ would come first.
        return json.loads(call([str(self.python), "-c", program], env=self.environment, cwd=BUILD).stdout)

    def child(self, verb: str, spec: dict) -> dict:
        command = [str(self.python), str(HERE / "child.py"), verb, json.dumps(spec)]
        return json.loads(call(command, env=self.environment).stdout.splitlines()[-1])

    def spec(self, guest: str | Path, args: tuple = (), mounts: tuple = (), **more) -> dict:
        path = guest if isinstance(guest, Path) else GUESTS / f"{guest}.wasm"
        return {
            "name": path.stem, "module": str(path), "digest": digest(path), "artifacts": str(self.artifacts),
            "args": [str(arg) for arg in args], "mounts": mounts, **more,
        }  # fmt: skip

    def timecraft(self, guest: str | Path, args=(), mounts=(), log: Path | None = None, **more) -> Result:
        if log:
            shutil.rmtree(log, ignore_errors=True)
        raw = self.child("timecraft", self.spec(guest, args, mounts, log=str(log) if log else None, **more))
        return result_of(raw)

    def replay(self, guest: str, log: Path) -> Result:
        return result_of(self.child("replay", self.spec(guest, log=str(log))))

    def wasmtime(self, guest: str, args=(), mounts=(), canonical: bool = False) -> Result:
        artifact = BUILD / "wasmtime" / f"{guest}{'-canonical' if canonical else ''}.cwasm"
        spec = self.spec(guest, args, mounts, artifact=str(artifact), canonical=canonical)
        if not artifact.exists():
            artifact.parent.mkdir(exist_ok=True)
            self.child("wasmtime-compile", spec)
        return result_of(self.child("wasmtime", spec))

    def wazero_run(self, guest: str, args=(), mounts=()) -> Result:
        flags = [f"-mount={host}:{guest_dir}{':ro' if ro else ''}" for host, guest_dir, ro in mounts]
        command = [str(self.wazero), "run", f"-cachedir={self.cache}", *flags, str(GUESTS / f"{guest}.wasm")]
        return self.command([*command, *map(str, args)])

    def native(self, name: str, args=()) -> Result:
        return self.command([str(BUILD / "native" / name), *map(str, args)])

    def timecraft_command(self, *args: str) -> Result:
        return self.command([str(self.python), "-m", "timecraftd.cli", *args])

    def command(self, command: list[str]) -> Result:
        """Runs a command; stderr goes to /dev/null, as it does for guests everywhere here."""
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        begin = time.perf_counter_ns()
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=self.environment, cwd=BUILD
        ) as process:
            output = process.stdout.read()
            _, status, usage = os.wait4(process.pid, 0)
            wall_ns = time.perf_counter_ns() - begin
            process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise BenchError(f"{' '.join(command)[:200]}: exit code {process.returncode}")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu_ns = int((after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) * 1e9)
        return Result(wall_ns, printed(output.decode()), {"cpu_ns": cpu_ns}, usage.ru_maxrss * 1024)


def result_of(raw: dict) -> Result:
    output = raw.pop("output", "")
    return Result(raw["wall_ns"], printed(output), raw.get("stats", {}), raw["peak_rss"], raw)
