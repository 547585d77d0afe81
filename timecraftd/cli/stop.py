"""`timecraft stop`: end processes, gently first."""

from __future__ import annotations

import argparse
import signal
import time

from timecraftd.cli.context import Context
from timecraftd.cli.parser import duration_ns
from timecraftd.embedded import Runtime
from timecraftd.errors import ProcessStateError
from timecraftd.model import ProcessRecord, ProcessState

POLL_S = 0.02
HARD_S = 2.0
"""How long a host may take to end its guest after SIGKILL was asked for, before it is killed itself."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `stop`."""
    parser.add_argument("ids", metavar="ID", nargs="+", help="process: id, unique prefix or name")
    parser.add_argument(
        "-t", "--time", metavar="TIME", type=duration_ns, default=10 * 10**9, help="between SIGTERM and SIGKILL (10 s)"
    )


def run(args: argparse.Namespace, context: Context) -> int:
    """Stops each and prints what was given for it."""
    processes = [(reference, context.runtime.process(reference)) for reference in args.ids]
    for reference, process in processes:
        end(context.runtime, process, signal.SIGTERM, args.time / 1e9)
        print(reference, flush=True)
    return 0


def end(runtime: Runtime, process: ProcessRecord, number: int, patience_s: float) -> None:
    """Ends a process by a signal, after a while by SIGKILL, then by killing its host. Raises ProcessStateError."""
    if process.state is not ProcessState.RUNNING:
        return
    runtime.kill(process, number)
    if _gone(runtime, process, patience_s):
        return
    runtime.kill(process, signal.SIGKILL)
    if _gone(runtime, process, HARD_S):
        return
    runtime.kill_host(process)
    if not _gone(runtime, process, HARD_S):
        raise ProcessStateError(
            f"process {process.id}: its host (pid {process.pid}) doesn't end", "look at that process"
        )


def _gone(runtime: Runtime, process: ProcessRecord, patience_s: float) -> bool:
    deadline = time.monotonic() + patience_s
    while runtime.is_running(process):
        if time.monotonic() >= deadline:
            return False
        time.sleep(POLL_S)
    return True
