"""Makes `timecraftd/api/v1` from `proto/`; with --check says whether it is up to date."""

from __future__ import annotations

import argparse
import os
import re
import sys
import tempfile
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).resolve().parents[1]
PROTO = ROOT / "proto"
TARGET = ROOT / "timecraftd" / "api" / "v1"
HEADER = '"""Generated from proto/timecraft/v1 by `make protos`."""\n'


def generate(directory: Path) -> dict[str, str]:
    """Name and text of each file."""
    sources = sorted(str(path) for path in (PROTO / "timecraft" / "v1").glob("*.proto"))
    bundled = os.path.join(os.path.dirname(protoc.__file__), "_proto")
    arguments = [f"--{kind}_out={directory}" for kind in ("python", "pyi", "grpc_python")]
    if protoc.main(["protoc", f"-I{PROTO}", f"-I{bundled}", *arguments, *sources]) != 0:
        sys.exit(1)
    texts = {"__init__.py": HEADER}
    for path in sorted(directory.rglob("*.py*")):
        # Modules generated for the package timecraft.v1 live in timecraftd.api.v1.
        texts[path.name] = re.sub(
            r"^from timecraft\.v1 import", "from timecraftd.api.v1 import", path.read_text(), flags=re.MULTILINE
        )
    return texts


def main() -> int:
    """Writes the files, or compares them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        texts = generate(Path(directory))
    there = {path.name: path.read_text() for path in TARGET.glob("*.py*")}
    if there == texts:
        return 0
    if args.check:
        print("timecraftd/api/v1 isn't what proto/ makes: run `make protos`", file=sys.stderr)
        return 1
    TARGET.mkdir(exist_ok=True)
    for name in there.keys() - texts.keys():
        (TARGET / name).unlink()
    for name, text in texts.items():
        (TARGET / name).write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
