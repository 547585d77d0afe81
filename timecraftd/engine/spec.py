"""What crosses to the data plane: frozen dataclasses, read by name in `crates/timecraft-py/src/spec.rs`."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from timecraftd._native import NetworkPort
    from timecraftd.model import LogSource

MIB = 1 << 20

Nans = Literal["canonical", "native"]
Sockets = Literal["none", "auto", "v1", "v2", "path"]
OnFull = Literal["wait", "stop", "continue"]


@dataclass(frozen=True, slots=True)
class MountSpec:
    """A host directory that the guest sees at `guest`, or `/dev/null`."""

    host: str
    """Empty: a directory of the process's own, which is empty at its start and removed at its end."""
    guest: str
    read_only: bool = False
    tree: str | None = None
    """Digest, for an immutable mount: what is read from it is not copied into the log. Empty: of what `host` holds when
    the run is started."""

    @property
    def is_null(self) -> bool:
        """Whether it is the null device, which reaches nothing, and no directory."""
        return self.host == os.devnull and self.tree is None


@dataclass(frozen=True, slots=True)
class SocketSpec:
    """A TCP socket that the guest finds open. Addresses are (IP address as text, port), as the guest sees them."""

    fd: int
    """Host descriptor of the socket: duplicated and made non-blocking, never closed. -1 for a connection that has died
    with the process that is resumed."""
    address: str
    """What the user calls it, as in `tcp://127.0.0.1:80`."""
    local: tuple[str, int]
    peer: tuple[str, int] | None = None
    """None for a listener."""


@dataclass(frozen=True, slots=True)
class LimitSpec:
    """Bounds of one process; None: no bound. Units are in the names."""

    memory_bytes: int = 4096 * MIB
    stack_bytes: int = 8 * MIB
    open_files: int = 1024
    """Open descriptors, sockets included."""
    sockets: int = 1024
    disk_bytes: int | None = None
    cpu_ns: int | None = None
    wall_ns: int | None = None
    log_bytes_per_s: int | None = None


@dataclass(frozen=True, slots=True)
class LogSpec:
    """Where and how a run is recorded."""

    dir: str
    process_id: str
    """UUID."""
    manifest: bytes
    """JSON: digests of module, config and runtime; goes into the first record of each epoch."""
    epoch: int = 0
    """0 for a new process; each resumption is one more."""
    ring_path: str | None = None
    ring_bytes: int = 8 * MIB
    block_bytes_max: int = 64 << 10
    segment_bytes_max: int = 64 * MIB
    seal_age_ns: int | None = None
    """A segment with records in it is sealed when it is so old; None: by size only."""
    compression: Literal["none", "lz4"] = "lz4"
    output: Literal["inline", "digest"] = "inline"
    on_full: OnFull = "stop"
    wait_ns_max: int | None = None
    """How long `wait` waits for the disk; None: as long as it takes."""
    log_bytes_max: int | None = None
    durability: Literal["flush", "sync"] = "flush"
    """`sync`: all that came before an output of the guest is on the disk before the output is made."""
    flush_ns: int = 100_000_000
    """What happened longer ago than this is on the disk."""


@dataclass(frozen=True, slots=True)
class ModuleSpec:
    """A module, and where its machine code is cached."""

    path: str
    """File with the wasm bytes."""
    digest: str
    """SHA-256, hex."""
    artifact_dir: str
    artifact_bytes_max: int = 1024 * MIB
    function: str | None = None
    """Exported function to call; None means `_start`."""
    nans: Nans = "canonical"
    """What arithmetic makes of NaNs: `native` is faster, and binds the log to this engine and kind of processor."""
    sockets: Sockets = "auto"
    """Which version of the WasmEdge socket calls the guest may import; `auto` takes what it imports. `path`: none, but
    the paths `/dev/tcp/HOST/PORT` and their like are sockets."""


@dataclass(frozen=True, slots=True)
class RunSpec:
    """One live run."""

    module: ModuleSpec
    args: tuple[bytes, ...] = ()
    env: tuple[bytes, ...] = ()
    """`K=V`."""
    mounts: tuple[MountSpec, ...] = ()
    stdin_fd: int | None = None
    """Host descriptors of the standard streams; None is /dev/null. They are duplicated, never closed."""
    stdout_fd: int | None = None
    stderr_fd: int | None = None
    limits: LimitSpec = LimitSpec()
    log: LogSpec | None = None
    """None: not recorded."""
    network: NetworkPort | None = None
    """Who answers for the world's network; it serves this run only. None: nothing but the guest's own loopback."""
    listeners: tuple[SocketSpec, ...] = ()
    """Sockets that listen: descriptors 3 and up, behind those of `mounts`. A resumed process needs as many as it began
    with, which may be other sockets."""
    dials: tuple[SocketSpec, ...] = ()
    """Connected sockets: descriptors behind those of `listeners`. A resumed process needs as many; they are dead
    (ECONNRESET). This order, and that all these descriptors have `nonblock` set, is the original Timecraft's."""
    trace_fd: int | None = None
    """Descriptor that gets strace-like lines while the guest runs."""
    chaos_ratio: float = 0.0
    chaos_seed: int = 0
    memory_digest: bool = False


@dataclass(frozen=True, slots=True)
class ReplaySpec:
    """One replay."""

    module: ModuleSpec
    log: str | LogSource
    """A directory, or where else the log's segments are."""
    trees: tuple[str | None, ...] = ()
    """For each mount of the run the directory of its tree, None if it has none."""
    limits: LimitSpec = LimitSpec()
    stdout_fd: int | None = None
    """Where the guest's recorded output goes again; None drops it."""
    stderr_fd: int | None = None
    trace_fd: int | None = None
    until_seq: int | None = None
    until_time_ns: int | None = None
    poison: bool = False
    """Fill regions with 0xAA before recorded bytes are put there (twin runs)."""
    count: bool = False
    """Use a build with a counting middleware (twin runs); `stats` then has `operators`."""
    memory_digest: bool = False


@dataclass(frozen=True, slots=True)
class ResumeSpec:
    """A process whose host died, to go on."""

    run: RunSpec
    """As for the first run; `log.dir` is the existing log."""
    scratch_dir: str
    """For temporary files that check what the guest had written."""
