"""`timecraft catalogue`: put the catalogue of processes in order."""

from __future__ import annotations

import argparse

from timecraftd.cli.context import Context
from timecraftd.cli.parser import add_format
from timecraftd.cli.terminal import print_data


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The action, and its flags."""
    parser.add_argument("action", choices=("rebuild",), help="what to do")
    add_format(parser)
    parser.description = (
        "`rebuild` adds what the catalogue lacks: processes whose logs are on this machine, and, if remote.url is set, "
        "those of the bucket that are over. A damaged catalogue is put aside first."
    )


def run(args: argparse.Namespace, context: Context) -> int:
    """Rebuilds and reports."""
    from timecraftd.rebuild import rebuild

    done = rebuild(context.runtime)
    if args.output != "text":
        print_data({"added": done.added, "from_bucket": done.from_bucket, "problems": done.problems}, args.output)
    else:
        for problem in done.problems:
            context.complain(problem)
        count = len(done.added)
        processes = "1 process" if count == 1 else f"{count} processes"
        print(f"added {processes}, {done.from_bucket} of them from the bucket")
    return 1 if done.problems else 0
