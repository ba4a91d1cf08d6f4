"""`PostgresWorker` on a real server: statements, sessions between leases, interrupts, and what start-up says."""

from __future__ import annotations

import gc
import os
import pickle
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import psutil
import psycopg
import pytest
from psycopg import sql as compose
from psycopg.rows import dict_row

from actorpool.errors import InvalidConfig, PermanentError
from actorpool.workers import PostgresWorker
from actorpool.workers.sql import iterate
from tests.workers.pgserver import PgServer
from tests.workers.proxy import Proxy

Open = Callable[..., PostgresWorker]


@pytest.fixture
def open_worker(pg: PgServer) -> Iterator[Open]:
    """Open a worker of the server, with other arguments as given; closed after the test."""
    made: list[PostgresWorker] = []

    def make(conninfo: Any = None, **more: Any) -> PostgresWorker:
        worker = PostgresWorker(pg.dsn if conninfo is None else conninfo, **more)
        worker.open()
        made.append(worker)
        return worker

    yield make
    for worker in made:
        worker.close()


@pytest.fixture
def worker(open_worker: Open) -> PostgresWorker:
    return open_worker()


@pytest.fixture
def proxy(pg: PgServer, proxy_to: Callable[[Any], Proxy]) -> Proxy:
    return proxy_to(pg.socket_path)


@pytest.fixture
def through(pg: PgServer, proxy: Proxy, open_worker: Open) -> Open:
    """As `open_worker`, through the proxy."""
    way = pg.parameters(host="127.0.0.1", port=proxy.port, sslmode="disable", gssencmode="disable")
    return lambda **more: open_worker(way, **more)


def backend(worker: PostgresWorker) -> int:
    return int(worker.connection.info.backend_pid)


def prepared(worker: PostgresWorker) -> int:
    """How many statements the server itself says are prepared."""
    with psycopg.ClientCursor(worker.connection) as cursor:
        return int(cursor.execute("SELECT count(*) FROM pg_prepared_statements").fetchone()[0])  # type: ignore[index]


# -- interrupts --------------------------------------------------------------------------------------------


def test_an_interrupt_cancels_the_statement_on_the_server_and_the_connection_stays(
    pg: PgServer, worker: PostgresWorker, interrupting: Any, eventually: Any
) -> None:
    before = backend(worker)
    begun = time.monotonic()
    with interrupting(0.1), pytest.raises(KeyboardInterrupt) as caught:
        worker.execute("SELECT pg_sleep(30)")
    assert time.monotonic() - begun < 2
    assert pg.running() == []
    assert not worker.is_disconnect(caught.value)
    worker.reset()
    assert worker.execute("SELECT 1").scalar() == 1
    assert backend(worker) == before


def test_an_interrupt_in_a_transaction_leaves_nothing_open(
    pg: PgServer, worker: PostgresWorker, interrupting: Any
) -> None:
    worker.execute("CREATE TABLE t (x int)")

    def insert_and_wait(conn: Any) -> None:
        conn.execute("INSERT INTO t VALUES (1)")
        conn.execute("SELECT pg_sleep(30)")

    with interrupting(0.1), pytest.raises(KeyboardInterrupt):
        worker.transact(insert_and_wait)
    assert not worker.in_transaction
    worker.reset()
    assert worker.execute("SELECT count(*) FROM t").scalar() == 0


def test_an_interrupt_while_rows_are_streamed_can_be_reset(worker: PostgresWorker, interrupting: Any) -> None:
    cursor = worker.open_cursor("SELECT n, pg_sleep(0.01) FROM generate_series(1, 20) n", None, 5)
    assert len(worker.fetch(cursor)) == 5
    with interrupting(0.1), pytest.raises(KeyboardInterrupt):
        worker.execute("SELECT pg_sleep(30)")
    worker.reset()
    assert worker.execute("SELECT count(*) FROM pg_cursors").scalar() == 0


# -- prepared statements -----------------------------------------------------------------------------------


def test_a_statement_is_prepared_after_the_threshold_and_the_hits_are_counted(open_worker: Open) -> None:
    worker = open_worker(prepare_threshold=2)
    for number in range(6):
        worker.execute("SELECT %s::int", [number])
    stats = worker.stats()
    # Run twice as it is, prepared with the third, found prepared by the other three.
    assert (stats["cache_hits"], stats["cache_misses"], stats["cache_size"]) == (3, 3, 1)
    assert prepared(worker) == 1


def test_the_cache_is_bounded_on_the_server_too(open_worker: Open) -> None:
    worker = open_worker(prepare_threshold=0, prepared_statement_cache_size=3)
    for number in range(10):
        worker.execute(f"SELECT {number}")
    assert worker.stats()["cache_size"] == 3
    assert prepared(worker) <= 4  # the oldest one is deallocated along with the next statement


@pytest.mark.parametrize("never", [{"prepare_threshold": None}, {"prepared_statement_cache_size": 0}])
def test_statements_can_be_left_unprepared(open_worker: Open, never: dict[str, Any]) -> None:
    worker = open_worker(**never)
    for _ in range(10):
        worker.execute("SELECT 1")
    stats = worker.stats()
    assert (stats["cache_hits"], stats["cache_misses"], stats["cache_size"]) == (0, 0, 0)
    assert prepared(worker) == 0


def test_clear_cache_deallocates_on_the_server(open_worker: Open) -> None:
    worker = open_worker(prepare_threshold=0)
    worker.execute("SELECT 1")
    worker.execute("SELECT 2")
    worker.clear_cache()
    assert prepared(worker) == 0
    assert worker.stats()["cache_size"] == 0
    worker.execute("SELECT 1")
    assert prepared(worker) == 1


def test_clear_cache_in_a_failed_transaction_is_made_up_for(open_worker: Open) -> None:
    worker = open_worker(prepare_threshold=0)
    worker.execute("SELECT 1")
    worker.begin()
    with pytest.raises(psycopg.errors.UndefinedTable):
        worker.execute("SELECT * FROM nowhere")
    worker.clear_cache()
    worker.rollback()
    worker.execute("SELECT 2", None)
    assert prepared(worker) == 0


def test_prepared_statements_outlive_resets_clean_or_not(open_worker: Open) -> None:
    worker = open_worker(prepare_threshold=0)
    worker.execute("SELECT 1")
    worker.reset()
    worker.execute("SET work_mem = '7MB'")
    worker.begin()
    worker.execute("SELECT 2")
    worker.reset()
    hits = worker.stats()["cache_hits"]
    worker.execute("SELECT 1")
    worker.execute("SELECT 2")
    assert worker.stats()["cache_hits"] == hits + 2


def test_a_statement_that_lost_its_plan_is_run_again(open_worker: Open) -> None:
    worker, other = open_worker(prepare_threshold=0), open_worker()
    worker.execute("CREATE TABLE t (x int)")
    worker.execute("INSERT INTO t VALUES (1)")
    for _ in range(2):
        assert worker.execute("SELECT * FROM t").rows == [(1,)]
    other.execute("ALTER TABLE t ADD COLUMN y text DEFAULT 'new'")
    assert worker.execute("SELECT * FROM t").rows == [(1, "new")]
    assert worker.stats()["errors"] == 0


def test_a_statement_that_the_server_has_forgotten_is_run_again(open_worker: Open) -> None:
    worker = open_worker(prepare_threshold=0)
    for _ in range(2):
        worker.execute("SELECT 1")
    worker.connection.pgconn.exec_(b"DEALLOCATE ALL")
    assert worker.execute("SELECT 1").scalar() == 1
    conn = worker.connection
    conn.pgconn.exec_(b"DEALLOCATE ALL")
    assert conn.execute("SELECT 1").fetchone() == (1,)


def test_inside_a_transaction_a_lost_plan_is_an_error_once(open_worker: Open) -> None:
    worker, other = open_worker(prepare_threshold=0), open_worker()
    worker.execute("CREATE TABLE t (x int)")
    for _ in range(2):
        worker.execute("SELECT * FROM t")
    other.execute("ALTER TABLE t ADD COLUMN y int")
    worker.begin()
    with pytest.raises(psycopg.errors.FeatureNotSupported):
        worker.execute("SELECT * FROM t")
    worker.rollback()
    worker.begin()
    assert worker.execute("SELECT * FROM t").columns == ("x", "y")
    worker.commit()


def test_statements_of_functions_are_counted_as_well(worker: PostgresWorker) -> None:
    worker.connection.execute("SELECT 1").fetchone()
    assert worker.stats()["queries_executed"] == 1


def test_the_figures_outlive_the_connection(worker: PostgresWorker) -> None:
    worker.execute("SELECT 1")
    worker.close()
    worker.open()
    stats = worker.stats()
    assert (stats["queries_executed"], stats["connections_created"]) == (1, 2)


# -- between leases ----------------------------------------------------------------------------------------


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


def test_what_configure_and_the_statement_timeout_set_is_still_there(open_worker: Open) -> None:
    def configure(conn: Any) -> None:
        conn.execute("SET search_path = pg_catalog")
        conn.row_factory = dict_row

    worker = open_worker(configure=configure, statement_timeout=7.5)
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


# -- broken connections ------------------------------------------------------------------------------------


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


def test_a_statement_timeout_is_an_error_of_the_statement(open_worker: Open) -> None:
    worker = open_worker(statement_timeout=0.05)
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


# -- connecting --------------------------------------------------------------------------------------------


@pytest.fixture
def guarded(pg: PgServer) -> Iterator[str]:
    """A role with a password, which the server asks for; the password."""
    assert pg.directory
    pg.query("CREATE ROLE guarded LOGIN PASSWORD 'pa55word'")
    yield "pa55word"
    pg.query("DROP ROLE guarded")


def test_parameters_come_as_a_string_a_dict_keywords_or_from_a_callable(
    pg: PgServer, open_worker: Open, guarded: str
) -> None:
    assert open_worker(pg.parameters()).execute("SELECT current_user").scalar() == "postgres"
    worker = open_worker(pg.dsn, user="guarded", password=guarded, application_name="the shop")
    assert worker.execute("SELECT current_user").scalar() == "guarded"
    assert worker.execute("SHOW application_name").scalar() == "the shop"
    assert open_worker(lambda: pg.dsn).execute("SHOW application_name").scalar() == "actorpool"


def test_a_callable_is_asked_at_every_connect_so_passwords_may_rotate(
    pg: PgServer, open_worker: Open, guarded: str
) -> None:
    current = [guarded]
    worker = open_worker(lambda: pg.parameters(user="guarded", password=current[0]))
    pg.query("ALTER ROLE guarded PASSWORD 'next'")
    worker.close()
    with pytest.raises(psycopg.OperationalError) as refused:  # between the server's change and ours: "not now"
        worker.open()
    assert not isinstance(refused.value, PermanentError)
    current[0] = "next"
    worker.open()
    worker.check()


def test_a_refused_login_says_so_for_good_without_the_password(pg: PgServer, guarded: str) -> None:
    worker = PostgresWorker(pg.parameters(user="guarded", password="not-this-secret"))
    with pytest.raises(PermanentError, match=r"password authentication failed.*check user and password") as caught:
        worker.open()
    assert "not-this-secret" not in str(caught.value)
    travelled = pickle.loads(pickle.dumps(caught.value))
    assert isinstance(travelled.cause, psycopg.OperationalError)
    assert "not-this-secret" not in repr(vars(travelled))


@pytest.mark.parametrize(
    ("changed", "advice"),
    [({"dbname": "nope"}, "create the database"), ({"user": "nobody"}, "create the role")],
)
def test_a_missing_database_or_role_says_what_to_do(pg: PgServer, changed: dict[str, str], advice: str) -> None:
    with pytest.raises(PermanentError, match=advice):
        PostgresWorker(pg.parameters(**changed)).open()


@pytest.mark.parametrize(
    "dsn",
    [
        "postgres//me:s3cret@host/db",
        "host=x password=s3cret 'unfinished",
        "host=x password=my s3cret",
        "frob=1 password=s3cret",
        "postgresql://me:s3cret%@host/db",
        "postgresql://me:s3cret@[host/db",
    ],
)
def test_a_bad_connection_string_is_refused_without_its_secrets(dsn: str) -> None:
    with pytest.raises(PermanentError, match=r"bad connection parameters.*give") as caught:
        PostgresWorker(dsn).open()
    assert "s3cret" not in str(caught.value)
    assert "s3cret" not in repr(vars(caught.value))
    assert caught.value.__cause__ is None


def test_an_unreachable_host_is_not_now(free_port: int) -> None:
    with pytest.raises(psycopg.OperationalError, match="refused") as caught:
        PostgresWorker(f"host=127.0.0.1 port={free_port}").open()
    assert not isinstance(caught.value, PermanentError)


def test_a_missing_driver_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(PermanentError, match=r"pip install 'psycopg\[binary\]'"):
        PostgresWorker("").open()


def test_an_error_in_configure_leaves_no_connection(pg: PgServer) -> None:
    def configure(conn: Any) -> None:
        raise RuntimeError("not like this")

    worker = PostgresWorker(pg.dsn, configure=configure, application_name="misconfigured")
    with pytest.raises(RuntimeError, match="not like this"):
        worker.open()
    rows = pg.query("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'misconfigured'")
    assert rows == [(0,)]


def test_bad_arguments_are_all_named_before_anything_is_done() -> None:
    with pytest.raises(InvalidConfig) as caught:
        PostgresWorker(
            5,  # type: ignore[arg-type]
            prepared_statement_cache_size=-1,
            prepare_threshold=-2,
            connect_timeout=0,
            statement_timeout=-1,
            nodes=0,
            autocommit=True,
            row_factory=dict_row,
        )
    assert caught.value.problems.keys() == {
        "conninfo", "prepared_statement_cache_size", "prepare_threshold", "connect_timeout", "statement_timeout",
        "nodes", "autocommit", "row_factory",
    }  # fmt: skip


def test_the_repr_says_where_it_is_connected_and_no_password(open_worker: Open, pg: PgServer, guarded: str) -> None:
    worker = open_worker(pg.dsn, user="guarded", password=guarded)
    assert "guarded@" in repr(worker)
    assert str(backend(worker)) in repr(worker)
    assert guarded not in repr(worker)
    worker.close()
    assert repr(worker) == "<PostgresWorker, not connected>"


# -- size and sessions -------------------------------------------------------------------------------------


def test_auto_size_is_this_nodes_share_of_the_server(pg: PgServer) -> None:
    limits = pg.query("SELECT setting::int FROM pg_settings WHERE name = 'max_connections'")[0][0]
    reserved = sum(
        row[0]
        for row in pg.query(
            "SELECT setting::int FROM pg_settings WHERE name IN "
            "('superuser_reserved_connections', 'reserved_connections')"
        )
    )
    assert PostgresWorker.auto_size(conninfo=pg.dsn) == limits - reserved
    assert PostgresWorker.auto_size(conninfo=pg.dsn, nodes=4) == (limits - reserved) // 4


def test_auto_size_without_the_server_falls_back_and_a_wrong_login_does_not(
    pg: PgServer, free_port: int, caplog: pytest.LogCaptureFixture
) -> None:
    assert PostgresWorker.auto_size(conninfo=f"host=127.0.0.1 port={free_port}", nodes=2) == 40
    assert "taking 100 connections, 20 reserved" in caplog.text
    with pytest.raises(PermanentError):
        PostgresWorker.auto_size(conninfo=pg.parameters(user="nobody"))


def test_sessions_are_counted_and_unknown_is_none_not_zero(worker: PostgresWorker, open_worker: Open) -> None:
    before = worker.session_count()
    assert before is not None
    open_worker()
    assert worker.session_count() == before + 1
    worker.close()
    assert worker.session_count() is None


# -- large results -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("inside", [False, True], ids=["autocommit", "transaction"])
def test_a_million_rows_cost_bounded_memory(worker: PostgresWorker, inside: bool) -> None:
    process = psutil.Process(os.getpid())
    if inside:
        worker.begin()
    gc.collect()
    before = peak = process.memory_info().rss
    total = 0
    query = "SELECT n, 'row ' || n FROM generate_series(1, 1000000) n"
    for number, (n, _) in enumerate(iterate(lambda name, *args: getattr(worker, name)(*args), query, None, 5000)):
        total += n
        if number % 50_000 == 0:
            peak = max(peak, process.memory_info().rss)
    worker.reset()
    assert total == 500_000_500_000
    assert peak - before < 64 << 20
