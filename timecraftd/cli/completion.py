"""`timecraft completion`: print a completion script for a shell."""

from __future__ import annotations

import argparse
import sys

from timecraftd.cli.context import Context
from timecraftd.errors import UnsupportedError

SHELLS = ("bash", "zsh", "fish")


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
    sys.stdout.write(shtab.complete(whole_parser(), args.shell))
    return 0


def whole_parser() -> argparse.ArgumentParser:
    """One parser with all verbs."""
    from timecraftd.cli import VERBS
    from timecraftd.cli.parser import load_verb

    parser = argparse.ArgumentParser(prog="timecraft")
    verbs = parser.add_subparsers(dest="verb")
    for verb, text in VERBS.items():
        load_verb(verb).add_arguments(verbs.add_parser(verb, help=text))
    return parser
