"""A guest that runs, as a process of the catalogue."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from timecraftd.errors import (
    LogDamagedError,
    ObjectDamagedError,
    ReplayDivergedError,
    ReplayRefusedError,
    StateError,
    TimecraftError,
)
from timecraftd.model import ProcessRecord

if TYPE_CHECKING:
    from timecraftd.embedded_network import HostNetwork
    from timecraftd.engine.runtime import Guest, Outcome
    from timecraftd.registry.home import ProcessLock

NETWORK_STATE_S = 1.0
"""How often what a running guest was granted and refused is written down."""
RESUME_ERRORS: dict[str, type[TimecraftError]] = {
    "log_failed": ReplayRefusedError,
    "diverged": ReplayDivergedError,
    "log_damaged": LogDamagedError,
    "input_lost": ObjectDamagedError,
    "log_ended": LogDamagedError,
}
"""Why a resumed process didn't get beyond its replay."""
RESUME_NEXT_STEPS = {
    "log_failed": "put things back as they were, then resume it again",
    "diverged": "report it: a replay of the same module must not differ",
    "log_damaged": "`timecraft replay` repeats what is left of it",
    "input_lost": "import it again from an export",
    "log_ended": "`timecraft replay` repeats what is left of it",
}


@dataclass(frozen=True, slots=True)
class Streams:
    """Host descriptors of a guest's standard streams; None is /dev/null."""

    stdin: int | None = None
    stdout: int | None = None
    stderr: int | None = None


class Running:
    """A guest that runs, and the process that it is."""

    def __init__(
        self,
        process: ProcessRecord,
        guest: Guest,
        lock: ProcessLock,
        network: HostNetwork | None,
        write_end: Callable[[ProcessRecord, Outcome], ProcessRecord],
        *,
        interruptible: bool,
    ) -> None:
        """Takes over the process's lock; `write_end` writes down how it ended."""
        self.process = process
        self.guest = guest
        self.interruptible = interruptible
        """Whether the guest understands interrupts."""
        self.published = () if network is None else network.published
        """Published ports, with those that were chosen: `[IP:]HOST:GUEST[/udp]`."""
        self._lock = lock
        self._network = network
        self._write_end = write_end
        if network is not None:
            network.began()

    def wait(self, look: Callable[[], None] | None = None) -> Outcome:
        """Waits for the end and writes it down; raises what `finish` raises. Calls `look` while it lasts."""
        outcome = None
        try:
            while outcome is None:
                outcome = self.guest.wait(None if self._network is None and look is None else NETWORK_STATE_S)
                self.write_network_state()
                if look is not None and outcome is None:
                    look()
        except BaseException:
            self._leave_network()
            raise
        return self.finish(outcome)

    @property
    def decisions(self) -> Mapping[str, int]:
        """How often its network was granted, refused or failed something, as last written down."""
        return {} if self._network is None else self._network.decisions

    def write_network_state(self) -> None:
        """Writes down what the guest was granted and refused so far."""
        if self._network is not None:
            self._network.write_state()

    def finish(self, outcome: Outcome) -> Outcome:
        """Writes down the end of a guest that is over.

        Raises ReplayRefusedError, ReplayDivergedError, LogDamagedError if a resumed process didn't get to go on.
        """
        self._leave_network()
        self.write_network_state()
        try:
            self.process = self._write_end(self.process, outcome)
        except StateError:
            # A full disk takes neither log nor row. The log is the better reason; the row is put right when next seen.
            if outcome.kind != "log_failed":
                raise
        finally:
            self._lock.release()
        error = RESUME_ERRORS.get(outcome.kind) if never_went_on(self.process, outcome) else None
        if error is not None:
            raise error(
                f"process {self.process.id}: can't be resumed: {outcome.message}", RESUME_NEXT_STEPS[outcome.kind]
            )
        return outcome

    def _leave_network(self) -> None:
        if self._network is not None:
            self._network.close()


def never_went_on(process: ProcessRecord, outcome: Outcome) -> bool:
    """Whether a process was resumed, but ended in its replay: nothing was recorded, and it can be resumed as before.

    An exit in the replay is the end: the host died between it and its record.
    """
    return process.epoch > 0 and outcome.last_seq is None and outcome.kind != "exit"
