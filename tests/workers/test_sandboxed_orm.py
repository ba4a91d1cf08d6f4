"""ORM sessions in a sandbox: code that commits and rolls back its `Session` runs unchanged, and nothing stays."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from actorpool.workers import SqlAlchemyWorker
from actorpool.workers.worker_session import WorkerSession as HostSession

sa = pytest.importorskip("sqlalchemy", reason="the extra sqlalchemy is not installed")
from sqlalchemy import orm  # noqa: E402


class Base(orm.DeclarativeBase):
    pass


class Item(Base):
    __tablename__ = "item"
    id: orm.Mapped[int] = orm.mapped_column(primary_key=True)
    name: orm.Mapped[str] = orm.mapped_column(sa.String(50))


class Host:
    """A worker that gives sessions, in a sandbox; every call in the turn that `lease` says."""

    def __init__(self, worker: SqlAlchemyWorker) -> None:
        self.worker = worker
        self.session = HostSession(worker, None)
        self.session.open(0.0)
        self.session.admit(1, False, 0.0)
        self.session.run(lambda session: (Base.metadata.create_all(session.connection()), session.commit()), (), {})
        self.session.end(1)
        self.session.admit(2, False, 0.0)
        self.session.run("begin_sandbox", (), {})
        self.lease = 3

    def call(self, what: Any, *args: Any) -> Any:
        self.session.admit(self.lease, False, 0.0, True)
        return self.session.run(what, args, {})

    def turn(self) -> None:
        self.session.end(self.lease)
        self.lease += 1

    def names(self) -> list[str]:
        return [row[0] for row in self.call("execute", "SELECT name FROM item ORDER BY name")]


@pytest.fixture(params=["sqlite", "postgresql", "mariadb"])
def host(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Host]:
    if request.param == "sqlite":
        given: dict[str, Any] = {"url": f"sqlite:///{tmp_path}/app.db"}
    elif request.param == "mariadb":
        given = {"url": "mysql+pymysql://", "connect_args": request.getfixturevalue("mariadb").parameters()}
    else:
        given = {"url": "postgresql+psycopg://", "connect_args": request.getfixturevalue("pg").parameters()}
    host = Host(SqlAlchemyWorker(session=True, **given))
    yield host
    host.session.end(2)
    assert host.worker.execute("SELECT count(*) FROM item").scalar() == 0, "something of the sandbox was committed"
    host.session.close()


def add(session: Any, name: str, end: str = "") -> None:
    session.add(Item(name=name))
    if end:
        getattr(session, end)()


def test_a_commit_of_the_session_stays_in_the_sandbox(host: Host) -> None:
    host.call(add, "a", "commit")
    host.turn()
    host.call(add, "b", "rollback")
    host.turn()
    assert host.names() == ["a"]


def test_what_a_session_has_not_committed_goes_with_its_lease(host: Host) -> None:
    host.call(add, "a", "flush")
    host.turn()
    host.call(add, "b")
    host.turn()
    assert host.names() == []


def test_a_session_goes_on_from_call_to_call_of_a_lease(host: Host) -> None:
    host.call(add, "a", "flush")
    host.call(add, "b")
    host.call(lambda session: session.rollback())
    host.call(add, "c")
    host.call(lambda session: session.commit())
    host.call(add, "d")
    host.turn()
    assert host.names() == ["c"]


def test_a_transaction_in_one_call_has_a_session_that_may_commit_by_itself(host: Host) -> None:
    host.call("transact", add, ("a",))
    host.turn()
    host.call("transact", add, ("b", "commit"))
    host.turn()
    host.call("transact", add, ("c", "rollback"))
    host.turn()

    def fail(session: Any) -> None:
        add(session, "d", "flush")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        host.call("transact", fail)
    host.turn()
    assert host.names() == ["a", "b"]


def test_a_statement_that_fails_leaves_the_session_as_ever(host: Host) -> None:
    def collide(session: Any) -> str:
        session.add(Item(id=100, name="first"))
        session.commit()
        session.add(Item(id=100, name="second"))
        with pytest.raises(sa.exc.IntegrityError):
            session.flush()
        session.rollback()
        session.add(Item(name="third"))
        session.commit()
        return "went on"

    assert host.call(collide) == "went on"
    host.turn()
    assert host.names() == ["first", "third"]


def test_nested_sessions_and_the_workers_own_savepoints_may_be_mixed(host: Host) -> None:
    host.call(add, "a", "flush")  # the session's own savepoint is below the worker's ...
    host.call("begin")
    host.call(add, "b", "flush")
    host.call("rollback")
    host.call(lambda session: session.commit())
    host.turn()
    host.call("begin")
    host.call(add, "c", "flush")  # ... and here above
    host.call("commit")
    host.turn()

    def nested(session: Any) -> None:
        with session.begin_nested():
            add(session, "d")
        with pytest.raises(ZeroDivisionError), session.begin_nested():
            add(session, "e", "flush")
            raise ZeroDivisionError
        session.commit()

    host.call(nested)
    host.turn()
    assert host.names() == ["a", "c", "d"]
