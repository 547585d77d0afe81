"""`timecraft kill`: end processes as by a signal."""

from __future__ import annotations

import argparse
import signal

from timecraftd.cli.context import Context
from timecraftd.errors import UsageError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `kill`."""
    parser.add_argument("ids", metavar="ID", nargs="+", help="process: id, unique prefix or name")
    parser.add_argument("-s", "--signal", metavar="SIGNAL", default="KILL", help="name or number (default: KILL)")


def run(args: argparse.Namespace, context: Context) -> int:
    """Ends each guest as the signal would end a program that doesn't handle it; the end is recorded.

    INT interrupts a guest that understands interrupts, as Ctrl-C does.
    """
    number = parse_signal(args.signal)
    processes = [(reference, context.target.process(reference)) for reference in args.ids]
    for reference, process in processes:
        context.target.kill(process, number)
        print(reference, flush=True)
    return 0


def parse_signal(text: str) -> int:
    """A signal's number from `TERM`, `SIGTERM` or `15`. Raises UsageError."""
    if text.isascii() and text.isdigit() and 1 <= int(text) <= signal.SIGRTMAX:
        return int(text)
    name = text.upper() if text.upper().startswith("SIG") else f"SIG{text.upper()}"
    if name in signal.Signals.__members__:
        return int(signal.Signals[name])
    raise UsageError(f"kill: {text!r} isn't a signal", "use a name such as TERM, or a number")
