"""`timecraft ps`: list processes."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator

from timecraftd.cli.context import Context
from timecraftd.cli.parser import add_format, positive_int
from timecraftd.cli.terminal import print_data, print_row, print_table
from timecraftd.errors import UsageError
from timecraftd.model import ProcessRecord, ProcessState
from timecraftd.units import format_ago, format_size, format_span
from timecraftd.views import process_data

FILTERS = ("name", "module", "state", "id", "label")
HEADER = ("ID", "NAME", "MODULE", "STATUS", "CREATED", "SIZE")
WIDTHS = (13, 12, 16, 28, 16, 8)
"""Of columns whose rows aren't all known."""
_WORDS = {
    ProcessState.EXITED: "Exited",
    ProcessState.TRAPPED: "Trapped",
    ProcessState.KILLED: "Killed",
    ProcessState.LIMIT: "Limit",
    ProcessState.CRASHED: "Crashed",
    ProcessState.FAILED: "Failed",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `ps`."""
    parser.add_argument("-a", "--all", action="store_true", help="also those that ended")
    parser.add_argument("-q", "--quiet", action="store_true", help="only ids")
    parser.add_argument("-n", "--last", metavar="N", type=positive_int, help="the newest N, ended or not")
    parser.add_argument("--remote", action="store_true", help="those that are in the bucket (remote.url), ended or not")
    parser.add_argument("--no-trunc", action="store_true", help="whole ids and names")
    parser.add_argument(
        "--filter",
        metavar="KEY=PATTERN",
        action="append",
        default=[],
        help=f"keys: {', '.join(FILTERS)}; * matches all",
    )
    parser.add_argument("-w", "--watch", action="store_true", help="go on with each process that is new or has changed")
    add_format(parser)


def run(args: argparse.Namespace, context: Context) -> int:
    """Prints the table."""
    filters = [parse_filter(text) for text in args.filter]
    if args.remote:
        found = context.target.remote_processes(filters=filters, last=args.last)
        if args.output == "text":
            watch(context, ([process] for process in found), args)
        else:
            print_processes(context, list(found), form=args.output)
        return 0
    wants_ended = args.all or args.last is not None or any(key == "state" for key, _ in filters)
    if args.watch:
        if args.last is not None:
            raise UsageError("ps: --watch and --last exclude each other", "leave out one of them")
        watch(context, context.target.watch(alive=not wants_ended, filters=filters), args)
        return 0
    processes = context.target.processes(alive=not wants_ended, filters=filters, last=args.last)
    print_processes(context, processes, form=args.output, quiet=args.quiet, whole=args.no_trunc)
    return 0


def print_processes(
    context: Context,
    processes: list[ProcessRecord],
    *,
    form: str,
    quiet: bool = False,
    whole: bool = False,
) -> None:
    """Prints processes as a table or as data."""
    if form != "text":
        print_data([process_data(process) for process in processes], form)
        return

    def shown_id(process: ProcessRecord) -> str:
        return process.id if whole else context.target.short_id(process.id)

    if quiet:
        for process in processes:
            print(shown_id(process))
        return
    now_ns = context.now_ns()
    print_table(HEADER, [_row(process, shown_id(process), now_ns, whole=whole) for process in processes])


def watch(context: Context, batches: Iterator[list[ProcessRecord]], args: argparse.Namespace) -> None:
    """Prints rows, JSON objects or YAML documents of processes as they come, or change."""
    import json  # slow to import

    if args.output == "text" and not args.quiet:
        print_row(HEADER, WIDTHS)
    for batch in batches:
        for process in batch:
            shown_id = process.id if args.no_trunc else context.target.short_id(process.id)
            if args.output == "json":
                print(json.dumps(process_data(process)))
            elif args.output == "yaml":
                print("---")
                print_data(process_data(process), args.output)
            elif args.quiet:
                print(shown_id)
            else:
                print_row(_row(process, shown_id, context.now_ns(), whole=args.no_trunc), WIDTHS)
        sys.stdout.flush()


def _row(process: ProcessRecord, shown_id: str, now_ns: int, *, whole: bool) -> tuple[str, ...]:
    return (
        shown_id,
        process.name or "-",
        process.module_name if whole else shorten(process.module_name, 32),
        status(process, now_ns),
        format_ago(now_ns - process.created_ns),
        format_size(process.log_bytes) if process.recorded else "-",
    )


def status(process: ProcessRecord, now_ns: int) -> str:
    """`Up 3 minutes`, `Exited (0) 2 minutes ago`."""
    if process.state is ProcessState.QUEUED:
        return f"Queued {format_ago(now_ns - process.created_ns)}"
    if process.state is ProcessState.RUNNING:
        return f"Up {format_span(now_ns - process.started_ns)}"
    code = f" ({process.exit_code})" if process.exit_code is not None else ""
    ended = process.ended_ns if process.ended_ns is not None else process.created_ns
    return f"{_WORDS[process.state]}{code} {format_ago(now_ns - ended)}"


def parse_filter(text: str) -> tuple[str, str]:
    """(key, pattern) of `KEY=PATTERN`. Raises UsageError."""
    key, equals, pattern = text.partition("=")
    if not equals or key not in FILTERS:
        raise UsageError(f"--filter {text!r}: isn't KEY=PATTERN", f"keys are {', '.join(FILTERS)}")
    if key == "state" and pattern not in list(ProcessState):
        raise UsageError(f"--filter {text!r}: no such state", f"states are {', '.join(ProcessState)}")
    return key, pattern


def shorten(text: str, width: int) -> str:
    """Text of at most so many characters."""
    return text if len(text) <= width else text[: width - 3] + "..."
