"""`timecraft version`: versions of what decides results."""

from __future__ import annotations

import argparse
import platform
from typing import cast

from timecraftd.cli.context import Context
from timecraftd.cli.parser import add_format
from timecraftd.cli.terminal import print_data, print_fields


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `version`."""
    parser.add_argument("-v", "--verbose", action="store_true", help="engine, flags and formats too")
    add_format(parser)


def run(args: argparse.Namespace, context: Context) -> int:
    """Prints them."""
    data: dict[str, object] = dict(context.runtime.engine.build_info())
    data["python"] = platform.python_version()
    node = context.node().about() if context.target.node else None
    if node is not None:
        data["node"] = {"address": node["address"], "name": node["name"], **cast("dict[str, object]", node["build"])}
    if args.output != "text":
        print_data(data, args.output)
        return 0
    debug = " (debug build)" if data["profile"] == "debug" else ""
    print(f"timecraft {data['version']}{debug}")
    if args.verbose:
        print_fields([(name.replace("_", " "), value) for name, value in data.items() if name != "version"])
    elif node is not None:
        build = cast("dict[str, str]", node["build"])
        print(f"node {node['name']} ({node['address']}): timecraft {build['version']}")
    return 0
