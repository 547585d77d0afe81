"""Runs a guest in the foreground: signals, its end told to the user, restarts."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import FrameType
from typing import TYPE_CHECKING, Protocol, Self

from timecraftd.cli.context import Context, tell
from timecraftd.units import format_duration

if TYPE_CHECKING:
    from timecraftd.engine.request import RunRequest
    from timecraftd.engine.runtime import Outcome
    from timecraftd.model import ModuleFile, ProcessRecord
    from timecraftd.running import Running, Streams
    from timecraftd.supervisor.restarts import RestartPolicy

INTERRUPTS_MAX = 3
"""So many signals end the host at once; the log is recovered later."""
STALLED_NS_MIN = 10**9
STALLED_PART = 10
"""A guest that waited for its log this long, and for this part of its run, is told of."""
FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


class Killable(Protocol):
    """What signals are passed on to."""

    def kill(self, number: int) -> None:
        """Ends it as by this signal; may be called from a signal handler."""


class Interrupts:
    """Passes the host's signals on to the guest that runs now."""

    def __init__(self) -> None:
        self.received: int | None = None
        """The first signal that came."""
        self._guest: Killable | None = None
        self._interrupt: Callable[[], bool] | None = None
        self._kill_file = ""
        self._count = 0
        self._before: dict[int, object] = {}
        self._wakeup = (-1, -1)

    @property
    def came(self) -> bool:
        """Whether any signal came."""
        return self.received is not None

    @property
    def count(self) -> int:
        """How many came from outside."""
        return self._count

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

    def attach(self, guest: Killable, kill_file: str = "", interrupt: Callable[[], bool] | None = None) -> None:
        """Signals go to this guest; one that came already goes at once.

        SIGINT calls `interrupt` for a guest that understands it; that is False if it hasn't noticed the one before,
        and ends it.
        """
        self._guest, self._kill_file, self._interrupt = guest, kill_file, interrupt
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
        if number == signal.SIGINT and self._guest is not None and self._interrupt is not None and self._interrupt():
            return
        if from_outside:
            self._count += 1
            if self._count >= INTERRUPTS_MAX:
                os._exit(128 + number)
        if self._guest is not None:
            self._guest.kill(number)

    def _requested(self) -> int:
        """The signal that `timecraft kill` left for this host; 0 if there is none."""
        from timecraftd.registry.home import read_kill_request

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
    interrupts.attach(running.guest, kill_file, running.guest.interrupt if running.interruptible else None)
    uploads = None
    if context.config.remote.url and running.process.recorded:
        from timecraftd.cli.uploading import RunUploads

        uploads = RunUploads(context, running)
    try:
        outcome = running.wait(LogFaults(context, running).look)
    finally:
        interrupts.detach()
    tell_run_end(context, running.process, outcome, lambda: context.target.short_id(running.process.id))
    if uploads is not None:
        before = interrupts.count
        uploads.finish(lambda: interrupts.count > before)
    return outcome


class LogFaults:
    """Tells, on standard error, when a guest's log can't be written, and when it can again."""

    def __init__(self, context: Context, running: Running) -> None:
        self._context = context
        self._running = running
        self._errno = 0

    def look(self) -> None:
        """Tells what has changed since the last look."""
        errno = self._running.guest.stats()["log_fault_errno"]
        if errno == self._errno:
            return
        self._errno = errno
        name = self._running.process.module_name
        if errno:
            self._context.complain(f"{name}: its log can't be written ({os.strerror(errno)}); it is tried again")
        else:
            tell(f"timecraft: {name}: its log can be written again")


def tell_run_end(context: Context, process: ProcessRecord, outcome: HowARunEnded, short_id: Callable[[], str]) -> None:
    """Says on standard error why a live guest ended, and what it lacked."""
    name = process.module_name
    tell_end(context, name, outcome)
    if outcome.kind == "killed" and process.recorded:
        tell(f"replay it with: timecraft replay {short_id()}")
    stalled_ns = outcome.stats.get("ring_stalled_ns", 0)
    faulted_ns = outcome.stats.get("log_faulted_ns", 0)
    if faulted_ns >= STALLED_NS_MIN:
        context.complain(f"{name}: for {format_duration(faulted_ns)} its log could not be written")
    elif stalled_ns >= max(STALLED_NS_MIN, outcome.stats.get("run_ns", 0) // STALLED_PART):
        context.complain(
            f"{name}: the guest waited {format_duration(stalled_ns)} for room in its ring; a larger record.ring_bytes "
            "or a faster disk helps"
        )
    lost = outcome.stats.get("records_lost", 0)
    if lost:
        context.complain(f"{name}: {lost} records were not recorded; the log ends before them")


class HowItEnded(Protocol):
    """What is told of the end of a run or a replay."""

    @property
    def kind(self) -> str:
        """Such as exit, trap or killed."""

    @property
    def code(self) -> int:
        """The exit code."""

    @property
    def message(self) -> str:
        """Why, for people."""

    @property
    def backtrace(self) -> Sequence[str]:
        """Guest frames at a trap, innermost first."""


class HowARunEnded(HowItEnded, Protocol):
    """What is told of the end of a run."""

    @property
    def stats(self) -> Mapping[str, int]:
        """Counters."""


def tell_end(context: Context, name: str, outcome: HowItEnded) -> None:
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
