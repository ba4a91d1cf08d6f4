"""A million rows, one by one: bounded memory in the worker and in the caller."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import actorpool
from tests.pools.conftest import StartPool
from tests.workers.pgserver import PgServer

ROWS = 1_000_000
LIMIT = 64.0
"""MB that the peak of each of the two processes may be above what it had before."""
QUERY = "SELECT id, name FROM t"


def _memory(what: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(what))


def begin(_conn: Any = None) -> float:
    """Forget this process's peak; what it has now, in MB."""
    Path("/proc/self/clear_refs").write_text("5")
    return _memory("VmRSS")


def peak(_conn: Any = None) -> float:
    """The most that this process had since `begin`, in MB."""
    return _memory("VmHWM")


def in_postgres(pg: PgServer, rows: int) -> None:
    pg.query(f"CREATE TABLE t AS SELECT n AS id, 'the name of ' || n AS name FROM generate_series(1, {rows}) AS n")


def in_sqlite(file: Path, rows: int) -> None:
    conn = sqlite3.connect(file)
    numbers = f"WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n LIMIT {rows})"
    conn.execute(f"CREATE TABLE t AS {numbers} SELECT x AS id, 'the name of ' || x AS name FROM n")
    conn.commit()
    conn.close()


@pytest.fixture(params=["postgres", "sqlite", "alchemy-psycopg"])
def big(request: pytest.FixtureRequest, start: StartPool, tmp_path: Path) -> Callable[[int], actorpool.Pool]:
    """Start a pool of one worker on a table `t` of so many rows."""

    def make(rows: int) -> actorpool.Pool:
        if request.param == "sqlite":
            in_sqlite(tmp_path / "big.db", rows)
            return start("actorpool.workers:SqliteWorker", worker_args={"database": str(tmp_path / "big.db")}, size=1)
        pg: PgServer = request.getfixturevalue("pg")
        in_postgres(pg, rows)
        if request.param == "postgres":
            return start("actorpool.workers:PostgresWorker", worker_args={"conninfo": pg.dsn}, size=1)
        args = {"url": "postgresql+psycopg://", "connect_args": pg.parameters()}
        return start("actorpool.workers:SqlAlchemyWorker", worker_args=args, size=1)

    return make


@pytest.mark.slow
@pytest.mark.parametrize("within", ["a lease", "a transaction"])
def test_a_million_rows_cost_bounded_memory_on_both_sides(
    within: str, big: Callable[[int], actorpool.Pool], request: pytest.FixtureRequest
) -> None:
    pool = big(ROWS)
    with pool.checkout() if within == "a lease" else pool.transaction() as lease:
        before = lease.run(begin), begin()
        began = time.perf_counter()
        total = sum(number for number, _ in lease.iterate(QUERY))
        took = time.perf_counter() - began
        grown = lease.run(peak) - before[0], peak() - before[1]
    print(f"{request.node.name}: {took:.1f} s, worker +{grown[0]:.1f} MB, caller +{grown[1]:.1f} MB (goal 64)")
    assert total == ROWS * (ROWS + 1) // 2
    assert max(grown) < LIMIT


@pytest.mark.slow
def test_coroutines_stream_in_bounded_memory_as_well(big: Callable[[int], actorpool.Pool]) -> None:
    pool = big(ROWS)

    async def main() -> tuple[int, float, float]:
        async with pool.aio.checkout() as lease:
            before = await lease.run(begin), begin()
            count = 0
            async for _ in lease.iterate(QUERY):
                count += 1
            return count, await lease.run(peak) - before[0], peak() - before[1]

    count, *grown = asyncio.run(main())
    assert count == ROWS
    assert max(grown) < LIMIT


def test_a_stream_that_is_left_early_leaves_its_lease_usable(big: Callable[[int], actorpool.Pool]) -> None:
    pool = big(10_000)
    with pool.checkout() as lease:
        for number, _ in lease.iterate(QUERY, batch=100):
            if number == 150:
                break
        assert lease.execute("SELECT count(*) FROM t").scalar() == 10_000
        stream = lease.iterate(QUERY, batch=10)
        next(stream)
    with pytest.raises(actorpool.LeaseExpired):
        list(stream)
    assert pool.execute("SELECT count(*) FROM t").scalar() == 10_000


def test_other_statements_go_on_beside_a_stream_and_stand_for_themselves(
    big: Callable[[int], actorpool.Pool],
) -> None:
    pool = big(1000)
    pool.execute("CREATE TABLE notes (x integer)")
    with pool.checkout() as lease:
        for number, _ in lease.iterate(QUERY, batch=10):
            if number % 250 == 0:
                lease.execute(f"INSERT INTO notes VALUES ({number})")
        lease.begin()
        lease.rollback()
    assert pool.execute("SELECT count(*) FROM notes").scalar() == 4
