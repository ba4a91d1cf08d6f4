"""Mistakes in the settings of the generic workers and of HTTP: `start_pool` says who failed, why, and what to do.

Those in the settings of PostgreSQL and SQLite, and missing drivers, are among the tests of pools.
"""

from __future__ import annotations

import socket
import traceback
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import httpx
import psycopg
import pytest
import sqlalchemy

import actorpool
from actorpool import InvalidConfig, LocalPool, PermanentError, PoolConfig, WorkerUnavailable
from tests.workers.pgserver import PgServer

WORD = "hunter2"
"""The password that nobody may see."""
WEB = "http://127.0.0.1:1"

# worker, arguments (PG: the server's own with changes), why, what to do
NEVER: dict[str, tuple[str, dict[str, Any], str, str]] = {
    "sqlalchemy, a refused login": ("SqlAlchemy", {"PG": {"user": "guarded"}}, "authentication failed", "check user"),
    "sqlalchemy, no such role": (
        "SqlAlchemy",
        {"PG": {"user": "nobody"}},
        '"nobody" does not exist',
        "create the role",
    ),
    "sqlalchemy, no such database": ("SqlAlchemy", {"PG": {"dbname": "nowhere"}}, '"nowhere"', "create the database"),
    "sqlalchemy, a missing driver": (
        "SqlAlchemy",
        {"url": f"mysql+nosuch://me:{WORD}@h/x"},
        "nosuch",
        "correct the URL",
    ),
    "sqlalchemy, an unknown option": ("SqlAlchemy", {"url": f"sqlite:///{WORD}", "hue": 1}, "TypeError", "give "),
    "dbapi, a refused login": ("Dbapi", {"PG": {"user": "guarded"}}, "authentication failed", "check user"),
    "dbapi, no such role": ("Dbapi", {"PG": {"user": "nobody"}}, '"nobody" does not exist', "create the role"),
    "dbapi, no such database": ("Dbapi", {"PG": {"dbname": "nowhere"}}, '"nowhere" does not', "create the database"),
    "dbapi, a DSN that cannot be read": (
        "Dbapi",
        {"module_or_factory": "psycopg", "conninfo": f"password=my {WORD}"},
        "refuses its arguments",
        "correct them",
    ),
    "dbapi, a function that is not there": (
        "Dbapi",
        {"module_or_factory": "psycopg:open", "password": WORD},
        "psycopg:open",
        "correct its name",
    ),
    "http, an unknown option": ("Http", {"base_url": WEB, "colour": WORD}, "'colour'", "correct worker_args"),
    "http, a proxy of another kind": (
        "Http",
        {"base_url": WEB, "proxy": f"odd://a:{WORD}@h"},
        "odd",
        "correct worker_a",
    ),
}

REFUSED: dict[str, tuple[str, dict[str, Any], str, str]] = {
    "http, no base URL": ("Http", {"headers": {"X-Key": WORD}}, "base_url", "is required"),
    "http, no scheme": ("Http", {"base_url": f"me:{WORD}@api.example.com"}, "base_url", "http:// or https://"),
    "http, a query": ("Http", {"base_url": f"{WEB}/?key={WORD}"}, "base_url", "give params"),
    "dbapi, no driver": ("Dbapi", {"password": WORD}, "module_or_factory", "is required"),
    "sqlalchemy, no URL": ("SqlAlchemy", {"connect_args": {"password": WORD}}, "url", "is required"),
}


def shown(error: BaseException) -> str:
    """All that a person or a log may get to see of an error."""
    chain = [error, error.__cause__, getattr(error, "cause", None)]
    texts = [f"{each!r} {each} {vars(each)}" for each in chain if each is not None]
    return "\n".join([*traceback.format_exception(error), *texts])


def filled(worker: str, args: dict[str, Any], pg: PgServer) -> dict[str, Any]:
    """The arguments, with those for the server's own as this worker takes them."""
    if "PG" not in args:
        return args
    parameters = pg.parameters(**{"password": WORD, **args["PG"]})
    if worker == "Dbapi":
        return {"module_or_factory": "psycopg", **parameters}
    return {"url": "postgresql+psycopg://", "connect_args": parameters}


@pytest.fixture(scope="module")
def node() -> Iterator[actorpool.System]:
    with actorpool.start(log_level="CRITICAL") as running:
        yield running


@pytest.fixture
def guarded(pg: PgServer) -> Iterator[None]:
    """A role whose password is asked for."""
    assert pg.directory  # its pg_hba.conf says so
    pg.query("CREATE ROLE guarded LOGIN PASSWORD 'another'")
    yield
    pg.query("DROP ROLE guarded")


@pytest.mark.parametrize("what", NEVER)
def test_what_is_wrong_for_good_fails_the_start(what: str, node: actorpool.System, pg: PgServer, guarded: None) -> None:
    worker, args, why, advice = NEVER[what]
    with pytest.raises(PermanentError) as caught:
        name = f"actorpool.workers:{worker}Worker"
        node.start_pool("wrong", worker=name, worker_args=filled(worker, args, pg), size=2)
    text = str(caught.value)
    assert f"{worker}Worker" in text
    assert why in text
    assert advice in text
    assert caught.value.pool == "wrong"
    assert WORD not in shown(caught.value)
    assert node.pools() == []


@pytest.mark.parametrize("what", REFUSED)
def test_what_a_worker_refuses_is_named(what: str, node: actorpool.System) -> None:
    worker, args, field, advice = REFUSED[what]
    with pytest.raises(InvalidConfig, match=f"{worker}Worker") as caught:
        node.start_pool("wrong", worker=f"actorpool.workers:{worker}Worker", worker_args=args)
    assert advice in caught.value.problems[field]
    assert WORD not in shown(caught.value)
    assert node.pools() == []


def test_an_argument_of_the_worker_in_the_wrong_place_is_told_the_right_one(node: actorpool.System) -> None:
    with pytest.raises(InvalidConfig, match=r"password: is unknown; .*go into worker_args=\{...\}") as caught:
        node.start_pool("wrong", worker="actorpool.workers:PostgresWorker", password=WORD)
    assert WORD not in shown(caught.value)


@pytest.mark.parametrize("what", ["dbapi, a refused login", "http, an unknown option"])
def test_a_local_pool_says_the_same(what: str, pg: PgServer, guarded: None) -> None:
    worker, args, why, advice = NEVER[what]
    with pytest.raises(PermanentError, match=advice) as caught:
        LocalPool(PoolConfig(worker=f"actorpool.workers:{worker}Worker", worker_args=filled(worker, args, pg)))
    assert why in str(caught.value)
    assert WORD not in "".join(traceback.format_exception(caught.value))


AWAY: dict[str, tuple[type[Exception], Callable[[int], dict[str, Any]]]] = {
    "Postgres": (psycopg.OperationalError, lambda port: {"host": "127.0.0.1", "port": port, "password": WORD}),
    "Dbapi": (
        psycopg.OperationalError,
        lambda port: {"module_or_factory": "psycopg", "host": "127.0.0.1", "port": port, "password": WORD},
    ),
    "SqlAlchemy": (
        sqlalchemy.exc.OperationalError,
        lambda port: {"url": f"postgresql+psycopg://me:{WORD}@127.0.0.1:{port}/x"},
    ),
}


@pytest.mark.parametrize("worker", AWAY)
def test_a_host_that_cannot_be_reached_starts_degraded_and_calls_say_why(
    worker: str, node: actorpool.System, free_port: int, eventually: Callable[..., Any]
) -> None:
    kind, args = AWAY[worker]
    name = f"actorpool.workers:{worker}Worker"
    pool = node.start_pool("away", worker=name, worker_args=args(free_port), size=1, checkout_timeout=1.0)
    try:
        eventually(lambda: pool.status().state == "degraded", timeout=20)  # a worker may still import its driver
        with pytest.raises(WorkerUnavailable, match=r"refused[\s\S]*bring the resource back, or correct") as caught:
            pool.call("execute", "SELECT 1", checkout_timeout=0.1)
        assert isinstance(caught.value.cause, kind)
        assert WORD not in shown(caught.value)
    finally:
        node.stop_pool("away")


@pytest.mark.slow
def test_a_host_that_accepts_and_says_nothing_is_given_up_after_the_connect_timeout(
    node: actorpool.System, eventually: Callable[..., Any]
) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as deaf:
        args = {"host": "127.0.0.1", "port": deaf.getsockname()[1], "password": WORD, "connect_timeout": 2.0}
        worker = "actorpool.workers:PostgresWorker"
        pool = node.start_pool("deaf", worker=worker, worker_args=args, size=1, checkout_timeout=4.0)
        try:
            eventually(lambda: pool.status().state == "degraded", timeout=20)
            with pytest.raises(WorkerUnavailable, match="timeout") as caught:
                pool.call("execute", "SELECT 1", checkout_timeout=0.2)
            assert WORD not in shown(caught.value)
        finally:
            node.stop_pool("deaf", timeout=0.5)


def test_a_service_that_cannot_be_reached_is_each_calls_own_error(node: actorpool.System, free_port: int) -> None:
    args = {"base_url": f"http://me:{WORD}@127.0.0.1:{free_port}"}
    pool = node.start_pool("web", worker="actorpool.workers:HttpWorker", worker_args=args, size=1)
    try:
        assert pool.status().state == "ready"
        with pytest.raises(httpx.ConnectError, match=rf"GET .*{free_port}/orders: .*refused") as caught:
            pool.get("/orders")
        assert WORD not in shown(caught.value)
    finally:
        node.stop_pool("web")
