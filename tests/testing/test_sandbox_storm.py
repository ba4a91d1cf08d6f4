"""Threads, timeouts, deaths and the end of the sandbox, all at once: nothing is ever committed, no worker is lost."""

from __future__ import annotations

import os
import random
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from actorpool.errors import ActorPoolError
from actorpool.testing import sandbox
from actorpool.workers import DbapiWorker, SqlAlchemyWorker
from tests.testing.kit import count, values

ROUNDS = 12
INSERT = "INSERT INTO t VALUES (1)"


def add_and_commit(conn: Any) -> None:
    conn.execute(INSERT)
    conn.commit()


def work(box: Any, chance: random.Random, over: threading.Event) -> None:
    """Use the sandbox in every way there is, as fast as it goes, also after its end."""
    while not over.is_set():
        way = chance.randrange(5)
        with suppress(ActorPoolError):
            if way == 0:
                box.execute(INSERT)
            elif way == 1:
                with box.transaction() as tx:
                    tx.execute(INSERT)
                    tx.execute(INSERT)
            elif way == 2:
                box.run(lambda conn: conn.execute("SELECT pg_sleep(1)") and None, call_timeout=0.01)
            elif way == 3:
                with box.checkout() as lease:
                    lease.begin()
                    lease.execute(INSERT)
            else:
                box.run(add_and_commit)
        over.wait(0.002)


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.slow
def test_nothing_is_ever_committed_whatever_goes_wrong(
    postgres: Callable[..., Any], pg: Any, eventually: Callable[..., Any], seed: int
) -> None:
    db = postgres(max_restarts=1000)
    chance = random.Random(seed)
    for _ in range(ROUNDS):
        over = threading.Event()
        with sandbox(db) as box:
            args = [(box, random.Random(chance.random()), over) for _ in range(3)]
            threads = [threading.Thread(target=work, args=it) for it in args]
            for thread in threads:
                thread.start()
            over.wait(chance.random() * 0.1)
            if chance.random() < 0.4:
                os.kill(next(worker.pid for worker in db.workers() if worker.state == "busy"), signal.SIGKILL)
        over.wait(0.02)
        over.set()
        for thread in threads:
            thread.join()
        assert pg.query("SELECT count(*) FROM t") == [(0,)]
        eventually(lambda: db.status().workers == 3, timeout=10)
    assert count(db) == 0


@pytest.mark.parametrize("kind", ["dbapi", "dbapi mariadb", "alchemy", "alchemy session"])
@pytest.mark.slow
def test_it_holds_for_pools_of_the_other_sql_workers(
    start: Callable[..., Any], kind: str, request: pytest.FixtureRequest
) -> None:
    server: Any = request.getfixturevalue("mariadb" if "mariadb" in kind else "pg")
    server.query("CREATE TABLE t (x int)")
    if kind == "dbapi":
        db = start(DbapiWorker, worker_args={"module_or_factory": "psycopg", "conninfo": server.dsn})
    elif kind == "dbapi mariadb":
        db = start(DbapiWorker, worker_args={"module_or_factory": "pymysql", **server.parameters()})
    else:
        args = {"url": "postgresql+psycopg://", "connect_args": server.parameters(), "session": kind != "alchemy"}
        db = start(SqlAlchemyWorker, worker_args=args)
    with sandbox(db), sandbox(db) as box:
        db.execute(INSERT)
        with db.transaction() as tx:
            tx.execute("INSERT INTO t VALUES (2)")
        with pytest.raises(ZeroDivisionError), db.transaction() as tx:
            tx.execute("INSERT INTO t VALUES (3)")
            raise ZeroDivisionError
        with pytest.raises(Exception, match="nowhere"):
            db.execute("SELECT * FROM nowhere")
        assert values(db) == values(box) == [1, 2]
        assert server.query("SELECT count(*) FROM t") == [(0,)]
    assert values(db) == []
