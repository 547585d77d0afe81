"""`timecraft trace`: what went through the gate, from the record alone."""

from __future__ import annotations

import argparse

from timecraftd.cli.context import Context, is_terminal
from timecraftd.cli.logs import follower
from timecraftd.cli.parser import duration_ns
from timecraftd.cli.terminal import printable
from timecraftd.errors import UnsupportedError, UsageError
from timecraftd.model import ProcessState
from timecraftd.recorder.logs import TraceQuery
from timecraftd.units import parse_duration_ns, parse_time_ns

LAYERS = ("syscall", "network", "request")
STRING_BYTES = 32
STRING_BYTES_VERBOSE = 1 << 16


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `trace`."""
    parser.add_argument("layer", metavar="LAYER", choices=LAYERS, help="syscall; network and request come later")
    parser.add_argument("id", metavar="ID", help="process: id, unique prefix or name")
    parser.add_argument("-v", "--verbose", action="store_true", help="show all bytes of what was read and written")
    parser.add_argument("-t", "--start", metavar="START", help="from then on: since the process's start, or RFC 3339")
    parser.add_argument("-d", "--duration", metavar="TIME", type=duration_ns, help="for so long")
    parser.add_argument("-f", "--follow", action="store_true", help="go on as long as the process runs")
    parser.add_argument("--call", metavar="NAME", action="append", default=[], help="only this call; may be repeated")
    parser.add_argument("--timestamps", choices=("none", "relative", "absolute"), default="relative")
    parser.add_argument("--raw", action="store_true", help="don't filter control characters on a terminal")
    parser.add_argument("-o", "--output", choices=("text", "json"), default="text", help="text, or a JSON line each")


def run(args: argparse.Namespace, context: Context) -> int:
    """Prints a line per record."""
    if args.layer != "syscall":
        raise UnsupportedError(f"trace {args.layer}: comes in a later version", "use `timecraft trace syscall`")
    runtime = context.runtime
    process = runtime.process(args.id)
    info = runtime.log_info(process)
    start_ns = _start(args.start, info.start_unix_ns)
    until_ns = None if args.duration is None else (start_ns or 0) + args.duration
    if process.state is ProcessState.RUNNING and not args.follow:
        # A guest may call faster than we read: what came since isn't waited for.
        until_ns = min(until_ns or info.last_time_ns, info.last_time_ns)
    query = TraceQuery(
        start_ns=start_ns,
        until_ns=until_ns,
        json=args.output == "json",
        string_bytes_max=STRING_BYTES_VERBOSE if args.verbose else STRING_BYTES,
        timestamps=args.timestamps,
        calls=tuple(args.call),
    )
    filtered = is_terminal(1) and not args.raw
    wait = follower(context, process, follow=args.follow)
    log_dir = runtime.registry.home.log_dir(process.id)
    for line in runtime.logs.trace(log_dir, query, wait, runtime.trees_of(process)):
        print(printable(line) if filtered else line, flush=args.follow)
    return 0


def _start(text: str | None, start_unix_ns: int) -> int | None:
    if text is None:
        return None
    try:
        return max(parse_time_ns(text, 0) - start_unix_ns, 0) if "T" in text else parse_duration_ns(text)
    except ValueError as error:
        raise UsageError(f"--start: {error}", "see `timecraft trace --help`") from None
