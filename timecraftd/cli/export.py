"""`timecraft export`: write a process, module, config, runtime or log to a file."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

from timecraftd.cli.context import Context, is_terminal, tell
from timecraftd.cli.get import KINDS
from timecraftd.errors import NotFoundError, UnsupportedError, UsageError

FORMATS = ("jsonl", "parquet", "pcapng", "otlp", "perfetto")
BINARY = ("process", "module")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `export`."""
    parser.add_argument("kind", metavar="KIND", choices=KINDS, help=", ".join(KINDS))
    parser.add_argument("id", metavar="ID", help="id, unique prefix or name")
    parser.add_argument("-o", "--output", metavar="FILE", default="-", help="where to (default: standard output)")
    parser.add_argument(
        "--format", choices=FORMATS, default="jsonl", help="of a log (default: jsonl; others come later)"
    )
    parser.add_argument(
        "--skip-damaged", action="store_true", help="of a log: leave out what can't be read, and say so"
    )
    parser.add_argument("--force", action="store_true", help="replace FILE if it exists")
    parser.description = (
        "A process becomes one tar file (compressed if FILE ends with gz) with its log and all that a replay needs. "
        "It holds all data that entered the guest, variables and file contents too."
    )


def run(args: argparse.Namespace, context: Context) -> int:
    """Writes the file."""
    if args.kind == "log" and args.format != "jsonl":
        raise UnsupportedError(f"export log: {args.format} comes in a later version", "use --format jsonl")
    if args.skip_damaged and args.kind != "log":
        raise UsageError(f"export {args.kind}: --skip-damaged is for logs", "leave it out")
    gap = (lambda note: tell(f"timecraft: {args.id}: {note}")) if args.skip_damaged else None
    export = context.target.exporter(args.kind, args.id, compress=args.output.endswith("gz"), gap=gap)
    with target_file(args.output, binary=args.kind in BINARY, force=args.force) as file:
        export(file)
    return 0


@contextmanager
def target_file(path: str, *, binary: bool, force: bool) -> Iterator[IO[bytes]]:
    """A file to write to, in place only once all is written; `-` is standard output, refused for bytes on a terminal.

    What is no regular file (a pipe, a device) is written to as it is: a rename would put a file in its place.
    """
    if path == "-":
        if binary and is_terminal(1):
            raise UsageError("export: won't write bytes to a terminal", "give a file with -o FILE")
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    if os.path.isdir(path):
        raise UsageError(f"{path}: is a directory", "give the name of a file")
    try:
        if os.path.exists(path) and not os.path.isfile(path):
            with open(path, "wb") as file:
                yield file
            return
        if os.path.exists(path) and not force:
            raise UsageError(f"{path}: exists", "give another name, or --force")
        with _draft(os.path.realpath(path)) as file:
            yield file
    except BrokenPipeError:
        raise
    except OSError as error:
        raise NotFoundError(
            f"{path or repr(path)}: {error.strerror}", "give a file in a directory that you may write"
        ) from None


@contextmanager
def _draft(path: str) -> Iterator[IO[bytes]]:
    """A file beside `path` that takes its place once all is written, or goes."""
    draft = f"{path}.{os.getpid()}.part"
    try:
        with open(draft, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
    finally:
        if os.path.exists(draft):
            os.unlink(draft)
