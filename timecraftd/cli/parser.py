"""Argument parsing that all verbs share."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Callable
from typing import IO, NoReturn, Protocol

from timecraftd.cli.context import Context
from timecraftd.errors import UsageError
from timecraftd.units import parse_duration_ns, parse_size

FORMATS = ("text", "json", "yaml")
WITHOUT_TARGET = ("context", "config", "completion", "token", "catalogue")
WIDTH = 80
WIDTH_MIN = 40


class Verb(Protocol):
    """What each module of a verb has."""

    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace, Context], int]


class Formatter(argparse.HelpFormatter):
    """Asks the terminal for its width itself: argparse imports shutil for it, at each start."""

    def __init__(self, prog: str) -> None:
        try:
            width = os.get_terminal_size(1).columns
        except OSError:
            width = WIDTH
        super().__init__(prog, width=max(width, WIDTH_MIN) - 2)


class Parser(argparse.ArgumentParser):
    """Raises UsageError instead of exiting."""

    def __init__(self, prog: str, description: str) -> None:
        super().__init__(prog=prog, description=description, allow_abbrev=False, formatter_class=Formatter)

    def error(self, message: str) -> NoReturn:
        """Called by argparse for every wrong argument."""
        raise UsageError(f"{self.prog.removeprefix('timecraft ')}: {message}", f"see `{self.prog} --help`")

    def print_help(self, file: IO[str] | None = None) -> None:  # type: ignore[override]
        """Unlike argparse's own, lets errors of writing through."""
        (file or sys.stdout).write(self.format_help())


def load_verb(verb: str) -> Verb:
    """The module of a verb."""
    name = {"import": "import_", "context": "context_"}.get(verb, verb)
    module: Verb = importlib.import_module(f"timecraftd.cli.{name}")
    return module


def add_target(parser: argparse.ArgumentParser, verb: str) -> None:
    """Adds `--node` and `--context` to a verb that asks for processes."""
    if verb not in WITHOUT_TARGET:
        group = parser.add_argument_group("where", "without these: as `timecraft context list` shows")
        group.add_argument("--node", metavar="ADDRESS", help="a node: HOST:PORT (TLS), or the path of its socket")
        group.add_argument("--context", metavar="NAME", help="the node of a context; `embedded` is none")


def add_format(parser: argparse.ArgumentParser) -> None:
    """Adds `-o`."""
    parser.add_argument("-o", "--output", choices=FORMATS, default="text", help="form of the output (default: text)")


def size(text: str) -> int:
    """A size, for argparse."""
    return _checked(parse_size, text)


def duration_ns(text: str) -> int:
    """A duration, for argparse."""
    return _checked(parse_duration_ns, text)


def positive_size(text: str) -> int:
    """A size above zero, for argparse."""
    return _above_zero(size(text), text)


def positive_duration_ns(text: str) -> int:
    """A duration above zero, for argparse."""
    return _above_zero(duration_ns(text), text)


def positive_int(text: str) -> int:
    """A whole number above zero, for argparse."""
    if not text.isascii() or not text.isdigit() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} isn't a whole number above zero")
    return int(text)


def whole_number(text: str) -> int:
    """A whole number, for argparse."""
    if not text.isascii() or not text.isdigit() or int(text) >= 1 << 64:
        raise argparse.ArgumentTypeError(f"{text!r} isn't a whole number")
    return int(text)


def _above_zero(value: int, text: str) -> int:
    if value == 0:
        raise argparse.ArgumentTypeError(f"{text!r} isn't above zero")
    return value


def _checked(parse: Callable[[str], int], text: str) -> int:
    try:
        return parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
