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
from pathlib import Path

from install import install

ROOT = Path(__file__).resolve().parent.parent
GUEST = ROOT / "tests" / "conformance" / "own" / "echo-stdin.wat"
PREFIX = Path("/usr")
TEXT = b"out of the wheel\n"


def build(profile: str, directory: Path) -> Path:
    """Build into a folder, and return the wheel's path."""
    maturin = ROOT / ".venv" / "bin" / "maturin"
    command = [str(maturin), "build", "--profile", profile, "--out", str(directory), "--locked", "--quiet"]
    subprocess.run([*command, "--strip"] if profile == "dist" else command, cwd=ROOT, check=True)
    (wheel,) = directory.glob("*.whl")
    return wheel


def check(wheel: Path, scratch: Path) -> None:
    """Install the wheel into a clean root, and use it from a folder that is not the repository's."""
    root = scratch / "root"
    install(wheel, root, PREFIX, pip_flags=[])
    check_install(root)
    environment = root / "usr" / "lib" / "timecraft"
    python = str(environment / "bin" / "python")
    timecraft = [python, "-I", "-m", "timecraftd.cli"]
    kept = {
        key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "TIMECRAFT_", "VIRTUAL_ENV"))
    }
    kept["TIMECRAFT_HOME"] = str(scratch / "home")
    live = subprocess.run(
        [*timecraft, "run", GUEST], input=TEXT, capture_output=True, cwd=scratch, env=kept, check=False
    )
    if live.returncode or live.stdout != TEXT:
        sys.exit(f"error: the installed wheel did not run a guest: {live}")
    process = live.stderr.split()[0].decode()
    again = subprocess.run([*timecraft, "replay", process], capture_output=True, cwd=scratch, env=kept, check=False)
    if again.returncode or again.stdout != TEXT:
        sys.exit(f"error: the installed wheel did not replay a guest: {again}")
    check_node(python, scratch, kept)


def check_install(root: Path) -> None:
    """What lies in a root is what it is at its place: nothing names the root, and the node likes its configuration."""
    files = [path for path in root.rglob("*") if path.is_file() and not path.is_symlink() and path.suffix != ".pyc"]
    naming = [path for path in files if str(root).encode() in path.read_bytes()]
    if naming:
        sys.exit(f"error: {naming[0]} names the root that it was installed into")
    for name in ("timecraft", "timecraftd"):
        script = root / "usr" / "bin" / name
        if not script.read_text().startswith("#!/usr/lib/timecraft/bin/python"):
            sys.exit(f"error: {script} is not started by the environment's Python")
    python = str(root / "usr" / "lib" / "timecraft" / "bin" / "python")
    config = root / "etc" / "timecraft" / "timecraftd.toml"
    # The group is made on the machine that it is installed on (sysusers.d).
    subprocess.run(
        [python, "-I", "-m", "timecraftd", "--config", config, "--check"],
        env=os.environ | {"TIMECRAFT_NODE_SOCKET_GROUP": ""},
        cwd=root,
        check=True,
    )


def check_node(python: str, scratch: Path, environment: dict[str, str]) -> None:
    """The installed daemon serves, runs a guest and ends."""
    socket = scratch / "home" / "node.sock"
    daemon = subprocess.Popen([python, "-I", "-m", "timecraftd"], cwd=scratch, env=environment, stderr=subprocess.PIPE)
    assert daemon.stderr is not None, "it is a pipe"
    try:
        ready = daemon.stderr.readline()
        command = [python, "-I", "-m", "timecraftd.cli", "run", "--node", str(socket), str(GUEST)]
        run = subprocess.run(command, input=TEXT, capture_output=True, cwd=scratch, env=environment, check=False)
        if run.returncode or run.stdout != TEXT:
            sys.exit(f"error: the installed node did not run a guest: {ready!r} {run}")
    finally:
        daemon.terminate()
    if code := daemon.wait(60):
        sys.exit(f"error: the installed node ended with {code}")


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
