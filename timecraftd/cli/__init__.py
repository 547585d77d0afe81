"""The command `timecraft`: one file per verb, each imported only when it is used."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Sequence

from timecraftd.cli.context import Context
from timecraftd.errors import TimecraftError, UsageError

VERBS = {
    "run": "run a module and record it",
    "replay": "run a recorded process again, with the same output and no effects",
    "resume": "let a process whose host died go on",
    "ps": "list processes",
    "log": "send logs to the store",
    "logs": "show what a process wrote to its standard streams",
    "wait": "wait until processes end",
    "stop": "stop processes, gently first",
    "kill": "send processes a signal",
    "rm": "remove processes and their logs",
    "prune": "remove what isn't needed any more",
    "label": "label a process, or keep it from being removed",
    "get": "list processes, modules, configs, runtimes or logs",
    "describe": "show one of them in detail",
    "export": "write one of them to a file",
    "import": "take in an exported process, or a module",
    "trace": "show what went through the gate between a guest and its host",
    "catalogue": "put the catalogue of processes in order",
    "node": "look at a node, or empty it",
    "context": "choose the node that commands are for",
    "config": "show the effective configuration",
    "doctor": "check that this machine is fit, and that runs and replays work on it",
    "version": "show versions",
    "completion": "print a completion script for a shell",
}
"""Verb to what it does. `timecraft VERB` is `timecraftd/cli/VERB.py` (`import` is `import_.py`)."""

LATER = {
    "profile": "profiles come in a later version",
    "query": "queries come in a later version (`export log --format jsonl` gives the records)",
    "debug": "the debugger comes in a later version (`replay --trace --until` shows how a process got somewhere)",
    "graph": "durable graphs come in a later version",
    "actor": "actors come in a later version",
}

EXIT_INTERRUPTED = 130
EXIT_BROKEN_PIPE = 141
_OUTPUT_ERRNOS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF)
"""What a write to standard output fails with. Files of ours carry their names, or are errors of their own."""


def main(
    argv: Sequence[str] | None = None,
    context: Context | None = None,
    dispatch: Callable[[list[str], Context], int] | None = None,
) -> int:
    """Runs one command; returns its exit code. No error leaves it."""
    _open_streams()
    arguments = list(sys.argv[1:] if argv is None else argv)
    context = context or Context()
    try:
        try:
            code = (dispatch or _dispatch)(arguments, context)
            sys.stdout.flush()
            return code
        except BrokenPipeError:
            _forget_stdout()
            return EXIT_BROKEN_PIPE
        finally:
            context.close()
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except TimecraftError as error:
        if context.debug:
            raise
        context.complain(f"{error} [{error.code}]")
        return error.exit_code
    except Exception as error:
        if context.debug:
            raise
        if isinstance(error, OSError) and error.filename is None and error.errno in _OUTPUT_ERRNOS:
            _forget_stdout()
            context.complain(f"standard output: {error.strerror}; write to another place [TC0001]")
            return TimecraftError.exit_code
        context.complain(
            f"internal error: {type(error).__name__}: {error}; "
            "set TIMECRAFT_DEBUG=1 for a traceback, and report it [TC0001]"
        )
        return TimecraftError.exit_code


def _dispatch(arguments: list[str], context: Context) -> int:
    arguments = _take_target(arguments, context)
    if not arguments or arguments in (["-h"], ["--help"], ["help"]):
        print(_usage())
        return 0 if arguments else UsageError.exit_code
    verb, *rest = arguments
    if verb == "help":
        verb, rest = rest[0], ["--help"]
    if verb in ("-V", "--version"):
        verb = "version"
    if verb in LATER:
        from timecraftd.errors import UnsupportedError

        raise UnsupportedError(f"timecraft {verb}: {LATER[verb]}", "README.md lists what isn't there yet")
    if verb not in VERBS:
        raise _unknown_verb(verb)
    return run_verb("timecraft", verb, VERBS[verb], rest, context)


def _take_target(arguments: list[str], context: Context) -> list[str]:
    """What is left behind `--node ADDRESS` and `--context NAME`. Raises UsageError."""
    flags = {"--node": "node_flag", "--context": "context_flag"}
    while arguments:
        flag, equals, value = arguments[0].partition("=")
        if flag not in flags:
            break
        if not equals:
            if len(arguments) < 2:
                raise UsageError(f"{flag}: names nothing", "see `timecraft --help`")
            value = arguments[1]
        setattr(context, flags[flag], value)
        arguments = arguments[1 if equals else 2 :]
    return arguments


def run_verb(program: str, verb: str, description: str, arguments: list[str], context: Context) -> int:
    """Parses the arguments of a verb and runs it; returns its exit code."""
    from timecraftd.cli.parser import Parser, add_target, load_verb

    module = load_verb(verb)
    parser = Parser(prog=f"{program} {verb}", description=description)
    module.add_arguments(parser)
    add_target(parser, verb)
    # What comes behind the module is the guest's; all other verbs take flags anywhere.
    parse = parser.parse_args if verb == "run" else parser.parse_intermixed_args
    try:
        parsed = parse(arguments)
    except SystemExit:  # --help was printed
        return 0
    context.node_flag = getattr(parsed, "node", None) or context.node_flag
    context.context_flag = getattr(parsed, "context", None) or context.context_flag
    code: int = module.run(parsed, context)
    return code


def _usage() -> str:
    width = max(map(len, VERBS))
    lines = [f"  {verb:<{width}}  {text}" for verb, text in VERBS.items()]
    return "\n".join(
        [
            "usage: timecraft [--node ADDRESS | --context NAME] VERB [ARGUMENT...]",
            "",
            "Runs WebAssembly guests in a sandbox, records all that enters them, and replays them exactly.",
            "",
            *lines,
            "",
            "`timecraft VERB --help` tells more. State lies in $TIMECRAFT_HOME, or on the node that was chosen:",
            "by --node, --context, $TIMECRAFT_NODE or `timecraft context use`, in this order.",
        ]
    )


def _unknown_verb(verb: str) -> UsageError:
    from difflib import get_close_matches

    close = get_close_matches(verb, VERBS, n=1)
    if verb.startswith("-"):
        return UsageError(f"{verb}: flags come after the verb", "see `timecraft --help`")
    hint = f"did you mean `timecraft {close[0]}`?" if close else "see `timecraft --help`"
    return UsageError(f"{verb if verb.strip() else repr(verb)}: there is no such verb", hint)


def _open_streams() -> None:
    """Fills closed standard streams: a file of ours that got such a number would be the guest's."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number
    if sys.stdin is None:
        sys.stdin = open(0, closefd=False)  # noqa: SIM115
    if sys.stdout is None:
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115 - for as long as we live
    if sys.stderr is None:
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115


def _forget_stdout() -> None:
    """Keeps Python from complaining at exit that nobody reads."""
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, sys.stdout.fileno())
    os.close(devnull)
