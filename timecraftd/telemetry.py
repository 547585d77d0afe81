"""What a node tells of itself: its log."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable
from typing import IO

VALUE_CHARS_MAX = 4096


class EventLog:
    """Events, a line each, plain or as JSON objects. Thread-safe; never fails."""

    def __init__(
        self, *, form: str = "plain", stream: IO[str] | None = None, now_s: Callable[[], float] = time.time
    ) -> None:
        self.form = form
        self._stream = stream or sys.stderr
        self._now_s = now_s
        self._lock = threading.Lock()

    def __call__(self, event: str, **values: object) -> None:
        """Writes an event with what there is to know of it."""
        shown = {name: _shown(value) for name, value in values.items() if value not in (None, "")}
        if self.form == "json":
            line = json.dumps({"time": round(self._now_s(), 6), "event": event, **shown})
        else:
            line = " ".join([event, *(f"{name}={_plain(value)}" for name, value in shown.items())])
        try:
            with self._lock:
                self._stream.write(f"{line}\n")
                self._stream.flush()
        except (OSError, ValueError):
            return  # nobody listens, and there is nobody else to tell


def _shown(value: object) -> object:
    if isinstance(value, bool | int | float):
        return value
    return str(value)[:VALUE_CHARS_MAX]


def _plain(value: object) -> str:
    text = str(value)
    return text if text.isprintable() and " " not in text and '"' not in text else json.dumps(text)
