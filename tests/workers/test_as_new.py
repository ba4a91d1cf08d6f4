"""Whatever `fn` does to the driver's own objects: the next lease finds them as new. A table for each shipped worker."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
import sqlalchemy
from psycopg.rows import dict_row
from psycopg.types.string import TextLoader

from actorpool.workers import DbapiWorker, HttpWorker, SqlAlchemyWorker, SqliteWorker, SqlWorker
from tests.workers.databases import OpenPostgres as Open
from tests.workers.pgserver import PgServer
from tests.workers.webserver import WebServer

Change = Callable[[Any], Any]


def outcome(ask: Callable[[], Any]) -> Any:
    """What came of it, an error by its class."""
    try:
        return ask()
    except Exception as error:
        return type(error)


# -- PostgreSQL -------------------------------------------------------------------------------------------


class OtherCursor(psycopg.Cursor[Any]):
    """A cursor class of the user's."""


def half_read_notifies(conn: Any) -> None:
    conn.execute("LISTEN news; NOTIFY news, 'one'; NOTIFY news, 'two'")
    conn.kept = conn.notifies()
    next(conn.kept)


POSTGRES: dict[str, Change] = {
    "autocommit": lambda conn: setattr(conn, "autocommit", False),
    "isolation_level": lambda conn: setattr(conn, "isolation_level", psycopg.IsolationLevel.SERIALIZABLE),
    "read_only": lambda conn: setattr(conn, "read_only", True),
    "deferrable": lambda conn: setattr(conn, "deferrable", True),
    "row_factory": lambda conn: setattr(conn, "row_factory", dict_row),
    "cursor_factory": lambda conn: setattr(conn, "cursor_factory", OtherCursor),
    "server_cursor_factory": lambda conn: setattr(conn, "server_cursor_factory", None),
    "prepare_threshold": lambda conn: setattr(conn, "prepare_threshold", 1),
    "prepared_max": lambda conn: setattr(conn, "prepared_max", 7),
    "loaders": lambda conn: conn.adapters.register_loader("int4", TextLoader),
    "dumpers": lambda conn: conn.adapters.register_dumper(int, psycopg.types.string.StrDumper),
    "types": lambda conn: conn.adapters.types.add(psycopg.types.TypeInfo("mine", 99, 98)),
    "a notice handler": lambda conn: conn.add_notice_handler(print),
    "a notify handler": lambda conn: conn.add_notify_handler(print),
    "notifications": lambda conn: conn.execute("LISTEN news; NOTIFY news, 'for the last one'"),
    "notifications half read": half_read_notifies,
    "an attribute of its own": lambda conn: setattr(conn, "mine", 1),
    "a method": lambda conn: setattr(conn, "execute", print),
    "the lock": lambda conn: conn.lock.acquire(),
    "a transaction": lambda conn: conn.execute("BEGIN"),
    "two phases": lambda conn: (setattr(conn, "autocommit", False), conn.tpc_begin("mine")),
    "libpq's mode": lambda conn: setattr(conn.pgconn, "nonblocking", 0),
    "libpq's handler": lambda conn: setattr(conn.pgconn, "notice_handler", print),
    "nothing": lambda conn: None,
}


def postgres_state(conn: Any) -> dict[str, Any]:
    """All that can be seen of a connection object."""
    names = (
        "autocommit", "isolation_level", "read_only", "deferrable", "row_factory", "cursor_factory",
        "server_cursor_factory", "prepare_threshold", "prepared_max", "closed", "broken",
    )  # fmt: skip
    state = {name: getattr(conn, name) for name in names}
    state["attributes"] = set(vars(conn))
    state["integer"] = conn.execute("SELECT 1::int4, pg_typeof(%s)", [5]).fetchone()
    state["types"] = conn.adapters.types.get("mine")
    state["handlers"] = (list(conn._notice_handlers), list(conn._notify_handlers))
    state["heard"] = list(conn.notifies(timeout=0))
    state["status"] = (conn.info.transaction_status, conn.pgconn.nonblocking, conn.info.backend_pid)
    return state


@pytest.mark.parametrize("change", POSTGRES)
def test_the_next_lease_finds_the_psycopg_connection_as_new(open_postgres: Open, change: str) -> None:
    heard: list[Any] = []

    def configure(conn: Any) -> None:
        conn.add_notice_handler(heard.append)
        conn.adapters.register_loader("int8", TextLoader)
        conn.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
        conn.from_configure = 1

    for worker in (open_postgres(), open_postgres(configure=configure)):
        before = postgres_state(worker.connection)
        worker.reset()
        conn = worker.connection
        POSTGRES[change](conn)
        worker.reset()
        assert postgres_state(worker.connection) == before
        assert not conn.lock.locked() or change == "the lock" or "half" in change


def test_who_keeps_a_psycopg_connection_beyond_its_lease_finds_it_closed(open_postgres: Open) -> None:
    worker = open_postgres()
    kept = worker.connection
    worker.reset()
    assert kept.closed
    with pytest.raises(psycopg.OperationalError, match="closed"):
        kept.execute("SELECT 1")
    with pytest.raises(psycopg.OperationalError, match="of a lease that is over"):
        _ = kept.info.backend_pid
    kept.close()
    assert worker.execute("SELECT 1").scalar() == 1


def test_methods_of_the_worker_go_on_with_the_same_psycopg_connection(open_postgres: Open) -> None:
    worker = open_postgres()
    first = worker._live
    worker.execute("SELECT 1")
    worker.begin()
    worker.commit()
    worker.reset()
    assert worker._live is first


def test_a_pipeline_that_is_left_open_costs_the_connection(open_postgres: Open) -> None:
    worker = open_postgres()
    pipeline = worker.connection.pipeline()
    pipeline.__enter__()
    with pytest.raises(psycopg.OperationalError, match="pipeline"):
        worker.reset()


def test_composed_sql_that_raises_vouches_for_nothing_that_follows(open_postgres: Open) -> None:
    class Broken(psycopg.sql.Composable):
        def as_bytes(self, context: Any = None) -> bytes:
            raise ValueError("broken")

    class TwoFaced(psycopg.sql.Composable):
        faces = [b"SELECT 1", b"SET work_mem = '7MB'"]

        def as_bytes(self, context: Any = None) -> bytes:
            return self.faces.pop(0)

    worker = open_postgres()
    default = worker.execute("SHOW work_mem").scalar()
    worker.reset()
    with pytest.raises(ValueError, match="broken"):
        worker.connection.execute(Broken(""))
    psycopg.ClientCursor(worker.connection).execute("SET work_mem = '7MB'")
    worker.reset()
    assert worker.execute("SHOW work_mem").scalar() == default
    worker.connection.execute(TwoFaced(""))
    worker.reset()
    assert worker.execute("SHOW work_mem").scalar() == default


def test_a_role_with_which_sessions_begin_is_there_after_a_reset(any_pg: PgServer) -> None:
    from actorpool.workers import PostgresWorker

    any_pg.query("CREATE ROLE acting; CREATE ROLE logs_in LOGIN SUPERUSER; ALTER ROLE logs_in SET role = 'acting'")
    worker = PostgresWorker(any_pg.parameters(user="logs_in"))
    worker.open()
    try:
        assert worker.execute("SELECT current_user").scalar() == "acting"
        for alteration in ("SET work_mem = '7MB'", "SET ROLE NONE", "SET SESSION AUTHORIZATION DEFAULT"):
            worker.execute(alteration)
            worker.reset()
            assert worker.execute("SELECT current_user, session_user").rows == [("acting", "logs_in")]
    finally:
        worker.close()
        any_pg.query("DROP ROLE logs_in; DROP ROLE acting")


@pytest.mark.parametrize("threshold", [0, 1, 5])
def test_an_altered_table_costs_one_transaction_at_most(pg: PgServer, open_postgres: Open, threshold: int) -> None:
    worker = open_postgres(prepare_threshold=threshold)
    pg.query("CREATE TABLE altered (x int)")
    try:

        def read(conn: Any) -> Any:
            return conn.execute("SELECT * FROM altered").fetchall(), conn.execute("SELECT 1").fetchone()

        def turns(number: int) -> list[Any]:
            found = []
            for _ in range(number):
                found.append(outcome(lambda: worker.transact(read)))
                worker.reset()
            return [one for one in found if one != ([], (1,))]

        assert turns(8) == []
        pg.query("ALTER TABLE altered ADD COLUMN y int")
        assert len(turns(8)) <= 1
        pg.query("ALTER TABLE altered ADD COLUMN z int")
        assert worker.execute("SELECT * FROM altered").rows == []  # outside of a transaction it is run once more
        assert turns(8) == []
    finally:
        worker.reset()
        pg.query("DROP TABLE altered")


# -- SQLite -----------------------------------------------------------------------------------------------


class Sum:
    """An aggregate."""

    def step(self, value: Any) -> None: ...

    def finalize(self) -> int:
        return 7


def reads_half(conn: Any) -> None:
    conn.execute("BEGIN")
    conn.executemany("INSERT INTO t VALUES (?)", [(number,) for number in range(5000)])
    conn.execute("COMMIT")
    KEPT.append(conn.execute("SELECT * FROM t"))
    KEPT[-1].fetchone()


KEPT: list[Any] = []

SQLITE: dict[str, Change] = {
    "isolation_level": lambda conn: setattr(conn, "isolation_level", "DEFERRED"),
    "row_factory": lambda conn: setattr(conn, "row_factory", sqlite3.Row),
    "text_factory": lambda conn: setattr(conn, "text_factory", bytes),
    "a function": lambda conn: conn.create_function("mine", 0, lambda: 1),
    "a function of SQLite's": lambda conn: conn.create_function("lower", 1, lambda text: "evil"),
    "an aggregate": lambda conn: conn.create_aggregate("mine", 0, Sum),
    "an aggregate of SQLite's": lambda conn: conn.create_aggregate("sum", 1, Sum),
    "a collation": lambda conn: conn.create_collation("mine", lambda a, b: 0),
    "a collation of SQLite's": lambda conn: conn.create_collation("nocase", lambda a, b: 0),
    "an authorizer": lambda conn: conn.set_authorizer(lambda *args: sqlite3.SQLITE_DENY),
    "an idle authorizer": lambda conn: (conn.set_authorizer(lambda *_: 0), conn.execute("CREATE TEMP TABLE mine (x)")),
    "a progress handler": lambda conn: conn.set_progress_handler(lambda: 1, 1),
    "a trace callback": lambda conn: conn.set_trace_callback(lambda text: KEPT.append(text)),
    "a limit": lambda conn: conn.setlimit(sqlite3.SQLITE_LIMIT_SQL_LENGTH, 50) if hasattr(conn, "setlimit") else None,
    "a pragma": lambda conn: conn.execute("PRAGMA case_sensitive_like = 1"),
    "an attached database": lambda conn: conn.execute("ATTACH ':memory:' AS other"),
    "a temporary table": lambda conn: conn.execute("CREATE TEMP TABLE mine (x)"),
    "a transaction": lambda conn: conn.execute("BEGIN IMMEDIATE"),
    "a cursor in the middle of its rows": reads_half,
    "an attribute": lambda conn: setattr(conn, "mine", 1),
    "nothing": lambda conn: None,
}


def sqlite_state(worker: SqlWorker) -> dict[str, Any]:
    conn = worker.connection
    state = {name: getattr(conn, name) for name in ("isolation_level", "row_factory", "text_factory", "in_transaction")}
    queries = (
        "SELECT 'text' AS a", "SELECT mine()", "SELECT sum(x) FROM (SELECT 3 AS x)", "SELECT lower('A')",
        "SELECT 'a' = 'b' COLLATE mine", "SELECT 'a' = 'b' COLLATE nocase", "SELECT 'a' LIKE 'A'",
        "PRAGMA foreign_keys", "SELECT count(*) FROM temp.mine", "SELECT count(*) FROM other.sqlite_master",
        "SELECT 1" + " " * 100,
    )  # fmt: skip
    for query in queries:
        state[query] = outcome(lambda query=query: worker.execute(query).rows)
    state["attribute"] = hasattr(conn, "mine")
    state["writes"] = outcome(lambda: worker.execute("INSERT INTO t VALUES (0)").rowcount)
    return state


@pytest.mark.parametrize("change", SQLITE)
@pytest.mark.parametrize("database", ["file", "file in WAL mode", ":memory:", "file::memory:"])
def test_the_next_lease_finds_the_sqlite_connection_as_new(tmp_path: Path, database: str, change: str) -> None:
    is_file = database.startswith("file") and not database.startswith("file:")
    path = str(tmp_path / "app.db") if is_file else database
    pragmas = {"foreign_keys": True, "synchronous": "off", **({"journal_mode": "wal"} if "WAL" in database else {})}
    worker = SqliteWorker(path, timeout=0.5, pragmas=pragmas)
    worker.open()
    try:
        worker.execute("CREATE TABLE t (x)")
        before = sqlite_state(worker)
        worker.reset()
        SQLITE[change](worker.connection)
        worker.reset()
        KEPT.clear()
        assert sqlite_state(worker) == before
        assert KEPT == []
        worker.reset()
        rows = worker.execute("SELECT count(*) FROM t").scalar()
        assert rows == (5002 if change.startswith("a cursor") else 2)  # nothing was lost, in memory neither
    finally:
        KEPT.clear()
        worker.close()


def test_a_cursor_that_is_kept_locks_nobody_out(tmp_path: Path) -> None:
    one, two = (SqliteWorker(str(tmp_path / "app.db"), timeout=0.1) for _ in range(2))
    one.open()
    two.open()
    try:
        one.execute("CREATE TABLE t (x)")
        reads_half(one.connection)
        one.reset()
        two.execute("DROP TABLE t")
    finally:
        KEPT.clear()
        one.close()
        two.close()


def test_methods_of_the_worker_go_on_with_the_same_sqlite_connection(tmp_path: Path) -> None:
    worker = SqliteWorker(str(tmp_path / "app.db"))
    worker.open()
    worker.execute("CREATE TABLE t (x)")
    worker.executemany("INSERT INTO t VALUES (?)", [(1,)])
    worker.reset()
    assert worker.stats()["connections_created"] == 1
    worker.close()


# -- any DB-API driver ------------------------------------------------------------------------------------

DBAPI_SQLITE = {
    name: SQLITE[name]
    for name in ("isolation_level", "row_factory", "text_factory", "a trace callback", "a transaction", "nothing")
}


@pytest.mark.parametrize("change", DBAPI_SQLITE)
@pytest.mark.parametrize("database", ["file", ":memory:"])
def test_the_next_lease_finds_sqlite3_by_dbapi_as_new(tmp_path: Path, database: str, change: str) -> None:
    worker = DbapiWorker("sqlite3", database=str(tmp_path / "app.db") if database == "file" else database)
    worker.open()
    worker.execute("CREATE TABLE t (x)")
    before = sqlite_state(worker)
    worker.reset()
    DBAPI_SQLITE[change](worker.connection)
    worker.reset()
    KEPT.clear()
    assert sqlite_state(worker) == before
    assert KEPT == []
    worker.reset()
    assert worker.execute("SELECT count(*) FROM t").scalar() == 2
    worker.close()


DBAPI_PSYCOPG = ("autocommit", "isolation_level", "read_only", "deferrable", "row_factory", "cursor_factory",
                 "prepare_threshold", "prepared_max", "a transaction")  # fmt: skip


@pytest.mark.parametrize("change", DBAPI_PSYCOPG)
def test_the_next_lease_finds_another_driver_by_dbapi_as_new(pg: PgServer, change: str) -> None:
    def look(conn: Any) -> dict[str, Any]:
        state = {name: getattr(conn, name) for name in DBAPI_PSYCOPG if hasattr(conn, name)}
        return state | {"status": conn.info.transaction_status}

    worker = DbapiWorker("psycopg", conninfo=pg.dsn)
    worker.open()
    try:
        before = look(worker.connection)
        worker.reset()
        POSTGRES[change](worker.connection)
        worker.reset()
        assert look(worker.connection) == before
    finally:
        worker.close()


@pytest.mark.parametrize("change", [
    lambda conn: conn.autocommit(False),
    lambda conn: setattr(conn, "cursorclass", None),
    lambda conn: conn.decoders.clear(),
    lambda conn: setattr(conn, "encoders", {}),
])  # fmt: skip
def test_the_next_lease_finds_pymysql_as_new(mariadb: Any, change: Change) -> None:
    import pymysql

    worker = DbapiWorker("pymysql", **mariadb.parameters())
    worker.open()
    try:
        worker.execute("CREATE TABLE found (x int) ENGINE=InnoDB")
        worker.reset()
        change(worker.connection)
        worker.reset()
        worker.execute("INSERT INTO found VALUES (%s)", [1])
        assert worker.execute("SELECT x FROM found").rows == [(1,)]
        with pymysql.connect(**mariadb.parameters()) as other, other.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM found")
            assert cursor.fetchone() == (1,)  # the statement was committed
        worker.execute("DROP TABLE found")
    finally:
        worker.close()


# -- SQLAlchemy -------------------------------------------------------------------------------------------


def listens(conn: Any) -> None:
    sqlalchemy.event.listen(conn, "before_cursor_execute", lambda *args: KEPT.append(args[2]))


ALCHEMY: dict[str, Change] = {
    "a schema": lambda conn: conn.execution_options(schema_translate_map={None: "tenant"}),
    "stream_results": lambda conn: conn.execution_options(stream_results=True),
    "isolation_level": lambda conn: conn.execution_options(isolation_level="SERIALIZABLE"),
    "an event": listens,
    "info": lambda conn: conn.info.update(mine=1),
    "options of the engine": lambda conn: conn.engine.update_execution_options(logging_token="mine"),
    "an attribute": lambda conn: setattr(conn, "mine", 1),
    "the driver's row_factory": lambda conn: setattr(conn.connection.dbapi_connection, "row_factory", dict_row),
    "a transaction": lambda conn: conn.begin(),
    "a savepoint": lambda conn: conn.begin_nested(),
    "nothing": lambda conn: None,
}  # fmt: skip


def alchemy_state(conn: Any) -> dict[str, Any]:
    options = (dict(conn.get_execution_options()), dict(conn.engine.get_execution_options()), dict(conn.info))
    level = conn.exec_driver_sql("SELECT 1").fetchall()
    driver = conn.connection.dbapi_connection
    names = ("autocommit", "isolation_level", "row_factory", "text_factory")
    return {
        "options": options,
        "rows": level,
        "level": conn.get_isolation_level(),
        "driver": {name: getattr(driver, name) for name in names if hasattr(driver, name)},
        "attribute": hasattr(conn, "mine"),
        "transactions": (conn.in_nested_transaction(), conn.closed),
    }


@pytest.mark.parametrize("change", ALCHEMY)
@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_the_next_lease_finds_the_sqlalchemy_connection_as_new(
    pg: PgServer, tmp_path: Path, kind: str, change: str
) -> None:
    def configure(conn: Any) -> None:
        conn.execution_options(max_row_buffer=99)

    by_psycopg: dict[str, Any] = {"url": "postgresql+psycopg://", "connect_args": pg.parameters()}
    args = by_psycopg if kind == "postgresql" else {"url": f"sqlite:///{tmp_path}/app.db"}
    for more in ({}, {"configure": configure}):
        worker = SqlAlchemyWorker(**args, **more)
        worker.open()
        try:
            before = alchemy_state(worker.connection)
            worker.reset()
            first = worker.connection
            ALCHEMY[change](first)
            worker.reset()
            assert first.closed
            KEPT.clear()
            assert alchemy_state(worker.connection) == before
            assert KEPT == []
            if "engine" not in change:
                assert worker.stats()["connections_created"] == 1
        finally:
            worker.close()


# -- HTTP -------------------------------------------------------------------------------------------------

HTTP: dict[str, Change] = {
    "base_url": lambda client: setattr(client, "base_url", "http://elsewhere.example"),
    "headers": lambda client: client.headers.update({"X-Mine": "1"}),
    "other headers": lambda client: setattr(client, "headers", {"X-Mine": "1"}),
    "cookies": lambda client: client.cookies.set("mine", "1"),
    "params": lambda client: setattr(client, "params", {"mine": "1"}),
    "auth": lambda client: setattr(client, "auth", ("me", "pw")),
    "timeout": lambda client: setattr(client, "timeout", 99.0),
    "a timeout in place": lambda client: setattr(client.timeout, "read", 99.0),
    "event_hooks": lambda client: setattr(client, "event_hooks", {"request": [print], "response": [print]}),
    "hooks in place": lambda client: client.event_hooks["request"].clear(),
    "follow_redirects": lambda client: setattr(client, "follow_redirects", False),
    "max_redirects": lambda client: setattr(client, "max_redirects", 1),
    "a method": lambda client: setattr(client, "get", print),
    "closed": lambda client: client.close(),
    "used as a context": lambda client: client.__exit__(),
    "nothing": lambda client: None,
}


def http_state(client: httpx.Client) -> dict[str, Any]:
    return {
        "base_url": client.base_url, "headers": client.headers.multi_items(), "params": client.params,
        "cookies": [(cookie.name, cookie.value) for cookie in client.cookies.jar], "auth": client.auth,
        "timeout": client.timeout.as_dict(), "hooks": {name: len(hooks) for name, hooks in client.event_hooks.items()},
        "redirects": (client.follow_redirects, client.max_redirects, client.trust_env), "closed": client.is_closed,
        "attributes": set(vars(client)),
    }  # fmt: skip


@pytest.fixture
def open_http(web: WebServer) -> Iterator[Callable[..., HttpWorker]]:
    made = []

    def make(**more: Any) -> HttpWorker:
        worker = HttpWorker(web.url, **more)
        worker.open()
        made.append(worker)
        return worker

    yield make
    for worker in made:
        worker.close()


@pytest.mark.parametrize("change", HTTP)
def test_the_next_lease_finds_the_http_client_as_new(open_http: Callable[..., HttpWorker], change: str) -> None:
    worker = open_http(headers={"X-Team": "a"}, cookies={"of": "the-worker"})
    before = http_state(worker.connection)
    HTTP[change](worker.connection)
    worker.reset()
    assert http_state(worker.connection) == before
    answer = worker.get("/redirect?times=2").json()
    assert (answer["path"], answer["headers"]["cookie"]) == ("/landed", "of=the-worker")


def test_streamed_answers_that_nobody_read_use_up_no_connections(open_http: Callable[..., HttpWorker]) -> None:
    worker = open_http(limits=httpx.Limits(max_connections=2), timeout=2.0)
    for _ in range(4):
        client = worker.connection
        KEPT.append(client.send(client.build_request("GET", "/big?bytes=100000000"), stream=True))
        worker.reset()
    KEPT.clear()
    assert worker.get("/").ok


def test_connections_of_an_http_client_stay_open_between_leases(
    open_http: Callable[..., HttpWorker], web: WebServer
) -> None:
    worker = open_http()
    for _ in range(3):
        assert worker.connection.get("/").is_success
        worker.reset()
    assert web.connections == 1


@pytest.mark.parametrize("name", ["X-Api-Key", "X-Auth-Token", "Authorization", "X-Session-Id", "X-CSRF"])
def test_a_redirect_to_another_host_gets_no_secrets_of_the_call(
    open_http: Callable[..., HttpWorker], web: WebServer, name: str
) -> None:
    worker = open_http(cookies={"session": "of-this-host"}, headers={"X-Team": "a"})
    for host, kept in (("127.0.0.1", True), ("localhost", False)):
        way = {"to": f"http://{host}:{web.port}/landed"}
        headers = worker.get("/elsewhere", way, {name: "s3cret"}).json()["headers"]
        assert (name.lower() in headers, "cookie" in headers, headers["x-team"]) == (kept, kept, "a")
    back = f"http://localhost:{web.port}/elsewhere?to=http://127.0.0.1:{web.port}/landed"
    assert name.lower() not in worker.get("/elsewhere", {"to": back}, {name: "s3cret"}).json()["headers"]
