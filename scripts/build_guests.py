#!/usr/bin/env python3
"""Build the Go and C guests of the tests and benchmarks for wasip1.

Guests go to tests/guests/build and folders in it, and to benchmarks/guests/build, which git ignores. A guest is
built again only if its sources, the compiler's version or its build command changed. Needs Python 3.11, Go, and clang
with the WASI C library; .wat guests need no build.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TESTS = ROOT / "tests" / "guests"
BENCHMARKS = ROOT / "benchmarks" / "guests"
DEMO = "mapdemo"
GROUPS = ("tests", "net", "bench", "real", "demo")
MINIMUM_GO = (1, 24)
SOURCES = {".go", ".mod", ".sum"}
CLANGS = ("clang-16", "clang-17", "clang-18", "clang-19", "clang")
C_FLAGS = ("--target=wasm32-wasi", "-std=c11", "-O2", "-Wall", "-Wextra", "-Werror")
SHIM = ROOT / "guest-python" / "shim"
VERIFY = TESTS / "go" / "verify"
"""A package that guests of another module use too."""
C_PACKAGES = "clang-16 lld-16 wasi-libc libclang-rt-16-dev-wasm32"
"""Debian's and Ubuntu's."""
PREBUILT = TESTS / "c" / "prebuilt"
"""The C programs as modules, with digests of their sources: few machines have a clang for WASI."""


@dataclass(frozen=True)
class Guest:
    """One module to build: a package, or a package's test binary, of the Go module in `module`; or a C file in it."""

    output: Path
    module: Path
    package: str
    test: bool = False

    @property
    def is_c(self) -> bool:
        return self.package.endswith(".c")

    @property
    def sources(self) -> list[Path]:
        """What is compiled into a C program besides its own file: those that begin with posix_ test the shim."""
        return sorted(SHIM.glob("*.c")) if self.package.startswith("posix_") else []

    def command(self, output: Path) -> list[str]:
        if self.is_c:
            more = ["-isystem", str(SHIM / "include"), *map(str, self.sources)] if self.sources else []
            return [clang(), *C_FLAGS, *more, "-o", str(output), self.package]
        verb = ["go", "test", "-c", "-vet=off"] if self.test else ["go", "build"]
        # The tag is the socket package's: its names are then resolved by the host, and not by a server in the guest.
        return [*verb, "-tags", "getaddrinfo", "-o", str(output), self.package]


class BuildError(Exception):
    """A message for the user; no traceback."""


def packages(module: Path, output: Path) -> Iterator[Guest]:
    """The commands of a Go module: each folder directly beneath it that holds a main.go."""
    for main in sorted(module.glob("*/main.go")):
        name = main.parent.name
        yield Guest(output / f"{name}.wasm", module, f"./{name}")


def c_programs(folder: Path, output: Path) -> Iterator[Guest]:
    for source in sorted(folder.glob("*.c")):
        yield Guest(output / "c" / f"{source.stem}.wasm", folder, source.name)


def real_programs() -> Iterator[Guest]:
    module = TESTS / "real"
    cases = module / "cases.toml"
    if not cases.exists():
        return
    guests = tomllib.loads(cases.read_text())["guest"]
    for guest in guests:
        output = TESTS / "build" / "real" / f"{guest['name']}.wasm"
        yield Guest(output, module, guest["package"], guest.get("test", False))


def guests_of(group: str) -> list[Guest]:
    match group:
        case "tests":
            return [*packages(TESTS / "go", TESTS / "build"), *c_programs(TESTS / "c", TESTS / "build")]
        case "net":
            return list(packages(TESTS / "net", TESTS / "build" / "net"))
        case "demo":
            return [guest for guest in packages(TESTS / "go", TESTS / "build") if guest.output.stem == DEMO]
        case "bench":
            return list(packages(BENCHMARKS / "go", BENCHMARKS / "build"))
        case "real":
            return list(real_programs())
    raise ValueError(group)


def go_environment() -> dict[str, str]:
    """The caller's environment, less what would change the modules that come out."""
    drop = {"GOFLAGS", "GOWORK", "GOEXPERIMENT", "GOWASM"}
    kept = {key: value for key, value in os.environ.items() if key not in drop}
    return kept | {
        "GOOS": "wasip1",
        "GOARCH": "wasm",
        "CGO_ENABLED": "0",
        "GOWORK": "off",
        "GOFLAGS": "-trimpath -buildvcs=false",
    }


@cache
def go_version() -> str:
    go = shutil.which("go")
    if go is None:
        wanted = ".".join(map(str, MINIMUM_GO))
        raise BuildError(
            f"Go is not installed (no `go` on PATH). The guests need Go {wanted} or newer: https://go.dev/dl"
        )
    # In the environment of the builds, and outside any module, so that the answer is that of the installed tool.
    shown = subprocess.run([go, "env", "GOVERSION"], capture_output=True, text=True, env=go_environment(), cwd=ROOT)
    version = shown.stdout.strip()
    if shown.returncode:
        raise BuildError(f"`go env GOVERSION` failed:\n{shown.stderr.strip()}")
    numbers = version.removeprefix("go").split()[0].split(".")[:2]
    if all(n.isdigit() for n in numbers) and tuple(map(int, numbers)) < MINIMUM_GO:
        raise BuildError(f"{version} is too old: the guests need Go {MINIMUM_GO[0]}.{MINIMUM_GO[1]} or newer")
    return version


@cache
def has_clang() -> bool:
    """Whether C programs can be built here."""
    try:
        return bool(clang())
    except BuildError:
        return False


@cache
def clang() -> str:
    """A clang that makes modules of C programs."""
    for name in filter(shutil.which, CLANGS):
        with tempfile.TemporaryDirectory() as folder:
            probe = [name, *C_FLAGS, "-x", "c", "-o", f"{folder}/probe.wasm", "-"]
            if not subprocess.run(probe, input=b"int main(void) { return 0; }", capture_output=True).returncode:
                return name
    raise BuildError(f"no clang here builds WASI programs. On Debian and Ubuntu: apt install {C_PACKAGES}")


@cache
def clang_version() -> str:
    return subprocess.run([clang(), "--version"], capture_output=True, text=True, check=True).stdout


def digest(guest: Guest) -> str:
    """A hash of everything a build of this guest depends on."""
    if guest.is_c and not has_clang():
        return source_digest(guest)
    version = clang_version() if guest.is_c else go_version()
    built = "\0".join([version, *guest.command(Path(guest.output.name)), source_digest(guest)])
    return hashlib.sha256(built.encode()).hexdigest()


def source_digest(guest: Guest) -> str:
    """A hash of a guest's sources: its Go module is small, so all of it."""
    state = hashlib.sha256()
    for path in sorted(guest.module.rglob("*")):
        suffixes = {".c", ".h"} if guest.is_c else SOURCES
        if path.is_file() and path.suffix in suffixes and is_source(path.relative_to(guest.module), guest):
            state.update(f"\0{path.relative_to(guest.module)}\0".encode())
            state.update(path.read_bytes())
    shared = SHIM.rglob("*.[ch]") if guest.sources else VERIFY.glob("*.go") if guest.module == TESTS / "net" else ()
    for path in sorted(shared):
        state.update(path.read_bytes())
    return state.hexdigest()


def is_source(relative: Path, guest: Guest) -> bool:
    """Whether a file belongs to this guest: its own folder, or a folder of the module that is no command itself."""
    if guest.is_c:
        return relative.suffix == ".h" or relative.name == guest.package
    top = relative.parts[0]
    own = guest.package.removeprefix("./")
    return len(relative.parts) == 1 or top == own or not (guest.module / top / "main.go").exists()


def prebuilt_digests() -> dict[str, str]:
    """Of the sources that the prebuilt modules were made of, by program."""
    digests: dict[str, str] = json.loads((PREBUILT / "sources.json").read_text())
    return digests


def keep_prebuilt() -> None:
    """Makes the C programs, as they are now, the prebuilt ones."""
    PREBUILT.mkdir(exist_ok=True)
    digests = {}
    for guest in c_programs(TESTS / "c", TESTS / "build"):
        build(guest)
        shutil.copyfile(guest.output, PREBUILT / guest.output.name)
        digests[guest.output.stem] = source_digest(guest)
    (PREBUILT / "sources.json").write_text(json.dumps(digests, indent=2) + "\n")


def take_prebuilt(guest: Guest) -> None:
    """Puts a prebuilt module where a build would. Raises BuildError if its sources have changed since."""
    if prebuilt_digests().get(guest.output.stem) != source_digest(guest):
        clang()
        raise BuildError(f"{guest.package} has changed since it was built")
    shutil.copyfile(PREBUILT / guest.output.name, guest.output)


def build(guest: Guest) -> None:
    guest.output.parent.mkdir(parents=True, exist_ok=True)
    if guest.is_c and not has_clang():
        take_prebuilt(guest)
        return
    # A name of its own, then a rename: two builds at once, or an interrupted one, leave no half-written module.
    partial = guest.output.with_name(f".{guest.output.name}.{os.getpid()}")
    try:
        done = subprocess.run(
            guest.command(partial), cwd=guest.module, env=go_environment(), capture_output=True, text=True
        )
        if done.returncode:
            raise BuildError(f"{guest.package} did not build:\n{done.stderr.strip()}")
        if not partial.exists():
            raise BuildError(f"{guest.package} has no tests to build")
        partial.replace(guest.output)
    finally:
        partial.unlink(missing_ok=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", choices=GROUPS, help="build this group; may be repeated")
    parser.add_argument("--force", action="store_true", help="build even what is up to date")
    parser.add_argument("--keep-c", action="store_true", help="build the C programs into tests/guests/c/prebuilt")
    parser.add_argument("--list", action="store_true", help="print the modules and build nothing")
    parser.add_argument("-q", "--quiet", action="store_true", help="print errors only")
    options = parser.parse_args()

    if options.keep_c:
        keep_prebuilt()
        return 0
    selected = options.only or ("tests", "net", "bench", "real")
    guests = list(dict.fromkeys(guest for group in selected for guest in guests_of(group)))
    if options.list:
        print(*(guest.output.relative_to(ROOT) for guest in guests), sep="\n")
        return 0

    failed = 0
    try:
        for guest in guests:
            stamp = guest.output.with_suffix(".stamp")
            wanted = digest(guest)
            known = json.loads(stamp.read_text()) if stamp.exists() else None
            if known == wanted and guest.output.exists() and not options.force:
                continue
            start = time.monotonic()
            try:
                build(guest)
            except BuildError as error:
                print(f"error: {error}", file=sys.stderr)
                failed += 1
                continue
            stamp.write_text(json.dumps(wanted))
            if not options.quiet:
                size = guest.output.stat().st_size / 1e6
                print(
                    f"built {guest.output.relative_to(ROOT)} ({size:.1f} MB, {time.monotonic() - start:.1f} s)",
                    flush=True,
                )
    except BuildError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if failed:
        print(f"error: {failed} of {len(guests)} guests did not build", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
