"""`timecraft rm`: remove processes and their logs."""

from __future__ import annotations

import argparse
import signal

from timecraftd.cli.context import Context
from timecraftd.model import ProcessState

PATIENCE_S = 2.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `rm`."""
    parser.add_argument("ids", metavar="ID", nargs="+", help="process: id, unique prefix or name")
    parser.add_argument("-f", "--force", action="store_true", help="kill those that run first")


def run(args: argparse.Namespace, context: Context) -> int:
    """Removes each and prints what was given for it. Objects stay until `prune`."""
    runtime = context.runtime
    processes = [(reference, runtime.process(reference)) for reference in args.ids]
    for reference, process in processes:
        if args.force and process.state is ProcessState.RUNNING:
            from timecraftd.views import end

            end(runtime, process, signal.SIGKILL, PATIENCE_S)
        runtime.remove(process)
        print(reference, flush=True)
    return 0
