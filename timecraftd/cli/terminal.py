"""What goes to a terminal: tables, data, and text that guests had a hand in."""

from __future__ import annotations

import codecs
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Self

# Control characters make terminals do things; bidirectional overrides make text read as what it isn't.
_HARMLESS = "\n\t"
_HARMFUL = {
    code: f"\\x{code:02x}" for code in (*range(0x20), 0x7F, *range(0x80, 0xA0)) if chr(code) not in _HARMLESS
} | {code: f"\\u{code:04x}" for code in (0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A))}
_HARMFUL_IN_LINE = _HARMFUL | {ord(letter): repr(letter)[1:-1] for letter in _HARMLESS}

_STATE_COLORS = {"running": "32", "trapped": "31", "crashed": "31", "failed": "31", "limit": "33", "killed": "33"}


def printable(text: str) -> str:
    """Text on one line, control characters written out."""
    return text.translate(_HARMFUL_IN_LINE).encode("utf-8", "backslashreplace").decode()


def printable_lines(text: str) -> str:
    """Text of several lines, other control characters written out."""
    return text.translate(_HARMFUL).encode("utf-8", "backslashreplace").decode()


class ProgressLine:
    """A line on standard error that tells how far something is, and is gone at the end of a `with`."""

    def __init__(self, *, is_wanted: bool) -> None:
        """It is wanted if that is a terminal."""
        self._is_wanted = is_wanted
        self._shown = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._shown:
            self._write("")

    def show(self, text: str) -> None:
        """Puts it in the place of what was shown."""
        if self._is_wanted and text != self._shown:
            self._write(text)
            self._shown = text

    def _write(self, text: str) -> None:
        with suppress(OSError):
            sys.stderr.write(f"\r\x1b[K{text}")
            sys.stderr.flush()


class TerminalFilter:
    """Makes a stream of a guest's bytes harmless for a terminal, however the bytes are cut into chunks."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")
        self._held = ""

    def feed(self, data: bytes, *, final: bool = False) -> bytes:
        """The harmless form of the next bytes. A carriage return is only kept before a line feed."""
        text = self._held + self._decoder.decode(data, final)
        self._held = "\r" if text.endswith("\r") and not final else ""
        text = text.removesuffix(self._held) if self._held else text
        return text.replace("\r\n", "\n").translate(_HARMFUL).encode("utf-8", "backslashreplace")


class FilteredDescriptor:
    """A descriptor for the extension to write to, filtered on its way to a terminal."""

    def __init__(self, target: int) -> None:
        from threading import Thread

        self._target = target
        self._source, self.descriptor = os.pipe2(os.O_CLOEXEC)
        self._thread = Thread(target=self._copy, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Waits until all is written. The extension must have closed its duplicate."""
        os.close(self.descriptor)
        self._thread.join()
        os.close(self._source)

    def _copy(self) -> None:
        terminal_filter = TerminalFilter()
        while chunk := os.read(self._source, 1 << 16):
            write_all(self._target, terminal_filter.feed(chunk))
        write_all(self._target, terminal_filter.feed(b"", final=True))


def write_all(descriptor: int, data: bytes) -> None:
    """Writes all bytes to a descriptor, unbuffered."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Columns of text, as wide as they need."""
    shown = [list(header), *([printable(cell) for cell in row] for row in rows)]
    widths = [max(len(row[column]) for row in shown) for column in range(len(header))]
    for row in shown:
        print_row(row, widths)


def print_row(row: Sequence[str], widths: Sequence[int]) -> None:
    """A row of a table."""
    cells = [f"{printable(cell):<{width}}" for cell, width in zip(row, widths, strict=True)]
    print("   ".join(cells).rstrip())


def print_fields(pairs: Sequence[tuple[str, object]], indent: str = "") -> None:
    """Names and values, a line each; lists and tables below their names."""
    width = max((len(name) for name, _ in pairs), default=0) + 1
    for name, value in pairs:
        if isinstance(value, dict):
            print(f"{indent}{name}:")
            print_fields(list(value.items()), indent + "  ")
        elif isinstance(value, list | tuple):
            print(f"{indent}{name}:" + ("" if value else " none"))
            for item in value:
                print(f"{indent}  {printable(str(item))}")
        else:
            text = "none" if value is None else printable(str(value))
            print(f"{indent}{name + ':':<{width}} {text}".rstrip())


def print_data(data: object, form: str) -> None:
    """Data as JSON or YAML."""
    if form == "yaml":
        import yaml

        print(yaml.safe_dump(data, sort_keys=False, allow_unicode=False), end="")
    else:
        import json

        print(json.dumps(data, indent=2))


def paint_state(text: str, state: str, *, color: bool) -> str:
    """Text in the colour of a state."""
    number = _STATE_COLORS.get(state)
    return f"\x1b[{number}m{text}\x1b[0m" if color and number else text


def stdout_bytes(data: bytes) -> None:
    """Writes bytes to standard output behind the text that was printed."""
    sys.stdout.flush()
    sys.stdout.buffer.write(data)
