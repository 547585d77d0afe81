"""`timecraft describe`: one process, module, config, runtime, tree or log in detail."""

from __future__ import annotations

import argparse

from timecraftd.cli.context import Context
from timecraftd.cli.get import DIGITS, KINDS, singular
from timecraftd.cli.parser import add_format
from timecraftd.cli.terminal import print_data, print_fields
from timecraftd.units import format_duration, format_size


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `describe`."""
    parser.add_argument("kind", metavar="KIND", choices=KINDS, type=singular, help=", ".join(KINDS))
    parser.add_argument("id", metavar="ID", help="id, unique prefix or name")
    add_format(parser)


def run(args: argparse.Namespace, context: Context) -> int:
    """Prints the details."""
    data = context.target.describe(args.kind, args.id)
    if args.output != "text":
        print_data(data, args.output)
    else:
        print_fields([(_label(name), _shown(name, value)) for name, value in data.items()])
    return 0


def _label(name: str) -> str:
    """A field's name without its unit: the value shows that."""
    return name.removesuffix("_bytes").removesuffix("_ns").replace("_bytes_", " ").replace("_", " ")


def _shown(name: str, value: object) -> object:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        if "bytes" in name:
            return format_size(value)
        return format_duration(value) if name.endswith("_ns") else value
    if isinstance(value, dict):
        return {_label(key): _shown(key, item) for key, item in value.items()}
    if isinstance(value, list):
        return [_line(item) for item in value]
    return value


def _line(item: object) -> str:
    if not isinstance(item, dict):
        return str(item)
    if "host" in item and "guest" in item:
        mode = " (read-only)" if item["read_only"] else ""
        mode = f" (immutable, tree {item['tree'][:DIGITS]})" if item.get("tree") else mode
        return f"{item['host'] or 'a directory of its own'} at {item['guest']}{mode}"
    return " ".join(str(value) for value in item.values() if value != "")
