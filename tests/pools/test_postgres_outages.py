"""A pool of PostgreSQL connections when connections, the network or the server go away, and when they come back."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import threading
import time
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

import actorpool
from actorpool import Breaker, CallTimeout, CheckoutTimeout, CircuitOpen, WithConnection, WorkerUnavailable
from actorpool.workers import PostgresWorker
from tests.pools.conftest import StartPool
from tests.pools.kit import backend, backends
from tests.workers.pgserver import PgServer
from tests.workers.proxy import Proxy

Eventually = Callable[..., Any]

WORD = "hunter2"
"""A password: the server trusts everybody who comes this way, so that it is only there to be kept."""


# -- single connections ------------------------------------------------------------------------------------


def test_an_idle_connection_that_was_killed_is_replaced_unseen(pg: PgServer, postgres: StartPool) -> None:
    pool = postgres(size=1)
    pid, process = pool.run(backend), pool.workers()[0].pid
    pg.kill_backend(pid)
    assert pool.run(backend) != pid
    assert pool.workers()[0].pid == process, "the process is fine"
    assert pool.status().restarts == 0


def test_a_connection_killed_in_a_call_is_that_callers_error_only(pg: PgServer, postgres: StartPool) -> None:
    pool = postgres(size=1)

    def suicide(conn: psycopg.Connection[Any]) -> None:
        conn.execute("SELECT pg_terminate_backend(pg_backend_pid())")

    with pytest.raises(psycopg.errors.AdminShutdown):
        pool.run(suicide)
    assert pool.execute("SELECT 1").scalar() == 1
    assert pool.status().restarts == 0


def test_a_connection_killed_in_a_lease_ends_what_the_lease_did(pg: PgServer, postgres: StartPool) -> None:
    pool = postgres(size=1)
    with pool.checkout() as lease:
        lease.execute("CREATE TEMP TABLE mine (x int)")
        pg.kill_backend(lease.run(backend))
        with pytest.raises(psycopg.OperationalError):
            lease.execute("SELECT * FROM mine")
        with pytest.raises(WorkerUnavailable) as caught:
            lease.execute("SELECT 1")
        assert isinstance(caught.value.cause, psycopg.OperationalError)
        assert caught.value.pool == pool.name
    assert pool.execute("SELECT 1").scalar() == 1


class Trusting(PostgresWorker):
    """Does not look whether the server has said good-bye."""

    def needs_check(self) -> bool:
        return False


def test_after_one_lost_connection_nobody_else_meets_a_dead_one(pg: PgServer, start: StartPool) -> None:
    """Never checked for being idle: it is the first error alone that makes the siblings be checked."""
    pool = start(Trusting, worker_args={"conninfo": pg.dsn}, size=4, check_on_checkout=None)
    for _ in range(5):
        pg.kill_backend(*backends(pool, 4))
        with pytest.raises(psycopg.OperationalError):
            pool.execute("SELECT 1")
        leases = [pool.checkout() for _ in range(4)]
        assert [lease.execute("SELECT 1").scalar() for lease in leases] == [1] * 4
        for lease in leases:
            lease.checkin()
    assert pool.status().restarts == 0


def test_nobody_at_all_meets_connections_that_were_killed_while_idle(pg: PgServer, postgres: StartPool) -> None:
    """Though none of them was idle for long."""
    pool = postgres(size=4, check_on_checkout=None)
    for _ in range(5):
        pg.kill_backend(*backends(pool, 4))
        assert pool.execute("SELECT 1").scalar() == 1


# -- the server ----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_restarted_server_is_found_again(pg: PgServer, postgres: StartPool) -> None:
    pool = postgres(checkout_timeout=20.0, backoff_max=0.2)
    before = backends(pool, 2)
    pg.stop()
    pg.start()
    assert pool.execute("SELECT 1").scalar() == 1
    assert not backends(pool, 2) & before
    assert pool.status().restarts == 0


AWAY: dict[str, tuple[Callable[[Proxy], None], Callable[[Proxy], None]]] = {
    "refused": (Proxy.stop, Proxy.start),
    "deaf": (Proxy.deafen, Proxy.hear),
}


@pytest.mark.parametrize("how", AWAY)
@pytest.mark.slow
def test_a_server_that_is_away_fails_calls_with_the_cause_and_recovers_by_itself(
    how: str, proxy: Proxy, through: StartPool, eventually: Eventually
) -> None:
    pool = through(worker_args={"password": WORD}, check_on_checkout=0.0)
    assert pool.execute("SELECT 1").scalar() == 1
    go, come_back = AWAY[how]
    go(proxy)
    begun = time.monotonic()
    for _ in range(3):
        with pytest.raises(WorkerUnavailable) as caught:
            pool.call("execute", "SELECT 1", checkout_timeout=0.5)
        error = caught.value
        assert isinstance(error.cause, psycopg.OperationalError)
        assert error.pool == pool.name
        assert WORD not in f"{error!r} {error} {error.cause!r} {error.remote_traceback} {error.cause.__cause__}"
    assert time.monotonic() - begun < 3 * (0.5 + 1.0) + 2, "each waits the checkout timeout, and one check at most"
    eventually(lambda: pool.status().state == "degraded")
    eventually(lambda: pool.status().connect_errors > 0)
    come_back(proxy)
    eventually(lambda: pool.status().state == "ready", timeout=1.0 + 0.2 + 1)
    begun = time.monotonic()
    assert pool.execute("SELECT 1").scalar() == 1
    assert time.monotonic() - begun < 0.5
    eventually(lambda: pool.status().workers == 2)
    assert pool.status().restarts == 0


def test_connections_that_are_cut_while_idle_cost_nobody_a_call(proxy: Proxy, through: StartPool) -> None:
    pool = through(check_on_checkout=None)
    for _ in range(3):
        backends(pool, 2)
        proxy.cut()
        assert pool.execute("SELECT 1").scalar() == 1


def test_a_caller_that_waits_while_the_server_is_away_is_served_when_it_is_back(
    proxy: Proxy, through: StartPool
) -> None:
    pool = through(check_on_checkout=0.0)
    proxy.stop()
    timer = threading.Timer(0.5, proxy.start)
    timer.start()
    assert pool.call("execute", "SELECT 1", checkout_timeout=10).scalar() == 1
    timer.join()


def test_a_pool_starts_degraded_while_the_server_is_away(
    proxy: Proxy, through: StartPool, eventually: Eventually
) -> None:
    proxy.stop()
    begun = time.monotonic()
    pool = through(worker_args={"password": WORD}, checkout_timeout=1.0)
    assert time.monotonic() - begun < 3
    eventually(lambda: pool.status().state == "degraded")
    with pytest.raises(WorkerUnavailable, match="refused") as caught:
        pool.call("execute", "SELECT 1", checkout_timeout=0.1)
    assert WORD not in str(caught.value)
    proxy.start()
    eventually(lambda: pool.status().state == "ready", timeout=0.2 + 1)
    assert pool.execute("SELECT 1").scalar() == 1


@pytest.mark.slow
def test_after_a_long_outage_the_pool_serves_within_one_backoff_step(
    proxy: Proxy, through: StartPool, eventually: Eventually
) -> None:
    pool = through(size=5, backoff_max=1.0)
    proxy.stop()
    end = time.monotonic() + 15
    while time.monotonic() < end:
        with pytest.raises(WorkerUnavailable):
            pool.call("execute", "SELECT 1", checkout_timeout=0.5)
    attempts = proxy.accepted
    proxy.start()
    begun = time.monotonic()
    assert pool.call("execute", "SELECT 1", checkout_timeout=5).scalar() == 1
    took = time.monotonic() - begun
    print(f"serving {took:.3f} s after the server is back, the longest backoff step is 1 s")
    assert took < 1.0 + 0.5
    eventually(lambda: pool.status().workers == 5)
    assert proxy.accepted - attempts == 5, "one connection each, and no storm"


# -- what goes on meanwhile ----------------------------------------------------------------------------------------


def test_a_pool_that_nobody_calls_notices_by_itself_and_recovers_by_itself(
    proxy: Proxy, through: StartPool, eventually: Eventually
) -> None:
    pool = through(health_interval=0.1)
    proxy.stop()
    eventually(lambda: pool.status().state == "degraded")
    proxy.start()
    eventually(lambda: pool.status().workers == 2)
    assert pool.status().checkouts == 0
    assert pool.status().restarts == 0


def test_a_call_that_hangs_on_a_deaf_network_times_out_and_the_pool_recovers(
    proxy: Proxy, through: StartPool, eventually: Eventually
) -> None:
    pool = through(size=1, kill_after=0.5)
    pool.execute("SELECT 1")
    proxy.deafen()
    begun = time.monotonic()
    with pytest.raises(CallTimeout):
        pool.call("execute", "SELECT 1", call_timeout=0.3)
    assert time.monotonic() - begun < 1.0
    with pytest.raises((WorkerUnavailable, CheckoutTimeout)):
        pool.call("execute", "SELECT 1", checkout_timeout=0.3, call_timeout=0.3)
    proxy.hear()
    eventually(lambda: pool.status().state == "ready")
    assert pool.execute("SELECT 1").scalar() == 1


def test_coroutines_and_actors_are_told_and_served_in_the_same_way(
    pg: PgServer, proxy: Proxy, through: StartPool, node: actorpool.System, eventually: Eventually
) -> None:
    pool = through()
    ask = functools.partial(node.actor_system.ask, node.manager)
    pg.kill_backend(*backends(pool, 2))
    assert ask(WithConnection(pool.name, select_one), 10).unwrap() == 1
    pg.kill_backend(*backends(pool, 2))
    assert asyncio.run(pool.aio.run(select_one)) == 1
    proxy.stop()
    with pytest.raises(WorkerUnavailable) as caught:
        asyncio.run(pool.aio.run(select_one, checkout_timeout=0.2))
    assert isinstance(caught.value.cause, psycopg.OperationalError)
    answer = ask(WithConnection(pool.name, select_one, timeout=0.2), 10)
    assert isinstance(answer.error, WorkerUnavailable)
    assert isinstance(answer.error.cause, psycopg.OperationalError)
    proxy.start()
    eventually(lambda: pool.status().workers == 2)
    assert ask(WithConnection(pool.name, select_one), 10).unwrap() == 1


def select_one(conn: psycopg.Connection[Any]) -> int:
    return int(conn.execute("SELECT 1").fetchone()[0])  # type: ignore[index]


def test_a_breaker_opens_on_a_server_that_is_away_and_closes_when_it_is_back(
    proxy: Proxy, through: StartPool, eventually: Eventually
) -> None:
    pool = through(breaker=Breaker(failures=3, reset_after=0.3))
    proxy.stop()
    with pytest.raises((WorkerUnavailable, CircuitOpen)):
        pool.call("execute", "SELECT 1", checkout_timeout=1.0)
    eventually(lambda: pool.status().state == "circuit_open")
    with pytest.raises(CircuitOpen) as caught:
        for _ in range(20):
            with contextlib.suppress(WorkerUnavailable):  # the trial that is let in now and then
                pool.call("execute", "SELECT 1", checkout_timeout=0.1)
    assert isinstance(caught.value.cause, psycopg.OperationalError)
    proxy.start()
    eventually(lambda: pool.call("execute", "SELECT 1", checkout_timeout=0.3).scalar() == 1)
    eventually(lambda: pool.status().state == "ready")


def test_errors_of_statements_open_no_breaker(postgres: StartPool) -> None:
    pool = postgres(breaker=Breaker(failures=2))
    for _ in range(6):
        with pytest.raises(psycopg.errors.DivisionByZero):
            pool.execute("SELECT 1/0")
    assert pool.status().state == "ready"
