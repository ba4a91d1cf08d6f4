"""`PostgresWorker` on a real server: what a lease leaves behind, and connections that break."""

from __future__ import annotations

import pickle
import time
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from psycopg import sql as compose
from psycopg.rows import dict_row

from actorpool.errors import PermanentError
from actorpool.workers import PostgresWorker
from tests.workers.conftest import Interrupted
from tests.workers.databases import OpenPostgres as Open
from tests.workers.databases import backend
from tests.workers.pgserver import PgServer
from tests.workers.proxy import Proxy


@pytest.fixture
def worker(open_postgres: Open) -> PostgresWorker:
    return open_postgres()


# -- between leases ---------------------------------------------------------------------------------------


def test_a_reset_after_plain_work_sends_nothing(through: Open, proxy: Proxy) -> None:
    worker = through()
    worker.execute("CREATE TABLE t (x int, note text)")
    worker.reset()
    worker.execute("INSERT INTO t (x, note) VALUES (%s, 'set me; (')", [1])
    worker.execute("SELECT count(*), max(x) FROM t WHERE x IN (1, 2)")
    worker.begin()
    worker.execute("UPDATE t SET x = 2")
    worker.commit()
    with worker.connection.transaction():
        worker.connection.execute("DELETE FROM t")
    worker.executemany("INSERT INTO t (x) VALUES (%s)", [(1,), (2,)])
    carried = proxy.carried
    worker.reset()
    assert proxy.carried == carried


def hidden_setting(conn: Any) -> None:
    conn.execute("DO $$ BEGIN PERFORM set_config('work_mem', '7MB', false); END $$")


def setting_in_a_function(conn: Any) -> None:
    conn.execute(
        "CREATE OR REPLACE FUNCTION innocent() RETURNS int LANGUAGE plpgsql AS "
        "$$ BEGIN PERFORM set_config('work_mem', '7MB', false); RETURN 1; END $$"
    )
    conn.execute("SELECT innocent()")


ALTERATIONS: dict[str, Callable[[Any], Any]] = {
    "SET": lambda conn: conn.execute("SET work_mem = '7MB'"),
    "set_config": lambda conn: conn.execute("SELECT set_config('work_mem', '7MB', false)"),
    "a DO block": hidden_setting,
    "a function": setting_in_a_function,
    "pg_settings": lambda conn: conn.execute("UPDATE pg_settings SET setting = '7168' WHERE name = 'work_mem'"),
    "composed SQL": lambda conn: conn.execute(compose.SQL("SET work_mem = {}").format("7MB")),
    "bytes": lambda conn: conn.execute(b"SET work_mem = '7MB'"),
    "another cursor class": lambda conn: psycopg.ClientCursor(conn).execute("SET work_mem = '7MB'"),
    "a committed transaction": lambda conn: (conn.execute("BEGIN; SET work_mem = '7MB'"), conn.commit()),
    "a pipeline": lambda conn: in_a_pipeline(conn),
    "a behind comments": lambda conn: conn.execute("/* select */ SET work_mem = '7MB' -- select 1"),
}


def in_a_pipeline(conn: Any) -> None:
    with conn.pipeline():
        conn.execute("SELECT 1")
        conn.execute("SET work_mem = '7MB'")


@pytest.mark.parametrize("how", ALTERATIONS)
def test_a_setting_is_undone_however_it_was_made(worker: PostgresWorker, how: str) -> None:
    default = worker.execute("SHOW work_mem").scalar()
    worker.reset()
    ALTERATIONS[how](worker.connection)
    assert worker.execute("SHOW work_mem").scalar() == "7MB"
    worker.reset()
    assert worker.execute("SHOW work_mem").scalar() == default


def test_an_interrupt_while_a_command_of_the_workers_own_runs_leaves_the_session_ready(
    worker: PostgresWorker, interrupting: Callable[[float], Any]
) -> None:
    session = worker._live
    backend = session.info.backend_pid
    session.round_trip("BEGIN; SAVEPOINT mine")
    with pytest.raises(Interrupted), interrupting(0.2):
        session.round_trip("SELECT pg_sleep(20)")
    session.round_trip("ROLLBACK TO SAVEPOINT mine")
    (result,) = session.round_trip("SELECT pg_backend_pid()")
    assert int(result.get_value(0, 0) or 0) == backend
    session.round_trip("ROLLBACK")


def test_nothing_of_a_session_is_left_for_the_next_lease(pg: PgServer, worker: PostgresWorker) -> None:
    conn = worker.connection
    conn.execute("CREATE TEMP TABLE mine (x int)")
    conn.execute("SELECT pg_advisory_lock(42), pg_try_advisory_lock_shared(43)")
    conn.execute("LISTEN news")
    conn.execute("DECLARE c CURSOR WITH HOLD FOR SELECT 1")
    conn.execute("CREATE ROLE somebody")
    conn.execute("SET ROLE somebody")
    conn.autocommit = False
    conn.isolation_level = psycopg.IsolationLevel.SERIALIZABLE
    conn.read_only = True
    conn.row_factory = dict_row
    worker.reset()
    try:
        session = worker.connection.execute(
            "SELECT current_user, to_regclass('pg_temp.mine'), (SELECT count(*) FROM pg_cursors), "
            "(SELECT count(*) FROM pg_listening_channels()), "
            "(SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()), "
            "current_setting('transaction_isolation'), current_setting('transaction_read_only')"
        ).fetchone()
        assert session == ("postgres", None, 0, 0, 0, "read committed", "off")
        assert worker.connection.autocommit
        assert not worker.in_transaction
    finally:
        pg.query("DROP ROLE somebody")


def test_what_configure_and_the_statement_timeout_set_is_still_there(open_postgres: Open) -> None:
    def configure(conn: Any) -> None:
        conn.execute("SET search_path = pg_catalog")
        conn.row_factory = dict_row

    worker = open_postgres(configure=configure, statement_timeout=7.5)
    worker.execute("SET search_path = public; SET statement_timeout = 0")
    worker.connection.row_factory = psycopg.rows.tuple_row
    worker.reset()
    assert worker.execute("SHOW search_path").scalar() == "pg_catalog"
    assert worker.execute("SHOW statement_timeout").scalar() == "7500ms"
    assert worker.connection.execute("SELECT 1 AS one").fetchone() == {"one": 1}
    assert worker.execute("SELECT 1").rows == [(1,)]  # tuples all the same


def test_a_reset_undoes_everything_in_one_round_trip(through: Open, proxy: Proxy) -> None:
    worker = through()
    worker.execute("SET work_mem = '7MB'")
    worker.begin()
    worker.execute("SELECT 1")
    session, commands = worker.connection, []
    send = session.round_trip

    def noted(command: str, *rest: Any) -> None:
        commands.append(command)
        send(command, *rest)

    session.round_trip = noted
    worker.reset()
    assert len(commands) == 1
    assert commands[0].startswith("ROLLBACK; ")


def test_a_connection_that_user_code_closed_is_opened_anew(worker: PostgresWorker) -> None:
    worker.connection.close()
    with pytest.raises(psycopg.OperationalError):
        worker.reset()
    assert worker.is_disconnect(ValueError("whatever the call raised"))
    worker.close()
    worker.open()
    assert worker.execute("SELECT 1").scalar() == 1


# -- broken connections -----------------------------------------------------------------------------------


def test_a_killed_backend_is_a_disconnect_and_errors_of_statements_are_not(
    pg: PgServer, worker: PostgresWorker
) -> None:
    for statement in ("SELECT 1/0", "SELECT * FROM nowhere", "SELEC", "SELECT 'x'::int"):
        with pytest.raises(psycopg.Error) as caught:
            worker.execute(statement)
        assert not worker.is_disconnect(caught.value)
    pg.kill_backend(backend(worker))
    with pytest.raises(psycopg.OperationalError) as gone:
        worker.execute("SELECT 1")
    assert worker.is_disconnect(gone.value)
    worker.close()
    worker.open()
    worker.check()


def test_a_check_notices_a_killed_backend(pg: PgServer, worker: PostgresWorker) -> None:
    pg.kill_backend(backend(worker))
    with pytest.raises(psycopg.OperationalError):
        worker.check()


def test_a_statement_timeout_is_an_error_of_the_statement(open_postgres: Open) -> None:
    worker = open_postgres(statement_timeout=0.05)
    with pytest.raises(psycopg.errors.QueryCanceled) as caught:
        worker.execute("SELECT pg_sleep(10)")
    assert not worker.is_disconnect(caught.value)
    assert worker.execute("SELECT 1").scalar() == 1


def test_a_server_that_does_not_answer_fails_the_check_in_time(through: Open, proxy: Proxy) -> None:
    worker = through(connect_timeout=0.2)
    proxy.deafen()
    begun = time.monotonic()
    with pytest.raises(psycopg.OperationalError, match=r"did not answer within 0\.2 s"):
        worker.check()
    assert time.monotonic() - begun < 2
    worker.close()


def test_a_cut_connection_is_a_disconnect_and_opens_again(through: Open, proxy: Proxy) -> None:
    worker = through()
    proxy.cut()
    with pytest.raises(psycopg.OperationalError) as caught:
        worker.execute("SELECT 1")
    assert worker.is_disconnect(caught.value)
    worker.close()
    proxy.stop()
    with pytest.raises(psycopg.OperationalError) as refused:
        worker.open()
    assert not isinstance(refused.value, PermanentError)
    proxy.start()
    worker.open()
    assert worker.execute("SELECT 1").scalar() == 1


def test_commit_of_a_failed_transaction_is_an_error_not_a_silent_rollback(worker: PostgresWorker) -> None:
    worker.execute("CREATE TABLE t (x int)")

    def swallows(conn: Any) -> str:
        conn.execute("INSERT INTO t VALUES (1)")
        try:
            conn.execute("SELECT * FROM nowhere")
        except psycopg.Error:
            pass
        return "fine"

    with pytest.raises(psycopg.errors.InFailedSqlTransaction, match="rolled back instead of committed"):
        worker.transact(swallows)
    assert worker.execute("SELECT count(*) FROM t").scalar() == 0


def test_begin_takes_what_postgresql_has(worker: PostgresWorker) -> None:
    worker.begin(isolation="SERIALIZABLE", read_only=True, deferrable=True)
    shown = [worker.execute(f"SHOW transaction_{name}").scalar() for name in ("isolation", "read_only", "deferrable")]
    assert shown == ["serializable", "on", "on"]
    with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
        worker.execute("CREATE TABLE t (x int)")
    worker.rollback()


def test_errors_travel_with_class_sqlstate_and_constraint(worker: PostgresWorker) -> None:
    worker.execute("CREATE TABLE t (x int CONSTRAINT only_once UNIQUE)")
    worker.execute("INSERT INTO t VALUES (1)")
    with pytest.raises(psycopg.errors.UniqueViolation) as caught:
        worker.execute("INSERT INTO t VALUES (1)")
    error = pickle.loads(pickle.dumps(caught.value))
    assert type(error) is psycopg.errors.UniqueViolation
    assert (error.sqlstate, error.diag.constraint_name) == ("23505", "only_once")
