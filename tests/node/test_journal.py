"""What a node was asked for, as an older one has kept it."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from timecraftd.model import ProcessId
from timecraftd.supervisor.journal import SCHEMA_VERSION, Journal, Submission
from timecraftd.supervisor.restarts import RestartPolicy

FIRST_SCHEMA = """
CREATE TABLE submissions (
    process TEXT PRIMARY KEY, restart TEXT NOT NULL, restarts INTEGER NOT NULL, isolated INTEGER NOT NULL,
    owner TEXT NOT NULL, wanted INTEGER NOT NULL, checkpointed INTEGER NOT NULL, secrets TEXT NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO submissions VALUES ('p', 'always', 2, 1, 'alice', 1, 0, '["TOKEN"]');
PRAGMA user_version = 1;
"""


def test_a_journal_of_the_first_schema_is_taken_over(tmp_path: Path):
    path = tmp_path / "journal.db"
    with sqlite3.connect(path) as db:
        db.executescript(FIRST_SCHEMA)
    db.close()
    journal = Journal(str(path))
    kept = Submission(ProcessId("p"), RestartPolicy("always"), "alice", isolated=True, restarts=2)
    assert journal.wanted() == [kept]
    journal.put(Submission(ProcessId("q"), RestartPolicy("no")))
    journal.close()
    with sqlite3.connect(path) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION,)
    db.close()
