"""`timecraft label`: change labels of a process."""

from __future__ import annotations

import argparse

from timecraftd.cli.context import Context
from timecraftd.labels import HOLD, parse_label


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `label`."""
    parser.add_argument("id", metavar="ID", help="process: id, unique prefix or name")
    parser.add_argument("labels", metavar="KEY[=VALUE] or KEY-", nargs="*", help="one to set, or to remove")
    parser.description = (
        f"Sets and removes labels, and prints those that a process has then. One with the label `{HOLD}` isn't removed "
        "by rm, prune or retention, here or in the store, until the label is."
    )


def run(args: argparse.Namespace, context: Context) -> int:
    """Changes them and prints them, a line each."""
    removed = [text[:-1] for text in args.labels if "=" not in text and text.endswith("-")]
    added = dict(parse_label(text) for text in args.labels if "=" in text or not text.endswith("-"))
    process = context.target.process(args.id)
    if args.labels:
        process = context.target.relabel(process, added, removed)
    for key, value in process.labels:
        print(f"{key}={value}")
    return 0
