"""`timecraft import`: take in an exported process, or a module."""

from __future__ import annotations

import argparse
import sys

from timecraftd.cli.context import Context
from timecraftd.errors import NotFoundError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `import`."""
    parser.add_argument("kind", metavar="KIND", nargs="?", choices=("process", "module"), default="process")
    parser.add_argument("file", metavar="FILE", help="what `export` wrote, or a module; - reads standard input")
    parser.description = "KIND is process (the default) or module. Prints the id."


def run(args: argparse.Namespace, context: Context) -> int:
    """Checks all of it, stores it, prints its id."""
    if args.kind == "module":
        from timecraftd.registry.files import read_module

        print(context.target.import_module(read_module(args.file)))
        return 0
    if args.file == "-":
        print(context.target.import_process(sys.stdin.buffer, "standard input"))
        return 0
    try:
        file = open(args.file, "rb")  # noqa: SIM115 - only opening it is guarded
    except OSError as error:
        raise NotFoundError(f"{args.file}: {error.strerror}", "give the path of a readable file") from None
    with file:
        print(context.target.import_process(file, args.file))
    return 0
