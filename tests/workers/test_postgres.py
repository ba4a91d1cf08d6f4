"""`PostgresWorker` on a real server: interrupts, prepared statements, large results."""

from __future__ import annotations

import gc
import os
import time
from typing import Any

import psutil
import psycopg
import pytest

from actorpool.workers import PostgresWorker
from actorpool.workers.sql import iterate
from tests.workers.databases import OpenPostgres as Open
from tests.workers.databases import backend, prepared
from tests.workers.pgserver import PgServer


@pytest.fixture
def worker(open_postgres: Open) -> PostgresWorker:
    return open_postgres()


# -- interrupts -------------------------------------------------------------------------------------------


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


# -- prepared statements ----------------------------------------------------------------------------------


def test_a_statement_is_prepared_after_the_threshold_and_the_hits_are_counted(open_postgres: Open) -> None:
    worker = open_postgres(prepare_threshold=2)
    for number in range(6):
        worker.execute("SELECT %s::int", [number])
    stats = worker.stats()
    # Run twice as it is, prepared with the third, found prepared by the other three.
    assert (stats["cache_hits"], stats["cache_misses"], stats["cache_size"]) == (3, 3, 1)
    assert prepared(worker) == 1


def test_the_cache_is_bounded_on_the_server_too(open_postgres: Open) -> None:
    worker = open_postgres(prepare_threshold=0, prepared_statement_cache_size=3)
    for number in range(10):
        worker.execute(f"SELECT {number}")
    assert worker.stats()["cache_size"] == 3
    assert prepared(worker) <= 4  # the oldest one is deallocated along with the next statement


@pytest.mark.parametrize("never", [{"prepare_threshold": None}, {"prepared_statement_cache_size": 0}])
def test_statements_can_be_left_unprepared(open_postgres: Open, never: dict[str, Any]) -> None:
    worker = open_postgres(**never)
    for _ in range(10):
        worker.execute("SELECT 1")
    stats = worker.stats()
    assert (stats["cache_hits"], stats["cache_misses"], stats["cache_size"]) == (0, 0, 0)
    assert prepared(worker) == 0


def test_clear_cache_deallocates_on_the_server(open_postgres: Open) -> None:
    worker = open_postgres(prepare_threshold=0)
    worker.execute("SELECT 1")
    worker.execute("SELECT 2")
    worker.clear_cache()
    assert prepared(worker) == 0
    assert worker.stats()["cache_size"] == 0
    worker.execute("SELECT 1")
    assert prepared(worker) == 1


def test_clear_cache_in_a_failed_transaction_is_made_up_for(open_postgres: Open) -> None:
    worker = open_postgres(prepare_threshold=0)
    worker.execute("SELECT 1")
    worker.begin()
    with pytest.raises(psycopg.errors.UndefinedTable):
        worker.execute("SELECT * FROM nowhere")
    worker.clear_cache()
    worker.rollback()
    worker.execute("SELECT 2", None)
    assert prepared(worker) == worker.stats()["cache_size"] == 1  # the new one only


def test_prepared_statements_outlive_resets_clean_or_not(open_postgres: Open) -> None:
    worker = open_postgres(prepare_threshold=0)
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


def test_a_statement_that_lost_its_plan_is_run_again(open_postgres: Open) -> None:
    worker, other = open_postgres(prepare_threshold=0), open_postgres()
    worker.execute("CREATE TABLE t (x int)")
    worker.execute("INSERT INTO t VALUES (1)")
    for _ in range(2):
        assert worker.execute("SELECT * FROM t").rows == [(1,)]
    other.execute("ALTER TABLE t ADD COLUMN y text DEFAULT 'new'")
    assert worker.execute("SELECT * FROM t").rows == [(1, "new")]
    assert worker.stats()["errors"] == 0


def test_a_statement_that_the_server_has_forgotten_is_run_again(open_postgres: Open) -> None:
    worker = open_postgres(prepare_threshold=0)
    for _ in range(2):
        worker.execute("SELECT 1")
    worker.connection.pgconn.exec_(b"DEALLOCATE ALL")
    assert worker.execute("SELECT 1").scalar() == 1
    conn = worker.connection
    conn.pgconn.exec_(b"DEALLOCATE ALL")
    assert conn.execute("SELECT 1").fetchone() == (1,)


def test_inside_a_transaction_a_lost_plan_is_an_error_once(open_postgres: Open) -> None:
    worker, other = open_postgres(prepare_threshold=0), open_postgres()
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


# -- large results ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("inside", [False, True], ids=["autocommit", "transaction"])
@pytest.mark.slow
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


def test_cursors_of_workers_that_a_pooler_puts_on_one_session_have_names_of_their_own(open_postgres: Open) -> None:
    workers = [open_postgres() for _ in range(2)]
    names = []
    for worker in workers:
        for _ in range(2):
            worker.open_cursor("SELECT 1")
        names += [name for (name,) in worker.execute("SELECT name FROM pg_cursors WHERE name <> ''")]
        worker.reset()
    assert len(set(names)) == 4
