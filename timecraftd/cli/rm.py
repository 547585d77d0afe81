"""`timecraft rm`: remove processes and their logs."""

from __future__ import annotations

import argparse

from timecraftd.cli.context import Context


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `rm`."""
    parser.add_argument("ids", metavar="ID", nargs="+", help="process: id, unique prefix or name")
    parser.add_argument("-f", "--force", action="store_true", help="kill those that run first")


def run(args: argparse.Namespace, context: Context) -> int:
    """Removes each and prints what was given for it. Objects stay until `prune`."""
    processes = [(reference, context.target.process(reference)) for reference in args.ids]
    for reference, process in processes:
        context.target.remove(process, force=args.force)
        print(reference, flush=True)
    return 0
