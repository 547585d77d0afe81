"""Logs of processes: a facade over the extension."""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Literal, TypeVar

from timecraftd.errors import NativeMissingError, UsageError

if TYPE_CHECKING:
    from timecraftd._native import LogCheck as LogCheck  # noqa: PLC0414
    from timecraftd._native import LogInfo as LogInfo  # noqa: PLC0414
    from timecraftd._native import LogReader
    from timecraftd._native import RecoveryReport as RecoveryReport  # noqa: PLC0414
    from timecraftd._native import TrafficReader as TrafficReader  # noqa: PLC0414
    from timecraftd.model import LogSource

_T = TypeVar("_T")

OUTPUT_BATCH_BYTES_MAX = 1 << 20
TRACE_BATCH_RECORDS_MAX = 4096


@dataclass(frozen=True, slots=True)
class Output:
    """Bytes that a guest wrote to one of its standard streams."""

    time_ns: int
    """Since the start of the process."""
    stream: int
    data: bytes


CAUGHT_UP = Output(0, 0, b"")
"""All that was written up to now has been told."""


@dataclass(frozen=True, slots=True)
class TraceQuery:
    """Which records to show, and how."""

    start_ns: int | None = None
    until_ns: int | None = None
    is_unix: bool = False
    """Whether these two are since the Unix epoch, and not since the start of the process."""
    last_ns: int | None = None
    """Records later than that, since the start of the process, aren't waited for."""
    json: bool = False
    string_bytes_max: int = 32
    timestamps: Literal["none", "relative", "absolute"] = "relative"
    calls: Sequence[str] = ()
    start_seq: int | None = None
    """Number of the first record; goes before `start_ns`."""


@dataclass(frozen=True, slots=True)
class GivenSocket:
    """A socket that the guest had from its start."""

    fd: int
    listens: bool
    """A listener, or else a connection."""
    name: str
    """Where it listens, or is connected to: an address, or a name and port."""


@dataclass(frozen=True, slots=True)
class TrafficQuery:
    """Which connections, or requests on them, to show, and how. Read by name in `crates/timecraft-py/src/traffic.rs`.

    Without `is_unix`, `from_ns` and `until_ns` are since the start of the process, with it since the Unix epoch.
    Nothing after `last_ns` since the start of the process is read.
    """

    layer: Literal["network", "request"]
    form: Literal["text", "json", "yaml"] = "text"
    timestamps: Literal["none", "relative", "absolute"] = "absolute"
    verbose: bool = False
    color: bool = False
    host: str | None = None
    """Address of either end."""
    port: int | None = None
    """Port of either end."""
    side: Literal["client", "server"] | None = None
    from_ns: int | None = None
    until_ns: int | None = None
    is_unix: bool = False
    last_ns: int | None = None
    given: Sequence[GivenSocket] = ()


def load_native() -> ModuleType:
    """The extension `timecraftd._native`. Raises NativeMissingError."""
    try:
        from timecraftd import _native
    except ImportError as error:
        raise NativeMissingError(
            f"timecraftd._native: {error}", "build it with `make build`, or install a wheel for this platform"
        ) from None
    return _native


class Logs:
    """Reads and recovers logs. The extension is loaded at the first use."""

    def __init__(self, load: Callable[[], ModuleType] = load_native) -> None:
        self._load = load

    def info(self, log: str | LogSource) -> LogInfo:
        """Summary of a log. Raises LogError."""
        info: LogInfo = self._load().log_info(log)
        return info

    def verify(self, log: str | LogSource, progress: Callable[[int, int], object] | None = None) -> LogCheck:
        """Reads all of a log; `progress` is told how many bytes of how many are done. Raises LogError."""
        check: LogCheck = self._load().verify_log(log, progress)
        return check

    def epochs(self, log: str | LogSource) -> list[tuple[int, int]]:
        """When each epoch began: since the start of the process, and of the day (Unix ns). Raises LogError."""
        clock: list[tuple[int, int]] = self._load().LogReader(log).clock()
        return [(time_ns, zero_unix_ns + time_ns) for time_ns, zero_unix_ns in clock]

    def unix_times(self, log: str | LogSource) -> Callable[[int], int]:
        """What tells the time of the day (Unix ns) of a time since the start of a process, which may have been resumed.

        Raises LogError.
        """
        epochs = self.epochs(log) or [(0, 0)]
        begins = [begun_ns for begun_ns, _ in epochs]

        def unix_ns(time_ns: int) -> int:
            begun_ns, begun_unix_ns = epochs[max(bisect_right(begins, time_ns) - 1, 0)]
            return begun_unix_ns + time_ns - begun_ns

        return unix_ns

    def recover(self, log_dir: str) -> RecoveryReport:
        """Makes a dead host's log whole. Idempotent. Raises LogError."""
        report: RecoveryReport = self._load().recover_log(log_dir)
        return report

    def output(self, log: str | LogSource, wait: Callable[[], bool] = bool) -> Iterator[Output]:
        """What the guest wrote, in order. At the end of what is there comes `CAUGHT_UP`.

        Then `wait` says whether there may be more.
        """
        reader: LogReader = self._load().LogReader(log)
        for batch in _batches(lambda: reader.output(OUTPUT_BATCH_BYTES_MAX), wait):
            if not batch:
                yield CAUGHT_UP
            for time_ns, stream, data in batch:
                yield Output(time_ns, stream, data)

    def trace(
        self,
        log: str | LogSource,
        query: TraceQuery,
        wait: Callable[[], bool] = bool,
        trees: Sequence[str | None] = (),
        gap: Callable[[str], object] | None = None,
    ) -> Iterator[list[str]]:
        """Records as lines, in order, some at a time; `wait` as for `output`.

        `trees` are the directories of the process's trees, by mount. With `gap`, what is damaged is left out, and it
        is told of that.

        Raises UsageError for a call that doesn't exist.
        """
        reader: LogReader = self._load().LogReader(log, trees, skip_damaged=gap is not None)
        told = 0
        if query.start_seq is not None:
            reader.seek_seq(query.start_seq)
        elif query.start_ns is not None:
            (reader.seek_unix_time if query.is_unix else reader.seek_time)(query.start_ns)
        until_ns = query.until_ns
        if until_ns is not None and query.is_unix:
            until_ns = reader.time_at(until_ns)
        if query.last_ns is not None:
            until_ns = query.last_ns if until_ns is None else min(until_ns, query.last_ns)

        def read() -> list[str]:
            nonlocal told
            lines = reader.trace(
                TRACE_BATCH_RECORDS_MAX,
                json=query.json,
                string_bytes_max=query.string_bytes_max,
                timestamps=query.timestamps,
                calls=query.calls,
                until_time_ns=until_ns,
            )
            if gap is not None:
                gaps = reader.gaps
                for first_seq, next_seq, reason in gaps[told:]:
                    gap(f"{shown_gap(first_seq, next_seq)} left out: {reason}")
                told = len(gaps)
            return lines

        try:
            yield from _batches(read, wait)
        except ValueError as error:
            raise UsageError(f"trace: {error}", "docs/wasi-coverage.md lists the calls") from None

    def traffic(self, log: str | LogSource, query: TrafficQuery) -> TrafficReader:
        """A reader of what connections carried. Raises LogError, and UsageError for a query that makes no sense."""
        try:
            reader: TrafficReader = self._load().TrafficReader(log, query)
        except ValueError as error:
            raise UsageError(f"trace {query.layer}: {error}", "see `timecraft trace --help`") from None
        return reader


def shown_gap(first_seq: int, next_seq: int | None) -> str:
    """Numbers of records that can't be read, for people."""
    return f"records {first_seq} and on" if next_seq is None else f"records {first_seq} to {next_seq - 1}"


def log_bytes(log_dir: str) -> int:
    """Space that a log takes on the disk."""
    total = 0
    try:
        with os.scandir(log_dir) as entries:
            for entry in entries:
                if entry.is_file(follow_symlinks=False):
                    total += entry.stat(follow_symlinks=False).st_size
    except FileNotFoundError:
        return total
    return total


def _batches(read: Callable[[], list[_T]], wait: Callable[[], bool]) -> Iterator[list[_T]]:
    more = True
    while True:
        batch = read()
        if batch:
            yield batch
        elif not more:
            return
        else:
            yield []
            # What is written between an empty read and the end of the process must not be missed: read once more.
            more = wait()
