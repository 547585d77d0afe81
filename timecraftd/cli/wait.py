"""`timecraft wait`: wait until processes end."""

from __future__ import annotations

import argparse

from timecraftd.cli.context import Context


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `wait`."""
    parser.add_argument("ids", metavar="ID", nargs="+", help="process: id, unique prefix or name")


def run(args: argparse.Namespace, context: Context) -> int:
    """Prints the exit code of each; a process whose host died has none and prints its state."""
    processes = [context.target.process(reference) for reference in args.ids]
    for process in processes:
        ended = context.target.wait(process)
        print(ended.exit_code if ended.exit_code is not None else ended.state, flush=True)
    return 0
