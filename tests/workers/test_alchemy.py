"""`SqlAlchemyWorker`: connections and sessions of SQLAlchemy, on SQLite, PostgreSQL and MariaDB."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from actorpool.errors import InvalidConfig, PermanentError
from actorpool.workers import SqlAlchemyWorker
from tests.workers.pgserver import PgServer

sa = pytest.importorskip("sqlalchemy", reason="the extra sqlalchemy is not installed")
from sqlalchemy import orm  # noqa: E402


class Base(orm.DeclarativeBase):
    pass


class Item(Base):
    __tablename__ = "item"
    id: orm.Mapped[int] = orm.mapped_column(primary_key=True)
    name: orm.Mapped[str] = orm.mapped_column(sa.String(50))


Make = Callable[..., SqlAlchemyWorker]


@pytest.fixture(params=["sqlite", "postgresql", "mariadb"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Make]:
    """Workers of one database in which the table `item` is."""
    made: list[SqlAlchemyWorker] = []
    if request.param == "sqlite":
        given: dict[str, Any] = {"url": f"sqlite:///{tmp_path}/app.db"}
    elif request.param == "mariadb":
        given = {"url": "mysql+pymysql://", "connect_args": request.getfixturevalue("mariadb").parameters()}
    else:
        pg: PgServer = request.getfixturevalue("pg")
        given = {"url": "postgresql+psycopg://", "connect_args": pg.parameters()}

    def worker(**more: Any) -> SqlAlchemyWorker:
        opened = SqlAlchemyWorker(**given, **more)
        opened.open()
        made.append(opened)
        return opened

    first = worker()
    Base.metadata.create_all(first.connection)
    first.reset()
    yield worker
    for each in made:
        each.close()


def names(worker: SqlAlchemyWorker) -> list[str]:
    return [row[0] for row in worker.execute("SELECT name FROM item ORDER BY id")]


def test_a_function_on_the_connection_commits_each_statement(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    worker = make()
    worker.connection.execute(sa.insert(Item).values(id=1, name="a"))
    assert names(make()) == ["a"]
    worker.reset()
    assert caplog.text == ""


def test_a_block_of_the_functions_own_is_a_real_transaction(make: Make) -> None:
    worker, other = make(), make()
    conn = worker.connection
    conn.execute(sa.text("SELECT 1"))
    with conn.begin():
        conn.execute(sa.insert(Item).values(id=1, name="a"))
        assert names(other) == []
    assert names(other) == ["a"]
    with pytest.raises(sa.exc.IntegrityError), conn.begin():
        conn.execute(sa.insert(Item), [{"id": 2, "name": "b"}, {"id": 1, "name": "again"}])
    conn.execute(sa.insert(Item).values(id=3, name="c"))
    assert names(other) == ["a", "c"]
    with conn.begin(), conn.begin_nested():
        conn.execute(sa.insert(Item).values(id=4, name="d"))
    assert names(other) == ["a", "c", "d"]


def test_a_transaction_that_a_function_left_open_is_rolled_back(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    worker = make()
    worker.connection.begin()
    worker.connection.execute(sa.insert(Item).values(id=1, name="a"))
    worker.reset()
    assert "rolled back a transaction" in caplog.text
    assert names(worker) == []


def test_a_session_is_committed_by_the_function(make: Make) -> None:
    worker = make(session=True)
    session = worker.connection
    assert isinstance(session, orm.Session)
    session.add(Item(id=1, name="a"))
    session.commit()
    worker.reset()
    assert names(make()) == ["a"]
    assert worker.connection is not session


def test_a_session_that_only_read_is_ended_without_a_word(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    worker = make(session=True)
    worker.connection.scalars(sa.select(Item)).all()
    worker.reset()
    assert caplog.text == ""
    worker.connection.add(Item(id=1, name="a"))
    worker.connection.flush()
    worker.reset()
    assert "rolled back a transaction" in caplog.text
    assert names(worker) == []


def test_a_session_in_a_transaction_of_the_worker(make: Make) -> None:
    worker, other = make(session=True), make()

    def add(session: orm.Session, number: int, fail: bool = False) -> None:
        session.add(Item(id=number, name=f"item {number}"))
        if fail:
            raise ValueError("no")

    worker.transact(add, (1,))
    with pytest.raises(ValueError, match="no"):
        worker.transact(add, (2,), {"fail": True})
    assert names(other) == ["item 1"]
    worker.begin()
    worker.execute("INSERT INTO item VALUES (:id, :name)", {"id": 3, "name": "item 3"})
    add(worker.connection, 4)
    worker.commit()
    worker.reset()
    assert names(other) == ["item 1", "item 3", "item 4"]


def test_parameters_by_name_are_sqlalchemys(make: Make) -> None:
    worker = make()
    rows = [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}]
    assert worker.executemany("INSERT INTO item VALUES (:id, :name)", rows).rowcount == 2
    assert worker.execute("SELECT name FROM item WHERE id = :id", {"id": 2}).scalar() == "b"


def test_what_a_function_alters_is_undone(make: Make) -> None:
    worker = make()
    worker.connection.execute(sa.text("CREATE TEMPORARY TABLE mine (x integer)"))
    worker.reset()
    with pytest.raises(sa.exc.DBAPIError):
        worker.execute("SELECT * FROM mine")


def test_isolation_lasts_for_one_transaction(pg: PgServer) -> None:
    worker = SqlAlchemyWorker("postgresql+psycopg://", connect_args=pg.parameters())
    worker.open()
    worker.begin(isolation="serializable", read_only=True)
    assert worker.execute("SHOW transaction_isolation").scalar() == "serializable"
    assert worker.execute("SHOW transaction_read_only").scalar() == "on"
    worker.rollback()
    worker.begin()
    assert worker.execute("SHOW transaction_isolation").scalar() == "read committed"
    worker.commit()
    worker.close()


def test_a_killed_backend_is_a_disconnect_and_errors_of_statements_are_not(pg: PgServer) -> None:
    worker = SqlAlchemyWorker("postgresql+psycopg://", connect_args=pg.parameters())
    worker.open()
    with pytest.raises(sa.exc.ProgrammingError) as wrong:
        worker.execute("SELECT * FROM nowhere")
    assert not worker.is_disconnect(wrong.value)
    pg.kill_backend(worker.execute("SELECT pg_backend_pid()").scalar())
    with pytest.raises(sa.exc.OperationalError) as gone:
        worker.execute("SELECT 1")
    assert worker.is_disconnect(gone.value)
    worker.close()
    worker.open()
    worker.check()
    worker.close()


def test_commit_of_a_failed_transaction_is_an_error(pg: PgServer) -> None:
    worker = SqlAlchemyWorker("postgresql+psycopg://", connect_args=pg.parameters())
    worker.open()

    def swallows(conn: Any) -> None:
        try:
            conn.execute(sa.text("SELECT * FROM nowhere"))
        except sa.exc.ProgrammingError:
            pass

    with pytest.raises(sa.exc.InternalError, match="aborted"):
        worker.transact(swallows)
    assert not worker.in_transaction
    worker.close()


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("nonsense://me:s3cret@host/db", "nonsense"),
        ("me:s3cret@host/db", "refuses the URL"),
        ("mysql+mysqldb_no://me:s3cret@host/db", "mysqldb_no"),
    ],
)
def test_a_bad_url_is_refused_without_its_secrets(url: str, says: str) -> None:
    with pytest.raises(PermanentError, match=says) as caught:
        SqlAlchemyWorker(url).open()
    assert "s3cret" not in str(caught.value)


def test_a_missing_sqlalchemy_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sqlalchemy", None)
    with pytest.raises(PermanentError, match=r"pip install 'actorpool\[sqlalchemy\]'"):
        SqlAlchemyWorker("sqlite://").open()


def test_a_refused_login_is_said_for_good_without_the_password(pg: PgServer) -> None:
    worker = SqlAlchemyWorker("postgresql+psycopg://", connect_args=pg.parameters(user="nobody", password="s3cret"))
    with pytest.raises(PermanentError, match="create the role, or correct the user") as caught:
        worker.open()
    assert "s3cret" not in str(caught.value)


def test_the_url_is_required_and_never_shown() -> None:
    with pytest.raises(InvalidConfig, match="url: is required"):
        SqlAlchemyWorker()
    worker = SqlAlchemyWorker("sqlite://")
    assert repr(worker) == "<SqlAlchemyWorker, not connected>"
    worker.open()
    assert repr(worker) == "<SqlAlchemyWorker sqlite://>"
    worker.close()
