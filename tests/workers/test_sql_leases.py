"""What every SQL worker promises about streams and about what a lease leaves behind, against real databases."""

from __future__ import annotations

from typing import Any

import pytest

from actorpool.errors import ActorPoolError
from actorpool.workers import SqlWorker
from actorpool.workers.sql import iterate
from tests.workers.databases import Database, add, fill, names


@pytest.fixture
def worker(db: Database) -> SqlWorker:
    return db.open_with_table()


# -- streaming --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("inside", [False, True], ids=["autocommit", "transaction"])
@pytest.mark.parametrize("batch", [1, 3, 10, 1000])
def test_a_large_result_comes_in_batches(db: Database, worker: SqlWorker, batch: int, inside: bool) -> None:
    fill(db, worker, 10)
    calls: list[str] = []

    def call(method: str, *args: Any) -> Any:
        calls.append(method)
        return getattr(worker, method)(*args)

    if inside:
        worker.begin()
    rows = list(iterate(call, "SELECT id FROM t ORDER BY id", None, batch))
    assert rows == [(number,) for number in range(10)]
    assert calls.count("fetch") == 10 // batch + 1
    assert not worker._cursors
    worker.reset()


def test_other_statements_go_on_while_a_result_is_read(db: Database, worker: SqlWorker) -> None:
    fill(db, worker, 5)
    cursor = worker.open_cursor(f"SELECT id FROM t WHERE id >= {db.mark} ORDER BY id", [1], 2)
    assert worker.fetch(cursor) == [(1,), (2,)]
    add(worker, 100)
    assert worker.fetch(cursor)[0] == (3,)
    worker.close_cursor(cursor)
    with pytest.raises(ActorPoolError, match="not open"):
        worker.fetch(cursor)
    assert len(names(db.open())) == 6


@pytest.mark.parametrize("inside", [False, True], ids=["autocommit", "transaction"])
def test_a_stream_loses_no_row_by_what_is_done_beside_it(db: Database, worker: SqlWorker, inside: bool) -> None:
    fill(db, worker, 20)
    if inside:
        worker.begin()
    first = worker.open_cursor("SELECT id FROM t WHERE id < 20 ORDER BY id", None, 3)
    read = [worker.fetch(first)]
    second = worker.open_cursor("SELECT id FROM t WHERE id < 20 ORDER BY id DESC", None, 7)
    beside = [worker.fetch(second)]
    if inside:
        worker.begin()
    add(worker, 100)
    for _ in range(6):
        read.append(worker.fetch(first))
    for _ in range(2):
        beside.append(worker.fetch(second))
    assert [row[0] for rows in read for row in rows] == list(range(20))
    assert [row[0] for rows in beside for row in rows] == list(range(19, -1, -1))
    worker.reset()


def test_leaving_the_loop_early_closes_the_cursor(db: Database, worker: SqlWorker) -> None:
    fill(db, worker, 5)
    stream = iterate(lambda name, *args: getattr(worker, name)(*args), "SELECT id FROM t", None, 2)
    next(stream)
    assert worker._cursors
    stream.close()
    assert not worker._cursors


def test_a_batch_below_one_is_refused(worker: SqlWorker) -> None:
    with pytest.raises(ValueError, match="batch"):
        worker.open_cursor("SELECT 1", None, 0)


# -- between leases ---------------------------------------------------------------------------------------


def test_reset_rolls_an_open_transaction_back_with_a_warning(
    worker: SqlWorker, caplog: pytest.LogCaptureFixture
) -> None:
    worker.begin()
    worker.begin()
    add(worker, 1)
    worker.reset()
    assert "rolled back a transaction" in caplog.text
    assert worker.depth == 0
    assert names(worker) == []


def test_reset_without_anything_to_undo_says_nothing(worker: SqlWorker, caplog: pytest.LogCaptureFixture) -> None:
    add(worker, 1)
    worker.reset()
    worker.reset()
    assert caplog.text == ""
    assert names(worker) == ["x"]


def test_reset_closes_what_is_still_streamed(db: Database, worker: SqlWorker) -> None:
    fill(db, worker, 5)
    cursor = worker.open_cursor("SELECT id FROM t", None, 2)
    worker.fetch(cursor)
    worker.reset()
    with pytest.raises(ActorPoolError, match="its lease is over"):
        worker.fetch(cursor)
    add(worker, 100)  # nothing is locked by the cursor any more


def test_a_temporary_table_is_gone_after_reset(db: Database, worker: SqlWorker) -> None:
    worker.execute("CREATE TEMPORARY TABLE mine (x integer)")
    worker.execute("INSERT INTO mine VALUES (1)")
    worker.reset()
    with pytest.raises(Exception, match="mine"):
        worker.execute("SELECT * FROM mine")
    worker.reset()
    assert names(worker) == []


def test_settings_are_gone_after_reset_and_those_of_configure_stay(db: Database) -> None:
    if db.is_sqlite:
        show, change, mine = "PRAGMA cache_size", "PRAGMA cache_size = 77", "PRAGMA cache_size = 55"
    elif db.is_mariadb:
        show, change, mine = "SELECT @@lock_wait_timeout", "SET lock_wait_timeout = 7", "SET lock_wait_timeout = 55"
    else:
        show, change, mine = "SHOW work_mem", "SET work_mem = '7MB'", "SET work_mem = '5MB'"

    def configure(connection: Any) -> None:
        if db.kind.startswith("alchemy"):
            connection.exec_driver_sql(mine)
        else:
            connection.cursor().execute(mine)

    worker = db.open(configure=configure)
    before = worker.execute(show).scalar()
    worker.execute(change)
    assert worker.execute(show).scalar() != before
    worker.reset()
    assert worker.execute(show).scalar() == before in ("5MB", 55)


def test_a_check_passes_on_a_living_connection_and_a_closed_one_fails(worker: SqlWorker) -> None:
    worker.check()
    worker.close()
    with pytest.raises(Exception, match="closed"):
        worker.check()
    worker.open()
    worker.check()


def test_a_worker_can_be_closed_twice_and_opened_again(worker: SqlWorker) -> None:
    worker.close()
    worker.close()
    worker.open()
    assert worker.execute("SELECT 1").scalar() == 1
    assert worker.stats()["connections_created"] == 2


def test_the_query_log_has_statements_and_durations_but_no_parameters(
    db: Database, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="actorpool")
    worker = db.open(log_queries=True)
    worker.execute(f"SELECT concat({db.mark})" if db.is_mariadb else f"SELECT CAST({db.mark} AS text)", ["secret"])
    assert "ms: SELECT" in caplog.text
    assert "secret" not in caplog.text


def test_clear_cache_is_harmless_at_any_time(worker: SqlWorker) -> None:
    worker.clear_cache()
    worker.begin()
    add(worker, 1)
    worker.clear_cache()
    worker.commit()
    assert names(worker) == ["x"]
