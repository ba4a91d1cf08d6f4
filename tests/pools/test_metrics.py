"""What a pool of PostgreSQL sessions tells of itself over time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

import actorpool
from tests.pools.kit import backends
from tests.workers.pgserver import PgServer
from tests.workers.proxy import Proxy

Eventually = Callable[..., Any]


@pytest.fixture(scope="module")
def node() -> Iterator[actorpool.System]:
    """A system that takes samples often."""
    with actorpool.start(log_level="CRITICAL", metrics_interval=0.1) as running:
        yield running


def last(node: actorpool.System, pool: actorpool.Pool) -> Any:
    return node.metrics(pool.name).samples[-1]


def test_samples_tell_how_many_sessions_the_server_itself_counts(
    node: actorpool.System, pg: PgServer, postgres: Any, eventually: Eventually
) -> None:
    pool = postgres(size=3)
    eventually(lambda: last(node, pool).sessions == 3)
    with psycopg.connect(pg.dsn), psycopg.connect(pg.dsn):
        eventually(lambda: last(node, pool).sessions == 5)
    eventually(lambda: last(node, pool).sessions == 3)
    with pool.checkout(), pool.checkout():
        eventually(lambda: last(node, pool).leases == 2)
        eventually(lambda: last(node, pool).oldest_lease > 0.2)
    metrics = node.metrics(pool.name)
    assert (metrics.minimum, metrics.maximum) == (0, 2)
    assert 0 < metrics.average < 2
    assert pool.worker_stats()[1]["queries_executed"] == 0, "the question is nobody's query"


def test_samples_go_on_without_a_number_where_nobody_can_be_asked(
    node: actorpool.System, postgres: Any, eventually: Eventually
) -> None:
    pool = postgres(size=1)
    eventually(lambda: last(node, pool).sessions == 1)
    with pool.checkout():
        eventually(lambda: last(node, pool).sessions is None and last(node, pool).leases == 1)
    eventually(lambda: last(node, pool).sessions == 1)


@pytest.mark.parametrize(("go", "come_back"), [(Proxy.stop, Proxy.start), (Proxy.deafen, Proxy.hear)])
@pytest.mark.slow
def test_a_server_that_is_away_is_none_and_holds_nobody_up(
    go: Any, come_back: Any, node: actorpool.System, proxy: Proxy, through: Any, eventually: Eventually
) -> None:
    pool = through(size=2)
    eventually(lambda: last(node, pool).sessions == 2)
    go(proxy)
    before = len(node.metrics(pool.name).samples)
    eventually(lambda: last(node, pool).sessions is None)
    eventually(lambda: len(node.metrics(pool.name).samples) >= before + 5)
    with pytest.raises(actorpool.WorkerUnavailable):
        pool.call("execute", "SELECT 1", checkout_timeout=0.5)
    come_back(proxy)
    eventually(lambda: last(node, pool).sessions == 2)
    assert len(backends(pool, 2)) == 2
    assert pool.status().restarts == 0


def test_other_workers_have_no_sessions_to_count(node: actorpool.System, start: Any, eventually: Eventually) -> None:
    pool = start("actorpool.workers:SqliteWorker", worker_args={"database": ":memory:"})
    eventually(lambda: len(node.metrics(pool.name).samples) >= 3)
    assert {sample.sessions for sample in node.metrics(pool.name).samples} == {None}
