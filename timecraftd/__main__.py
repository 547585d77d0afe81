"""The command `timecraftd`: the node daemon."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from timecraftd.cli import main as run_command
from timecraftd.cli import run_verb
from timecraftd.cli.context import Context
from timecraftd.config import Config, load_config

VERBS = {
    "config": "show the effective configuration",
    "token": "make a bearer token for clients",
    "version": "show versions",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Serves, or runs one command; returns the exit code. No error leaves it."""
    return run_command(argv, dispatch=_dispatch)


def _dispatch(arguments: list[str], context: Context) -> int:
    at = 2 if arguments[:1] == ["--config"] else 0
    if arguments[at : at + 1] and (verb := arguments[at]) in VERBS:
        if at:
            os.environ["TIMECRAFT_CONFIG"] = arguments[1]
        return run_verb("timecraftd", verb, VERBS[verb], arguments[at + 1 :], context)
    from timecraftd.cli.parser import Parser

    parser = Parser(
        prog="timecraftd",
        description="The node daemon: takes modules and processes over gRPC, and looks after them (docs/node.md). "
        "`timecraftd config` shows the effective configuration, `timecraftd token` makes tokens for clients, "
        "`timecraftd version` shows versions. These take --config before them.",
    )
    parser.add_argument("--config", metavar="FILE", help="TOML file (default: $TIMECRAFT_CONFIG, else the user's)")
    parser.add_argument("--check", action="store_true", help="check the configuration, and serve nothing")
    try:
        args = parser.parse_args(arguments)
    except SystemExit:  # --help was printed
        return 0

    def load() -> Config:
        return load_config(os.environ | ({"TIMECRAFT_CONFIG": args.config} if args.config else {}))

    return _serve(args, load())


def _serve(args: argparse.Namespace, config: Config) -> int:
    import asyncio

    from timecraftd import daemon

    daemon.check(config)
    if args.check:
        sys.stdout.write(f"{config.source or 'the defaults'}: all good\n")
        return 0
    asyncio.run(
        daemon.serve(
            config, lambda: load_config(os.environ | {"TIMECRAFT_CONFIG": config.source} if config.source else None)
        )
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
