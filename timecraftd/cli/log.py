"""`timecraft log`: care for logs."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from typing import Any

from timecraftd.cli.context import Context, is_terminal
from timecraftd.cli.parser import add_format
from timecraftd.cli.terminal import ProgressLine, print_data
from timecraftd.embedded import Runtime
from timecraftd.embedded_remote import required
from timecraftd.errors import UsageError
from timecraftd.model import ProcessId, ProcessRecord
from timecraftd.recorder.logs import shown_gap
from timecraftd.units import format_size
from timecraftd.verification import Progress, check_log, check_stored


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `log`."""
    parser.add_argument("action", metavar="ACTION", choices=tuple(ACTIONS), help="push, verify or evict")
    parser.add_argument("id", metavar="ID", nargs="*", help="processes: ids, unique prefixes or names")
    parser.add_argument("-a", "--all", action="store_true", help="all processes")
    parser.add_argument("--remote", action="store_true", help="verify: in the store (remote.url), not here")
    add_format(parser)
    parser.description = (
        "push: sends what isn't there yet to the store that remote.url names; a node does so itself. "
        "verify: reads all of the logs, checks every checksum and decodes every record; 1 if anything is damaged. "
        "With --remote also sizes, and the digests of modules and of all that a replay needs. "
        "evict: removes logs from the disk that are wholly in the store; they are read from there."
    )


def run(args: argparse.Namespace, context: Context) -> int:
    """Does what is asked for."""
    if args.remote and args.action != "verify":
        raise UsageError(f"log {args.action}: --remote is for verify", "leave it out")
    return ACTIONS[args.action](args, context)


def selected(args: argparse.Namespace, runtime: Runtime) -> list[ProcessRecord]:
    """Those of the processes that were asked for that have logs. Raises UsageError, NotFoundError, AmbiguousIdError."""
    _require_selection(args)
    found = runtime.processes() if args.all else [runtime.process(reference) for reference in args.id]
    return [process for process in found if process.recorded]


def _require_selection(args: argparse.Namespace) -> None:
    if bool(args.id) == args.all:
        raise UsageError(f"log {args.action}: name processes, or give --all", "`timecraft ps -a` lists them")


def verify(args: argparse.Namespace, context: Context) -> int:
    """Checks logs, and tells of each. 1 if one is damaged."""
    if context.target.node:
        raise UsageError("log verify: works on a state directory", "run it on the node, without --node")
    runtime = context.runtime
    work: list[tuple[ProcessId, Callable[[Progress], dict[str, Any]]]]
    if args.remote:
        _require_selection(args)
        ids = required(runtime.remote).ids() if args.all else [runtime.process(reference).id for reference in args.id]
        work = [(process_id, partial(check_stored, runtime, process_id)) for process_id in ids]
    else:
        work = [(process.id, partial(check_log, runtime, process)) for process in selected(args, runtime)]
    checks = []
    for process_id, check in work:
        with ProgressLine(is_wanted=is_terminal(2)) as line:
            checks.append(check(partial(tell_progress, line, process_id)))
        if args.output == "text":
            tell_check(checks[-1])
    if args.output != "text":
        print_data(checks, args.output)
    return 1 if any(check["damage"] or check["error"] or check.get("objects") for check in checks) else 0


def tell_progress(line: ProgressLine, name: str, done: int, total: int) -> None:
    """So many bytes of so many."""
    line.show(f"{name}  {100 * done // max(total, 1)} %")


def tell_check(check: dict[str, Any]) -> None:
    """A line for a log, and one for each damaged part of it."""
    if check["error"]:
        print(f"{check['id']}  can't be read: {check['error']}")
        return
    state = "damaged" if check["damage"] or check.get("objects") else "ok"
    size = format_size(check["bytes"])
    print(f"{check['id']}  {state}  {check['records']} records, {check['segments']} segments, {size}")
    for gap in check["damage"]:
        print(f"    {shown_gap(gap['first_seq'], gap['next_seq'])}: {gap['reason']}")
    for item in check.get("objects", ()):
        print(f"    {item['kind']} {item['id']}: {item['reason']}")
    if check["damage"]:
        print(f"    a replay stops there; timecraft trace syscall --skip-damaged {check['id']} shows the others")
    if check["incomplete_from"] is not None:
        print(f"    records from {check['incomplete_from']} on were lost, for want of room or with a damaged ring")


def push(args: argparse.Namespace, context: Context) -> int:
    """Sends logs. Raises RemoteError at the first that can't be sent."""
    from timecraftd.cli.uploading import make_uploads
    from timecraftd.cli.uploading import push as send

    if context.target.node:
        raise UsageError("log push: a node sends its logs itself", "leave out --node; `timecraft doctor` tells of it")
    if not context.config.remote.url:
        raise UsageError("log push: remote.url names no store", "docs/remote.md tells how")
    found = selected(args, context.runtime)
    uploads = make_uploads(context)
    try:
        send(uploads, [process.id for process in found])
        totals = uploads.status().totals
    finally:
        uploads.close()
    print(f"sent {totals.segments} segments, {totals.bytes} bytes; the rest was there")
    return 0


def evict(args: argparse.Namespace, context: Context) -> int:
    """Removes logs from the disk, and tells what that frees. With --all, those that can go."""
    from timecraftd.eviction import evict as remove
    from timecraftd.eviction import evictable

    if context.target.node:
        raise UsageError("log evict: works on a state directory", "set remote.keep_local_s on the node")
    runtime = context.runtime
    found = selected(args, runtime)
    if args.all:
        found = evictable(runtime, runtime.now_ns())
    freed = sum(remove(runtime, process) for process in found)
    print(f"freed {format_size(freed)}")
    return 0


ACTIONS = {"push": push, "verify": verify, "evict": evict}
