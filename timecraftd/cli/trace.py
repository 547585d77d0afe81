"""`timecraft trace`: what went through the gate, from the record alone."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from timecraftd.cli.context import Context, is_terminal, tell
from timecraftd.cli.logs import follower
from timecraftd.cli.parser import add_format, duration_ns
from timecraftd.cli.terminal import printable
from timecraftd.errors import UsageError
from timecraftd.model import ObjectKind, ProcessState
from timecraftd.recorder.logs import TraceQuery, TrafficQuery
from timecraftd.units import parse_duration_ns, parse_time_ns

if TYPE_CHECKING:
    from timecraftd.model import ProcessRecord
    from timecraftd.recorder.logs import LogInfo

LAYERS = {
    "syscall": "host calls, as strace shows them",
    "network": "connections, and what passed on them, as tcpdump shows them",
    "request": "HTTP requests with their answers and latencies, from both sides",
}
STRING_BYTES = 32
STRING_BYTES_VERBOSE = 1 << 16
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
    syscall.add_argument("--raw", action="store_true", help="don't filter control characters on a terminal")
    traffic = parser.add_argument_group("network and request")
    traffic.add_argument("--host", metavar="IP", help="only connections with this address at either end")
    traffic.add_argument("--port", metavar="PORT", type=_port, help="only connections with this port at either end")
    traffic.add_argument("--side", choices=("client", "server"), help="only where the guest is this")


def run(args: argparse.Namespace, context: Context) -> int:
    """Prints a line, or more, for each record, event or exchange."""
    _check_flags(args)
    process = context.runtime.process(args.id)
    info = context.runtime.log_info(process)
    show = _syscalls if args.layer == "syscall" else _traffic
    return show(args, context, process, info)


def _last_ns(args: argparse.Namespace, process: ProcessRecord, info: LogInfo) -> int | None:
    """A guest may call faster than we read: what came since isn't waited for, unless that is asked for."""
    return info.last_time_ns if process.state is ProcessState.RUNNING and not args.follow else None


def _syscalls(args: argparse.Namespace, context: Context, process: ProcessRecord, info: LogInfo) -> int:
    start_ns, is_unix = _start(args.start)
    if start_ns is not None and is_unix:
        start_ns = max(start_ns - info.start_unix_ns, 0)
    until_ns = None if args.duration is None else (start_ns or 0) + args.duration
    last_ns = _last_ns(args, process, info)
    if last_ns is not None:
        until_ns = min(until_ns or last_ns, last_ns)
    query = TraceQuery(
        start_ns=start_ns,
        until_ns=until_ns,
        json=args.output != "text",
        string_bytes_max=STRING_BYTES_VERBOSE if args.verbose else STRING_BYTES,
        timestamps=args.timestamps or "relative",
        calls=tuple(args.call or ()),
    )
    filtered = is_terminal(1) and not args.raw
    runtime = context.runtime
    wait = follower(context, process, follow=args.follow)
    log_dir = runtime.registry.home.log_dir(process.id)
    lines = runtime.logs.trace(log_dir, query, wait, runtime.trees_of(process))
    for line in _as_yaml(lines) if args.output == "yaml" else lines:
        print(printable(line) if filtered and args.output != "yaml" else line, flush=args.follow)
    return 0


def _traffic(args: argparse.Namespace, context: Context, process: ProcessRecord, info: LogInfo) -> int:
    from timecraftd.engine.request import decode_config
    from timecraftd.timemachine.traffic import Traffic, given_sockets

    config = context.runtime.registry.objects.get(ObjectKind.CONFIG, process.config)

    start_ns, is_unix = _start(args.start)
    query = TrafficQuery(
        layer=args.layer,
        form=args.output,
        timestamps=args.timestamps or "absolute",
        verbose=args.verbose,
        color=context.color and args.output == "text",
        host=args.host,
        port=args.port,
        side=args.side,
        from_ns=start_ns,
        until_ns=None if args.duration is None else (start_ns or 0) + args.duration,
        is_unix=is_unix,
        last_ns=_last_ns(args, process, info),
        given=given_sockets(decode_config(config)),
    )
    traffic = Traffic(context.runtime.logs, context.runtime.registry.home.log_dir(process.id), query)
    try:
        for text in traffic.text(follower(context, process, follow=args.follow)):
            sys.stdout.buffer.write(text)
            if args.follow:
                sys.stdout.buffer.flush()
    finally:
        sys.stdout.flush()
        for note in traffic.notes:
            tell(f"timecraft: process {process.id}: {note}")
    if args.duration is None and process.state is ProcessState.CRASHED and not traffic.ended:
        tell(f"timecraft: process {process.id}: its log ends with record {process.last_seq}, where its host died")
    return 0


def _check_flags(args: argparse.Namespace) -> None:
    """Flags that say nothing about a layer are no silent wishes. Raises UsageError."""
    given = {"--call": args.call, "--raw": args.raw}
    if args.layer == "syscall":
        given = {"--host": args.host, "--port": args.port, "--side": args.side}
    for flag, value in given.items():
        if value:
            raise UsageError(f"trace {args.layer}: {flag} is for other layers", "see `timecraft trace --help`")


def _as_yaml(lines: Iterator[str]) -> Iterator[str]:
    """Lines of JSON as documents of YAML."""
    import json

    import yaml

    for line in lines:
        yield yaml.safe_dump(json.loads(line), sort_keys=False, explicit_start=True).rstrip("\n")


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
