"""`timecraft get`: list processes, modules, configs, runtimes, trees or logs."""

from __future__ import annotations

import argparse
from typing import Any

from timecraftd.cli.context import Context
from timecraftd.cli.parser import add_format
from timecraftd.cli.ps import print_processes, shorten
from timecraftd.cli.terminal import print_data, print_table
from timecraftd.units import format_ago, format_size, parse_time_ns

KINDS = ("process", "module", "config", "runtime", "tree", "log")
DIGITS = 12
"""So much of a digest is shown."""
TITLES = {"module": "NAME", "config": "COMMAND", "runtime": "ENGINE", "tree": "FILES"}
"""What describes an object best."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `get`."""
    parser.add_argument("kind", metavar="KIND", choices=KINDS, type=singular, help=", ".join(KINDS))
    parser.add_argument("ids", metavar="ID", nargs="*", help="only these: id, unique prefix or name")
    parser.add_argument("-q", "--quiet", action="store_true", help="only ids")
    parser.add_argument("--no-trunc", action="store_true", help="whole ids and names")
    add_format(parser)


def singular(kind: str) -> str:
    """`modules` is `module`."""
    return {"processes": "process"}.get(kind, kind[:-1] if kind.endswith("s") and kind[:-1] in KINDS else kind)


def run(args: argparse.Namespace, context: Context) -> int:
    """Prints the table."""
    target = context.target
    if args.kind == "process":
        found = [target.process(reference) for reference in args.ids] if args.ids else target.processes()
        print_processes(context, found, form=args.output, quiet=args.quiet, whole=args.no_trunc)
        return 0
    items = list(target.listing(args.kind, args.ids))
    if args.output != "text":
        print_data(items, args.output)
        return 0

    def shown_id(item: dict[str, Any]) -> str:
        if args.no_trunc:
            return str(item["id"])
        return target.short_id(item["id"]) if args.kind == "log" else item["id"][:DIGITS]

    if args.quiet:
        for item in items:
            print(shown_id(item))
    elif args.kind == "log":
        header = ("ID", "RECORDS", "SEGMENTS", "STORED", "RAW", "END")
        print_table(header, [(shown_id(item), *_log_row(item)) for item in items])
    else:
        now_ns = context.now_ns()
        rows = [(shown_id(item), *_object_row(args.kind, item, now_ns, whole=args.no_trunc)) for item in items]
        print_table(("ID", TITLES[args.kind], "SIZE", "CREATED"), rows)
    return 0


def _object_row(kind: str, item: dict[str, Any], now_ns: int, *, whole: bool) -> tuple[str, str, str]:
    if kind == "module":
        summary = item["name"] or "-"
    elif kind == "tree":
        summary = str(item["files"])
    elif kind == "config":
        command = " ".join(item["value"]["args"])
        summary = command if whole else shorten(command, 48)
    else:
        value = item["value"]
        summary = f"{value.get('engine')} {value.get('engine_version')} (timecraft {value.get('version')})"
    return summary, format_size(item["size_bytes"]), format_ago(now_ns - parse_time_ns(item["created_at"], now_ns))


def _log_row(item: dict[str, Any]) -> tuple[str, ...]:
    if "error" in item:
        return ("-", "-", "-", "-", item["error"])
    return (
        str(item["records"]),
        str(item["segments"]),
        format_size(item["bytes_stored"]),
        "-" if item["bytes_raw"] is None else format_size(item["bytes_raw"]),
        item["end"]["kind"] if item["end"] else "none",
    )
