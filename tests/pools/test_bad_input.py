"""A pool that cannot start says which worker failed, why, and what to do; it shows no secret and leaves nothing."""

from __future__ import annotations

import importlib
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy

import actorpool
from actorpool import InvalidConfig, PermanentError, PoolConfig, WorkerUnavailable
from actorpool.workers import EchoWorker, Worker
from tests.pools.conftest import StartPool
from tests.workers.pgserver import PgServer

WORD = "hunter2"
"""The password that nobody may see."""

NEVER: dict[str, tuple[str, dict[str, Any], str, str]] = {
    # worker, arguments (PG: the server's own), why, what to do
    "a DSN that cannot be read": ("Postgres", {"conninfo": f"dbname=x password={WORD} host"}, 'missing "="', "give "),
    "an unknown option": ("Postgres", {"conninfo": f"hots=x password={WORD}"}, '"hots"', "give "),
    "a refused login": ("Postgres", {"PG": {"user": "guarded"}}, "authentication failed", "check user and password"),
    "a missing role": ("Postgres", {"PG": {"user": "nobody"}}, 'role "nobody"', "create the role"),
    "a missing database": ("Postgres", {"PG": {"dbname": "nowhere"}}, '"nowhere" does not exist', "create the data"),
    "a missing directory": ("Sqlite", {"database": "/no/such/place/x.db"}, "no directory", "create it"),
    "an argument nobody knows": ("Sqlite", {"database": ":memory:", "colour": WORD}, "'colour'", "SqliteWorker"),
    "a missing driver": ("Dbapi", {"module_or_factory": "nosuchdriver", "password": WORD}, "nosuchdriver", "install"),
    "a dialect nobody knows": ("SqlAlchemy", {"url": f"odd://u:{WORD}@h/x"}, "odd", "correct the URL"),
    "a URL that cannot be read": ("SqlAlchemy", {"url": f"://u:{WORD}@h/x"}, "ArgumentError", "give "),
}


def shown(error: BaseException) -> str:
    """All that a person or a log may get to see of an error."""
    chain = [error, error.__cause__, getattr(error, "cause", None)]
    texts = [f"{each!r} {each} {vars(each)}" for each in chain if each is not None]
    return "\n".join([*traceback.format_exception(error), *texts])


@pytest.fixture
def guarded(pg: PgServer) -> Iterator[None]:
    """A role whose password is asked for."""
    assert pg.directory  # its pg_hba.conf says so
    pg.query("CREATE ROLE guarded LOGIN PASSWORD 'another'")
    yield
    pg.query("DROP ROLE guarded")


@pytest.mark.parametrize("what", NEVER)
def test_what_is_wrong_for_good_fails_the_start(
    what: str, node: actorpool.System, pg: PgServer, guarded: None, request: pytest.FixtureRequest
) -> None:
    worker, args, why, advice = NEVER[what]
    if "PG" in args:
        args = pg.parameters(password=WORD, **args["PG"])
    with pytest.raises(PermanentError) as caught:
        node.start_pool("wrong", worker=f"actorpool.workers:{worker}Worker", worker_args=args, size=2)
    text = str(caught.value)
    assert f"{worker}Worker" in text
    assert why in text
    assert advice in text
    assert caught.value.pool == "wrong"
    assert WORD not in shown(caught.value)
    assert node.pools() == []
    assert not [line for line in str(node.tree()).splitlines() if "wrong" in line or "worker" in line]


def test_the_same_name_starts_once_the_mistake_is_corrected(node: actorpool.System, start: StartPool) -> None:
    for database in ("/no/such/place/x.db", ":memory:"):
        try:
            pool = node.start_pool("again", worker="actorpool.workers:SqliteWorker", worker_args={"database": database})
        except PermanentError:
            continue
        assert pool.execute("SELECT 1").scalar() == 1
        node.stop_pool("again")


def test_settings_that_a_worker_refuses_are_named_one_by_one(node: actorpool.System) -> None:
    args = {"connect_timeout": -1, "prepare_threshold": "many", "password": WORD}
    with pytest.raises(InvalidConfig) as caught:
        node.start_pool("wrong", worker="actorpool.workers:PostgresWorker", worker_args=args)
    assert set(caught.value.problems) == {"connect_timeout", "prepare_threshold"}
    assert "PostgresWorker" in str(caught.value)
    assert WORD not in shown(caught.value)
    assert node.pools() == []


def test_auto_size_fails_the_start_as_a_worker_does(node: actorpool.System, pg: PgServer) -> None:
    with pytest.raises(PermanentError, match="nowhere"):
        args = pg.parameters(dbname="nowhere", password=WORD)
        node.start_pool("wrong", worker="actorpool.workers:PostgresWorker", worker_args=args, size="auto")
    assert node.pools() == []


def test_auto_size_of_a_worker_that_cannot_tell_is_a_mistake_in_the_settings() -> None:
    with pytest.raises(InvalidConfig) as caught:
        PoolConfig(worker="actorpool.workers:SqliteWorker", size="auto")
    assert "SqliteWorker cannot tell a size" in caught.value.problems["size"]


def test_a_bad_pair_of_delays_is_told_by_the_field_that_was_given() -> None:
    for given, blamed in (
        ({"backoff_min": 60.0}, "backoff_min"),
        ({"backoff_max": 0.01}, "backoff_max"),
        ({"backoff_min": 2.0, "backoff_max": 1.0}, "backoff_max"),
    ):
        with pytest.raises(InvalidConfig) as caught:
            PoolConfig(worker=EchoWorker, **given)
        assert set(caught.value.problems) == {blamed}


@pytest.mark.parametrize(
    ("args", "why"),
    [
        ({"host": "127.0.0.1", "port": 1}, "refused"),
        ({"host": "no.such.host.invalid"}, "no.such.host.invalid"),
    ],
    ids=["nobody listens", "no such host"],
)
def test_a_host_that_cannot_be_reached_is_tried_again_and_calls_say_so(
    args: dict[str, Any], why: str, start: StartPool, eventually: Callable[..., Any]
) -> None:
    pool = start("actorpool.workers:PostgresWorker", worker_args={"password": WORD, **args}, checkout_timeout=2.0)
    eventually(lambda: pool.status().state == "degraded", timeout=20)  # a worker may still import its driver
    with pytest.raises(WorkerUnavailable, match=why) as caught:
        pool.call("execute", "SELECT 1", checkout_timeout=0.1)
    assert "bring the resource back, or correct worker_args" in str(caught.value)
    assert isinstance(caught.value.cause, psycopg.OperationalError)
    assert WORD not in shown(caught.value)


MISSING: dict[str, tuple[str, dict[str, Any], str, str]] = {
    "psycopg": ("Postgres", {}, "PostgresWorker", "pip install 'psycopg[binary]>="),
    "sqlalchemy": ("SqlAlchemy", {"url": "sqlite://"}, "SqlAlchemyWorker", "pip install 'actorpool[sqlalchemy]'"),
    "h2": ("Http", {"base_url": "http://127.0.0.1:1", "http2": True}, "HttpWorker", "pip install 'actorpool[http2]'"),
}


def test_a_driver_or_extra_that_is_not_installed_is_named_with_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in MISSING:
        (tmp_path / f"{module}.py").write_text(f"raise ImportError(\"No module named '{module}'\")")
    assert psycopg
    assert sqlalchemy  # loaded here already: it is the node that goes without
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    with actorpool.start(log_level="CRITICAL") as system:
        for module, (worker, args, name, advice) in MISSING.items():
            with pytest.raises(PermanentError) as caught:
                system.start_pool("wrong", worker=f"actorpool.workers:{worker}Worker", worker_args=args)
            for part in (module, name, advice):
                assert part in str(caught.value)
            assert system.pools() == []


def test_no_secret_is_in_the_log_the_tree_or_the_command_lines(
    pg: PgServer, guarded: None, tmp_path: Path, eventually: Callable[..., Any]
) -> None:
    log = tmp_path / "node.log"
    with actorpool.start(log_level="CRITICAL", log_file=str(log)) as system:
        config = actorpool.PoolConfig(
            worker="actorpool.workers:PostgresWorker",
            worker_args={"host": "127.0.0.1", "port": 1, "password": WORD},
            checkout_timeout=0.2,
            size=1,
        )
        pool = system.start_pool("away", config)
        with pytest.raises(PermanentError):
            args = pg.parameters(user="guarded", password=WORD)
            system.start_pool("wrong", config, worker_args=args, checkout_timeout=10.0)
        eventually(lambda: "cannot connect" in log.read_text())
        pids = [node.pid for node in _nodes(system.tree()) if node.pid]
        seen = [log.read_text(), str(system.tree()), repr(config), repr(pool), repr(pool.status())]
        seen += [Path(f"/proc/{pid}/{part}").read_text() for pid in pids for part in ("cmdline", "environ")]
        assert WORD not in "\n".join(seen)


def _nodes(node: actorpool.status.TreeNode) -> Iterator[actorpool.status.TreeNode]:
    yield node
    for child in node.children:
        yield from _nodes(child)


class Closed(Worker):
    """Fails with errors of a module that is loaded no earlier."""

    def __init__(self, error: str) -> None:
        self.error = error

    def open(self) -> None:
        raise getattr(importlib.import_module("shop_errors"), self.error)("we are closed")


ERRORS = """
import os
from actorpool import PermanentError
with open({journal!r}, "a") as journal:
    print(os.getpid(), file=journal)
class NotNow(Exception):
    pass
class Never(PermanentError):
    pass
"""


def test_a_users_errors_are_imported_where_they_are_caught_and_nowhere_on_the_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = tmp_path / "journal"
    (tmp_path / "shop_errors.py").write_text(ERRORS.format(journal=str(journal)))
    monkeypatch.syspath_prepend(tmp_path)
    with actorpool.start(log_level="CRITICAL") as system:
        with pytest.raises(PermanentError, match="we are closed") as never:
            system.start_pool("never", worker=Closed, worker_args={"error": "Never"}, size=1)
        pool = system.start_pool("later", worker=Closed, worker_args={"error": "NotNow"}, size=1, checkout_timeout=5)
        with pytest.raises(WorkerUnavailable, match="NotNow: we are closed") as later:
            pool.call("anything", checkout_timeout=0.2)
        ours = [node.pid for node in _nodes(system.tree()) if node.kind != "worker"]
    assert type(never.value).__name__ == "Never"
    assert never.value.pool == "never"
    assert type(later.value.cause).__name__ == "NotNow"
    assert len(ours) >= 3
    assert not {int(line) for line in journal.read_text().splitlines()} & set(ours)
