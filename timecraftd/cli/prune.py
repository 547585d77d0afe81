"""`timecraft prune`: remove what isn't needed any more."""

from __future__ import annotations

import argparse

from timecraftd.cli.context import Context
from timecraftd.cli.parser import add_format, duration_ns, whole_number
from timecraftd.cli.terminal import print_data
from timecraftd.recorder.retention import RetentionPolicy
from timecraftd.units import format_size


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `prune`."""
    parser.add_argument("--older-than", metavar="TIME", type=duration_ns, help="processes that ended so long ago: 30d")
    parser.add_argument("--keep", metavar="N", type=whole_number, help="keep the newest N processes that ended")
    parser.add_argument("-a", "--all", action="store_true", help="all processes that ended")
    parser.add_argument("--crashed", action="store_true", help="also those that could be resumed")
    parser.add_argument("--dry-run", action="store_true", help="only say what would go")
    add_format(parser)
    parser.description = (
        "Removes processes as the flags say (none without flags, never one that runs), then objects that no process "
        "refers to, and machine code of modules that are gone."
    )


def run(args: argparse.Namespace, context: Context) -> int:
    """Removes and reports."""
    policy = None
    if args.all or args.keep is not None or args.older_than is not None:
        policy = RetentionPolicy(args.older_than, args.keep or 0, keep_crashed=not args.crashed)
    gone = context.target.prune(policy, dry_run=args.dry_run)
    if args.output != "text":
        print_data(gone, args.output)
        return 0
    for item in gone:
        print(f"{item['kind']} {item['id']}")
    total = sum(int(str(item["bytes"])) for item in gone)
    print(f"{'would free' if args.dry_run else 'freed'} {format_size(total)}")
    return 0
