"""Labels of processes: what people call them by, and what keeps them. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from timecraftd.errors import UsageError

Labels = tuple[tuple[str, str], ...]
"""Keys and values, by key."""
HOLD = "hold"
"""A process with this label isn't removed, here or in the store; the value says why."""
LABELS_MAX = 32
VALUE_CHARS_MAX = 256
_KEY = re.compile(r"[a-zA-Z0-9]([a-zA-Z0-9._/-]{0,61}[a-zA-Z0-9])?")


def parse_label(text: str) -> tuple[str, str]:
    """(key, value) of `KEY=VALUE`; a bare `KEY` has an empty value. Raises UsageError."""
    key, _, value = text.partition("=")
    check_label(key, value)
    return key, value


def check_label(key: str, value: str) -> None:
    """Raises UsageError for what can't be a label."""
    if not _KEY.fullmatch(key):
        raise UsageError(
            f"label {key!r}: isn't a key", "use up to 63 letters, digits, '.', '_', '/' and '-', no sign at either end"
        )
    if len(value) > VALUE_CHARS_MAX or not value.isprintable():
        raise UsageError(f"label {key}: its value is no line of up to {VALUE_CHARS_MAX} characters", "shorten it")


def merged(labels: Labels, added: Mapping[str, str], removed: Iterable[str] = ()) -> Labels:
    """Labels with some more and without others. Raises UsageError if that are too many."""
    left = {key: value for key, value in labels if key not in set(removed)} | dict(added)
    if len(left) > LABELS_MAX:
        raise UsageError(f"labels: {len(left)} are too many, {LABELS_MAX} are possible", "remove some: KEY-")
    return tuple(sorted(left.items()))


def decode_labels(value: Any) -> Labels:
    """Labels from lists, as JSON has them. Raises ValueError for what isn't that."""
    if not isinstance(value, list) or not all(isinstance(pair, list) and len(pair) == 2 for pair in value):
        raise ValueError("labels aren't a list of pairs")
    labels: Labels = tuple((key, text) for key, text in value)
    if not all(isinstance(text, str) for pair in labels for text in pair):
        raise ValueError("labels aren't texts")
    try:
        for key, text in labels:
            check_label(key, text)
        in_order = merged((), dict(labels))
    except UsageError as error:
        raise ValueError(error.message) from None
    if labels != in_order:
        raise ValueError("labels aren't in order")
    return labels


def encode_labels(labels: Labels) -> str:
    """As the catalogue keeps them."""
    return json.dumps(labels, ensure_ascii=False, separators=(",", ":"))
