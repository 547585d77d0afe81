"""A guest's log on its way to the store, while the guest runs in this command and when it has ended."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import TimeoutError as NotYetError
from contextlib import suppress
from typing import TYPE_CHECKING

from timecraftd.cli.context import Context, is_terminal
from timecraftd.cli.terminal import ProgressLine
from timecraftd.errors import TimecraftError
from timecraftd.units import format_size

if TYPE_CHECKING:
    from timecraftd.model import ProcessId
    from timecraftd.running import Running
    from timecraftd.uploads import Uploads

DELAY_S = 5.0
"""A guest that ends earlier has the machine to itself: what sends logs takes a while to load."""
LOOK_S = 0.1


class RunUploads:
    """Of one run."""

    def __init__(self, context: Context, running: Running) -> None:
        self._context = context
        self._running = running
        self._uploads: Uploads | None = None
        self._later = threading.Timer(min(DELAY_S, context.config.remote.seal_age_s), self._begin)
        self._later.daemon = True
        self._later.start()

    def _begin(self) -> None:
        uploads = self._make(on_full=self._running.guest.hold)
        uploads.start()
        self._uploads = uploads

    def _make(self, on_full: Callable[[bool], None] = lambda _full: None) -> Uploads:
        return make_uploads(self._context, on_full, self._running.process.id)

    def finish(self, came: Callable[[], bool]) -> None:
        """Sends what is left, unless `came` says that the user doesn't want to wait. A failure is a warning."""
        self._later.cancel()
        self._later.join()
        if self._uploads is not None:
            self._uploads.close()
        process = self._running.process
        uploads = self._make()
        try:
            push(uploads, [process.id], came)
        except TimecraftError as error:
            self._context.complain(
                f"{process.module_name}: its log isn't all in the store: {error}\n"
                f"send it later with: timecraft log push {process.id}"
            )
        finally:
            uploads.close()


def make_uploads(
    context: Context, on_full: Callable[[bool], None] = lambda _full: None, only: ProcessId | None = None
) -> Uploads:
    """What sends logs of the embedded runtime, or of one process of it."""
    from timecraftd.uploads import Uploads

    return Uploads(context.runtime, node=context.config.node_name, log=_no_log, on_full=on_full, only=only)


def push(uploads: Uploads, process_ids: Sequence[ProcessId], came: Callable[[], bool] = bool) -> None:
    """Sends logs, with progress on a terminal. Raises TimecraftError, RemoteError if `came` ends it."""
    from timecraftd.errors import RemoteError

    with ProgressLine(is_wanted=is_terminal(2)) as line:
        sending = uploads.push(process_ids)
        while not sending.done():
            with suppress(NotYetError):
                sending.exception(LOOK_S)
            if came():
                sending.cancel()
                raise RemoteError("a signal came")
            line.show(f"uploading, {format_size(uploads.status().waiting_bytes)} left")
        sending.result()


def _no_log(_event: str, **_values: object) -> None:
    """What fails on the way is tried again, and told at the end if it still does."""
