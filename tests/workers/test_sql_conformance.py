"""What every SQL worker promises about statements and transactions, against real databases."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import pytest

from actorpool.errors import ActorPoolError, MethodNotFound
from actorpool.workers import Rollback, SqlWorker
from actorpool.workers.sql import run_in_transaction
from tests.workers.databases import Database, add, names


@pytest.fixture
def worker(db: Database) -> SqlWorker:
    return db.open_with_table()


# -- results ----------------------------------------------------------------------------------------------


def test_a_result_has_columns_rows_and_a_count_and_travels(worker: SqlWorker) -> None:
    add(worker, 1, "a")
    add(worker, 2, "b")
    result = worker.execute("SELECT id, name FROM t ORDER BY id")
    assert result.columns == ("id", "name")
    assert result.rows == [(1, "a"), (2, "b")]
    assert result.rowcount == 2
    assert list(result) == [(1, "a"), (2, "b")]
    assert result.scalar() == 1
    assert result.dicts()[1] == {"id": 2, "name": "b"}
    assert pickle.loads(pickle.dumps(result)) == result


def test_a_statement_without_rows_says_how_many_it_changed(worker: SqlWorker) -> None:
    for number in range(3):
        add(worker, number)
    result = worker.execute("UPDATE t SET name = 'y'")
    assert (result.columns, list(result.rows), result.rowcount) == ((), [], 3)
    assert result.scalar() is None
    assert bool(result)


def test_parameters_go_in_the_drivers_own_style(db: Database, worker: SqlWorker) -> None:
    worker.execute(f"INSERT INTO t VALUES ({db.mark}, {db.mark})", [1, "it's"])
    assert worker.execute(f"SELECT name FROM t WHERE id = {db.mark}", (1,)).scalar() == "it's"


def test_an_error_of_a_statement_is_the_drivers_own_and_the_worker_goes_on(worker: SqlWorker) -> None:
    with pytest.raises(Exception, match="nowhere") as caught:
        worker.execute("SELECT * FROM nowhere")
    assert not isinstance(caught.value, ActorPoolError)
    assert not worker.is_disconnect(caught.value)
    again = pickle.loads(pickle.dumps(caught.value))
    assert type(again) is type(caught.value)
    worker.reset()
    assert worker.execute("SELECT 1").scalar() == 1


def test_the_figures_count_statements_and_errors(db: Database) -> None:
    worker = db.open()
    worker.execute("SELECT 1")
    with pytest.raises(Exception, match="nowhere"):
        worker.execute("SELECT * FROM nowhere")
    stats = worker.stats()
    assert (stats["queries_executed"], stats["errors"], stats["connections_created"]) == (2, 1, 1)
    assert {"cache_hits", "cache_misses"} <= stats.keys()
    assert stats["uptime"] > 0


def test_who_looks_for_a_method_in_the_wrong_place_is_told_the_right_one(worker: SqlWorker) -> None:
    for name, place in (("iterate", "lease.iterate"), ("transaction", "verb of pools"), ("cursor", "run(fn)")):
        with pytest.raises(MethodNotFound) as caught:
            worker.find_method(name)
        assert name in str(caught.value)
        assert place in str(caught.value)
    assert worker.find_method("executes") is None


# -- transactions -----------------------------------------------------------------------------------------


def test_outside_a_transaction_every_statement_commits_by_itself(db: Database, worker: SqlWorker) -> None:
    add(worker, 1)
    assert not worker.in_transaction
    assert names(db.open()) == ["x"]


def test_begin_and_commit_make_a_transaction(db: Database, worker: SqlWorker) -> None:
    other = db.open()
    worker.begin()
    add(worker, 1)
    assert names(other) == []
    worker.commit()
    assert names(other) == ["x"]
    assert not worker.in_transaction


def test_rollback_undoes_everything_since_begin(worker: SqlWorker) -> None:
    worker.begin()
    add(worker, 1)
    worker.rollback()
    assert names(worker) == []
    add(worker, 2)
    assert names(worker) == ["x"]


def test_a_second_begin_is_a_savepoint(worker: SqlWorker) -> None:
    worker.begin()
    add(worker, 1, "kept")
    worker.begin()
    add(worker, 2, "undone")
    assert worker.depth == 2
    worker.rollback()
    worker.begin()
    add(worker, 3, "kept too")
    worker.commit()
    assert worker.depth == 1
    worker.commit()
    assert names(worker) == ["kept", "kept too"]


def test_a_failed_statement_in_a_savepoint_spoils_only_that(worker: SqlWorker) -> None:
    worker.begin()
    add(worker, 1)
    worker.begin()
    with pytest.raises(Exception, match="nowhere"):
        worker.execute("SELECT * FROM nowhere")
    worker.rollback()
    worker.commit()
    assert names(worker) == ["x"]


def test_ending_what_was_not_begun_is_an_error_that_says_what_to_do(worker: SqlWorker) -> None:
    for verb in (worker.commit, worker.rollback):
        with pytest.raises(ActorPoolError, match=r"no transaction is open; call begin\(\) first"):
            verb()


def test_options_of_a_savepoint_and_unknown_ones_are_refused(worker: SqlWorker) -> None:
    with pytest.raises(ValueError, match="isolation must be one of"):
        worker.begin(isolation="chaos")
    with pytest.raises(ValueError, match="takes isolation"):
        worker.begin(colour="red")
    worker.begin(isolation="serializable")
    with pytest.raises(ValueError, match="savepoint"):
        worker.begin(isolation="serializable")
    worker.rollback()


def test_ddl_is_part_of_the_transaction(db: Database, worker: SqlWorker) -> None:
    if db.is_mariadb:
        pytest.skip("MariaDB and MySQL commit before and after each CREATE")
    worker.begin()
    worker.execute("CREATE TABLE other (x integer)")
    worker.rollback()
    with pytest.raises(Exception, match="other"):
        worker.execute("SELECT * FROM other")


def test_executemany_is_all_or_nothing(db: Database, worker: SqlWorker) -> None:
    insert = f"INSERT INTO t VALUES ({db.mark}, {db.mark})"
    assert worker.executemany(insert, [(1, "a"), (2, "b")]).rowcount == 2
    with pytest.raises(Exception, match=r"(?i)unique|duplicate"):
        worker.executemany(insert, [(3, "c"), (1, "again")])
    assert names(worker) == ["a", "b"]
    assert worker.executemany(insert, []).rowcount <= 0
    worker.begin()
    worker.executemany(insert, [(4, "d")])
    worker.rollback()
    assert names(worker) == ["a", "b"]


# -- functions in a transaction ---------------------------------------------------------------------------


def insert_on(db: Database) -> Callable[..., Any]:
    """`fn(connection, number)` for any of the connections."""

    def insert(connection: Any, number: int, error: BaseException | None = None) -> int:
        statement = f"INSERT INTO t VALUES ({number}, 'x')"
        if db.kind.startswith("alchemy"):
            connection.exec_driver_sql(statement)
        else:
            connection.cursor().execute(statement)
        if error is not None:
            raise error
        return number * 10

    return insert


def test_a_function_runs_in_a_transaction_that_commits(db: Database, worker: SqlWorker) -> None:
    assert run_in_transaction(worker, insert_on(db), (1,)) == 10
    assert worker.transact(insert_on(db), (), {"number": 2}) == 20
    assert names(db.open()) == ["x", "x"]


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt(), SystemExit(1)])
def test_whatever_a_function_raises_rolls_its_transaction_back(
    db: Database, worker: SqlWorker, error: BaseException
) -> None:
    with pytest.raises(type(error)):
        worker.transact(insert_on(db), (1, error))
    assert not worker.in_transaction
    assert names(worker) == []


def test_rollback_raised_inside_is_no_error(db: Database, worker: SqlWorker) -> None:
    assert worker.transact(insert_on(db), (1, Rollback("thought better of it"))) == "thought better of it"
    assert names(worker) == []


def test_a_function_in_an_open_transaction_gets_a_savepoint(db: Database, worker: SqlWorker) -> None:
    worker.begin()
    worker.transact(insert_on(db), (1,))
    with pytest.raises(ValueError, match="no"):
        worker.transact(insert_on(db), (2, ValueError("no")))
    assert worker.depth == 1
    worker.commit()
    assert names(worker) == ["x"]


def test_a_block_that_was_ended_inside_takes_no_more_statements_until_it_is_left(worker: SqlWorker) -> None:
    worker.begin_block()
    add(worker, 1)
    worker.rollback()
    with pytest.raises(ActorPoolError, match=r"rollback\(\) has ended the transaction of this block"):
        add(worker, 2)
    with pytest.raises(ActorPoolError, match="leave the block"):
        _ = worker.connection
    worker.end_block()
    add(worker, 3)
    assert names(worker) == ["x"]


def test_a_block_ends_what_was_begun_in_it_and_left_open(worker: SqlWorker) -> None:
    worker.begin_block()
    worker.begin()
    add(worker, 1)
    worker.end_block()
    worker.begin_block()
    worker.begin()
    add(worker, 2)
    worker.end_block(commit=False)
    assert worker.depth == 0
    assert names(worker) == ["x"]
