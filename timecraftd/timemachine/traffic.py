"""What a guest's connections carried: events on its sockets, and the requests in them, out of its log alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from timecraftd.errors import LogError

if TYPE_CHECKING:
    from timecraftd.recorder.logs import Logs, TrafficQuery

BATCH_BYTES_MAX = 1 << 18


class Traffic:
    """One pass over a log."""

    def __init__(self, logs: Logs, log_dir: str, query: TrafficQuery) -> None:
        """Raises LogError, UsageError."""
        self._reader = logs.traffic(log_dir, query)

    def text(self, wait: Callable[[], bool] = bool) -> Iterator[bytes]:
        """What there is to show, in order, in pieces of whole lines.

        At the end of what is there, `wait` says whether there may be more. Raises LogDamagedError behind all that is
        before the damage.
        """
        more = True
        while True:
            try:
                text = self._reader.read(BATCH_BYTES_MAX)
            except LogError:
                yield self._reader.finish()
                raise
            if text is not None:
                yield text
            elif not more or self._reader.is_over:
                break
            else:
                # What is written between a read that found the end and the end of the process must not be missed.
                more = wait()
        yield self._reader.finish()

    @property
    def ended(self) -> bool:
        """Whether the process's end was passed."""
        return self._reader.ended

    @property
    def notes(self) -> list[str]:
        """What the user should know of what isn't shown."""
        return self._reader.notes
