"""SQLite in memory and on mounted files: locks between connections, WAL, full-text search, a rollback."""

import os
import sqlite3
import sys
from contextlib import closing

FOLDER = sys.argv[1]

with closing(sqlite3.connect(":memory:")) as db:
    db.execute("create virtual table text using fts5(body)")
    db.executemany("insert into text values (?)", [("the quick fox",), ("a slow snail",)])
    assert db.execute("select body from text where text match 'quick'").fetchall() == [("the quick fox",)]
    assert db.execute("select sqrt(16)").fetchone() == (4.0,)

for mode in ("delete", "wal"):
    path = os.path.join(FOLDER, f"{mode}.db")
    with closing(sqlite3.connect(path, timeout=0)) as one, closing(sqlite3.connect(path, timeout=0)) as two:
        assert one.execute(f"pragma journal_mode={mode}").fetchone() == (mode,)
        one.execute("create table t (n)")
        one.executemany("insert into t values (?)", [(n,) for n in range(1000)])
        one.commit()
        one.execute("insert into t values (-1)")
        try:
            two.execute("insert into t values (-2)")
        except sqlite3.OperationalError as error:
            print(mode, error)
        assert two.execute("select count(*) from t").fetchone() == (1000,)
        one.rollback()
        two.execute("delete from t where n >= 500")
        two.commit()
        assert one.execute("select count(*), sum(n) from t").fetchone() == (500, 124750)
        assert one.execute("pragma integrity_check").fetchone() == ("ok",)
    assert sorted(os.listdir(FOLDER)) == [f"{mode}.db"]
    with closing(sqlite3.connect(f"file:{path}?vfs=unix-dotfile", uri=True)) as db:
        if mode == "delete":
            assert db.execute("select count(*) from t").fetchone() == (500,)
    os.remove(path)
print("ok")
