"""Guests can't drive the terminal of who looks at them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from timecraftd.cli.terminal import TerminalFilter, printable


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        (b"plain\ttext\n", b"plain\ttext\n"),
        (b"\x1b[31mred", rb"\x1b[31mred"),
        (b"\x1b]0;title\x07", rb"\x1b]0;title\x07"),
        (b"over\rwrite", rb"over\x0dwrite"),
        (b"dos\r\n", b"dos\n"),
        ("\x9b31m".encode(), rb"\x9b31m"),
        (b"\x9b31m", rb"\x9b31m"),
        ("grüße 🎉".encode(), "grüße 🎉".encode()),
        ("\u202egnp".encode(), rb"\u202egnp"),
        (b"\xff\xfe", rb"\xff\xfe"),
    ],
)
def test_control_characters_are_written_out(raw, shown):
    """And nothing else is changed."""
    assert TerminalFilter().feed(raw, final=True) == shown


@given(st.binary(max_size=64), st.integers(0, 64))
def test_cuts_do_not_matter(data, cut):
    """However the bytes come, the result is the same, and harmless."""
    whole = TerminalFilter().feed(data, final=True)
    pieces = TerminalFilter()
    assert pieces.feed(data[:cut]) + pieces.feed(data[cut:]) + pieces.feed(b"", final=True) == whole
    assert not set(whole) & (set(range(0x20)) - {9, 10} | {0x7F})


def test_one_line_stays_one_line():
    """In tables, line feeds are written out too."""
    assert printable("a\nb\x1b") == r"a\nb\x1b"
    assert printable("\udcff") == r"\udcff"
