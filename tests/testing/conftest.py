"""One node for each module, one pool for each test; processes that use a pool by a handle that they were sent."""

from __future__ import annotations

import base64
import itertools
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

import actorpool
from actorpool import LocalPool, PoolConfig
from actorpool.workers import PostgresWorker, SqliteWorker

StartPool = Callable[..., Any]
_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def node() -> Iterator[actorpool.System]:
    """A system that the tests of one module share."""
    with actorpool.start(log_level="CRITICAL") as running:
        yield running


@pytest.fixture(scope="module")
def messenger() -> Iterator[actorpool.System]:
    """A system that is reached by messages only."""
    with actorpool.start(base="multiprocUDPBase", log_level="CRITICAL") as running:
        yield running


@pytest.fixture
def start(node: actorpool.System) -> Iterator[StartPool]:
    """Start a pool of three workers under a fresh name; it is stopped after the test."""
    with pools_of(node) as make:
        yield make


@contextmanager
def pools_of(system: actorpool.System) -> Iterator[StartPool]:
    names: list[str] = []

    def make(worker: Any, **fields: Any) -> Any:
        names.append(f"pool{next(_numbers)}")
        return system.start_pool(names[-1], worker=worker, **{"size": 3, "max_overflow": 0, **fields})

    yield make
    for name in names:
        with suppress(actorpool.PoolNotFound):
            system.stop_pool(name, timeout=0.5)


def with_table(pool: Any) -> Any:
    """The pool, with a table `t` in its database."""
    pool.execute("CREATE TABLE t (x int)")
    return pool


@pytest.fixture
def sqlite(start: StartPool, tmp_path: Path) -> StartPool:
    """Start a pool of a SQLite file with a table `t (x int)`."""
    return lambda **fields: with_table(start(SqliteWorker, worker_args={"database": f"{tmp_path}/app.db"}, **fields))


@pytest.fixture
def postgres(start: StartPool, pg: Any) -> StartPool:
    """Start a pool of a PostgreSQL with a table `t (x int)`."""
    return lambda **fields: with_table(start(PostgresWorker, worker_args={"conninfo": pg.dsn}, **fields))


@pytest.fixture(params=["channel", "postgres", "messages", "local"])
def db(node: actorpool.System, messenger: actorpool.System, request: Any, tmp_path: Path) -> Iterator[Any]:
    """A pool with a table `t (x int)`, by every way there is to one."""
    args = {"database": f"{tmp_path}/app.db"}
    if request.param in ("channel", "postgres"):
        yield request.getfixturevalue({"channel": "sqlite"}.get(request.param, request.param))()
    elif request.param == "local":
        with LocalPool(PoolConfig(worker=SqliteWorker, worker_args=args)) as pool:
            yield with_table(pool)
    else:
        with pools_of(messenger) as start:
            yield with_table(start(SqliteWorker, worker_args=args))


class Peer:
    """Another process that does with a pool what it is told, line by line: `peer.says("db.execute(...).scalar()")`."""

    def __init__(self, pool: Any) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", _PEER, base64.b64encode(pickle.dumps(pool)).decode()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.pid = self.process.pid
        assert self._line() == "ready"

    def tell(self, expression: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(expression + "\n")
        self.process.stdin.flush()

    def says(self, expression: str) -> str:
        """What comes of it: its value, or the name of the error."""
        self.tell(expression)
        return self._line()

    def _line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def close(self) -> None:
        self.kill()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            with suppress(OSError):
                pipe.close()


_PEER = """
import base64, pickle, sys
db = pickle.loads(base64.b64decode(sys.argv[1]))
print("ready", flush=True)
for line in sys.stdin:
    try:
        result = eval(line, globals())
    except Exception as error:
        result = f"{type(error).__name__}: {error}"
    print(str(result).replace(chr(10), " "), flush=True)
"""


@pytest.fixture
def peer() -> Iterator[Callable[[Any], Peer]]:
    """Start a `ServerConn` with a copy of a handle; it is ended after the test."""
    started: list[Peer] = []

    def start(pool: Any) -> Peer:
        started.append(Peer(pool))
        return started[-1]

    yield start
    for it in started:
        it.close()
