"""`timecraft replay`: run a recorded process again."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace

from timecraftd.cli.context import Context, is_terminal
from timecraftd.cli.supervise import Interrupts, tell_end
from timecraftd.cli.target import Replay
from timecraftd.cli.terminal import FilteredDescriptor
from timecraftd.errors import LogDamagedError, ObjectDamagedError, ReplayDivergedError, UsageError
from timecraftd.model import ProcessRecord, ProcessState
from timecraftd.units import parse_duration_ns, parse_time_ns, rfc3339
from timecraftd.views import ReplayEnd, check_ended

EXIT_INCOMPLETE = 125
SEQ_MAX = (1 << 64) - 1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `replay`."""
    parser.add_argument("id", metavar="ID", help="process: id, unique prefix or name")
    parser.add_argument("-T", "--trace", action="store_true", help="show calls on standard error, like strace")
    parser.add_argument("--until", metavar="SEQ|TIME", help="stop there: a record's number, or a time like 1.5s")
    parser.add_argument("--verify", action="store_true", help="no output of the guest; say whether all was the same")
    parser.add_argument(
        "--module", metavar="FILE", help="replay another build of the module, and tell where it differs"
    )
    parser.add_argument("--raw", action="store_true", help="don't filter control characters on a terminal")
    parser.add_argument("-q", "--quiet", action="store_true", help="with --verify: only the exit code")


def run(args: argparse.Namespace, context: Context) -> int:
    """Replays; returns the exit code of the recorded run, or 125 if it can't be told to be the same."""
    target = context.target
    process = target.process(args.id)
    check_ended(process)
    other = None
    if args.module is not None:
        from timecraftd.registry.files import read_module

        other = read_module(args.module)
    asked = _until(Replay(other_module=other, trace_fd=2 if args.trace else None), args.until, context, process)
    outputs: list[FilteredDescriptor] = []

    def harmless(descriptor: int) -> int:
        if args.raw or not is_terminal(descriptor):
            return descriptor
        outputs.append(FilteredDescriptor(descriptor))
        return outputs[-1].descriptor

    if not args.verify:
        asked = replace(asked, stdout_fd=harmless(1), stderr_fd=harmless(2))
    with Interrupts() as interrupts:
        try:
            end = target.replay(process, asked, interrupts)
        finally:
            for output in outputs:
                output.close()
        if end is None:
            return interrupts.exit_code
    return _tell(context, args, process, end)


def _until(asked: Replay, text: str | None, context: Context, process: ProcessRecord) -> Replay:
    if text is None:
        return asked
    if text.isascii() and text.isdigit():
        return replace(asked, until_seq=min(int(text), SEQ_MAX))
    try:
        if "T" not in text:
            return replace(asked, until_time_ns=parse_duration_ns(text))
        date_ns = parse_time_ns(text, 0)
    except ValueError as error:
        raise UsageError(f"--until: {error}", "a record's number and a time in RFC 3339 will do too") from None
    epochs = context.target.epochs(process)
    begun = [(time_ns, unix_ns) for time_ns, unix_ns in epochs if unix_ns <= date_ns]
    if not begun:
        raise UsageError(f"--until {text}: is before the process started", f"it started at {rfc3339(epochs[0][1])}")
    time_ns = begun[-1][0] + date_ns - begun[-1][1]
    if len(begun) < len(epochs):  # nobody ran it any more, until it was resumed
        time_ns = min(time_ns, epochs[len(begun)][0])
    return replace(asked, until_time_ns=time_ns)


def _tell(context: Context, args: argparse.Namespace, process: ProcessRecord, outcome: ReplayEnd) -> int:
    short = context.target.short_id(process.id)
    reached = "no record" if outcome.last_seq is None else f"record {outcome.last_seq}"
    if outcome.kind == "diverged":
        next_step = (
            "the other build does something else from there on"
            if args.module is not None
            else "report it: a replay of the same module must not differ"
        )
        raise ReplayDivergedError(f"process {short}: {outcome.message}", next_step)
    if outcome.kind == "log_damaged":
        raise LogDamagedError(
            f"process {short}: the log is damaged after {reached}: {outcome.message}",
            "all output up to there is the recorded one",
        )
    if outcome.kind == "input_lost":
        raise ObjectDamagedError(f"process {short}: {outcome.message}", "import it again from an export")
    if outcome.kind == "log_ended":
        if args.verify:
            return _say(args, f"process {short}: the same up to {reached}, where {_why_log_ended(process, outcome)}")
        next_step = f"; go on with `timecraft resume {short}`" if process.state is ProcessState.CRASHED else ""
        context.complain(
            f"process {short}: its log ends with {reached}, where {_why_log_ended(process, outcome)}{next_step}"
        )
        return EXIT_INCOMPLETE
    if args.verify:
        where = f"up to {reached}" if outcome.kind == "until" else f"to the end, {reached}"
        return _say(args, f"process {short}: the same {where}")
    tell_end(context, process.module_name, outcome)
    return 0 if outcome.kind == "until" else outcome.code


def _why_log_ended(process: ProcessRecord, outcome: ReplayEnd) -> str:
    if outcome.log_incomplete:
        return "what came then was lost, for want of room or with a damaged ring"
    if process.imported and process.message:
        return process.message
    return f"it failed: {process.message}" if process.state is ProcessState.FAILED else "its host died"


def _say(args: argparse.Namespace, text: str) -> int:
    if not args.quiet:
        sys.stdout.write(f"{text}\n")
    return 0
