"""What a node has been asked for, in SQLite: it outlives the control process."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from timecraftd.errors import StateError, StateVersionError, UsageError
from timecraftd.model import ProcessId
from timecraftd.supervisor.restarts import RestartPolicy, parse_restart

SCHEMA_VERSION = 2
ANSWERS_AGE_NS_MAX = 24 * 3600 * 10**9
"""How long the answer to a request with an idempotency key is kept."""
ANSWERS_MAX = 100_000
KEY_CHARS_MAX = 128
_SCHEMA = """
CREATE TABLE submissions (
    process TEXT PRIMARY KEY, restart TEXT NOT NULL, restarts INTEGER NOT NULL, isolated INTEGER NOT NULL,
    owner TEXT NOT NULL, wanted INTEGER NOT NULL, checkpointed INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX submissions_wanted ON submissions (wanted) WHERE wanted = 1;
CREATE TABLE answers (
    owner TEXT NOT NULL, key TEXT NOT NULL, request TEXT NOT NULL, answer BLOB NOT NULL, at_ns INTEGER NOT NULL,
    PRIMARY KEY (owner, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX answers_age ON answers (at_ns);
"""


@dataclass(frozen=True, slots=True)
class Submission:
    """A process that the node looks after."""

    process: ProcessId
    restart: RestartPolicy
    owner: str = ""
    isolated: bool = False
    restarts: int = 0
    """Starts since the last healthy run."""
    wanted: bool = True
    """False once its end is final."""
    checkpointed: bool = False
    """Left by a node that was stopped, to be resumed by the next."""


class Journal:
    """Submissions and answers. One control process has it open; its methods may be called from any thread."""

    def __init__(self, path: str) -> None:
        """Opens or creates it. Raises StateError, StateVersionError."""
        self._path = path
        self._lock = threading.RLock()
        with self._errors():
            self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            version = int(self._db.execute("PRAGMA user_version").fetchone()[0])
            if version > SCHEMA_VERSION:
                raise StateVersionError(
                    f"{path}: has schema {version}, this Timecraft knows {SCHEMA_VERSION}", "use the newer Timecraft"
                )
            self._db.execute("PRAGMA journal_mode = WAL")
            # As in the catalogue: when the power fails the last requests may be lost, with the rows of their processes.
            self._db.execute("PRAGMA synchronous = NORMAL")
            if version == 0:
                self._db.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;")
            elif version == 1:
                drop = "ALTER TABLE submissions DROP COLUMN secrets;"  # the process's config names them
                self._db.executescript(f"BEGIN; {drop} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;")

    def close(self) -> None:
        """Closes it."""
        self._db.close()

    def put(self, submission: Submission) -> None:
        """Adds a submission, or replaces it."""
        with self._errors():
            self._db.execute(
                "INSERT OR REPLACE INTO submissions VALUES (?, ?, ?, ?, ?, ?, ?)",
                (
                    submission.process,
                    str(submission.restart),
                    submission.restarts,
                    submission.isolated,
                    submission.owner,
                    submission.wanted,
                    submission.checkpointed,
                ),
            )

    def get(self, process: ProcessId) -> Submission | None:
        """The submission of a process, None if the node doesn't look after it."""
        with self._errors():
            row = self._db.execute("SELECT * FROM submissions WHERE process = ?", (process,)).fetchone()
        return None if row is None else _submission(row)

    def wanted(self) -> list[Submission]:
        """Those whose end isn't final, oldest first."""
        with self._errors():
            rows = self._db.execute("SELECT * FROM submissions WHERE wanted = 1 ORDER BY process").fetchall()
        return [_submission(row) for row in rows]

    def settle(self, process: ProcessId) -> None:
        """The end of a process is final."""
        with self._errors():
            self._db.execute("UPDATE submissions SET wanted = 0 WHERE process = ? AND wanted = 1", (process,))

    def delete(self, process: ProcessId) -> None:
        """Forgets a process."""
        with self._errors():
            self._db.execute("DELETE FROM submissions WHERE process = ?", (process,))

    # ---- answers

    def answer(self, owner: str, key: str, request: str) -> bytes | None:
        """What a request with this key was answered. Raises UsageError if that was another request."""
        if len(key) > KEY_CHARS_MAX:
            raise UsageError(f"idempotency key: has {len(key)} characters, {KEY_CHARS_MAX} are taken", "use a UUID")
        with self._errors():
            row = self._db.execute(
                "SELECT request, answer FROM answers WHERE owner = ? AND key = ?", (owner, key)
            ).fetchone()
        if row is None:
            return None
        if row[0] != request:
            raise UsageError(f"idempotency key {key!r}: was used for another request", "use a new key for each request")
        return bytes(row[1])

    def remember(self, owner: str, key: str, request: str, answer: bytes, now_ns: int) -> None:
        """Keeps an answer for a day; the oldest go when there are too many."""
        with self._errors():
            self._db.execute(
                "INSERT OR REPLACE INTO answers VALUES (?, ?, ?, ?, ?)", (owner, key, request, answer, now_ns)
            )
            self._db.execute("DELETE FROM answers WHERE at_ns < ?", (now_ns - ANSWERS_AGE_NS_MAX,))
            self._db.execute(
                "DELETE FROM answers WHERE at_ns < (SELECT at_ns FROM answers ORDER BY at_ns DESC LIMIT 1 OFFSET ?)",
                (ANSWERS_MAX,),
            )

    def forget(self, owner: str, key: str) -> None:
        """Drops an answer: what it told didn't come about."""
        with self._errors():
            self._db.execute("DELETE FROM answers WHERE owner = ? AND key = ?", (owner, key))

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            with self._lock:
                yield
        except sqlite3.Error as error:
            raise StateError(f"journal {self._path}: {error}", "free space, or move the file away") from error


def _submission(row: tuple[object, ...]) -> Submission:
    process, restart, restarts, isolated, owner, wanted, checkpointed = row
    return Submission(
        process=ProcessId(str(process)),
        restart=parse_restart(str(restart), "journal"),
        owner=str(owner),
        isolated=bool(isolated),
        restarts=int(str(restarts)),
        wanted=bool(wanted),
        checkpointed=bool(checkpointed),
    )
