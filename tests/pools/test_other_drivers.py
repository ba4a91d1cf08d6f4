"""Pools of the generic workers on PostgreSQL: lost connections, calls that are ended, what a lease leaves behind."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
import sqlalchemy

import actorpool
from actorpool import CallTimeout, WorkerUnavailable
from tests.pools.conftest import StartPool
from tests.workers.pgserver import PgServer
from tests.workers.proxy import Proxy

Eventually = Callable[..., Any]

PID = "SELECT pg_backend_pid()"
LOST: dict[str, Any] = {"dbapi": psycopg.OperationalError, "alchemy": sqlalchemy.exc.OperationalError}


@pytest.fixture(params=list(LOST))
def generic(request: pytest.FixtureRequest, pg: PgServer, start: StartPool) -> Callable[..., actorpool.Pool]:
    """Start a pool of one worker; the keyword arguments `way` change the connection's parameters."""

    def make(way: dict[str, Any] | None = None, **fields: Any) -> actorpool.Pool:
        parameters = pg.parameters(**(way or {}))
        fields = {"size": 1, "backoff_min": 0.05, "backoff_max": 0.2, **fields}
        if request.param == "dbapi":
            args = {"module_or_factory": "psycopg", **parameters}
            return start("actorpool.workers:DbapiWorker", worker_args=args, **fields)
        args = {"url": "postgresql+psycopg://", "connect_args": parameters}
        return start("actorpool.workers:SqlAlchemyWorker", worker_args=args, **fields)

    make.lost = LOST[request.param]  # type: ignore[attr-defined]
    return make


@pytest.mark.slow
def test_a_connection_killed_while_idle_is_replaced_unseen(generic: Any, pg: PgServer) -> None:
    pool = generic(check_on_checkout=0.0)
    session = pool.execute(PID).scalar()
    pg.kill_backend(session)
    assert pool.execute(PID).scalar() != session
    assert pool.status().restarts == 0


def test_a_connection_killed_in_a_call_is_that_callers_error_only(generic: Any) -> None:
    pool = generic()
    with pytest.raises(generic.lost):
        pool.execute("SELECT pg_terminate_backend(pg_backend_pid())")
    assert pool.execute("SELECT 1").scalar() == 1
    assert pool.status().restarts == 0


def test_a_server_that_is_away_fails_calls_with_the_cause_and_is_found_again(
    generic: Any, proxy: Proxy, eventually: Eventually
) -> None:
    way = {"host": "127.0.0.1", "port": proxy.port, "sslmode": "disable", "gssencmode": "disable"}
    pool = generic(way, check_on_checkout=0.0)
    assert pool.execute("SELECT 1").scalar() == 1
    proxy.stop()
    with pytest.raises(WorkerUnavailable, match="refused") as caught:
        pool.call("execute", "SELECT 1", checkout_timeout=0.5)
    assert isinstance(caught.value.cause, generic.lost)
    assert pool.status().state == "degraded"
    proxy.start()
    eventually(lambda: pool.status().state == "ready", timeout=0.2 + 1)
    assert pool.execute("SELECT 1").scalar() == 1


def test_a_call_that_times_out_leaves_no_statement_running_on_the_server(
    generic: Any, pg: PgServer, eventually: Eventually
) -> None:
    pool = generic()
    process = pool.workers()[0].pid
    begun = time.monotonic()
    with pytest.raises(CallTimeout):
        pool.call("execute", "SELECT pg_sleep(60)", call_timeout=0.2)
    eventually(lambda: not pg.running(), timeout=2)
    assert pool.execute("SELECT 1").scalar() == 1
    assert time.monotonic() - begun < 4
    assert pool.workers()[0].pid == process, "interrupted, not killed"


def test_what_a_lease_leaves_is_gone_for_the_next(generic: Any, pg: PgServer) -> None:
    pg.query("CREATE TABLE t (x int)")
    pool = generic()
    with pool.checkout() as lease:
        lease.execute("SET work_mem = '7MB'")
        lease.execute("CREATE TEMPORARY TABLE mine (x int)")
        lease.execute("SELECT pg_advisory_lock(42)")
        lease.begin()
        lease.execute("INSERT INTO t VALUES (1)")
    with pool.checkout() as lease:
        assert lease.execute("SHOW work_mem").scalar() != "7MB"
        assert lease.execute("SELECT to_regclass('pg_temp.mine')").scalar() is None
        locks = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()"
        assert lease.execute(locks).scalar() == 0
        assert lease.execute("SELECT count(*) FROM t").scalar() == 0
