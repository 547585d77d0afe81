"""`timecraft config`: show the effective configuration."""

from __future__ import annotations

import argparse
import sys

from timecraftd.cli.context import Context
from timecraftd.cli.parser import add_format
from timecraftd.cli.terminal import print_data
from timecraftd.config import to_table, to_toml


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `config`."""
    parser.description = (
        "Prints the configuration as the TOML file that would make it. Values come from defaults, the file "
        "($TIMECRAFT_CONFIG, or timecraft/config.toml in the XDG configuration directory), and TIMECRAFT_SECTION_KEY."
    )
    add_format(parser)


def run(args: argparse.Namespace, context: Context) -> int:
    """Prints it."""
    if args.output == "text":
        sys.stdout.write(to_toml(context.config))
    else:
        print_data(to_table(context.config), args.output)
    return 0
