"""`timecraft doctor`: check that this machine is fit, and that runs and replays work on it."""

from __future__ import annotations

import argparse
import errno
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Literal, cast

from timecraftd.cli.context import Context
from timecraftd.cli.parser import add_format
from timecraftd.cli.terminal import print_data, printable
from timecraftd.config import Config
from timecraftd.errors import EngineError, PythonError, TimecraftError
from timecraftd.model import ObjectKind
from timecraftd.units import format_size

if TYPE_CHECKING:
    from timecraftd.recorder.remote import Capabilities

SPACE_BYTES_MIN = 1 << 30
OPEN_FILES_MIN = 4096
CLOCK_UNIX_S_MIN = 1_750_000_000
"""A clock before this is wrong: this code is younger."""
SYS_OPENAT2 = 437
"""The same on all processors."""
RESOLVE_BENEATH = 0x08
SELF_TEST = b"""(module
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "clock_time_get" (func $clock (param i32 i64 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 64) "timecraft\\n")
  (func (export "_start")
    (i32.store (i32.const 0) (i32.const 64))
    (i32.store (i32.const 4) (i32.const 10))
    (drop (call $clock (i32.const 0) (i64.const 1) (i32.const 16)))
    (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))))
"""
SELF_TEST_OUTPUT = b"timecraft\n"

Level = Literal["ok", "warn", "fail"]
_COLORS = {"ok": "32", "warn": "33", "fail": "31"}


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check found."""

    check: str
    level: Level
    text: str


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `doctor`."""
    parser.add_argument("--warm", action="store_true", help="compile the Python interpreter now, not at its first run")
    add_format(parser)


def run(args: argparse.Namespace, context: Context) -> int:
    """Prints a line per check; 1 if one failed."""
    checks: tuple[tuple[str, Callable[[Context], tuple[Level, str]]], ...] = (
        ("configuration", check_config),
        ("state directory", check_state),
        ("trees", check_trees),
        ("free space", check_space),
        ("logs", check_logs),
        ("kernel", check_kernel),
        ("openat2", check_openat2),
        ("shared memory", check_shared_memory),
        ("open files", check_open_files),
        ("clock", check_clock),
        ("extension", check_extension),
        ("self test", check_self_test),
        ("python", partial(check_python, warm=args.warm)),
        *([("store", check_store)] if context.config.remote.url else []),
        *([("node", check_node)] if _names_node(context) else []),
    )
    findings = []
    for name, check in checks:
        try:
            findings.append(Finding(name, *check(context)))
        except (TimecraftError, OSError) as error:
            findings.append(Finding(name, "fail", str(error)))
        except Exception as error:  # noqa: BLE001 - the other checks still tell something
            findings.append(Finding(name, "fail", f"{type(error).__name__}: {error}"))
    if args.output != "text":
        print_data([{"check": f.check, "level": f.level, "text": f.text} for f in findings], args.output)
    else:
        width = max(len(name) for name, _ in checks)
        for finding in findings:
            level = f"{finding.level.upper():<4}"
            shown = f"\x1b[{_COLORS[finding.level]}m{level}\x1b[0m" if context.color else level
            print(f"{shown}  {finding.check:<{width}}  {printable(finding.text)}")
    return 1 if any(finding.level == "fail" for finding in findings) else 0


def check_config(context: Context) -> tuple[Level, str]:
    """Whether the configuration can be read."""
    return "ok", context.config.source or "defaults and environment"


def check_state(context: Context) -> tuple[Level, str]:
    """Whether the state directory can be used and is private."""
    registry = context.runtime.registry
    path = registry.home.path
    probe = os.path.join(path, f".doctor-{os.getpid()}")
    with open(probe, "xb") as file:
        file.write(b"x")
        os.fsync(file.fileno())
    os.unlink(probe)
    count = len(registry.catalogue.processes())
    if os.stat(path).st_mode & 0o077:
        return "warn", f"{path}: other users may look into it; chmod 700 it"
    return "ok", f"{path}, {count} processes"


def check_store(context: Context) -> tuple[Level, str]:
    """Whether the store of logs can be written, and how much isn't there."""
    from timecraftd.recorder.remote import RemoteLoop, open_store
    from timecraftd.uploads import local_bytes

    config = context.config.remote
    loop = RemoteLoop()

    async def probe() -> Capabilities:
        store = open_store(config)
        try:
            return await store.probe()
        finally:
            await store.close()

    try:
        abilities = loop.run(probe())
    finally:
        loop.close()
    waiting = local_bytes(context.runtime)
    text = f"{config.url}, {format_size(waiting)} of {format_size(config.local_bytes_max)} still to be sent"
    if not abilities.conditional:
        return "warn", f"{text}; it ignores conditions: two writers of one log could overwrite each other's manifests"
    return ("warn" if waiting > config.local_bytes_max else "ok"), text


def check_trees(context: Context) -> tuple[Level, str]:
    """Whether the files that immutable mounts show are what they were."""
    registry = context.runtime.registry
    trees = list(registry.objects.stored(ObjectKind.TREE))
    for tree in trees:
        registry.trees.check(tree.digest)
    return "ok", f"{len(trees)}, {format_size(sum(map(registry.object_bytes, trees)))}"


def check_space(context: Context) -> tuple[Level, str]:
    """Whether logs have room."""
    stat = os.statvfs(context.runtime.registry.home.path)
    free = stat.f_bavail * stat.f_frsize
    return ("ok" if free >= SPACE_BYTES_MIN else "warn"), f"{format_size(free)} free"


def check_logs(context: Context) -> tuple[Level, str]:
    """Whether the logs of running processes can be written."""
    from timecraftd.recorder.ring import ring_fault

    home, running = context.runtime.registry.home, context.runtime.processes(running_only=True)
    faults = {process.id: ring_fault(home.log_dir(process.id)) for process in running}
    waiting = [f"process {process}: {os.strerror(error)}" for process, error in faults.items() if error]
    if waiting:
        more = f" and {len(waiting) - 3} more" if len(waiting) > 3 else ""
        return "fail", f"can't be written, so that guests wait: {'; '.join(waiting[:3])}{more}"
    return "ok", f"{len(running)} are being written"


def check_kernel(_context: Context) -> tuple[Level, str]:
    """Whether the system calls are there that hosting guests takes."""
    release = os.uname().release
    try:
        os.close(os.memfd_create("timecraft-doctor"))
        os.close(os.pidfd_open(os.getpid()))
    except OSError as error:
        return "fail", f"Linux {release}: {error.strerror} (memfd_create, pidfd_open)"
    return "ok", f"Linux {release}: memfd_create, pidfd_open"


def check_openat2(_context: Context) -> tuple[Level, str]:
    """Whether the kernel keeps paths beneath a directory: tried, as a version or a filter in between tells little."""
    directory = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        within, outside = (openat2_beneath(directory, path) for path in (b".", b"/proc"))
    finally:
        os.close(directory)
    if within:
        hint = {errno.ENOSYS: "needs Linux 5.6", errno.EPERM: "a filter, such as a container's, forbids it"}
        return "fail", f"{os.strerror(within)}; {hint.get(within, 'guests can not open files')}"
    if outside != errno.EXDEV:
        return "fail", "RESOLVE_BENEATH let an absolute path through: the sandbox doesn't hold on this kernel"
    return "ok", "paths stay beneath a mount (RESOLVE_BENEATH)"


def openat2_beneath(directory: int, path: bytes) -> int:
    """Opens and closes a path beneath a directory; returns the errno, 0 if it could be opened."""
    import ctypes

    syscall = ctypes.CDLL(None, use_errno=True).syscall
    syscall.restype = ctypes.c_long
    how = (ctypes.c_uint64 * 3)(os.O_PATH | os.O_CLOEXEC, 0, RESOLVE_BENEATH)
    arguments = (ctypes.c_long(SYS_OPENAT2), ctypes.c_int(directory), path, how, ctypes.c_size_t(ctypes.sizeof(how)))
    descriptor = syscall(*arguments)
    if descriptor < 0:
        return ctypes.get_errno()
    os.close(descriptor)
    return 0


def check_shared_memory(context: Context) -> tuple[Level, str]:
    """Whether rings lie in memory."""
    from timecraftd.recorder.ring import RING_HEADROOM, SHM, shared_ring_path, sweep_rings

    ring_bytes = context.config.record.ring_bytes
    if shared_ring_path("doctor", ring_bytes) is None:
        need = format_size(RING_HEADROOM * ring_bytes)
        return "warn", f"{SHM} isn't a tmpfs with {need} free: rings lie in the state directory, which is slower"
    stat = os.statvfs(SHM)
    free = f"{SHM}, {format_size(stat.f_bavail * stat.f_frsize)} free"
    orphans = [size for _, size in sweep_rings(dry_run=True)]
    if orphans:
        taken = f"{len(orphans)} rings of logs that are gone take {format_size(sum(orphans))}"
        return "warn", f"{free}; {taken}: `timecraft prune` removes them"
    return "ok", free


def check_open_files(_context: Context) -> tuple[Level, str]:
    """Whether guests can have the descriptors that their limit promises."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    level: Level = "ok" if soft >= OPEN_FILES_MIN or soft == resource.RLIM_INFINITY else "warn"
    hint = "" if level == "ok" else "; raise it with ulimit -n"
    return level, f"limit {soft} (at most {hard}){hint}"


def check_clock(_context: Context) -> tuple[Level, str]:
    """Whether the clock is plausible and fine enough."""
    if time.time() < CLOCK_UNIX_S_MIN:
        return "fail", "the time is long past: set the clock"
    resolution = time.get_clock_info("monotonic").resolution
    return ("ok" if resolution <= 1e-6 else "warn"), f"monotonic, resolution {resolution * 1e9:.0f} ns"


def check_extension(context: Context) -> tuple[Level, str]:
    """Whether the extension loads, and is an optimised build."""
    info = context.runtime.engine.build_info()
    text = f"{info['version']}, {info['engine']} {info['engine_version']}, {info['target']}"
    return ("warn", f"{text}: a debug build, guests run slower") if info["profile"] == "debug" else ("ok", text)


def check_self_test(context: Context) -> tuple[Level, str]:
    """Records a tiny guest in a state directory of its own and replays it."""
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="timecraft-doctor-") as directory:
        recorded, replayed = self_test(context, replace(context.config, home=os.path.join(directory, "state")))
    if recorded != SELF_TEST_OUTPUT:
        raise EngineError(f"self test: the guest wrote {recorded!r}", "report it")
    if replayed != recorded:
        raise EngineError(f"self test: the replay wrote {replayed!r}", "report it")
    return "ok", f"recorded and replayed a guest in {(time.monotonic() - begun) * 1000:.0f} ms"


def check_python(context: Context, *, warm: bool) -> tuple[Level, str]:
    """Whether Python programs can be run, and begin at once; `warm` sees to that."""
    from timecraftd.python import program

    try:
        package = program.data_package()
    except PythonError as error:
        return "ok", error.message + f" ({error.next_step})"
    interpreter = program.interpreter(package)
    if warm:
        context.runtime.compile(interpreter, "python.wasm")
    if context.runtime.is_compiled(interpreter):
        return "ok", f"Python {package.VERSION}, compiled"
    return "ok", f"Python {package.VERSION}, not compiled yet: the first run does it, or `timecraft doctor --warm`"


def check_node(context: Context) -> tuple[Level, str]:
    """Whether the node answers, and is of this version."""
    about = context.node().about()
    text = f"{about['name']} ({about['address']}), {about['state']}, {about['identity']} is {about['role']} there"
    there, here = cast("dict[str, str]", about["build"])["version"], context.runtime.engine.build_info()["version"]
    return ("ok", text) if there == here else ("warn", f"{text}; it is timecraft {there}, this is {here}")


def _names_node(context: Context) -> bool:
    try:
        return bool(context.target.node)
    except TimecraftError:
        return True  # the check says what is wrong


def self_test(context: Context, config: Config) -> tuple[bytes, bytes]:
    """What the guest wrote when it ran, and when it was replayed."""
    from timecraftd.embedded import Runtime
    from timecraftd.engine.request import RunRequest
    from timecraftd.running import Streams

    runtime = Runtime(config, engine=context.runtime.engine, logs=context.runtime.logs)
    outputs = []
    try:
        with tempfile.TemporaryFile() as file:
            running = runtime.start(
                SELF_TEST, "self-test.wat", RunRequest(args=(b"self-test",)), Streams(stdout=file.fileno()), None
            )
            running.wait()
            file.seek(0)
            outputs.append(file.read())
        with tempfile.TemporaryFile() as file:
            spec = replace(runtime.replay_spec(running.process), stdout_fd=file.fileno())
            outcome = runtime.engine.replay(spec).wait()
            if outcome is None or outcome.kind != "exit":
                raise EngineError(f"self test: the replay ended with {outcome.message if outcome else 'nothing'}")
            file.seek(0)
            outputs.append(file.read())
    finally:
        runtime.close()
    return outputs[0], outputs[1]
