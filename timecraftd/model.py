"""Value types that all layers share. Nothing here does I/O; clocks and randomness come in as arguments."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NewType, Protocol

from timecraftd.errors import ProcessStateError
from timecraftd.labels import HOLD, Labels

ProcessId = NewType("ProcessId", str)
"""UUID in its usual text form; ids of later processes sort later (the layout of UUIDv7)."""
Digest = NewType("Digest", str)
"""SHA-256 in lower-case hex."""
ModuleDigest = Digest

PROCESS_ID_SHORT = 13
"""Characters of a process id that hold its time to the millisecond; enough to tell processes apart in practice."""
DIGEST_SHORT = 12
PREFIX_MIN = 4
"""Shortest prefix of an id that is looked up."""

_PROCESS_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,62}")


class ProcessState(StrEnum):
    """Where a process is in its life. All but `queued` and `running` are ends."""

    QUEUED = "queued"
    """It waits for room on its node; nothing of it has run."""
    RUNNING = "running"
    EXITED = "exited"
    """The guest returned or called proc_exit."""
    TRAPPED = "trapped"
    KILLED = "killed"
    """Somebody sent it a signal."""
    LIMIT = "limit"
    """It ran into one of its limits."""
    CRASHED = "crashed"
    """Its host died; the log has no end. Such a process can be resumed."""
    FAILED = "failed"
    """The runtime stopped it, because its log couldn't be written."""

    @property
    def is_alive(self) -> bool:
        """Whether something of the process is still to come."""
        return self in (ProcessState.QUEUED, ProcessState.RUNNING)


STATE_OF_END = {
    "exit": ProcessState.EXITED,
    "trap": ProcessState.TRAPPED,
    "killed": ProcessState.KILLED,
    "limit": ProcessState.LIMIT,
    "log_failed": ProcessState.FAILED,
}
"""Kind of an end, live or in a log, to the state it leads to."""


class ObjectKind(StrEnum):
    """What a content-addressed object is."""

    MODULE = "module"
    CONFIG = "config"
    RUNTIME = "runtime"
    TREE = "tree"
    """The manifest of a directory that never changes."""


@dataclass(frozen=True, slots=True)
class ProcessRecord:
    """One row of the process catalogue."""

    id: ProcessId
    name: str
    module: Digest
    module_name: str
    """Where the module came from, for people."""
    config: Digest
    runtime: Digest
    state: ProcessState
    created_ns: int
    started_ns: int
    ended_ns: int | None = None
    exit_code: int | None = None
    message: str = ""
    pid: int = 0
    """Of the host process, in the boot `boot_id`."""
    boot_id: str = ""
    recorded: bool = True
    epoch: int = 0
    """How often it was resumed."""
    log_bytes: int = 0
    last_seq: int | None = None
    restart_of: str = ""
    """Id of the process that this one replaced under a restart policy."""
    imported: bool = False
    """Taken in from an export: what it was granted was somebody else's decision."""
    labels: Labels = ()

    @property
    def held(self) -> str | None:
        """Why it isn't to be removed; None if it may be."""
        return dict(self.labels).get(HOLD)


def require_unheld(process: ProcessRecord) -> None:
    """Raises ProcessStateError for a process that isn't to be removed."""
    if process.held is not None:
        reason = f"is held: {process.held}" if process.held else "is held"
        raise ProcessStateError(f"process {process.id}: {reason}", f"`timecraft label {process.id} {HOLD}-` ends that")


@dataclass(frozen=True, slots=True)
class ModuleRecord:
    """What is known of a stored module."""

    digest: Digest
    name: str
    size_bytes: int
    memory_min_bytes: int
    created_ns: int


@dataclass(frozen=True, slots=True)
class ModuleFile:
    """A module in a file that never changes: it is only read if the store lacks it."""

    path: str
    digest: Digest


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """A stored object, without its bytes."""

    kind: ObjectKind
    digest: Digest
    size_bytes: int
    modified_ns: int


class SegmentStore(Protocol):
    """A log's sealed segments that are stored elsewhere. Threads of the extension call it."""

    def segments(self) -> Sequence[object]:
        """Those that are there, by number; none if there is no such log. Raises RemoteError, LogDamagedError."""

    def fetch(self, number: int, offset: int, length: int) -> bytes:
        """Bytes of a segment. Raises RemoteError."""

    def name(self, number: int) -> str:
        """What a segment is called in messages."""


@dataclass(frozen=True, slots=True)
class LogSource:
    """Where a log is. Read by name in `crates/timecraft-py/src/source.rs`."""

    dir: str
    """Files in it go before what is stored."""
    process_id: str
    store: SegmentStore | None = None
    """Where those segments are that the directory lacks; not asked while it lacks none."""
    next_seq: int | None = None
    """Sequence number behind the last record, if known: without it a log whose end is missing is a shorter one."""


def new_process_id(unix_ns: int, random: bytes) -> ProcessId:
    """A UUIDv7 of a time and ten random bytes."""
    if len(random) != 10:
        raise ValueError("ten random bytes are needed")
    unix_ms = unix_ns // 1_000_000 & (1 << 48) - 1
    bits = unix_ms << 80 | int.from_bytes(random, "big")
    bits = bits & ~(0xF << 76) | 0x7 << 76
    bits = bits & ~(0x3 << 62) | 0x2 << 62
    text = f"{bits:032x}"
    return ProcessId(f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}")


def is_process_id(text: str) -> bool:
    """Whether the text is a whole process id."""
    return _PROCESS_ID.fullmatch(text) is not None


def is_digest(text: str) -> bool:
    """Whether the text is a whole digest."""
    return _DIGEST.fullmatch(text) is not None


def is_name(text: str) -> bool:
    """Whether the text may name a process."""
    return _NAME.fullmatch(text) is not None and not is_process_id(text)
