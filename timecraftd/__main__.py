"""The command `timecraftd`. In this version it tells of itself only: the node daemon comes later."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from timecraftd.cli.context import Context
from timecraftd.cli.parser import Parser, load_verb
from timecraftd.errors import TimecraftError, UnsupportedError

VERBS = {"config": "show the effective configuration", "version": "show versions"}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    context = Context()
    try:
        if arguments in (["-h"], ["--help"]):
            sys.stdout.write("usage: timecraftd config | version\n\nThe node daemon comes in a later version.\n")
            return 0
        if not arguments or arguments[0] not in VERBS:
            raise UnsupportedError(
                "timecraftd: the node daemon comes in a later version", "use `timecraft run`, which needs no daemon"
            )
        module = load_verb(arguments[0])
        parser = Parser(prog=f"timecraftd {arguments[0]}", description=VERBS[arguments[0]])
        module.add_arguments(parser)
        return module.run(parser.parse_args(arguments[1:]), context)
    except TimecraftError as error:
        context.complain(f"{error} [{error.code}]")
        return error.exit_code
    finally:
        context.close()


if __name__ == "__main__":
    sys.exit(main())
