"""`timecraft ps`: list processes."""

from __future__ import annotations

import argparse

from timecraftd.cli.context import Context
from timecraftd.cli.parser import add_format, positive_int
from timecraftd.cli.terminal import print_data, print_table
from timecraftd.errors import UsageError
from timecraftd.model import ProcessRecord, ProcessState
from timecraftd.units import format_ago, format_size, format_span
from timecraftd.views import process_data

FILTERS = ("name", "module", "state", "id")
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
    parser.add_argument("--no-trunc", action="store_true", help="whole ids and names")
    parser.add_argument(
        "--filter",
        metavar="KEY=PATTERN",
        action="append",
        default=[],
        help=f"keys: {', '.join(FILTERS)}; * matches all",
    )
    add_format(parser)


def run(args: argparse.Namespace, context: Context) -> int:
    """Prints the table."""
    filters = [parse_filter(text) for text in args.filter]
    wants_ended = args.all or args.last is not None or any(key == "state" for key, _ in filters)
    processes = context.target.processes(alive=not wants_ended, filters=filters, last=args.last)
    print_processes(context, processes, form=args.output, quiet=args.quiet, whole=args.no_trunc)
    return 0


def print_processes(
    context: Context, processes: list[ProcessRecord], *, form: str, quiet: bool = False, whole: bool = False
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
    rows = [
        (
            shown_id(process),
            process.name or "-",
            process.module_name if whole else shorten(process.module_name, 32),
            status(process, now_ns),
            format_ago(now_ns - process.created_ns),
            format_size(process.log_bytes) if process.recorded else "-",
        )
        for process in processes
    ]
    print_table(("ID", "NAME", "MODULE", "STATUS", "CREATED", "SIZE"), rows)


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
