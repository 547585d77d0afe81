"""Labels: what they may be."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from timecraftd.errors import UsageError
from timecraftd.labels import LABELS_MAX, decode_labels, encode_labels, merged, parse_label

KEYS = st.from_regex(r"[a-zA-Z0-9]([a-zA-Z0-9._/-]{0,61}[a-zA-Z0-9])?", fullmatch=True)
VALUES = st.text(st.characters(categories=["L", "N", "P", "S"]), max_size=256)


@given(st.dictionaries(KEYS, VALUES, max_size=LABELS_MAX))
def test_what_is_written_is_read_again(labels):
    pairs = merged((), labels)
    assert decode_labels(json.loads(encode_labels(pairs))) == pairs
    assert dict(pairs) == labels
    assert merged(pairs, {}, labels) == ()
    for key, value in pairs:
        assert parse_label(f"{key}={value}") == (key, value)


@pytest.mark.parametrize("text", ["", "=x", "-a", "a-=1", "a b=1", "a" * 64, "k=a\nb", "k=\x1b[0m", "k=" + "v" * 257])
def test_what_is_no_label_is_refused(text):
    with pytest.raises(UsageError, match="label"):
        parse_label(text)


@pytest.mark.parametrize(
    "value", [{}, "a", [["a"]], [["a", 1]], [["b", ""], ["a", ""]], [["a", ""], ["a", ""]], [["-", ""]]]
)
def test_what_is_no_list_of_labels_is_refused(value):
    with pytest.raises(ValueError, match="label"):
        decode_labels(value)


def test_there_is_a_bound():
    many = {f"key{number}": "" for number in range(LABELS_MAX + 1)}
    with pytest.raises(UsageError, match="33 are too many"):
        merged((), many)
    full = merged((), dict([*many.items()][1:]))
    assert len(merged(full, {"key0": ""}, ["key1"])) == LABELS_MAX
