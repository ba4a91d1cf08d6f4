"""The sandbox as the worker's process has it, against real databases: nothing that is done in it is ever committed."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest

from actorpool.errors import ActorPoolError, LeaseExpired, MethodNotFound
from actorpool.workers import EchoWorker, Rollback, SqlWorker
from actorpool.workers.worker_session import Unavailable, WorkerSession
from tests.workers.databases import Database

COUNT = "SELECT count(*) FROM t"


class Host:
    """What hosts a worker: leases 1, 2, ... of which the first opens the sandbox and the others are turns in it."""

    def __init__(self, db: Database) -> None:
        self.worker: SqlWorker = db.open_with_table()
        self.other = db.open()
        self.session = WorkerSession(self.worker, None)
        self.session.connected = True
        self.lease = 1
        self.session.admit(1, False, 0.0)
        self.session.run("begin_sandbox", (), {})

    def turn(self) -> None:
        """End the turn that there was, and begin another."""
        self.session.end(self.lease) if self.lease > 1 else None
        self.lease += 1

    def call(self, what: Any, *args: Any) -> Any:
        """A call of this turn."""
        self.session.admit(self.lease, False, 0.0, True)
        return self.session.run(what, args, {})

    def once(self, what: Any, *args: Any) -> Any:
        """A turn of one call."""
        self.turn()
        return self.call(what, *args)

    def add(self, number: int) -> None:
        self.call("execute", f"INSERT INTO t VALUES ({number}, 'x')")

    def count(self) -> int:
        return int(self.call("execute", COUNT).scalar())

    def leave(self) -> None:
        """The first lease ends, and the sandbox with it."""
        self.session.end(1)


@pytest.fixture
def host(db: Database) -> Iterator[Host]:
    host = Host(db)
    host.turn()
    yield host
    host.leave()
    assert host.other.execute(COUNT).scalar() == 0, "something of the sandbox was committed"


def rows_by_cursor(conn: Any, statement: str) -> Any:
    """Run a statement on a raw connection of any kind."""
    if hasattr(conn, "exec_driver_sql"):
        result = conn.exec_driver_sql(statement)
        return result.fetchall() if result.returns_rows else None
    cursor = conn.cursor()
    cursor.execute(statement)
    return cursor.fetchall() if cursor.description else None


def add_and_commit(conn: Any, number: int) -> None:
    rows_by_cursor(conn, f"INSERT INTO t VALUES ({number}, 'x')")
    conn.commit()


def add_and_roll_back(conn: Any) -> None:
    rows_by_cursor(conn, "INSERT INTO t VALUES (7, 'x')")
    conn.rollback()


def add_in_a_block(conn: Any) -> None:
    with conn.transaction() if hasattr(conn, "transaction") else conn.begin():
        rows_by_cursor(conn, "INSERT INTO t VALUES (8, 'x')")


def commit_as_a_statement(conn: Any) -> None:
    rows_by_cursor(conn, "INSERT INTO t VALUES (9, 'x')")
    rows_by_cursor(conn, "COMMIT")


# -- what stays, what goes ----------------------------------------------------------------------------------


def test_turns_see_what_others_did_before_and_nobody_else_does(db: Database, host: Host) -> None:
    host.add(1)
    host.turn()
    assert host.count() == 1
    if not (db.is_sqlite and db.kind != "sqlite"):
        assert host.other.execute(COUNT).scalar() == 0


def test_everything_is_gone_when_the_first_lease_ends(host: Host) -> None:
    host.add(1)
    host.once("begin")
    host.add(2)
    host.call("commit")
    host.leave()
    assert host.worker.execute(COUNT).scalar() == 0
    assert not host.worker.in_transaction


def test_begin_commit_and_rollback_are_savepoints(host: Host) -> None:
    host.call("begin")
    host.add(1)
    host.call("begin")
    host.add(2)
    host.call("rollback")
    host.call("commit")
    assert host.count() == 1
    with pytest.raises(ActorPoolError, match="no transaction is open"):
        host.call("commit")
    with pytest.raises(ActorPoolError, match="no transaction is open"):
        host.call("rollback")
    assert host.count() == 1


def test_so_they_are_as_statements(host: Host) -> None:
    host.call("execute", "BEGIN")
    host.add(1)
    host.call("execute", "commit;")
    host.call("execute", "Begin TRANSACTION")
    host.add(2)
    host.call("execute", "ROLLBACK")
    assert host.count() == 1
    with pytest.raises(ActorPoolError, match="transaction"):
        host.call("execute", "COMMIT")
    with pytest.raises(ActorPoolError, match="would end it"):
        host.call("execute", "DELETE FROM t; COMMIT")
    assert host.count() == 1


def test_options_of_a_transaction_are_accepted_and_have_no_say(host: Host) -> None:
    host.call("begin", "serializable")
    with pytest.raises(ValueError, match="takes no options"):
        host.call("begin", "serializable")
    host.call("rollback")
    with pytest.raises(ValueError, match="isolation"):
        host.call("begin", "sometimes")


def test_a_transaction_in_one_call_commits_into_the_sandbox_or_not_at_all(host: Host) -> None:
    def work(conn: Any, number: int, error: BaseException | None = None) -> str:
        rows_by_cursor(conn, f"INSERT INTO t VALUES ({number}, 'x')")
        if error is not None:
            raise error
        return "done"

    assert host.once("transact", work, (1,)) == "done"
    with pytest.raises(ZeroDivisionError):
        host.once("transact", work, (2, ZeroDivisionError()))
    assert host.once("transact", work, (3, Rollback("wished"))) == "wished"
    assert host.count() == 1


def test_what_a_turn_leaves_open_is_rolled_back_and_no_more(host: Host, caplog: pytest.LogCaptureFixture) -> None:
    host.add(1)
    host.turn()
    host.call("begin")
    host.add(2)
    host.call("begin_block")
    host.add(3)
    with caplog.at_level(logging.WARNING, "actorpool"):
        host.turn()
        assert host.count() == 1
    assert "its lease left open" in caplog.text
    host.call("begin")
    host.add(4)
    host.call("commit")
    assert host.count() == 2


def test_a_turn_that_is_taken_back_goes_back_to_where_it_began(host: Host) -> None:
    host.add(1)
    host.turn()
    host.call("begin")
    host.add(2)
    host.session.revoke(host.lease)
    with pytest.raises(LeaseExpired):
        host.count()
    host.lease += 1
    assert host.count() == 1


def test_the_end_of_a_sandbox_is_no_reason_for_a_warning(host: Host, caplog: pytest.LogCaptureFixture) -> None:
    host.add(1)
    with caplog.at_level(logging.WARNING, "actorpool"):
        host.leave()
    assert not caplog.records


# -- statements that stand for themselves ---------------------------------------------------------------------


def test_a_statement_that_fails_spoils_nothing(host: Host) -> None:
    host.add(1)
    for _ in range(2):
        with pytest.raises(Exception, match=r"(?i)unique|duplicate"):
            host.once("execute", "INSERT INTO t VALUES (1, 'again')")
    with pytest.raises(Exception, match="nowhere"):
        host.call("execute", "SELECT * FROM nowhere")
    assert host.once("execute", COUNT).scalar() == 1


def test_a_statement_that_fails_in_a_transaction_can_be_rolled_back(host: Host) -> None:
    host.call("begin")
    host.add(1)
    host.call("begin")
    with pytest.raises(Exception, match="nowhere"):
        host.call("execute", "SELECT * FROM nowhere")
    host.call("rollback")
    host.call("commit")
    assert host.count() == 1


def test_many_rows_are_all_or_nothing(db: Database, host: Host) -> None:
    query = f"INSERT INTO t VALUES ({db.mark}, {db.mark})"
    with pytest.raises(Exception, match=r"(?i)unique|duplicate"):
        host.once("executemany", query, [(1, "x"), (2, "x"), (1, "y")])
    assert host.count() == 0
    host.once("executemany", query, [(1, "x"), (2, "x")])
    assert host.count() == 2


def test_rows_are_streamed_in_a_turn_and_its_end_closes_the_cursor(host: Host) -> None:
    for number in range(5):
        host.add(number)
    host.turn()
    cursor = host.call("open_cursor", "SELECT id FROM t ORDER BY id", None, 2)
    assert [len(host.call("fetch", cursor)) for _ in range(2)] == [2, 2]
    host.turn()
    with pytest.raises(ActorPoolError, match="not open"):
        host.call("fetch", cursor)


# -- the raw connection ---------------------------------------------------------------------------------------


def test_commit_and_rollback_of_the_raw_connection_do_nothing(host: Host) -> None:
    host.once(add_and_commit, 1)
    host.once("transact", add_and_commit, (2,))
    host.once(add_and_roll_back)
    assert host.count() == 3, "as in autocommit mode, where both have nothing to do"


def test_a_transaction_block_of_the_raw_connection_is_a_savepoint(db: Database, host: Host) -> None:
    if db.kind not in ("postgres", "alchemy-sqlite", "alchemy-psycopg"):
        pytest.skip("its connections have no such blocks")
    host.once(add_in_a_block)

    def fail(conn: Any) -> None:
        with conn.transaction() if hasattr(conn, "transaction") else conn.begin():
            rows_by_cursor(conn, "INSERT INTO t VALUES (9, 'x')")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        host.once(fail)
    assert host.once("execute", COUNT).scalar() == 1


def test_a_raw_commit_is_refused_before_it_is_done(db: Database, host: Host) -> None:
    if db.kind.startswith("dbapi"):
        pytest.skip("DB-API gives no way to see the statements of fn")
    with pytest.raises(ActorPoolError, match="would end it"):
        host.once(commit_as_a_statement)
    host.turn()
    assert host.count() in (0, 1), "what stands for itself may stay"
    host.add(2)


@pytest.mark.parametrize("db", ["dbapi-sqlite3", "dbapi-psycopg"], indirect=True)
def test_a_raw_commit_that_cannot_be_seen_is_noticed_and_ends_the_sandbox(db: Database) -> None:
    host = Host(db)
    host.turn()
    with pytest.raises(ActorPoolError, match="ended from inside"):
        host.call(commit_as_a_statement)
    with pytest.raises(ActorPoolError, match="ended from inside"):
        host.count()
    host.leave()
    host.worker.execute("DELETE FROM t")


def test_a_script_is_run_statement_by_statement(db: Database, host: Host) -> None:
    if db.kind != "sqlite":
        pytest.skip("sqlite3's own")

    def script(conn: Any) -> None:
        conn.executescript("INSERT INTO t VALUES (1, 'a;b'); -- one\nINSERT INTO t VALUES (2, 'x');\n\n")

    host.once(script)
    assert host.count() == 2


# -- who gets in ------------------------------------------------------------------------------------------------


def test_a_turn_is_refused_once_the_sandbox_is_over(host: Host) -> None:
    host.leave()
    host.lease += 1
    with pytest.raises(LeaseExpired):
        host.count()


def test_a_lease_that_is_no_turn_ends_the_sandbox_first(host: Host) -> None:
    host.add(1)
    host.session.admit(99, False, 0.0)
    assert host.session.run("execute", (COUNT,), {}).scalar() == 0
    host.lease = 100
    with pytest.raises(LeaseExpired):
        host.count()


def test_a_lost_connection_ends_the_sandbox_and_no_other_takes_its_place(host: Host) -> None:
    host.add(1)
    host.session.lose(ConnectionError("cut"))
    host.turn()
    with pytest.raises(Unavailable, match="cut"):
        host.count()
    host.leave()
    host.session.open(0.0)
    assert host.worker.execute(COUNT).scalar() == 0


def test_a_sandbox_does_not_begin_in_a_transaction(db: Database) -> None:
    worker = db.open_with_table()
    worker.begin()
    with pytest.raises(ActorPoolError, match="inside a transaction"):
        worker.begin_sandbox()


def test_other_workers_have_no_sandbox() -> None:
    session = WorkerSession(EchoWorker(), None)
    session.open(0.0)
    session.admit(1, False, 0.0)
    with pytest.raises(MethodNotFound, match="begin_sandbox"):
        session.run("begin_sandbox", (), {})


def test_two_sandboxes_do_not_see_each_other(db: Database, host: Host) -> None:
    other = WorkerSession(host.other, None)
    other.connected = True
    other.admit(1, False, 0.0)
    other.run("begin_sandbox", (), {})
    host.add(1)
    other.admit(2, False, 0.0, True)
    assert other.run("execute", (COUNT,), {}).scalar() == 0
    if not db.is_sqlite:  # which has one writer at a time
        other.run("execute", ("INSERT INTO t VALUES (2, 'x')",), {})
        assert host.count() == 1
    other.end(1)
