"""What a guest's connections carried: events on its sockets, and the requests in them, out of its log alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from timecraftd.errors import LogError
from timecraftd.recorder.logs import GivenSocket

if TYPE_CHECKING:
    from timecraftd.engine.request import RunRequest
    from timecraftd.model import LogSource
    from timecraftd.recorder.logs import Logs, TrafficQuery

BATCH_BYTES_MAX = 1 << 18
FIRST_PREOPEN = 3
SOCKET_DIRECTORIES = 3
"""Of `-S path`: they follow the mounts, and sockets follow them."""


def given_sockets(request: RunRequest) -> tuple[GivenSocket, ...]:
    """What a guest found open besides directories: listeners, then connections."""
    first = FIRST_PREOPEN + len(request.mounts) + (SOCKET_DIRECTORIES if request.sockets == "path" else 0)
    network = request.network
    named = [(True, text) for text in network.listen] + [(False, text) for text in network.dial]
    return tuple(
        GivenSocket(first + index, listens, text.removeprefix("tcp://")) for index, (listens, text) in enumerate(named)
    )


class Traffic:
    """One pass over a log."""

    def __init__(self, logs: Logs, log: str | LogSource, query: TrafficQuery) -> None:
        """Raises LogError, UsageError."""
        self._reader = logs.traffic(log, query)

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
