#!/usr/bin/env python3
"""Build the wheel, install it with pip into a clean environment, and run and replay a guest with it.

`--profile dist` (the default) is what is published. `--profile dev` proves the packaging alone, out of what is compiled
for development anyway.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
GUEST = ROOT / "tests" / "conformance" / "own" / "echo-stdin.wat"
TEXT = b"out of the wheel\n"


def build(profile: str, directory: Path) -> Path:
    """Build into a folder, and return the wheel's path."""
    maturin = ROOT / ".venv" / "bin" / "maturin"
    command = [str(maturin), "build", "--profile", profile, "--out", str(directory), "--locked", "--quiet"]
    subprocess.run([*command, "--strip"] if profile == "dist" else command, cwd=ROOT, check=True)
    (wheel,) = directory.glob("*.whl")
    return wheel


def check(wheel: Path, scratch: Path) -> None:
    """Install the wheel where nothing else is, and use it from a folder that is not the repository's."""
    environment = scratch / "environment"
    venv.create(environment, with_pip=True)
    pip = [str(environment / "bin" / "pip"), "install", "--quiet", "--constraint", str(ROOT / "constraints.txt")]
    subprocess.run([*pip, str(wheel)], check=True)

    timecraft = environment / "bin" / "timecraft"
    kept = {
        key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "TIMECRAFT_", "VIRTUAL_ENV"))
    }
    kept["TIMECRAFT_HOME"] = str(scratch / "home")
    live = subprocess.run(
        [timecraft, "run", GUEST], input=TEXT, capture_output=True, cwd=scratch, env=kept, check=False
    )
    if live.returncode or live.stdout != TEXT:
        sys.exit(f"error: the installed wheel did not run a guest: {live}")
    process = live.stderr.split()[0].decode()
    again = subprocess.run([timecraft, "replay", process], capture_output=True, cwd=scratch, env=kept, check=False)
    if again.returncode or again.stdout != TEXT:
        sys.exit(f"error: the installed wheel did not replay a guest: {again}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", choices=("dist", "dev"), default="dist")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="timecraft-wheel-") as folder:
        scratch = Path(folder)
        wheel = build(options.profile, scratch)
        check(wheel, scratch)
        size_mb = wheel.stat().st_size / 1e6
        print(f"{wheel.name}: {size_mb:.1f} MB, installs into a clean environment, runs and replays a guest")
        if options.profile == "dist":
            kept = ROOT / "dist" / wheel.name
            kept.parent.mkdir(exist_ok=True)
            kept.write_bytes(wheel.read_bytes())
            print(f"kept as {kept.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
