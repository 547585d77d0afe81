"""`timecraft stop`: end processes, gently first."""

from __future__ import annotations

import argparse

from timecraftd.cli.context import Context
from timecraftd.cli.parser import duration_ns


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `stop`."""
    parser.add_argument("ids", metavar="ID", nargs="+", help="process: id, unique prefix or name")
    parser.add_argument(
        "-t", "--time", metavar="TIME", type=duration_ns, default=10 * 10**9, help="between SIGTERM and SIGKILL (10 s)"
    )


def run(args: argparse.Namespace, context: Context) -> int:
    """Stops each and prints what was given for it."""
    processes = [(reference, context.target.process(reference)) for reference in args.ids]
    for reference, process in processes:
        context.target.stop(process, args.time)
        print(reference, flush=True)
    return 0
