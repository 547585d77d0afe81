"""Starts hosts by fork, so that a thousand of them don't import everything a thousand times.

Reads commands from standard input: `PIPE FILE ARG...`, separated by tabs, runs `timecraft ARG...` with standard output
to the named pipe and standard error to the file, and answers with its pid; `PID` waits for that one, which was killed.
"""

import os
import sys

import timecraftd.cli.run
import timecraftd.cli.supervise
import timecraftd.embedded
from timecraftd import _native
from timecraftd.cli import main


def start(pipe: str, errors: str, *args: str) -> int:
    """The pid of a host."""
    pid = os.fork()
    if pid == 0:
        for path, flags, target in (
            (os.devnull, os.O_RDONLY, 0),
            (pipe, os.O_WRONLY, 1),
            (errors, os.O_WRONLY | os.O_CREAT, 2),
        ):
            os.dup2(os.open(path, flags, 0o600), target)
        os._exit(main(args))
    return pid


def serve() -> None:
    """Until there are no more commands."""
    assert _native is not None
    assert timecraftd.cli.run.run is not None
    for line in sys.stdin:
        words = line.rstrip("\n").split("\t")
        if len(words) == 1:
            os.waitpid(int(words[0]), 0)
            print("gone", flush=True)
        else:
            print(start(*words), flush=True)


if __name__ == "__main__":
    serve()
