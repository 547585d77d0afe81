"""`timecraft rm`: remove processes and their logs."""

from __future__ import annotations

import argparse

from timecraftd.cli.context import Context
from timecraftd.errors import UsageError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `rm`."""
    parser.add_argument("ids", metavar="ID", nargs="+", help="process: id, unique prefix or name")
    parser.add_argument("-f", "--force", action="store_true", help="kill those that run first")
    parser.add_argument(
        "--remote", action="store_true", help="in the store (remote.url), not here; with -f what isn't whole there, too"
    )
    parser.add_argument(
        "--now",
        action="store_true",
        help="with --remote: at once, without remote.delete_grace_s for those who read it: their reads fail",
    )


def run(args: argparse.Namespace, context: Context) -> int:
    """Removes each and prints what was given for it. Objects stay until `prune`."""
    if args.now and not args.remote:
        raise UsageError("--now: is for --remote", "leave it out")
    if args.remote:
        for reference in args.ids:
            context.target.remove_stored(reference, force=args.force, now=args.now)
            print(reference, flush=True)
        return 0
    processes = [(reference, context.target.process(reference)) for reference in args.ids]
    for reference, process in processes:
        context.target.remove(process, force=args.force)
        print(reference, flush=True)
    return 0
