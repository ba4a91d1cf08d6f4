"""`PostgresWorker` on a real server: connecting, and why it may be refused; sizes and sessions."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row

from actorpool.errors import ActorPoolError, InvalidConfig, PermanentError
from actorpool.workers import PostgresWorker
from tests.workers.databases import OpenPostgres as Open
from tests.workers.databases import backend
from tests.workers.pgserver import PgServer


@pytest.fixture
def worker(open_postgres: Open) -> PostgresWorker:
    return open_postgres()


# -- connecting -------------------------------------------------------------------------------------------


@pytest.fixture
def guarded(pg: PgServer) -> Iterator[str]:
    """A role with a password, which the server asks for; the password."""
    assert pg.directory
    pg.query("CREATE ROLE guarded LOGIN PASSWORD 'pa55word'")
    yield "pa55word"
    pg.query("DROP ROLE guarded")


def test_parameters_come_as_a_string_a_dict_keywords_or_from_a_callable(
    pg: PgServer, open_postgres: Open, guarded: str
) -> None:
    assert open_postgres(pg.parameters()).execute("SELECT current_user").scalar() == "postgres"
    worker = open_postgres(pg.dsn, user="guarded", password=guarded, application_name="the shop")
    assert worker.execute("SELECT current_user").scalar() == "guarded"
    assert worker.execute("SHOW application_name").scalar() == "the shop"
    assert open_postgres(lambda: pg.dsn).execute("SHOW application_name").scalar() == "actorpool"


def test_a_callable_is_asked_at_every_connect_so_passwords_may_rotate(
    pg: PgServer, open_postgres: Open, guarded: str
) -> None:
    current = [guarded]
    worker = open_postgres(lambda: pg.parameters(user="guarded", password=current[0]))
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
    with pytest.raises(PermanentError, match=r"pip install 'psycopg\[binary\]>=3.2,<3.4'"):
        PostgresWorker("").open()


def test_an_error_in_configure_leaves_no_connection(pg: PgServer, eventually: Callable[..., Any]) -> None:
    def configure(conn: Any) -> None:
        raise RuntimeError("not like this")

    worker = PostgresWorker(pg.dsn, configure=configure, application_name="misconfigured")
    with pytest.raises(RuntimeError, match="not like this"):
        worker.open()
    count = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'misconfigured'"
    eventually(lambda: pg.query(count) == [(0,)])


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


def test_the_repr_says_where_it_is_connected_and_no_password(open_postgres: Open, pg: PgServer, guarded: str) -> None:
    worker = open_postgres(pg.dsn, user="guarded", password=guarded)
    assert "guarded@" in repr(worker)
    assert str(backend(worker)) in repr(worker)
    assert guarded not in repr(worker)
    worker.close()
    assert repr(worker) == "<PostgresWorker, not connected>"


# -- size and sessions ------------------------------------------------------------------------------------


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


def test_sessions_are_counted_and_unknown_is_an_error_not_zero(worker: PostgresWorker, open_postgres: Open) -> None:
    before = worker.session_count()
    open_postgres()
    assert worker.session_count() == before + 1
    worker.begin()
    with pytest.raises(ActorPoolError, match="between transactions"):
        worker.session_count()
    worker.close()
    with pytest.raises(psycopg.OperationalError):
        worker.session_count()


def test_auto_size_of_a_server_that_does_not_show_its_limits_falls_back(
    pg: PgServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("actorpool.workers.postgres._LIMITS", "SELECT 'superuser_reserved_connections', '3'")
    assert PostgresWorker.auto_size(conninfo=pg.dsn, nodes=2) == 40


@pytest.mark.parametrize("version", ["3.1.20", "3.4.0.dev1", "4.0"])
def test_a_psycopg_whose_private_names_are_not_known_is_refused_with_what_to_install(
    monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    monkeypatch.delitem(sys.modules, "actorpool.workers.postgres_session", raising=False)
    monkeypatch.setattr("psycopg.__version__", version)
    with pytest.raises(PermanentError, match=rf"psycopg {version} is not among .*pip install .*>=3.2,<3.4"):
        PostgresWorker("host=nowhere.invalid").open()
