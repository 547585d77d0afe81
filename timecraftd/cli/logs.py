"""`timecraft logs`: what a process wrote to its standard streams, from its record."""

from __future__ import annotations

import argparse
import sys
from collections import deque

from timecraftd.cli.context import Context, is_terminal
from timecraftd.cli.parser import whole_number
from timecraftd.cli.terminal import TerminalFilter, write_all
from timecraftd.errors import UsageError
from timecraftd.recorder.logs import CAUGHT_UP
from timecraftd.units import parse_time_ns, rfc3339

STREAMS = (1, 2)
HELD_BYTES_MAX = 64 << 10


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `logs`."""
    parser.add_argument("id", metavar="ID", help="process: id, unique prefix or name")
    parser.add_argument("-f", "--follow", action="store_true", help="go on as long as the process runs")
    parser.add_argument("-n", "--tail", metavar="N", type=whole_number, help="only the last N lines")
    parser.add_argument("--since", metavar="TIME", help="from then on: RFC 3339, or a duration before now such as 10m")
    parser.add_argument("-t", "--timestamps", action="store_true", help="put the time before each line")
    parser.add_argument("--raw", action="store_true", help="don't filter control characters on a terminal")


def run(args: argparse.Namespace, context: Context) -> int:
    """Copies the record's output: stdout to stdout, stderr to stderr."""
    process = context.target.process(args.id)
    printer = _Printer(args.tail, timestamps=args.timestamps, raw=args.raw)
    since_ns = _since(args.since, context.now_ns())
    start_unix_ns, pieces = context.target.output(process, since_ns, follow=args.follow)
    sys.stdout.flush()
    try:
        for piece in pieces:
            if piece is CAUGHT_UP:
                printer.caught_up()
            else:
                printer.feed(start_unix_ns + piece.time_ns, piece.stream, piece.data)
    finally:
        printer.finish()  # a damaged log's good part too
    return 0


def _since(text: str | None, now_ns: int) -> int | None:
    if text is None:
        return None
    try:
        return parse_time_ns(text, now_ns)
    except ValueError as error:
        raise UsageError(f"--since: {error}", "see `timecraft logs --help`") from None


class _Printer:
    """Writes output, whole lines if lines matter."""

    def __init__(self, tail: int | None, *, timestamps: bool, raw: bool) -> None:
        self._timestamps = timestamps
        self._by_line = timestamps or tail is not None
        self._last: deque[tuple[int, bytes]] | None = None if tail is None else deque(maxlen=min(tail, sys.maxsize))
        self._partial = dict.fromkeys(STREAMS, (0, b""))
        self._held: list[bytes] = []
        self._held_stream = STREAMS[0]
        self._held_bytes = 0
        self._filters = {stream: None if raw or not is_terminal(stream) else TerminalFilter() for stream in STREAMS}

    def feed(self, unix_ns: int, stream: int, data: bytes) -> None:
        """Takes the next bytes."""
        if not self._by_line:
            self._write(stream, data)
            return
        begun_ns, partial = self._partial[stream]
        *lines, rest = (partial + data).split(b"\n")
        for line in lines:
            self._line(stream, begun_ns if partial else unix_ns, line + b"\n")
            partial = b""
        self._partial[stream] = (begun_ns if partial else unix_ns, rest)

    def finish(self) -> None:
        """Writes lines without an end."""
        for stream, (unix_ns, partial) in self._partial.items():
            if partial:
                self._line(stream, unix_ns, partial)
        self.caught_up()
        for stream, terminal_filter in self._filters.items():
            if terminal_filter is not None:
                write_all(stream, terminal_filter.feed(b"", final=True))

    def _line(self, stream: int, unix_ns: int, line: bytes) -> None:
        if self._timestamps:
            line = rfc3339(unix_ns, digits=6).encode() + b" " + line
        if self._last is not None:
            self._last.append((stream, line))
        else:
            self._write(stream, line)

    def caught_up(self) -> None:
        """Writes what is held back; `--tail` holds back nothing more."""
        if self._last is not None:
            last, self._last = self._last, None
            for stream, line in last:
                self._write(stream, line)
        self._flush()

    def _write(self, stream: int, data: bytes) -> None:
        """Guests write little at a time: together that is fewer system calls."""
        if stream != self._held_stream or self._held_bytes >= HELD_BYTES_MAX:
            self._flush()
            self._held_stream = stream
        self._held.append(data)
        self._held_bytes += len(data)

    def _flush(self) -> None:
        data, self._held, self._held_bytes = b"".join(self._held), [], 0
        terminal_filter = self._filters[self._held_stream]
        write_all(self._held_stream, data if terminal_filter is None else terminal_filter.feed(data))
