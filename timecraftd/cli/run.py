"""`timecraft run`: run a module and record it."""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING, Any

from timecraftd.cli.context import Context, is_terminal, tell, tell_published
from timecraftd.cli.parser import positive_duration_ns, positive_int, positive_size, size, whole_number
from timecraftd.cli.target import Run
from timecraftd.config import Config, check_given, host_variable
from timecraftd.engine.request import NetworkRequest, RunRequest
from timecraftd.engine.spec import LimitSpec, MountSpec
from timecraftd.errors import NotFoundError, UnsupportedError, UsageError
from timecraftd.labels import merged, parse_label
from timecraftd.model import is_name
from timecraftd.supervisor.restarts import RestartPolicy, parse_restart

if TYPE_CHECKING:
    from timecraftd.engine.spec import Sockets
    from timecraftd.model import ModuleFile

ENV_FILE_BYTES_MAX = 1 << 20
MOUNT_MODES = ("rw", "ro", "immutable")
PYTHON_SUFFIXES = (".py", ".pyz")
SOCKET_ABIS: dict[str, Sockets] = {
    "none": "none",
    "auto": "auto",
    "v1": "v1",
    "v2": "v2",
    "wasmedgev1": "v1",
    "wasmedgev2": "v2",
    "path": "path",
    "path_open": "path",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `run`, those of the original Timecraft spelled as there."""
    parser.usage = "timecraft run [FLAG...] MODULE [ARG...]"
    parser.add_argument(
        "module", metavar="MODULE", nargs="?", help=".wasm, .wat or .py file; - reads standard input, or Python typed"
    )
    rest = parser.add_argument("args", metavar="ARG", nargs=argparse.REMAINDER, help="arguments of the guest")
    rest.required = False
    parser.add_argument("--name", help="name of the process, for later commands")
    parser.add_argument(
        "--label",
        metavar="KEY[=VALUE]",
        action="append",
        type=parse_label,
        default=[],
        help="label of the process; with `hold` it isn't removed",
    )
    parser.add_argument("-q", "--quiet", action="store_true", help="don't print the process id")
    parser.add_argument("-d", "--detach", action="store_true", help="run in the background; print the process id")
    parser.add_argument(
        "--restart", metavar="POLICY", help="no, on-failure[:N], always; on a node also resume (default: no)"
    )
    parser.add_argument("--isolated", action="store_true", help="on a node: a worker process of its own")
    _add_python(parser)
    _add_world(parser)
    _add_limits(parser)
    _add_recording(parser)


def _add_world(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("what the guest gets", "nothing is mounted, inherited or reachable by default")
    group.add_argument("-e", "--env", metavar="K=V", action="append", default=[], help="variable; K takes the host's")
    group.add_argument(
        "--secret", metavar="K=V", action="append", default=[], help="variable whose value is shown to nobody"
    )
    group.add_argument("--env-file", metavar="FILE", action="append", default=[], help="variables, a line each")
    group.add_argument(
        "-v",
        "--dir",
        metavar="HOST[:GUEST[:MODE]]",
        action="append",
        default=[],
        help="mount a directory, or /dev/null; MODE: rw, ro, or immutable (as it is now, and not copied into the log)",
    )
    group.add_argument("-f", "--function", metavar="FUNC", help="exported function to call instead of _start")
    group.add_argument(
        "--nan",
        dest="nans",
        choices=("canonical", "native"),
        default="canonical",
        help="bits of NaNs: native is faster for floats, and its log replays on this kind of processor only",
    )
    group.add_argument("--restrict", action="store_true", help="withhold standard input too")
    group.add_argument("-S", "--sockets", choices=SOCKET_ABIS, default="auto", help="socket extension (default: auto)")
    _add_network(parser)


def _add_python(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(
        "Python programs", "the folder of a .py file is mounted read-only at its own path"
    )
    group.add_argument(
        "-m", dest="python_module", metavar="MODULE [ARG]", nargs=argparse.REMAINDER, help="run a Python module"
    )
    group.add_argument("-c", dest="python_code", metavar="CODE [ARG]", nargs=argparse.REMAINDER, help="run Python code")
    group.add_argument("--venv", metavar="DIR", help="packages of a virtual environment (pure Python)")
    group.add_argument(
        "--requirements", metavar="FILE", help="packages to install with pip, once for each content of the file"
    )
    group.add_argument(
        "--tls",
        choices=("guest", "host"),
        help="who does the TLS of clients: host leaves clear text in the log, and verifies as --tls-ca says",
    )


def _add_network(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(
        "network", "beyond its own loopback a guest reaches, and is reached by, what is named here; docs/network.md"
    )
    group.add_argument(
        "--net",
        metavar="RULE|FILE.toml",
        action="append",
        default=[],
        help="rule `[allow|deny] [out|in] [tcp|udp] TARGET[:PORTS]`, the first that matches decides; `all`, `none`",
    )
    group.add_argument(
        "-p", "--publish", metavar="[IP:]HOST:GUEST[/udp]", action="append", default=[], help="publish a guest's port"
    )
    group.add_argument(
        "-L", "--listen", metavar="HOST:PORT", action="append", default=[], help="open a listening socket for the guest"
    )
    group.add_argument(
        "-D", "--dial", metavar="HOST:PORT", action="append", default=[], help="open a connection for the guest"
    )
    group.add_argument("--tls-ca", metavar="FILE", default="", help="authorities that host TLS trusts (PEM)")


def _add_limits(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("limits", "sizes like 64MiB, times like 1.5s; `timecraft config` shows defaults")
    group.add_argument("--memory", metavar="SIZE", type=size, help="linear memory")
    group.add_argument("--stack", metavar="SIZE", type=positive_size, help="native stack")
    group.add_argument("--cpu", metavar="TIME", type=positive_duration_ns, help="CPU time")
    group.add_argument("--timeout", metavar="TIME", type=positive_duration_ns, help="time from start to end")
    group.add_argument("--max-open-files", metavar="N", type=positive_int, help="open descriptors")
    group.add_argument("--max-sockets", metavar="N", type=positive_int, help="open sockets, descriptors too")
    group.add_argument("--disk", metavar="SIZE", type=size, help="bytes written to mounted directories")


def _add_recording(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("recording")
    group.add_argument("-T", "--trace", action="store_true", help="show calls on standard error, like strace")
    group.add_argument("--no-record", "--fly-blind", action="store_true", dest="no_record", help="don't record")
    group.add_argument("--record-batch-size", metavar="SIZE", type=positive_size, help="bytes of records per block")
    group.add_argument("--record-compression", metavar="NAME", help="lz4 or none")
    group.add_argument("--record-output", metavar="HOW", help="inline, or digest: keep only hashes of what was written")
    group.add_argument(
        "--record-durability", metavar="HOW", help="flush, or sync: before each output, the log is on the disk"
    )
    group.add_argument("--on-log-full", metavar="WHAT", help="wait, stop, or continue without recording")
    group.add_argument(
        "--log-max", metavar="SIZE", type=positive_size, help="bound of the log; --on-log-full says what then"
    )
    group.add_argument(
        "--log-rate", metavar="SIZE", type=positive_size, help="bytes of log per second; the guest is slowed down"
    )
    group.add_argument("-C", "--chaos", metavar="RATIO", type=_ratio, default=0.0, help="share of calls made to fail")
    group.add_argument("--seed", metavar="N", type=whole_number, help="seed of chaos; printed if not given")


def run(args: argparse.Namespace, context: Context) -> int:
    """Runs the module; returns the guest's exit code."""
    policy = parse_restart(args.restart or "no", "--restart")
    target = context.target
    if not target.node:
        _check_embedded(policy)
    request = build_request(args, context.config, is_local=target.is_local)
    if args.detach and args.no_record:
        raise UsageError("run: --detach with --no-record would drop the output", "leave out one of them")
    module, request = load(args, request, context)
    from timecraftd.running import Streams

    if args.detach:
        identity, ports = target.run_detached(Run(module, request, policy, args, Streams()))
        print(identity)
        tell_published(ports)
        return 0
    is_typed = args.module == "-" and is_terminal(0)
    stdin = None if args.restrict or (args.module == "-" and not is_typed) else _open_descriptor(0)
    streams = Streams(stdin, _open_descriptor(1), _open_descriptor(2))
    return target.run(Run(module, request, policy, args, streams, trace=args.trace, quiet=args.quiet))


def _check_embedded(policy: RestartPolicy) -> None:
    """What only a node can do is refused, not left out silently. Raises UnsupportedError."""
    if policy.mode == "resume":
        raise UnsupportedError(
            "--restart resume: nobody outlives this command to do it", "use on-failure or always, or a node"
        )


def load(
    args: argparse.Namespace, request: RunRequest, context: Context
) -> tuple[tuple[bytes | ModuleFile, str], RunRequest]:
    """Module and name, and the request; for a Python program they are the interpreter's.

    Raises NotFoundError, ModuleError, PythonError.
    """
    from timecraftd.registry.files import read_module

    module = None
    if args.module is not None and args.module != "-" and not args.module.endswith(PYTHON_SUFFIXES):
        module = read_module(args.module)
    elif args.module == "-" and not is_terminal(0):
        module = read_module("-")
    if module is None or args.module == "-":
        from timecraftd.cli.python import python_program

        program = python_program(args, None if module is None else module[0])
        if program is not None:
            return program.load(request, context)
    assert module is not None, "what is no Python program was read"
    if args.venv or args.requirements or args.tls:
        raise UsageError("run: --venv, --requirements and --tls are for Python programs", "leave them out")
    return module, request


def build_request(args: argparse.Namespace, config: Config, *, is_local: bool = True) -> RunRequest:
    """The request that the flags, over the configuration, make. Paths are made absolute only if they are of here.

    Raises UsageError, ConfigError, NotFoundError.
    """
    if args.name is not None and not is_name(args.name):
        raise UsageError(f"--name {args.name!r}: isn't a name", "use letters, digits, '_', '.', '-', at most 63")
    record = config.record
    chosen: dict[str, Any] = {
        "compression": args.record_compression or record.compression,
        "output": args.record_output or record.output,
        "on_full": args.on_log_full or record.on_full,
        "durability": args.record_durability or record.durability,
    }
    block_bytes_max = args.record_batch_size or record.block_bytes_max
    for key, flag, value in (
        ("record.compression", "--record-compression", chosen["compression"]),
        ("record.output", "--record-output", chosen["output"]),
        ("record.on_full", "--on-log-full", chosen["on_full"]),
        ("record.durability", "--record-durability", chosen["durability"]),
        ("record.block_bytes_max", "--record-batch-size", block_bytes_max),
    ):
        check_given(key, value, flag)
    seed = args.seed
    if args.chaos and seed is None:
        seed = int.from_bytes(os.urandom(4), "big")
        tell(f"timecraft: chaos: --seed {seed}")
    return RunRequest(
        args=(os.fsencode(os.path.basename(args.module or "")), *map(os.fsencode, args.args)),
        env=tuple(
            os.fsencode(f"{key}={value}") for key, value in read_env(args.env_file, [*args.env, *args.secret]).items()
        ),
        secrets=tuple(sorted({text.partition("=")[0] for text in args.secret})),
        mounts=tuple(parse_mount(text, is_local=is_local) for text in args.dir),
        function=args.function,
        nans=args.nans,
        sockets=SOCKET_ABIS[args.sockets],
        limits=_limits(args, config),
        network=_network(args, is_local=is_local),
        name=args.name or "",
        labels=merged((), dict(args.label)),
        recorded=not args.no_record,
        block_bytes_max=block_bytes_max,
        log_bytes_max=args.log_max or record.log_bytes_max,
        chaos_ratio=args.chaos,
        chaos_seed=seed or 0,
        **chosen,
    )


def _network(args: argparse.Namespace, *, is_local: bool) -> NetworkRequest:
    """Raises PolicyError, UsageError."""
    if not (args.net or args.publish or args.listen or args.dial):
        return NetworkRequest()
    from timecraftd.embedded_network import parse_endpoint
    from timecraftd.network.publish import parse_publication
    from timecraftd.network.rules import format_rule, parse_policy

    for flag, texts in (("-L", args.listen), ("-D", args.dial)):
        for text in texts:
            parse_endpoint(text, flag)
    return NetworkRequest(
        rules=tuple((format_rule(rule), rule.origin) for rule in parse_policy(args.net).rules),
        publish=tuple(str(parse_publication(text)) for text in args.publish),
        listen=tuple(args.listen),
        dial=tuple(args.dial),
        ca_file=os.path.abspath(args.tls_ca) if args.tls_ca and is_local else args.tls_ca,
    )


def parse_mount(text: str, *, is_local: bool = True) -> MountSpec:
    """A mount from `HOST[:GUEST[:MODE]]`; the guest sees it at the same path if no other is given."""
    parts = text.split(":")
    mode = parts.pop() if len(parts) > 1 and parts[-1] in MOUNT_MODES else "rw"
    host, guest = parts[0], parts[-1]
    if not host or not guest or len(parts) > 2:
        raise UsageError(f"--dir {text!r}: isn't HOST[:GUEST[:MODE]]", "write it like --dir ./data:/data:ro")
    if "\0" in text:
        raise UsageError(f"--dir {text!r}: holds a NUL byte")
    try:
        host = os.path.abspath(host) if is_local else host
        return MountSpec(host, guest, mode != "rw", "" if mode == "immutable" else None)
    except FileNotFoundError:
        raise UsageError(f"--dir {text!r}: the current directory is gone", "give an absolute path") from None


def read_env(files: list[str], pairs: list[str]) -> dict[str, str]:
    """Variables from files, then from flags, later ones winning. Raises UsageError, NotFoundError."""
    variables: dict[str, str] = {}
    for path in files:
        try:
            with open(path, encoding="utf-8", errors="surrogateescape") as file:
                lines = file.read(ENV_FILE_BYTES_MAX).splitlines()
        except OSError as error:
            raise NotFoundError(f"--env-file {path}: {error.strerror}", "give the path of a readable file") from None
        for number, line in enumerate(lines, start=1):
            if line.strip() and not line.lstrip().startswith("#"):
                _add_variable(variables, line.strip(), f"{path}, line {number}")
    for pair in pairs:
        _add_variable(variables, pair, f"--env {pair!r}")
    return variables


def _add_variable(variables: dict[str, str], text: str, where: str) -> None:
    name, equals, value = text.partition("=")
    if not name or "\0" in text:
        raise UsageError(f"{where}: isn't a variable", "write it like NAME=VALUE")
    if equals:
        variables[name] = value
    else:
        inherited = host_variable(name)
        if inherited is None:
            raise UsageError(f"{where}: the host has no variable {name}", "write it like NAME=VALUE")
        variables[name] = inherited


def _limits(args: argparse.Namespace, config: Config) -> LimitSpec:
    limits = config.limits
    memory = args.memory if args.memory is not None else limits.memory_bytes_max
    stack = args.stack or limits.stack_bytes_max
    files = args.max_open_files or limits.open_files_max
    sockets = args.max_sockets or limits.sockets_max
    check_given("limits.memory_bytes_max", memory, "--memory")
    check_given("limits.stack_bytes_max", stack, "--stack")
    check_given("limits.open_files_max", files, "--max-open-files")
    check_given("limits.sockets_max", sockets, "--max-sockets")
    return LimitSpec(
        memory_bytes=memory,
        stack_bytes=stack,
        open_files=files,
        sockets=sockets,
        disk_bytes=args.disk if args.disk is not None else limits.disk_bytes_max,
        cpu_ns=args.cpu or _ns(limits.cpu_s_max),
        wall_ns=args.timeout or _ns(limits.wall_s_max),
        log_bytes_per_s=args.log_rate or limits.log_bytes_per_s_max,
    )


def _ns(seconds: float | None) -> int | None:
    return None if seconds is None else round(seconds * 1e9)


def _ratio(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} isn't between 0 and 1")
    return value


def _open_descriptor(descriptor: int) -> int | None:
    """A descriptor of ours, unless it is closed."""
    try:
        os.fstat(descriptor)
    except OSError:
        return None
    return descriptor
