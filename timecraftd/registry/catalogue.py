"""The catalogue of processes and modules, in SQLite."""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from typing import Any

from timecraftd.errors import (
    AmbiguousIdError,
    NotFoundError,
    StateBusyError,
    StateError,
    StateFullError,
    StateVersionError,
)
from timecraftd.labels import decode_labels, encode_labels
from timecraftd.model import (
    DIGEST_SHORT,
    PREFIX_MIN,
    PROCESS_ID_SHORT,
    Digest,
    ModuleRecord,
    ProcessId,
    ProcessRecord,
    ProcessState,
    is_process_id,
    new_process_id,
)

SCHEMA_VERSION = 2
BUSY_TIMEOUT_S = 10.0
CANDIDATES_MAX = 8
_WAL_RETRY_S = 0.005
_SERIALIZED = 3
"""SQLite's threading mode in which threads may share a connection (PEP 249's `threadsafety`)."""

_MIGRATIONS = {
    0: """
CREATE TABLE processes (
    id TEXT PRIMARY KEY, name TEXT NOT NULL, module TEXT NOT NULL, module_name TEXT NOT NULL,
    config TEXT NOT NULL, runtime TEXT NOT NULL, state TEXT NOT NULL,
    created_ns INTEGER NOT NULL, started_ns INTEGER NOT NULL, ended_ns INTEGER, exit_code INTEGER,
    message TEXT NOT NULL, pid INTEGER NOT NULL, boot_id TEXT NOT NULL, recorded INTEGER NOT NULL,
    epoch INTEGER NOT NULL, log_bytes INTEGER NOT NULL, last_seq INTEGER, restart_of TEXT NOT NULL,
    imported INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX processes_name ON processes (name) WHERE name <> '';
CREATE INDEX processes_running ON processes (state) WHERE state = 'running';
CREATE TABLE modules (
    digest TEXT PRIMARY KEY, name TEXT NOT NULL, size_bytes INTEGER NOT NULL,
    memory_min_bytes INTEGER NOT NULL, created_ns INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
""",
    1: "ALTER TABLE processes ADD COLUMN labels TEXT NOT NULL DEFAULT '[]';",
}
"""Schema version to what brings it to the next one."""

_COLUMNS = tuple(item.name for item in fields(ProcessRecord))
_MODULE_COLUMNS = tuple(item.name for item in fields(ModuleRecord))


class Catalogue:
    """One row per process and per module. Several processes of the host may have it open."""

    def __init__(self, path: str, *, busy_timeout_s: float = BUSY_TIMEOUT_S) -> None:
        """Opens or creates the catalogue. Raises StateError, StateVersionError, StateBusyError."""
        self._path = path
        self._busy_timeout_s = busy_timeout_s
        self._lock = threading.RLock()
        with self._errors():
            self._db = sqlite3.connect(
                path, timeout=busy_timeout_s, isolation_level=None, check_same_thread=sqlite3.threadsafety < _SERIALIZED
            )
            try:
                version = self._version()
                if version < SCHEMA_VERSION:
                    self._migrate()
                elif version > SCHEMA_VERSION:
                    raise StateVersionError(
                        f"catalogue {path}: has schema {version}, this Timecraft knows {SCHEMA_VERSION}",
                        "use the newer Timecraft, or set TIMECRAFT_HOME to another directory",
                    )
                # With a write-ahead log, NORMAL can lose the last commits when the power fails, never consistency:
                # a row that is behind its log is put right by recovery.
                self._db.execute("PRAGMA synchronous = NORMAL")
            except BaseException:
                self._db.close()
                raise

    def close(self) -> None:
        """Closes the database, once no other thread uses it."""
        with self._lock:
            self._db.close()

    def insert(self, process: ProcessRecord) -> None:
        """Adds a process. Raises StateError if the id is taken."""
        self._insert("INSERT", process)

    def insert_new(self, process: ProcessRecord) -> bool:
        """Adds a process unless it is there; whether it wasn't."""
        return self._insert("INSERT OR IGNORE", process)

    def _insert(self, how: str, process: ProcessRecord) -> bool:
        marks = ", ".join("?" * len(_COLUMNS))
        with self._errors():
            done = self._db.execute(
                f"{how} INTO processes ({', '.join(_COLUMNS)}) VALUES ({marks})",
                [_stored(getattr(process, column)) for column in _COLUMNS],
            )
        return done.rowcount > 0

    def update(self, process_id: ProcessId, **changes: object) -> None:
        """Changes columns of one process."""
        unknown = set(changes) - set(_COLUMNS)
        assert not unknown, unknown
        assignments = ", ".join(f"{column} = ?" for column in changes)
        with self._errors():
            self._db.execute(
                f"UPDATE processes SET {assignments} WHERE id = ?",  # noqa: S608
                [*map(_stored, changes.values()), process_id],
            )

    def delete(self, process_id: ProcessId) -> None:
        """Removes a process's row, if there is one."""
        with self._errors():
            self._db.execute("DELETE FROM processes WHERE id = ?", (process_id,))

    def get(self, process_id: ProcessId) -> ProcessRecord:
        """A process by its whole id. Raises NotFoundError."""
        found = self._select("WHERE id = ?", (process_id,))
        if not found:
            raise _unknown("process", process_id, [])
        return found[0]

    def processes(self, *, running_only: bool = False) -> list[ProcessRecord]:
        """Processes, newest first."""
        return self._select("WHERE state = 'running' ORDER BY id DESC" if running_only else "ORDER BY id DESC", ())

    def created_since(self, unix_ns: int) -> list[ProcessRecord]:
        """Processes that are no older, by their ids, oldest first."""
        return self._select("WHERE id >= ? ORDER BY id", (new_process_id(unix_ns, bytes(10)),))

    def counts(self) -> dict[str, int]:
        """How many processes there are of each state that occurs."""
        with self._errors():
            return dict(self._db.execute("SELECT state, COUNT(*) FROM processes GROUP BY state").fetchall())

    def resolve(self, reference: str) -> ProcessRecord:
        """A process by id, by name (the newest of that name), or by a unique prefix of its id.

        Raises NotFoundError, AmbiguousIdError.
        """
        lowered = reference.lower()
        if is_process_id(lowered):
            return self.get(ProcessId(lowered))
        named = self._select("WHERE name = ? AND name <> '' ORDER BY id DESC LIMIT 1", (reference,))
        if named:
            return named[0]
        found = []
        if len(reference) >= PREFIX_MIN and _is_prefix(lowered):
            found = self._select(
                "WHERE id >= ? AND id < ? ORDER BY id LIMIT ?", (lowered, lowered + "~", CANDIDATES_MAX + 1)
            )
        if len(found) == 1:
            return found[0]
        if found:
            names = [f"{process.id} ({process.module_name})" for process in found[:CANDIDATES_MAX]]
            raise ambiguous("process", reference, names, more=len(found) > CANDIDATES_MAX)
        raise _unknown("process", reference, self._process_hints(reference))

    def short_id(self, process_id: ProcessId) -> str:
        """The shortest prefix, of at least PROCESS_ID_SHORT characters, that names this process alone."""
        with self._errors():
            neighbours = self._db.execute(
                "SELECT (SELECT max(id) FROM processes WHERE id < ?1), (SELECT min(id) FROM processes WHERE id > ?1)",
                (process_id,),
            ).fetchone()
        length = PROCESS_ID_SHORT
        for neighbour in neighbours:
            while neighbour is not None and neighbour[:length] == process_id[:length]:
                length += 1
        return process_id[:length].rstrip("-") if length == PROCESS_ID_SHORT else process_id[:length]

    def references(self, without: Collection[ProcessId] = ()) -> set[Digest]:
        """Digests of all objects that some process, but those left out, refers to."""
        with self._errors():
            rows = self._db.execute("SELECT id, module, config, runtime FROM processes").fetchall()
        return {Digest(digest) for process_id, *digests in rows if process_id not in without for digest in digests}

    def put_module(self, module: ModuleRecord) -> None:
        """Adds a module, or renews its name."""
        marks = ", ".join("?" * len(_MODULE_COLUMNS))
        with self._errors():
            self._db.execute(
                f"INSERT INTO modules ({', '.join(_MODULE_COLUMNS)}) VALUES ({marks}) "  # noqa: S608
                "ON CONFLICT (digest) DO UPDATE SET name = excluded.name WHERE name <> excluded.name",
                [getattr(module, column) for column in _MODULE_COLUMNS],
            )

    def module(self, digest: Digest) -> ModuleRecord | None:
        """What is known of a module."""
        with self._errors():
            row = self._db.execute(
                f"SELECT {', '.join(_MODULE_COLUMNS)} FROM modules WHERE digest = ?",  # noqa: S608
                (digest,),
            ).fetchone()
        return ModuleRecord(*row) if row else None

    def delete_module(self, digest: Digest) -> None:
        """Removes a module's row, if there is one."""
        with self._errors():
            self._db.execute("DELETE FROM modules WHERE digest = ?", (digest,))

    def _select(self, rest: str, parameters: Iterable[object]) -> list[ProcessRecord]:
        with self._errors():
            rows = self._db.execute(
                f"SELECT {', '.join(_COLUMNS)} FROM processes {rest}",  # noqa: S608
                tuple(parameters),
            ).fetchall()
        return [_record(row) for row in rows]

    def _process_hints(self, reference: str) -> list[str]:
        from difflib import get_close_matches

        names = {process.name for process in self.processes() if process.name}
        close = get_close_matches(reference, names, n=3)
        if not close and len(reference) >= PREFIX_MIN and _is_prefix(reference.lower()):
            shortened = self._select("WHERE id LIKE ? ORDER BY id DESC LIMIT 3", (reference.lower()[:-1] + "%",))
            close = [process.id for process in shortened]
        return close

    def _version(self) -> int:
        return int(self._db.execute("PRAGMA user_version").fetchone()[0])

    def _migrate(self) -> None:
        self._enter_wal()
        self._db.execute("BEGIN IMMEDIATE")
        try:
            version = self._version()  # another process may have been faster
            while version < SCHEMA_VERSION:
                for statement in _MIGRATIONS[version].split(";"):
                    self._db.execute(statement)
                version += 1
            self._db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
            self._db.execute("COMMIT")
        except BaseException:
            self._db.execute("ROLLBACK")
            raise

    def _enter_wal(self) -> None:
        # Of two connections that enter WAL mode at once SQLite refuses one without regard to its timeout: each
        # would wait for the other's read lock. Asking again begins without that lock.
        deadline = time.monotonic() + self._busy_timeout_s
        while True:
            try:
                self._db.execute("PRAGMA journal_mode = WAL")
            except sqlite3.OperationalError as error:
                if error.sqlite_errorname != "SQLITE_BUSY" or time.monotonic() >= deadline:
                    raise
                time.sleep(_WAL_RETRY_S)
            else:
                return

    @contextmanager
    def _errors(self) -> Iterator[None]:
        # Threads take turns: a write while another thread of the same connection reads is refused, without regard to
        # the timeout, if another process has written since that reading began (SQLITE_BUSY_SNAPSHOT).
        try:
            with self._lock:
                yield
        except sqlite3.Error as error:
            code = getattr(error, "sqlite_errorname", "") or ""
            if code.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
                raise StateBusyError(
                    f"catalogue {self._path}: another process keeps it locked", "try again, or end that process"
                ) from error
            if code.startswith("SQLITE_FULL"):
                next_step = "free space, for example with `timecraft rm` or `timecraft prune`"
                raise StateFullError(f"catalogue {self._path}: {error}", next_step) from error
            raise StateError(f"catalogue {self._path}: {error}", "set TIMECRAFT_HOME to another directory") from error


def resolve_digest(kind: str, reference: str, digests: Iterable[Digest], names: dict[str, Digest]) -> Digest:
    """An object by digest, by a unique prefix of it, or by name. Raises NotFoundError, AmbiguousIdError."""
    if reference in names:
        return names[reference]
    lowered = reference.lower().removeprefix("sha256:")
    found = [digest for digest in digests if digest.startswith(lowered)] if len(lowered) >= PREFIX_MIN else []
    if len(found) == 1:
        return found[0]
    if found:
        raise ambiguous(kind, reference, found[:CANDIDATES_MAX], more=len(found) > CANDIDATES_MAX)
    from difflib import get_close_matches

    raise _unknown(kind, reference, get_close_matches(reference, names, n=3))


def short_digest(digest: str) -> str:
    """A digest as tables show it."""
    return digest[:DIGEST_SHORT]


def _is_prefix(text: str) -> bool:
    return all(letter in "0123456789abcdef-" for letter in text)


def ambiguous(kind: str, reference: str, candidates: Iterable[str], *, more: bool) -> AmbiguousIdError:
    """The error that a shortened id or a name fits several things, of which some are named."""
    listed = ", ".join(candidates) + (", ..." if more else "")
    return AmbiguousIdError(f"{kind} {reference!r}: fits several: {listed}", "give more of the id")


def _unknown(kind: str, reference: str, hints: Iterable[str]) -> NotFoundError:
    listed = ", ".join(hints)
    if listed:
        next_step = f"did you mean {listed}?"
    else:
        next_step = "`timecraft ps -a` lists all" if kind == "process" else f"`timecraft get {kind}` lists all"
        if len(reference) < PREFIX_MIN:
            next_step = f"a shortened id has at least {PREFIX_MIN} characters; {next_step}"
    return NotFoundError(f"{kind} {reference!r}: there is no such {kind}", next_step)


def _stored(value: object) -> object:
    if isinstance(value, tuple):
        return encode_labels(value)
    return int(value) if isinstance(value, bool) else str(value) if isinstance(value, ProcessState) else value


def _record(row: Any) -> ProcessRecord:
    values = dict(zip(_COLUMNS, row, strict=True))
    values["state"] = ProcessState(values["state"])
    values["recorded"], values["imported"] = bool(values["recorded"]), bool(values["imported"])
    values["labels"] = decode_labels(json.loads(values["labels"]))
    return ProcessRecord(**values)
