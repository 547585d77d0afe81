"""`timecraft completion`: print a completion script for a shell."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator

from timecraftd.cli.context import Context
from timecraftd.errors import UnsupportedError

SHELLS = ("bash", "zsh", "fish")
FILES = ("FILE", "MODULE", "ARG")
DIRECTORIES = ("HOST[:GUEST[:MODE]]",)
"""Placeholders of arguments that name files or directories."""
VERBS_OF_OBJECTS = ("get", "describe", "export")
"""Their ids aren't those of processes alone."""
IDS = {"bash": "_timecraft_ids", "zsh": "_timecraft_ids"}
PREAMBLE = {
    "bash": """_timecraft_ids() {
  compgen -W "$(timecraft ps --all --quiet 2>/dev/null)" -- "$1"
}
""",
    "zsh": """_timecraft_ids() {
  compadd -- ${(f)"$(timecraft ps --all --quiet 2>/dev/null)"}
}
""",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `completion`."""
    parser.add_argument("shell", metavar="SHELL", choices=SHELLS, help=", ".join(SHELLS))
    parser.description = "Prints a script. Bash: source <(timecraft completion bash), for example in ~/.bashrc."


def run(args: argparse.Namespace, _context: Context) -> int:
    """Prints the script."""
    try:
        import shtab
    except ImportError:
        raise UnsupportedError("completion: the package shtab isn't installed", "pip install shtab") from None
    parser = whole_parser()
    for verb, action in _arguments(parser):
        # What shtab looks for; argparse has no place for it.
        if action.metavar in FILES:
            action.complete = shtab.FILE  # type: ignore[attr-defined]
        elif action.metavar in DIRECTORIES:
            action.complete = shtab.DIRECTORY  # type: ignore[attr-defined]
        elif action.metavar == "ID" and verb not in VERBS_OF_OBJECTS:
            action.complete = IDS  # type: ignore[attr-defined]
    sys.stdout.write(shtab.complete(parser, args.shell, preamble=PREAMBLE.get(args.shell, "")))
    return 0


def whole_parser() -> argparse.ArgumentParser:
    """One parser with all verbs."""
    from timecraftd.cli import VERBS
    from timecraftd.cli.parser import add_target, load_verb

    parser = argparse.ArgumentParser(prog="timecraft")
    verbs = parser.add_subparsers(dest="verb")
    for verb, text in VERBS.items():
        of_verb = verbs.add_parser(verb, help=text)
        load_verb(verb).add_arguments(of_verb)
        add_target(of_verb, verb)
    return parser


def _arguments(parser: argparse.ArgumentParser) -> Iterator[tuple[str, argparse.Action]]:
    """(verb, argument) of all verbs. argparse shows its parts by private names alone."""
    for action in parser._actions:  # noqa: SLF001
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001
            for verb, of_verb in action.choices.items():
                for argument in of_verb._actions:  # noqa: SLF001
                    yield verb, argument
