"""`timecraft trace`: what went through the gate, from the record alone."""

from __future__ import annotations

import argparse
import sys

from timecraftd.cli.context import Context, is_terminal, tell
from timecraftd.cli.parser import add_format, duration_ns
from timecraftd.cli.terminal import TerminalFilter
from timecraftd.errors import UsageError
from timecraftd.units import parse_duration_ns, parse_time_ns
from timecraftd.views import TraceOptions

LAYERS = {
    "syscall": "host calls, as strace shows them",
    "network": "connections, and what passed on them, as tcpdump shows them",
    "request": "HTTP requests with their answers and latencies, from both sides",
}
PORT_MAX = 65535


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `trace`."""
    layers = "; ".join(f"{name}: {text}" for name, text in LAYERS.items())
    parser.add_argument("layer", metavar="LAYER", choices=tuple(LAYERS), help=layers)
    parser.add_argument("id", metavar="ID", help="process: id, unique prefix or name")
    parser.add_argument("-v", "--verbose", action="store_true", help="show bytes too; of requests headers and bodies")
    parser.add_argument("-t", "--start", metavar="START", help="from then on: since the process's start, or RFC 3339")
    parser.add_argument("-d", "--duration", metavar="TIME", type=duration_ns, help="for so long")
    parser.add_argument("-f", "--follow", action="store_true", help="go on as long as the process runs")
    parser.add_argument(
        "--timestamps",
        choices=("none", "relative", "absolute"),
        help="seconds since the process's start, or UTC (default: relative for syscall, else absolute)",
    )
    add_format(parser)
    syscall = parser.add_argument_group("syscall")
    syscall.add_argument("--call", metavar="NAME", action="append", help="only this call; may be repeated")
    syscall.add_argument("--skip-damaged", action="store_true", help="leave out what can't be read, and say so")
    syscall.add_argument("--raw", action="store_true", help="don't filter control characters on a terminal")
    traffic = parser.add_argument_group("network and request")
    traffic.add_argument("--host", metavar="IP", help="only connections with this address at either end")
    traffic.add_argument("--port", metavar="PORT", type=_port, help="only connections with this port at either end")
    traffic.add_argument("--side", choices=("client", "server"), help="only where the guest is this")


def run(args: argparse.Namespace, context: Context) -> int:
    """Prints a line, or more, for each record, event or exchange."""
    _check_flags(args)
    start_ns, is_unix = _start(args.start)
    options = TraceOptions(
        layer=args.layer,
        form=args.output,
        timestamps=args.timestamps,
        verbose=args.verbose,
        color=context.color,
        start_ns=start_ns,
        start_is_unix=is_unix,
        duration_ns=args.duration,
        calls=tuple(args.call or ()),
        host=args.host,
        port=args.port,
        side=args.side,
        skip_damaged=args.skip_damaged,
    )
    process = context.target.process(args.id)
    trace = context.target.trace(process, options, follow=args.follow)
    # The traces of traffic are made for terminals.
    harmless = TerminalFilter() if args.layer == "syscall" and is_terminal(1) and not args.raw else None
    try:
        for text in trace.text():
            sys.stdout.buffer.write(text if harmless is None else harmless.feed(text))
            if args.follow:
                sys.stdout.buffer.flush()
    finally:
        sys.stdout.flush()
        for note in trace.notes:
            tell(f"timecraft: process {process.id}: {note}")
    return 0


def _check_flags(args: argparse.Namespace) -> None:
    """Flags that say nothing about a layer are no silent wishes. Raises UsageError."""
    given = {"--call": args.call, "--raw": args.raw, "--skip-damaged": args.skip_damaged}
    if args.layer == "syscall":
        given = {"--host": args.host, "--port": args.port, "--side": args.side}
    for flag, value in given.items():
        if value:
            raise UsageError(f"trace {args.layer}: {flag} is for other layers", "see `timecraft trace --help`")


def _start(text: str | None) -> tuple[int | None, bool]:
    """Nanoseconds, and whether they are since the Unix epoch and not since the start of the process."""
    if text is None:
        return None, False
    try:
        return (parse_time_ns(text, 0), True) if "T" in text else (parse_duration_ns(text), False)
    except ValueError as error:
        raise UsageError(f"--start: {error}", "see `timecraft trace --help`") from None


def _port(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 0 < int(text) <= PORT_MAX:
        raise argparse.ArgumentTypeError(f"{text!r} isn't a port")
    return int(text)
