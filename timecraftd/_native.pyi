"""Typed face of the Rust extension. Everything that crosses between Python and Rust is in this file.

Long calls release the GIL. Errors are the classes of `timecraftd.errors`, raised from Rust.
"""

from collections.abc import Callable, Sequence
from typing import Literal, TypeAlias, final

from timecraftd.engine.spec import ReplaySpec, ResumeSpec, RunSpec
from timecraftd.model import LogSource
from timecraftd.recorder.logs import TrafficQuery

__all__ = [
    "Guest",
    "LogCheck",
    "LogInfo",
    "LogReader",
    "ModuleInfo",
    "NetworkEvent",
    "NetworkPort",
    "Outcome",
    "RecoveryReport",
    "TrafficReader",
    "build_info",
    "compile_module",
    "confine",
    "count_calls",
    "inspect_module",
    "is_compiled",
    "log_info",
    "recover_log",
    "replay",
    "resume",
    "run",
    "to_wasm",
    "verify_log",
]

@final
class ModuleInfo:
    """What a module asks for and offers."""

    @property
    def imports(self) -> list[tuple[str, str, str]]:
        """(module, name, type as text such as `func (i32, i32) -> i32`), in the module's order."""
    @property
    def exports(self) -> list[tuple[str, str]]:
        """(name, type as text)."""
    @property
    def memory_min_bytes(self) -> int: ...
    @property
    def memory_max_bytes(self) -> int | None: ...
    @property
    def functions(self) -> int:
        """Number of functions that the module defines."""

@final
class Outcome:
    """How a run, a replay or a resumed run ended."""

    @property
    def kind(
        self,
    ) -> Literal[
        "exit", "trap", "killed", "limit", "diverged", "log_ended", "log_damaged", "input_lost", "log_failed", "until"
    ]:
        """`exit`, `trap`, `killed` (signal), `limit`: the guest's own end (live, or as recorded).

        Replays also end as `diverged`, `log_ended` (the host had died: there is no end record), `log_damaged`,
        `input_lost` (a file of an immutable mount is not what it was), or `until`. `log_failed`: a live run was
        stopped because its log could not be written.
        """
    @property
    def code(self) -> int:
        """Exit code as a shell would see it: the guest's own, 128 + n if killed, 134 for a trap, 137 for a limit."""
    @property
    def message(self) -> str:
        """For people: a line; for a trap its backtrace too, for a divergence both sides. Empty for `exit`."""
    @property
    def backtrace(self) -> list[str]:
        """Guest frames, innermost first, demangled, with the offset in the module: `main.main (+0x1f2c)`."""
    @property
    def last_seq(self) -> int | None:
        """Sequence number of the last record written or replayed; None if there was none."""
    @property
    def memory_digest(self) -> str:
        """SHA-256, hex, of linear memory at the end; empty unless the spec asked for it."""
    @property
    def stats(self) -> dict[str, int]:
        """Counters, units in the names: load_ns, compile_ns, instantiate_ns, run_ns, cpu_ns, calls, records,
        log_bytes_raw, log_bytes_stored, ring_stalls, ring_stalled_ns, records_lost, log_syncs, log_sync_waited_ns,
        log_faults, log_faulted_ns, log_fault_errno (0: the log can be written), log_flushes, log_flush_ns,
        memory_bytes_peak."""
    @property
    def artifact(self) -> Literal["cached", "compiled", "recompiled"]:
        """Where machine code came from; `recompiled`: the cached artifact was damaged."""

_Endpoint: TypeAlias = tuple[str, int]
"""(IP address as text, port)"""

@final
class NetworkEvent:
    """Something that a guest asks of the network, or has stopped asking."""

    @property
    def kind(self) -> Literal["dial", "listen", "resolve", "secure", "closed", "room", "ended"]:
        """The first four are requests, to be answered.

        `closed`: nobody waits for the answer any more, or the guest has closed the listener. `room`: the listener,
        which had refused a delivery, has room again. `ended`: the guest is gone, every request is withdrawn, and
        nothing more comes.
        """
    @property
    def id(self) -> int:
        """The request; never used again in a port. 0 for `ended`."""
    @property
    def transport(self) -> Literal["tcp", "udp"]:
        """`dial`, `listen`."""
    @property
    def address(self) -> _Endpoint | None:
        """`dial`: where to. `listen`: where the guest listens, as it sees it."""
    @property
    def source(self) -> _Endpoint | None:
        """`dial`: what the guest has bound the socket to, if it has."""
    @property
    def backlog(self) -> int:
        """`listen`, tcp: how many delivered connections wait for the guest at most."""
    @property
    def name(self) -> str:
        """`resolve`: the name. `secure`: the one that the peer's certificate must bear."""
    @property
    def ipv4(self) -> bool:
        """`resolve`: addresses of this family are wanted."""
    @property
    def ipv6(self) -> bool: ...
    @property
    def protocols(self) -> list[str]:
        """`secure`: what the guest offers (ALPN), in order of preference."""
    @property
    def fd(self) -> int:
        """`secure`: the guest's connected socket; whoever took the event owns it. Else -1."""

@final
class NetworkPort:
    """One guest's end of the gateway: what it asks beyond its own loopback, and the answers. Thread-safe.

    Made before the run, given as `RunSpec.network`; serves one guest. The guest's thread never waits for Python. A
    request that is never answered stays pending for the guest until it closes the socket or ends. If the port goes
    away before its guest, the guest has no network any more.

    Answers take ownership of descriptors that they are given. They return False if nobody waits any more; a
    descriptor is closed then. They raise ValueError for arguments that can't be, and nothing has happened then.
    """

    def __new__(cls, ipv4: str | None = None, ipv6: str | None = None, *, requests_max: int = 4096) -> NetworkPort:
        """The addresses are the guest's own. Above `requests_max` unanswered requests the guest gets EAGAIN, for
        datagrams ENOBUFS. Raises OSError if there is no descriptor left."""
    def fileno(self) -> int:
        """Readable while `take` has something. The port's own: don't close it."""
    def take(self) -> list[NetworkEvent]:
        """All that has come since it was last asked."""
    def refuse(self, id: int, errno: str) -> bool:
        """`errno` is WASI's name of it: EACCES, ECONNREFUSED, ENOENT, ETIMEDOUT... A refused `listen` leaves the guest
        with its loopback."""
    def connected(self, id: int, fd: int, local: _Endpoint, peer: _Endpoint, protocol: str = "") -> bool:
        """Answers `dial` with a connected socket, and `secure` with one that carries the clear text: its addresses are
        not looked at, the guest's connection keeps those that it had.

        `protocol` is the negotiated one (ALPN), empty if none was.
        """
    def listening(self, id: int) -> bool:
        """Answers `listen` for tcp: connections will be delivered. `closed` follows when the guest has closed it."""
    def deliver(self, id: int, fd: int, local: _Endpoint, peer: _Endpoint) -> bool:
        """Hands a connection to a listener, or for udp a flow of datagrams; `local` is the guest's side.

        False: its backlog is full, and `room` will follow, or it is closed. The descriptor stays the caller's then.
        """
    def bound(self, id: int, fd: int | None) -> bool:
        """Answers `listen` for udp: flows will be delivered, and whoever can may send to an unconnected socket.

        `closed` follows when the guest has closed it.
        """
    def addresses(self, id: int, addresses: Sequence[str]) -> bool:
        """Answers `resolve`, in order of preference; not empty."""

@final
class Guest:
    """A guest on its own thread, ready to run."""

    def begin(self) -> None:
        """Lets the guest run; until then nothing has happened. Idempotent."""

    def wait(self, timeout_s: float | None = None) -> Outcome | None:
        """Waits for the end, without the GIL; None when the time is over first. Begins, if nobody did.

        Python signal handlers run while waiting; an exception from one propagates and the guest goes on.
        """
    def fileno(self) -> int:
        """Readable once the guest is over, and `wait` returns at once. The guest's own: don't close it."""
    def kill(self, signal: int) -> None:
        """Ends the guest within 100 ms, as by a signal (15, 9, 2...). The first reason stands. Idempotent."""
    def hold(self, held: bool) -> None:
        """Stores no more of what is recorded, so that the guest waits once its ring is full, or goes on.

        Nothing is lost. A guest that is killed isn't held, and at its end all is stored.
        """
    def interrupt(self) -> bool:
        """Has a call of the guest that waits fail with `EINTR`, for guests that know what that means.

        `sched_yield` fails likewise until the guest has noticed. Returns False, and does nothing, if it hasn't noticed
        the last time yet.
        """
    def memory_bytes(self) -> int:
        """Size of linear memory now, bytes."""
    def stats(self) -> dict[str, int]:
        """Counters so far, as in `Outcome.stats`, and as of now: memory_bytes, ring_waiting_bytes of ring_bytes,
        log_unsealed_ns (age of the oldest record that isn't in a sealed segment; 0 if there is none)."""

def confine() -> None:
    """Takes from this process of the host, for good, what no guest's work needs: new privileges, other programs,
    processes, namespaces, mounts, the kernel's own business. Such system calls fail with EPERM. Raises EngineError."""

def run(spec: RunSpec) -> Guest:
    """Makes a guest ready. Raises ModuleError, MountError, LogError, EngineError before anything ran."""

def replay(spec: ReplaySpec) -> Guest:
    """Makes a replay ready: no effects but what the spec's output descriptors ask for. Raises ModuleError, LogError."""

def count_calls(guests: Sequence[Guest]) -> dict[str, int]:
    """Live host calls of guests, together: `call:NAME:ok`, `:again` and `:error`, as far as they occurred.

    `took:KIND:N` counts calls that were timed and took up to 2^N nanoseconds (N from 8 to 34, or `inf`), and
    `took_ns:KIND` is what they took together; it is there for all kinds. Calls that wait by their nature are all timed,
    of others one in 64.
    """

def resume(spec: ResumeSpec) -> Guest:
    """Replays a crashed process to its last record, then lets it go on live, recording a new epoch."""

def to_wasm(source: bytes) -> bytes:
    """Wasm bytes as they are; text format is assembled. Raises ModuleError (not wasm, truncated, a component...)."""

def inspect_module(wasm: bytes) -> ModuleInfo:
    """Validates and describes a module. Raises ModuleError."""

def compile_module(
    wasm_path: str, digest: str, artifact_dir: str, artifact_bytes_max: int
) -> Literal["cached", "compiled", "recompiled"]:
    """Puts the module's machine code into the artifact cache, if it isn't there. Raises ModuleError, EngineError."""

def is_compiled(digest: str, artifact_dir: str, nans: Literal["canonical", "native"] = "canonical") -> bool:
    """Whether the artifact cache has a module's machine code, sound or not."""

def build_info(nans: Literal["canonical", "native"] = "canonical") -> dict[str, str]:
    """version, profile (debug|release), engine, engine_version, compiler, target, cpu_features, flags, log_format."""

@final
class RecoveryReport:
    @property
    def records_recovered(self) -> int:
        """Records that were only in the ring."""
    @property
    def bytes_cut(self) -> int:
        """Bytes of a torn tail that were cut off."""
    @property
    def last_seq(self) -> int | None: ...
    @property
    def ended(self) -> bool:
        """Whether the log has the record of the process's end."""

def recover_log(log_dir: str) -> RecoveryReport:
    """Drains a dead host's ring into segments and cuts a torn tail. Idempotent. Raises LogError."""

@final
class LogInfo:
    @property
    def records(self) -> int: ...
    @property
    def last_seq(self) -> int | None: ...
    @property
    def segments(self) -> int: ...
    @property
    def blocks(self) -> int: ...
    @property
    def bytes_stored(self) -> int: ...
    @property
    def bytes_raw(self) -> int | None:
        """Before compression; None if a part of the log is stored elsewhere, where only its blocks would tell."""
    @property
    def start_unix_ns(self) -> int: ...
    @property
    def last_time_ns(self) -> int:
        """Time of the last record, since the start of the process."""
    @property
    def epochs(self) -> int: ...
    @property
    def end(self) -> tuple[str, int, str] | None:
        """(kind, code, message) of the end record, as in `Outcome`; None if there is none."""
    @property
    def incomplete_from(self) -> int | None:
        """First sequence number that was not recorded (`--on-log-full continue`)."""

def log_info(log: str | LogSource) -> LogInfo:
    """Summary of a log from its block headers and end, without decoding payloads."""

@final
class LogCheck:
    """What a log was found to be when all of it was read."""

    @property
    def records(self) -> int:
        """Records that can be read."""
    @property
    def segments(self) -> int: ...
    @property
    def bytes(self) -> int: ...
    @property
    def gaps(self) -> list[tuple[int, int | None, str]]:
        """As `LogReader.gaps`."""
    @property
    def incomplete_from(self) -> int | None:
        """As `LogInfo.incomplete_from`."""

def verify_log(log: str | LogSource, progress: Callable[[int, int], object] | None = None) -> LogCheck:
    """Reads all of a log, which may take a while: `progress` is told how many bytes of how many are done."""

@final
class LogReader:
    """Reads records as prepared text or output, in batches, also from a log that is still being written."""

    def __new__(
        cls, log: str | LogSource, trees: Sequence[str | None] = ..., *, skip_damaged: bool = False
    ) -> LogReader:
        """`trees` as in `ReplaySpec`; without them, traces show where bytes were, and not the bytes.

        With `skip_damaged`, what can't be read is left out and `gaps` tells of it; else reading ends there.
        """
    def seek_seq(self, seq: int) -> None: ...
    def seek_time(self, time_ns: int) -> None: ...
    def seek_unix_time(self, unix_ns: int) -> None:
        """To the first record of that time of the day or later: resumed processes have gaps there."""
    def clock(self) -> list[tuple[int, int]]:
        """For each epoch the time of its first record since the start of the process, and the Unix time of time 0."""
    def time_at(self, unix_ns: int) -> int:
        """Since the start of the process, for a time of the day; within a gap, the time of the resumption."""
    def trace(
        self,
        records_max: int,
        *,
        json: bool = False,
        string_bytes_max: int = 32,
        timestamps: Literal["none", "relative", "absolute"] = "relative",
        calls: Sequence[str] | None = None,
        until_time_ns: int | None = None,
    ) -> list[str]:
        """The next records as strace-like lines (or JSON lines); empty at the end of what is there now.

        `calls` limits to these names; none or empty means all. Absolute times are RFC 3339, UTC.
        """
    def output(self, bytes_max: int) -> list[tuple[int, int, bytes]]:
        """What the guest wrote to its standard streams next: (time_ns, stream 1 or 2, bytes); empty at the end."""
    @property
    def ended(self) -> bool:
        """Whether the record of the process's end was passed."""
    @property
    def gaps(self) -> list[tuple[int, int | None, str]]:
        """What was left out so far: number of the first record, of the first one behind (None: there is none that can
        be read), and what is wrong."""

@final
class TrafficReader:
    """What a log's connections carried, as text in UTF-8, in batches; also of a log that is still being written."""

    def __new__(cls, log: str | LogSource, query: TrafficQuery) -> TrafficReader:
        """Raises LogError, and ValueError for a query that makes no sense."""
    def read(self, bytes_max: int) -> bytes | None:
        """What comes next, about `bytes_max` bytes of it at most; it may be empty.

        None at the end of what there is now. Raises LogDamagedError once all before the damage was returned.
        """
    def finish(self) -> bytes:
        """What is unfinished, as it is: nothing more will be read."""
    @property
    def ended(self) -> bool:
        """Whether the record of the process's end was passed."""
    @property
    def is_over(self) -> bool:
        """Whether the query's end was passed: more records make no difference."""
    @property
    def notes(self) -> list[str]:
        """What the user should know of what isn't shown, a sentence each."""
