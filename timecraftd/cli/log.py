"""`timecraft log`: care for logs."""

from __future__ import annotations

import argparse

from timecraftd.cli.context import Context
from timecraftd.errors import UsageError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `log`."""
    parser.add_argument("action", metavar="ACTION", choices=("push",), help="push")
    parser.add_argument("id", metavar="ID", nargs="*", help="processes: ids, unique prefixes or names")
    parser.add_argument("-a", "--all", action="store_true", help="all processes")
    parser.description = "push: sends what isn't there yet to the store that remote.url names; a node does so itself."


def run(args: argparse.Namespace, context: Context) -> int:
    """Sends, and tells how much is there."""
    return push(args, context)


def push(args: argparse.Namespace, context: Context) -> int:
    """Sends logs. Raises RemoteError at the first that can't be sent."""
    from timecraftd.cli.uploading import make_uploads
    from timecraftd.cli.uploading import push as send

    if bool(args.id) == args.all:
        raise UsageError("log push: name processes, or give --all", "`timecraft ps -a` lists them")
    if not context.target.is_local or context.target.node:
        raise UsageError("log push: a node sends its logs itself", "leave out --node; `timecraft doctor` tells of it")
    if not context.config.remote.url:
        raise UsageError("log push: remote.url names no store", "docs/remote.md tells how")
    runtime = context.runtime
    found = runtime.processes() if args.all else [runtime.process(reference) for reference in args.id]
    uploads = make_uploads(context)
    try:
        send(uploads, [process.id for process in found if process.recorded])
        totals = uploads.status().totals
    finally:
        uploads.close()
    print(f"sent {totals.segments} segments, {totals.bytes} bytes; the rest was there")
    return 0
