"""Brings `artifacts/` up to date with what it is made of, as `pin.txt` tells. The whole of `make python-guest`."""

import argparse
import hashlib
import lzma
import os
import shutil
import sys
from collections.abc import Iterator

from build import FOLDER, Builder, BuildError

ARTIFACTS = os.path.join(FOLDER, "artifacts")
PIN = os.path.join(FOLDER, "timecraft_python_guest", "pin.txt")
RECIPE = ("build", "stdlib", "suite")
RESULTS = ("python.wasm", "python311.zip", "python311-tests.tar")


def inputs() -> str:
    """A digest of all that decides what comes out, names and contents."""
    state = hashlib.sha256()
    for path in input_files():
        with open(path, "rb") as file:
            state.update(
                f"{os.path.relpath(path, FOLDER)}\0{hashlib.file_digest(file, 'sha256').hexdigest()}\0".encode()
            )
    return state.hexdigest()


def input_files() -> Iterator[str]:
    yield from (os.path.join(FOLDER, name) for name in ("sources.toml", *(f"recipe/{part}.py" for part in RECIPE)))
    for part in ("overlay", "patches", "shim"):
        for at, folders, files in os.walk(os.path.join(FOLDER, part)):
            folders.sort()
            yield from (os.path.join(at, name) for name in sorted(files))


def pinned() -> dict[str, str]:
    if not os.path.exists(PIN):
        return {}
    with open(PIN, encoding="ascii") as file:
        return {name: digest for digest, name in map(str.split, file)}


def digest(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def keep(results: str, pin: dict[str, str]) -> None:
    """Puts results where they are shipped from."""
    os.makedirs(ARTIFACTS, exist_ok=True)
    for name in RESULTS:
        with open(os.path.join(results, name), "rb") as file:
            packed = lzma.compress(file.read(), preset=9 | lzma.PRESET_EXTREME)
        with open(os.path.join(ARTIFACTS, name + ".xz"), "wb") as file:
            file.write(packed)
    licences = os.path.join(FOLDER, "licences")
    shutil.rmtree(licences, ignore_errors=True)
    shutil.copytree(os.path.join(results, "licences"), licences)
    with open(PIN, "w", encoding="ascii") as file:
        file.writelines(f"{value}  {name}\n" for name, value in pin.items())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--force", action="store_true", help="build even if nothing changed; results must be the same")
    parser.add_argument("--root", default=os.path.join(FOLDER, "build"), help="where to build: emptied first")
    parser.add_argument("--cache", default=os.path.join(FOLDER, "cache"), help="where sources are kept")
    options = parser.parse_args()
    known, wanted = pinned(), inputs()
    if known.get("inputs") == wanted and not options.force:
        print("the Python guest is up to date")
        return 0
    builder = Builder(os.path.abspath(options.root), os.path.abspath(options.cache), os.cpu_count() or 1)
    try:
        builder.build()
    except BuildError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    results = os.path.join(builder.root, "results")
    pin = {"inputs": wanted} | {name: digest(os.path.join(results, name)) for name in RESULTS}
    if known.get("inputs") == wanted:
        unlike = [name for name in RESULTS if known[name] != pin[name]]
        print(f"error: unlike the pinned: {', '.join(unlike)}" if unlike else "the same as pinned")
        return 1 if unlike else 0
    keep(results, pin)
    print(f"built, and pinned in {os.path.relpath(PIN)}: commit it with artifacts/ and licences/")
    return 0


if __name__ == "__main__":
    sys.exit(main())
