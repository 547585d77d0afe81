"""The command `timecraftd`. In this version it tells of itself only: the node daemon comes later."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from timecraftd.cli import main as run_command
from timecraftd.cli import run_verb
from timecraftd.cli.context import Context
from timecraftd.errors import UnsupportedError

VERBS = {"config": "show the effective configuration", "version": "show versions"}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit code. No error leaves it."""
    return run_command(argv, dispatch=_dispatch)


def _dispatch(arguments: list[str], context: Context) -> int:
    if arguments in (["-h"], ["--help"]):
        sys.stdout.write("usage: timecraftd config | version\n\nThe node daemon comes in a later version.\n")
        return 0
    if not arguments or arguments[0] not in VERBS:
        raise UnsupportedError(
            "timecraftd: the node daemon comes in a later version", "use `timecraft run`, which needs no daemon"
        )
    return run_verb("timecraftd", arguments[0], VERBS[arguments[0]], arguments[1:], context)


if __name__ == "__main__":
    sys.exit(main())
