"""`DbapiWorker`: drivers of every kind, and what DB-API leaves open."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import psycopg
import pytest

from actorpool.errors import InvalidConfig, PermanentError
from actorpool.workers import DbapiWorker
from tests.workers.pgserver import PgServer


class PlainCursorConnection:
    """A real sqlite3 connection that offers what PEP 249 asks for, and nothing more."""

    def __init__(self, **options: Any) -> None:
        self._real = sqlite3.connect(**options)

    def cursor(self) -> sqlite3.Cursor:
        cursor: sqlite3.Cursor = self._real.cursor()
        return cursor

    def commit(self) -> None:
        self._real.commit()

    def rollback(self) -> None:
        self._real.rollback()

    def close(self) -> None:
        self._real.close()


@pytest.fixture
def file(tmp_path: Path) -> str:
    return str(tmp_path / "app.db")


def opened(*args: Any, **more: Any) -> DbapiWorker:
    worker = DbapiWorker(*args, **more)
    worker.open()
    return worker


def test_a_driver_that_knows_no_autocommit_commits_after_each_statement(file: str) -> None:
    worker, other = opened(PlainCursorConnection, database=file), opened("sqlite3", database=file)
    worker.execute("CREATE TABLE t (x UNIQUE)")
    worker.execute("INSERT INTO t VALUES (1)")
    assert other.execute("SELECT count(*) FROM t").scalar() == 1
    with pytest.raises(sqlite3.IntegrityError):
        worker.execute("INSERT INTO t VALUES (1)")
    worker.begin()
    worker.execute("INSERT INTO t VALUES (2)")
    assert other.execute("SELECT count(*) FROM t").scalar() == 1
    worker.rollback()
    worker.executemany("INSERT INTO t VALUES (?)", [(3,), (4,)])
    assert other.execute("SELECT count(*) FROM t").scalar() == 3
    worker.close()
    other.close()


def test_what_a_function_left_open_on_the_raw_connection_is_rolled_back(file: str) -> None:
    worker = opened(PlainCursorConnection, database=file)
    worker.execute("CREATE TABLE t (x)")
    worker.connection.cursor().execute("INSERT INTO t VALUES (1)")
    worker.reset()
    assert worker.execute("SELECT count(*) FROM t").scalar() == 0
    worker.close()


@pytest.mark.parametrize("driver", ["sqlite3", "sqlite3:connect", sqlite3, sqlite3.connect], ids=str)
def test_a_driver_is_a_module_a_name_or_a_function(driver: Any) -> None:
    worker = opened(driver, database=":memory:")
    assert worker.execute("SELECT 1").scalar() == 1
    worker.close()


def test_a_database_in_memory_is_not_lost_by_a_reset(file: str) -> None:
    worker = opened("sqlite3", database=":memory:")
    worker.execute("CREATE TABLE t (x)")
    worker.execute("CREATE TEMP TABLE mine (x)")
    worker.reset()
    worker.execute("SELECT * FROM t")
    with pytest.raises(sqlite3.OperationalError):
        worker.execute("SELECT * FROM mine")
    worker.close()


def test_on_reset_cleans_or_replaces_the_session(pg: PgServer) -> None:
    cleaned = opened("psycopg", conninfo=pg.dsn, on_reset=lambda conn: conn.execute("DISCARD ALL"))
    replaced = opened("psycopg", conninfo=pg.dsn, on_reset="reconnect")
    for worker, connections in ((cleaned, 1), (replaced, 2)):
        worker.connection.execute("SET work_mem = '7MB'")
        worker.reset()
        assert worker.execute("SHOW work_mem").scalar() != "7MB"
        assert worker.stats()["connections_created"] == connections
        worker.close()


def test_only_a_connection_that_answers_no_more_is_a_disconnect(pg: PgServer) -> None:
    worker = opened("psycopg", conninfo=pg.dsn)
    worker.execute("SET statement_timeout = 20")
    with pytest.raises(psycopg.OperationalError) as canceled:
        worker.execute("SELECT pg_sleep(5)")
    assert not worker.is_disconnect(canceled.value)
    assert not worker.is_disconnect(ValueError("of the caller"))
    pg.kill_backend(worker.connection.info.backend_pid)
    with pytest.raises(psycopg.OperationalError) as gone:
        worker.execute("SELECT 1")
    assert worker.is_disconnect(gone.value)
    worker.close()
    worker.open()
    worker.check()
    worker.close()


def test_a_statement_that_is_interrupted_costs_the_connection(pg: PgServer, interrupting: Any) -> None:
    worker = opened("psycopg", conninfo=pg.dsn)
    with interrupting(0.1), pytest.raises(KeyboardInterrupt):
        worker.execute("SELECT pg_sleep(30)")
    with pytest.raises(ConnectionError, match="was interrupted"):
        worker.reset()
    worker.close()
    worker.open()
    assert worker.execute("SELECT 1").scalar() == 1
    worker.close()


def test_an_interrupted_function_costs_the_connection() -> None:
    worker = opened("sqlite3", database=":memory:")
    assert not worker.is_disconnect(KeyboardInterrupt())  # SQLite loses nothing by it
    worker.close()
    other = opened(PlainCursorConnection, database=":memory:")
    assert other.is_disconnect(KeyboardInterrupt())
    other.close()


def test_rows_of_any_kind_travel_as_tuples() -> None:
    def configure(conn: sqlite3.Connection) -> None:
        conn.row_factory = lambda cursor, row: {"one": row[0], "two": row[1]}

    worker = opened("sqlite3", database=":memory:", configure=configure)
    assert worker.execute("SELECT 1, 2").rows == [(1, 2)]
    worker.close()


def test_a_cursor_of_ones_own_serves_streams() -> None:
    class Counting(sqlite3.Cursor):
        made = 0

        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            Counting.made += 1

    worker = opened("sqlite3", database=":memory:", stream_cursor=lambda conn: conn.cursor(Counting))
    worker.fetch(worker.open_cursor("SELECT 1", None, 10))
    worker.execute("SELECT 1")
    assert Counting.made == 1
    worker.close()


def test_a_missing_driver_says_so_for_good() -> None:
    with pytest.raises(PermanentError, match=r"'no_such_driver' cannot be imported .*install it"):
        DbapiWorker("no_such_driver").open()
    with pytest.raises(PermanentError, match="cannot be imported"):
        DbapiWorker("sqlite3:no_such_function").open()


def test_arguments_that_the_driver_refuses_are_said_for_good() -> None:
    with pytest.raises(PermanentError, match=r"connect\(\) refuses its arguments"):
        DbapiWorker("sqlite3", colour="red").open()


def test_bad_arguments_are_all_named_before_anything_is_done() -> None:
    with pytest.raises(InvalidConfig) as caught:
        DbapiWorker(None, on_reset="sometimes")
    assert caught.value.problems.keys() == {"module_or_factory", "on_reset"}


def test_the_repr_names_the_driver_and_nothing_secret() -> None:
    assert repr(DbapiWorker("pymysql", password="s3cret")) == "<DbapiWorker pymysql, not connected>"
