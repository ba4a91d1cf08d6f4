"""`SqliteWorker`: what only SQLite does."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from actorpool.errors import InvalidConfig, PermanentError
from actorpool.workers import SqliteWorker

ENDLESS = "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r) SELECT count(*) FROM r"


@pytest.fixture
def file(tmp_path: Path) -> str:
    return str(tmp_path / "app.db")


@pytest.fixture
def open_worker(file: str) -> Iterator[Callable[..., SqliteWorker]]:
    made = []

    def make(database: str = file, **more: Any) -> SqliteWorker:
        worker = SqliteWorker(database, **more)
        worker.open()
        made.append(worker)
        return worker

    yield make
    for worker in made:
        worker.close()


def test_an_interrupt_meets_a_running_statement(open_worker: Any, interrupting: Any) -> None:
    worker = open_worker()
    begun = time.monotonic()
    with interrupting(0.1), pytest.raises(sqlite3.OperationalError, match="interrupted"):
        worker.execute(ENDLESS)
    assert time.monotonic() - begun < 2
    worker.reset()
    assert worker.execute("SELECT 1").scalar() == 1


def test_an_interrupt_also_meets_what_a_function_does_on_the_connection(open_worker: Any, interrupting: Any) -> None:
    worker = open_worker()
    worker.execute("CREATE TABLE t (x)")
    with interrupting(0.1), pytest.raises(sqlite3.OperationalError, match="interrupted"):
        worker.transact(lambda conn: (conn.execute("INSERT INTO t VALUES (1)"), conn.execute(ENDLESS).fetchone()))
    worker.reset()
    assert worker.execute("SELECT count(*) FROM t").scalar() == 0


def test_each_worker_in_memory_has_a_database_of_its_own(open_worker: Any) -> None:
    one, two = open_worker(":memory:"), open_worker(":memory:")
    one.execute("CREATE TABLE t (x)")
    with pytest.raises(sqlite3.OperationalError, match="no such table"):
        two.execute("SELECT * FROM t")


def test_a_database_in_memory_outlives_a_reset_that_cleans_up(open_worker: Any, file: str) -> None:
    worker = open_worker(":memory:", pragmas={"foreign_keys": True})
    worker.execute("CREATE TABLE t (x)")
    worker.execute("CREATE TEMP TABLE mine (x)")
    worker.execute("CREATE TEMP VIEW seen AS SELECT * FROM mine")
    worker.execute("CREATE TEMP TRIGGER trig AFTER INSERT ON t BEGIN INSERT INTO mine VALUES (1); END")
    worker.execute(f"ATTACH DATABASE '{file}' AS other")
    worker.execute("PRAGMA foreign_keys = 0")
    worker.reset()
    assert worker.execute("SELECT count(*) FROM sqlite_temp_master").scalar() == 0
    assert [row[1] for row in worker.execute("PRAGMA database_list")] in (["main"], ["main", "temp"])
    assert worker.execute("PRAGMA foreign_keys").scalar() == 1
    worker.execute("INSERT INTO t VALUES (1)")
    worker.execute("PRAGMA foreign_keys = 0")  # the same statement as before is noticed again
    worker.reset()
    assert worker.execute("PRAGMA foreign_keys").scalar() == 1


def test_what_a_function_changes_on_the_raw_connection_is_undone(open_worker: Any, file: str) -> None:
    worker = open_worker()

    def fn(conn: sqlite3.Connection) -> None:
        conn.execute("PRAGMA foreign_keys = 1")
        conn.execute("CREATE TEMP TABLE mine (x)")
        conn.row_factory = sqlite3.Row

    fn(worker.connection)
    worker.reset()
    assert worker.execute("PRAGMA foreign_keys").scalar() == 0
    assert worker.execute("SELECT count(*) FROM sqlite_temp_master").scalar() == 0
    assert worker.connection.row_factory is None


def test_asking_by_pragma_does_not_cost_the_connection(open_worker: Any) -> None:
    worker = open_worker()
    worker.execute("CREATE TABLE t (x)")
    worker.execute("PRAGMA table_info(t)")
    worker.execute("PRAGMA journal_mode")
    worker.reset()
    assert worker.stats()["connections_created"] == 1
    worker.execute("PRAGMA cache_size = 10")
    worker.reset()
    assert worker.stats()["connections_created"] == 2


def test_pragmas_and_configure_are_applied_to_each_connection(open_worker: Any) -> None:
    def configure(conn: sqlite3.Connection) -> None:
        conn.create_function("double", 1, lambda x: 2 * x)
        conn.row_factory = sqlite3.Row

    worker = open_worker(pragmas={"journal_mode": "wal", "foreign_keys": True}, configure=configure)
    assert worker.execute("PRAGMA journal_mode").scalar() == "wal"
    assert worker.execute("PRAGMA foreign_keys").scalar() == 1
    worker.execute("CREATE TEMP TABLE mine (x)")
    worker.reset()  # opens anew
    assert worker.execute("SELECT double(21)").rows == [(42,)]
    assert isinstance(worker.connection.execute("SELECT 1").fetchone(), sqlite3.Row)


def test_transactions_that_read_and_then_write_wait_for_each_other(open_worker: Any) -> None:
    first = open_worker()
    first.execute("CREATE TABLE account (balance)")
    first.execute("INSERT INTO account VALUES (0)")

    def deposit(conn: sqlite3.Connection) -> None:
        balance = conn.execute("SELECT balance FROM account").fetchone()[0]
        conn.execute("UPDATE account SET balance = ?", [balance + 1])

    def deposits(worker: SqliteWorker) -> None:
        for _ in range(25):
            worker.transact(deposit)

    threads = [threading.Thread(target=deposits, args=(open_worker(),)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert first.execute("SELECT balance FROM account").scalar() == 100


def test_a_read_only_transaction_refuses_writes_and_locks_nobody_out(open_worker: Any) -> None:
    reader, writer = open_worker(pragmas={"journal_mode": "wal"}), open_worker()
    writer.execute("CREATE TABLE t (x)")
    reader.begin(read_only=True)
    assert reader.execute("SELECT count(*) FROM t").scalar() == 0
    writer.execute("INSERT INTO t VALUES (1)")
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        reader.execute("INSERT INTO t VALUES (2)")
    reader.commit()
    reader.execute("INSERT INTO t VALUES (2)")
    reader.begin(read_only=True)
    reader.reset()
    reader.execute("INSERT INTO t VALUES (3)")
    assert reader.stats()["connections_created"] == 1
    assert writer.execute("SELECT count(*) FROM t").scalar() == 3


def test_begin_takes_a_mode(open_worker: Any) -> None:
    one, two = open_worker(timeout=0.05), open_worker(timeout=0.05)
    one.execute("CREATE TABLE t (x)")
    one.begin()
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        two.begin()
    two.begin(mode="deferred")
    assert two.execute("SELECT count(*) FROM t").scalar() == 0
    two.rollback()
    one.rollback()
    with pytest.raises(ValueError, match="mode must be one of"):
        one.begin(mode="sometimes")


def test_the_statement_cache_is_counted_bounded_and_cleared(open_worker: Any) -> None:
    worker = open_worker(cached_statements=2)
    for query in ("SELECT 1", "SELECT 2", "SELECT 1", "SELECT 3", "SELECT 2"):
        worker.execute(query)
    stats = worker.stats()
    assert (stats["cache_hits"], stats["cache_misses"], stats["cache_size"]) == (1, 4, 2)
    worker.clear_cache()
    worker.execute("SELECT 2")
    assert worker.stats()["cache_misses"] == 5


def test_a_closed_connection_is_a_disconnect_and_other_misuse_is_not(open_worker: Any) -> None:
    worker = open_worker()
    with pytest.raises(sqlite3.ProgrammingError) as misuse:
        worker.execute("SELECT ?", [1, 2])
    assert not worker.is_disconnect(misuse.value)
    worker.connection.close()
    with pytest.raises(sqlite3.ProgrammingError) as closed:
        worker.execute("SELECT 1")
    assert worker.is_disconnect(closed.value)


def put_back(file: str, label: str) -> None:
    """Put another database into the place of that file, as a restored backup."""
    with closing(sqlite3.connect(f"{file}.new")) as conn:
        conn.execute("CREATE TABLE t (x)")
        conn.execute("INSERT INTO t VALUES (?)", [label])
        conn.commit()
    os.replace(f"{file}.new", file)


@pytest.mark.parametrize("journal_mode", ["delete", "wal"])
def test_a_file_that_was_replaced_is_noticed_before_the_next_lease(
    open_worker: Any, file: str, journal_mode: str
) -> None:
    put_back(file, "old")
    worker = open_worker(pragmas={"journal_mode": journal_mode})
    assert worker.execute("SELECT x FROM t").scalar() == "old"
    assert not worker.needs_check()
    put_back(file, "new")
    assert worker.needs_check()
    with pytest.raises(sqlite3.OperationalError, match="was deleted or replaced"):
        worker.check()
    worker.close()
    worker.open()
    worker.check()
    assert worker.execute("SELECT x FROM t").scalar() == "new"


def test_a_statement_that_meets_a_deleted_file_counts_as_a_lost_connection(open_worker: Any, file: str) -> None:
    worker = open_worker()
    worker.execute("CREATE TABLE t (x UNIQUE)")
    worker.execute("INSERT INTO t VALUES (1)")
    with pytest.raises(sqlite3.IntegrityError) as statement:
        worker.execute("INSERT INTO t VALUES (1)")
    assert not worker.is_disconnect(statement.value)
    os.unlink(file)
    with pytest.raises(sqlite3.OperationalError, match="readonly") as gone:
        worker.execute("INSERT INTO t VALUES (2)")
    assert worker.is_disconnect(gone.value)
    assert not worker.is_disconnect(ValueError("of the caller's own"))


def test_a_pool_goes_on_with_a_file_that_was_replaced_or_deleted(file: str, system: Any) -> None:
    put_back(file, "old")
    db = system.start_pool("files", worker=SqliteWorker, worker_args={"database": file}, size=2, max_overflow=0)
    for label in ("first", "second"):
        assert db.execute("SELECT count(*) FROM t").scalar() == 1
        put_back(file, label)
        for _ in range(4):
            assert db.execute("SELECT x FROM t").scalar() == label
            db.execute("UPDATE t SET x = x")
    os.unlink(file)
    db.execute("CREATE TABLE anew (x)")
    assert db.execute("SELECT count(*) FROM anew").scalar() == 0


def test_a_missing_directory_is_said_for_good(tmp_path: Path) -> None:
    with pytest.raises(PermanentError, match=r"no directory .*; create it"):
        SqliteWorker(str(tmp_path / "missing" / "app.db")).open()


def test_a_file_that_is_no_database_is_said_for_good(file: str) -> None:
    Path(file).write_text("this is just text, and rather more of it than a header has " * 10)
    with pytest.raises(PermanentError, match="is not a SQLite database"):
        SqliteWorker(file).open()


def test_an_option_that_sqlite3_does_not_know_is_said_for_good(file: str) -> None:
    with pytest.raises(PermanentError, match="refuses these arguments"):
        SqliteWorker(file, colour="red").open()


def test_bad_arguments_are_all_named_before_anything_is_done() -> None:
    with pytest.raises(InvalidConfig) as caught:
        SqliteWorker("", timeout=-1, pragmas={"a; drop": 1}, begin_mode="x", cached_statements=-1, isolation_level="")
    assert caught.value.problems.keys() == {
        "database", "timeout", "pragmas", "begin_mode", "cached_statements", "isolation_level",
    }  # fmt: skip


def test_a_uri_and_a_path_object_are_databases_too(open_worker: Any, tmp_path: Path) -> None:
    path = tmp_path / "path.db"
    worker = open_worker(path)
    worker.execute("CREATE TABLE t (x)")
    reader = open_worker(f"file:{path}?mode=ro")
    assert reader.execute("SELECT count(*) FROM t").scalar() == 0
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        reader.execute("INSERT INTO t VALUES (1)")
