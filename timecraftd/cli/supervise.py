"""Runs a guest in the foreground: signals, its end told to the user, restarts."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import dataclass, replace
from types import FrameType
from typing import TYPE_CHECKING, Literal, Self

from timecraftd.cli.context import Context, tell
from timecraftd.units import format_duration

if TYPE_CHECKING:
    from timecraftd.config import RestartConfig
    from timecraftd.embedded import Running, Streams
    from timecraftd.engine.request import RunRequest
    from timecraftd.engine.runtime import Guest, Outcome
    from timecraftd.model import ModuleFile

INTERRUPTS_MAX = 3
"""So many signals end the host at once; the log is recovered later."""
STALLED_NS_MIN = 10**9
STALLED_PART = 10
"""A guest that waited for its log this long, and for this part of its run, is told of."""
FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """When a guest is started again."""

    mode: Literal["no", "on-failure", "always"] = "no"
    retries_max: int | None = None

    def delay_s(self, restarts: int, failed: bool, ran_s: float, config: RestartConfig) -> float | None:
        """How long to wait before the next start; None for no more. `restarts` counts since the last healthy run."""
        if self.mode == "no" or (self.mode == "on-failure" and not failed):
            return None
        if self.retries_max is not None and restarts >= self.retries_max:
            return None
        if ran_s >= config.healthy_s:
            restarts = 0
        return min(config.backoff_s_min * 2.0 ** min(restarts, 32), config.backoff_s_max)


class Interrupts:
    """Passes the host's signals on to the guest that runs now."""

    def __init__(self) -> None:
        self.received: int | None = None
        """The first signal that came."""
        self._guest: Guest | None = None
        self._interruptible = False
        self._kill_file = ""
        self._count = 0
        self._before: dict[int, object] = {}
        self._wakeup = (-1, -1)

    @property
    def came(self) -> bool:
        """Whether any signal came."""
        return self.received is not None

    @property
    def exit_code(self) -> int:
        """The exit code that the signal makes."""
        return 128 + (self.received or 0)

    def __enter__(self) -> Self:
        self._wakeup = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(self._wakeup[1], warn_on_full_buffer=False)
        for number in (*FORWARDED, signal.SIGUSR2):
            self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        signal.set_wakeup_fd(-1)
        for descriptor in self._wakeup:
            os.close(descriptor)

    def attach(self, guest: Guest, kill_file: str = "", *, interruptible: bool = False) -> None:
        """Signals go to this guest; one that came already goes at once.

        SIGINT interrupts a guest that understands it, and ends it if it hasn't noticed the one before.
        """
        self._guest, self._kill_file, self._interruptible = guest, kill_file, interruptible
        if self.received is not None:
            guest.kill(self.received)

    def detach(self) -> None:
        """There is no guest now."""
        self._guest = None

    def sleep(self, seconds: float) -> bool:
        """Waits; True if a signal came first."""
        import select

        if self.received is None:
            select.select([self._wakeup[0]], [], [], seconds)
        return self.received is not None

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        from_outside = number in FORWARDED
        if number == signal.SIGUSR2:
            number = self._requested()
            if number == 0:
                return
        if self.received is None:
            self.received = number
        if number == signal.SIGINT and self._interruptible and self._guest is not None and self._guest.interrupt():
            return
        if from_outside:
            self._count += 1
            if self._count >= INTERRUPTS_MAX:
                os._exit(128 + number)
        if self._guest is not None:
            self._guest.kill(number)

    def _requested(self) -> int:
        """The signal that `timecraft kill` left for this host; 0 if there is none."""
        from timecraftd.embedded import read_kill_request

        return read_kill_request(self._kill_file)


def supervise(
    context: Context,
    module: tuple[bytes | ModuleFile, str],
    request: RunRequest,
    streams: Streams,
    *,
    trace_fd: int | None,
    policy: RestartPolicy,
    started: Callable[[Running], None],
) -> int:
    """Runs a guest, again if the policy says so, and returns the last exit code."""
    runtime = context.runtime
    restarts = 0
    with Interrupts() as interrupts:
        while True:
            running = runtime.start(*module, request, streams, trace_fd)
            started(running)
            outcome = attend(context, running, interrupts)
            ended = running.process
            ran_s = ((ended.ended_ns or ended.started_ns) - ended.started_ns) / 1e9
            config = context.config.restart
            if ran_s >= config.healthy_s:
                restarts = 0
            delay_s = policy.delay_s(restarts, outcome.code != 0, ran_s, config)
            if delay_s is None or interrupts.came:
                return outcome.code
            if interrupts.sleep(delay_s):
                return interrupts.exit_code
            restarts += 1
            request = replace(request, restart_of=ended.id)


def attend(context: Context, running: Running, interrupts: Interrupts) -> Outcome:
    """Waits for a live guest's end and tells of it."""
    kill_file = context.runtime.kill_file(running.process)
    interrupts.attach(running.guest, kill_file, interruptible=running.interruptible)
    try:
        outcome = running.wait()
    finally:
        interrupts.detach()
    tell_end(context, running.process.module_name, outcome)
    if outcome.kind == "killed" and running.process.recorded:
        short = context.runtime.registry.catalogue.short_id(running.process.id)
        tell(f"replay it with: timecraft replay {short}")
    stalled_ns = outcome.stats.get("ring_stalled_ns", 0)
    if stalled_ns >= max(STALLED_NS_MIN, outcome.stats.get("run_ns", 0) // STALLED_PART):
        name = running.process.module_name
        context.complain(
            f"{name}: the guest waited {format_duration(stalled_ns)} for room in its ring; a larger record.ring_bytes "
            "or a faster disk helps"
        )
    lost = outcome.stats.get("records_lost", 0)
    if lost:
        context.complain(f"{running.process.module_name}: {lost} records were not recorded; the log ends before them")
    return outcome


def tell_end(context: Context, name: str, outcome: Outcome) -> None:
    """Says on standard error why a guest ended, unless it just exited."""
    if outcome.kind in ("exit", "until"):
        return
    message = outcome.message or "no reason was given"
    if outcome.backtrace:
        message = message.partition("\n")[0]
    words = {
        "trap": f"trap: {message}",
        "killed": outcome.message or _signal_words(outcome.code - 128),
        "limit": f"stopped at a limit: {message}",
        "log_failed": f"stopped, because its log can't be written: {message}",
    }
    lines = [f"{name}: {words.get(outcome.kind, message)}"]
    lines += [f"    at {frame}" for frame in outcome.backtrace]
    context.complain("\n".join(lines))


def _signal_words(number: int) -> str:
    try:
        return f"killed by {signal.Signals(number).name}"
    except ValueError:
        return f"killed by signal {number}"
