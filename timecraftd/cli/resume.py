"""`timecraft resume`: let a process whose host died go on."""

from __future__ import annotations

import argparse

from timecraftd.cli.context import Context
from timecraftd.cli.target import Resume


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `resume`."""
    parser.add_argument("id", metavar="ID", help="process: id, unique prefix or name")
    parser.add_argument("-q", "--quiet", action="store_true", help="don't print the process id")
    parser.add_argument("-T", "--trace", action="store_true", help="show calls on standard error, like strace")
    parser.add_argument("--restrict", action="store_true", help="withhold standard input")
    parser.add_argument("--trust", action="store_true", help="give an imported process what it was granted elsewhere")


def run(args: argparse.Namespace, context: Context) -> int:
    """Resumes; returns the guest's exit code."""
    from timecraftd.running import Streams

    streams = Streams(None if args.restrict else 0, 1, 2)
    return context.target.resume(Resume(args.id, streams, trusted=args.trust, trace=args.trace, quiet=args.quiet))
