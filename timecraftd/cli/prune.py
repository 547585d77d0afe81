"""`timecraft prune`: remove what isn't needed any more."""

from __future__ import annotations

import argparse

from timecraftd.cli.context import Context
from timecraftd.cli.parser import add_format, duration_ns, size, whole_number
from timecraftd.cli.terminal import print_data
from timecraftd.errors import UsageError
from timecraftd.model import ProcessState
from timecraftd.recorder.retention import RetentionPolicy
from timecraftd.units import format_size

ENDS = ("exited", "trapped", "killed", "limit", "crashed", "failed")
EXIT_CODE_MAX = (1 << 31) - 1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `prune`."""
    parser.add_argument("--older-than", metavar="TIME", type=duration_ns, help="processes that ended so long ago: 30d")
    parser.add_argument("--keep", metavar="N", type=whole_number, help="keep the newest N processes that ended")
    parser.add_argument("-a", "--all", action="store_true", help="all processes that ended")
    parser.add_argument("--crashed", action="store_true", help="also those that could be resumed")
    parser.add_argument(
        "--max-size", metavar="SIZE", type=size, help="of the others, the newest that take so much stay"
    )
    parser.add_argument(
        "--state",
        choices=ENDS,
        action="append",
        help="only processes that ended so (all that did, without other flags)",
    )
    parser.add_argument(
        "--exit-code",
        metavar="CODE",
        type=exit_code,
        action="append",
        default=[],
        help="only processes that ended with this code, or `nonzero`: with any but 0 (all that did, as --state)",
    )
    parser.add_argument("--remote", action="store_true", help="in the store (remote.url), not here")
    parser.add_argument(
        "--now",
        action="store_true",
        help="with --remote: at once, without remote.delete_grace_s for those who read it: their reads fail",
    )
    parser.add_argument("--dry-run", action="store_true", help="only say what would go")
    add_format(parser)
    parser.description = (
        "Removes processes as the flags say (none without flags, never one that runs), then objects that no process "
        "refers to, and machine code of modules that are gone. In the store, what processes take goes when they have "
        "been deleted for remote.delete_grace_s: by the next `prune --remote` of anybody, or by a node that is "
        "configured to ([retention])."
    )


def exit_code(text: str) -> int | None:
    """A code, for argparse; None for `nonzero`."""
    if text == "nonzero":
        return None
    code = whole_number(text)
    if code > EXIT_CODE_MAX:
        raise argparse.ArgumentTypeError(f"{text!r} is no exit code")
    return code


def run(args: argparse.Namespace, context: Context) -> int:
    """Removes and reports."""
    if args.now and not args.remote:
        raise UsageError("--now: is for --remote", "leave it out")
    policy = policy_of(args)
    if args.remote:
        gone = context.target.prune_stored(policy, dry_run=args.dry_run, now=args.now)
    else:
        gone = context.target.prune(policy, dry_run=args.dry_run)
    if args.output != "text":
        print_data(gone, args.output)
        return 0
    for item in gone:
        print(f"{item['kind']} {item['id']}")
    total = sum(int(str(item["bytes"])) for item in gone)
    print(f"{'would free' if args.dry_run else 'freed'} {format_size(total)}")
    return 0


def policy_of(args: argparse.Namespace) -> RetentionPolicy | None:
    """What the flags select; None if there are none."""
    by_age_and_number = args.all or args.keep is not None or args.older_than is not None
    if not by_age_and_number and args.max_size is None and not args.state and not args.exit_code:
        return None
    return RetentionPolicy(
        args.older_than,
        args.keep or 0,
        keep_crashed=not args.crashed and "crashed" not in (args.state or ()),
        bytes_max=args.max_size,
        states=frozenset(map(ProcessState, args.state)) if args.state else None,
        exit_codes=frozenset(code for code in args.exit_code if code is not None),
        exit_nonzero=None in args.exit_code,
        by_age_and_number=by_age_and_number or args.max_size is None,
    )
