"""What every SQL worker promises, against real databases: the worker is driven as its host drives it."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from actorpool.errors import ActorPoolError
from actorpool.workers import DbapiWorker, PostgresWorker, Rollback, SqlAlchemyWorker, SqliteWorker, SqlWorker
from actorpool.workers.sql import iterate, run_in_transaction

KINDS = ["sqlite", "postgres", "dbapi-sqlite3", "dbapi-psycopg", "alchemy-sqlite", "alchemy-psycopg"]


@dataclass
class Database:
    """A database and how to make workers for it; `mark` is the placeholder for positional parameters."""

    kind: str
    make: Callable[..., SqlWorker]
    mark: str
    made: list[SqlWorker]

    def open(self, **more: Any) -> SqlWorker:
        worker = self.make(**more)
        worker.open()
        self.made.append(worker)
        return worker

    @property
    def is_sqlite(self) -> bool:
        return "sqlite" in self.kind


@pytest.fixture(params=KINDS)
def db(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    kind: str = request.param
    file = str(tmp_path / "test.db")
    pg: Any = None if "sqlite" in kind else request.getfixturevalue("pg")
    dsn = pg.dsn if pg else ""
    makers: dict[str, Callable[..., SqlWorker]] = {
        "sqlite": lambda **more: SqliteWorker(file, **more),
        "postgres": lambda **more: PostgresWorker(dsn, **more),
        "dbapi-sqlite3": lambda **more: DbapiWorker("sqlite3", database=file, **more),
        "dbapi-psycopg": lambda **more: DbapiWorker("psycopg", conninfo=dsn, **more),
        "alchemy-sqlite": lambda **more: SqlAlchemyWorker(f"sqlite:///{file}", **more),
        "alchemy-psycopg": lambda **more: SqlAlchemyWorker(
            "postgresql+psycopg://", connect_args=pg.parameters(), **more
        ),
    }
    database = Database(kind, makers[kind], "?" if "sqlite" in kind else "%s", [])
    yield database
    for worker in database.made:
        worker.close()


@pytest.fixture
def worker(db: Database) -> SqlWorker:
    opened = db.open()
    opened.execute("CREATE TABLE t (id integer PRIMARY KEY, name varchar(100))")
    opened.reset()
    return opened


def names(worker: SqlWorker) -> list[Any]:
    return [row[0] for row in worker.execute("SELECT name FROM t ORDER BY id")]


def add(worker: SqlWorker, number: int, name: str = "x") -> None:
    worker.execute(f"INSERT INTO t VALUES ({number}, '{name}')")


# -- results -----------------------------------------------------------------------------------------------


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


# -- transactions ------------------------------------------------------------------------------------------


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


def test_ddl_is_part_of_the_transaction(worker: SqlWorker) -> None:
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


# -- functions in a transaction ------------------------------------------------------------------------------


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


# -- streaming ---------------------------------------------------------------------------------------------


def fill(db: Database, worker: SqlWorker, rows: int) -> None:
    worker.executemany(f"INSERT INTO t VALUES ({db.mark}, {db.mark})", [(number, "x") for number in range(rows)])


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


# -- between leases ----------------------------------------------------------------------------------------


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
    show, change, mine = (
        ("PRAGMA cache_size", "PRAGMA cache_size = 77", "PRAGMA cache_size = 55")
        if db.is_sqlite
        else ("SHOW work_mem", "SET work_mem = '7MB'", "SET work_mem = '5MB'")
    )

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
    worker.execute(f"SELECT {db.mark}" + ("" if db.is_sqlite else "::text"), ["secret"])
    assert "ms: SELECT" in caplog.text
    assert "secret" not in caplog.text


def test_clear_cache_is_harmless_at_any_time(worker: SqlWorker) -> None:
    worker.clear_cache()
    worker.begin()
    add(worker, 1)
    worker.clear_cache()
    worker.commit()
    assert names(worker) == ["x"]
