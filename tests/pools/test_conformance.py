"""The verbs of a pool over every kind of database, three ways: through a node, by messages in one process, directly.

Each operation is done the three ways and has to give the same value, or the same error, each time.
"""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

import actorpool
from actorpool import LeaseExpired, LocalPool, MethodNotFound, PoolConfig
from actorpool.errors import ActorPoolError
from actorpool.workers import Rollback
from tests.workers.databases import KINDS

WAYS = ("node", "messages", "local")
OPERATIONS: dict[str, Callable[[Any, str], Any]] = {}


def operation(function: Callable[[Any, str], Any]) -> Callable[[Any, str], Any]:
    """`function(pool, mark)`; `mark` is the placeholder for a parameter. The table `t` (id, name) is empty."""
    OPERATIONS[function.__name__.replace("_", " ")] = function
    return function


@dataclass
class Bench:
    """Pools of the same database, one for each way."""

    kind: str
    pools: dict[str, Any]

    @property
    def mark(self) -> str:
        return "?" if "sqlite" in self.kind else "%s"


@pytest.fixture(scope="module")
def systems() -> Iterator[dict[str, actorpool.System]]:
    with actorpool.start(log_level="CRITICAL") as node, actorpool.start(base="simpleSystemBase") as inside:
        yield {"node": node, "messages": inside}


REST = ("dbapi-sqlite3", "alchemy-sqlite", "alchemy-pymysql")
"""Kinds whose worker and whose database are each in another kind as well."""


@pytest.fixture(
    scope="module", params=[pytest.param(kind, marks=[pytest.mark.slow] * (kind in REST)) for kind in KINDS]
)
def bench(
    request: pytest.FixtureRequest, systems: dict[str, actorpool.System], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Bench]:
    """Pools of one kind of database."""
    kind: str = request.param
    file = str(tmp_path_factory.mktemp("conformance") / "test.db")
    server: Any = None
    if "sqlite" not in kind:
        server = request.getfixturevalue("mariadb_server" if "pymysql" in kind else "pg_server")
    settings = PoolConfig(size=2, max_overflow=0, checkout_timeout=20.0, **_worker(kind, file, server))
    pools = {way: system.start_pool(f"bench-{kind}", settings) for way, system in systems.items()}
    pools["local"] = LocalPool(settings, f"bench-{kind}")
    pools["local"].execute("CREATE TABLE t (id integer PRIMARY KEY, name varchar(100))")
    yield Bench(kind, pools)
    pools["local"].execute("DROP TABLE t")
    pools["local"].close()
    for system in systems.values():
        system.stop_pool(f"bench-{kind}")


def _worker(kind: str, file: str, server: Any) -> dict[str, Any]:
    args: dict[str, tuple[str, dict[str, Any]]]
    if server is None:
        args = {
            "sqlite": ("Sqlite", {"database": file}),
            "dbapi-sqlite3": ("Dbapi", {"module_or_factory": "sqlite3", "database": file, "check_same_thread": False}),
            "alchemy-sqlite": ("SqlAlchemy", {"url": f"sqlite:///{file}"}),
        }
    elif "pymysql" in kind:
        args = {
            "dbapi-pymysql": ("Dbapi", {"module_or_factory": "pymysql", **server.parameters()}),
            "alchemy-pymysql": (
                "SqlAlchemy", {"url": "mysql+pymysql://", "connect_args": server.parameters()}
            ),
        }  # fmt: skip
    else:
        args = {
            "postgres": ("Postgres", {"conninfo": server.dsn}),
            "dbapi-psycopg": ("Dbapi", {"module_or_factory": "psycopg", "conninfo": server.dsn}),
            "alchemy-psycopg": (
                "SqlAlchemy", {"url": "postgresql+psycopg://", "connect_args": server.parameters()}
            ),
        }  # fmt: skip
    name, arguments = args[kind]
    return {"worker": f"actorpool.workers:{name}Worker", "worker_args": arguments}


def outcome(function: Callable[[], Any]) -> Any:
    """The value, or the error's type and text."""
    try:
        return "gives", function()
    except Exception as error:
        return "raises", type(error), str(error)


# -- the operations --------------------------------------------------------------------------------------------


def rows(pool: Any) -> list[Any]:
    return [tuple(row) for row in pool.execute("SELECT id, name FROM t ORDER BY id").rows]


def add(conn: Any, number: int, then: BaseException | None = None) -> int:
    _run(conn, f"INSERT INTO t VALUES ({number}, 'x')")
    if then is not None:
        raise then
    return number


def _run(conn: Any, query: str) -> None:
    if hasattr(conn, "exec_driver_sql"):
        conn.exec_driver_sql(query)
    else:
        cursor = conn.cursor()
        cursor.execute(query)
        cursor.close()


@operation
def a_statement_with_parameters(pool: Any, mark: str) -> Any:
    changed = pool.execute(f"INSERT INTO t VALUES ({mark}, {mark})", [1, "it's"]).rowcount
    found = pool.call("execute", f"SELECT id, name FROM t WHERE name = {mark}", ["it's"])
    return changed, found.columns, list(found.rows), found.rowcount, found.scalar(), found.dicts(), len(found)


@operation
def a_statement_for_many_rows(pool: Any, mark: str) -> Any:
    changed = pool.executemany(f"INSERT INTO t VALUES ({mark}, {mark})", [(1, "a"), (2, "b")]).rowcount
    return changed, rows(pool)


@operation
def a_statement_for_many_rows_is_all_or_nothing(pool: Any, mark: str) -> Any:
    failed = outcome(lambda: pool.executemany(f"INSERT INTO t VALUES ({mark}, {mark})", [(1, "a"), (1, "b")]))
    return failed[1], rows(pool)


@operation
def a_function_of_the_connection(pool: Any, mark: str) -> Any:
    def kind(conn: Any, *args: Any, **kwargs: Any) -> Any:
        return type(conn).__name__, args, kwargs

    return pool.run(kind, 1, x=2), pool.with_connection(kind)


@operation
def an_error_of_a_statement(pool: Any, mark: str) -> Any:
    return pool.execute("SELECT * FROM nowhere")


@operation
def an_error_of_a_constraint(pool: Any, mark: str) -> Any:
    for _ in range(2):
        pool.execute("INSERT INTO t VALUES (1, 'x')")


@operation
def an_error_of_a_function(pool: Any, mark: str) -> Any:
    return pool.run(lambda conn: int("nothing"))


@operation
def a_method_that_is_none(pool: Any, mark: str) -> Any:
    return pool.frobnicate()


@operation
def a_function_of_nothing(pool: Any, mark: str) -> Any:
    return pool.run(None)


@operation
def a_result_that_cannot_travel(pool: Any, mark: str) -> Any:
    return outcome(lambda: pool.run(lambda conn: (n for n in range(3))))[1], rows(pool)


@operation
def a_lease_keeps_its_session(pool: Any, mark: str) -> Any:
    with pool.checkout(timeout=5) as lease:
        lease.execute("CREATE TEMPORARY TABLE mine (x integer)")
        lease.execute("INSERT INTO mine VALUES (1)")
        inside = [tuple(row) for row in lease.execute("SELECT x FROM mine")]
        figures = pool.status().monitors, len(pool.leases())
    return inside, figures, lease.closed, outcome(lambda: pool.execute("SELECT x FROM mine"))[:2]


@operation
def a_lease_that_is_over(pool: Any, mark: str) -> Any:
    lease = pool.checkout()
    pool.checkin(lease)
    return outcome(lambda: lease.execute("SELECT 1"))[1] is LeaseExpired, outcome(lambda: pool.checkin(lease))[1]


@operation
def a_transaction_of_a_function(pool: Any, mark: str) -> Any:
    value = pool.transaction(add, 1)
    failed = outcome(lambda: pool.transaction(add, 2, then=KeyError("no")))
    wished = pool.transaction(add, 3, then=Rollback("never mind"))
    return value, failed, wished, rows(pool)


@operation
def a_transaction_of_a_block(pool: Any, mark: str) -> Any:
    with pool.transaction() as tx:
        tx.execute("INSERT INTO t VALUES (1, 'x')")
        tx.run(add, 2)
    for error in (KeyError("no"), Rollback()):
        try:
            with pool.transaction() as tx:
                tx.run(add, 3)
                raise error
        except KeyError:
            pass
    return rows(pool), pool.status().monitors


@operation
def transactions_nest_as_savepoints(pool: Any, mark: str) -> Any:
    with pool.transaction() as tx:
        tx.run(add, 1)
        tx.begin()
        tx.run(add, 2)
        tx.rollback()
        tx.begin()
        tx.run(add, 3)
        tx.commit()
        nested = outcome(lambda: tx.transact(add, (4, KeyError("no"))))
        tx.transact(add, (5,))
    return nested, rows(pool)


@operation
def a_transaction_that_is_ended_from_inside(pool: Any, mark: str) -> Any:
    with pool.transaction() as tx:
        tx.run(add, 1)
        tx.commit()
        refused = outcome(lambda: tx.execute("INSERT INTO t VALUES (2, 'x')"))
    return refused[1] is ActorPoolError, rows(pool)


@operation
def an_isolated_transaction(pool: Any, mark: str) -> Any:
    pool.transaction(add, 1, isolation="serializable")
    with pool.transaction(isolation="serializable") as tx:
        tx.run(add, 2)
    return outcome(lambda: pool.transaction(add, 3, isolation="perfect")), rows(pool)


@operation
def a_transaction_that_only_reads(pool: Any, mark: str) -> Any:
    return outcome(lambda: pool.transaction(add, 1, read_only=True)), rows(pool)


@operation
def commit_without_begin(pool: Any, mark: str) -> Any:
    return pool.commit()


@operation
def what_a_lease_leaves_open_is_rolled_back(pool: Any, mark: str) -> Any:
    with pool.checkout() as lease:
        lease.begin()
        lease.execute("INSERT INTO t VALUES (1, 'x')")
    return rows(pool)


@operation
def rows_one_by_one(pool: Any, mark: str) -> Any:
    pool.executemany(f"INSERT INTO t VALUES ({mark}, {mark})", [(number, "x") for number in range(7)])
    with pool.checkout() as lease:
        everything = [row[0] for row in lease.iterate("SELECT id FROM t ORDER BY id", batch=3)]
        some = []
        for (number,) in lease.iterate(f"SELECT id FROM t WHERE id > {mark} ORDER BY id", [1], batch=2):
            some.append(number)
            if number == 3:
                break
        bad = outcome(lambda: list(lease.iterate("SELECT id FROM t", batch=0)))
        return everything, some, bad, lease.execute("SELECT count(*) FROM t").scalar()


@operation
def rows_one_by_one_in_a_transaction(pool: Any, mark: str) -> Any:
    with pool.transaction() as tx:
        tx.executemany(f"INSERT INTO t VALUES ({mark}, {mark})", [(number, "x") for number in range(5)])
        return [row[0] for row in tx.iterate("SELECT id FROM t ORDER BY id", batch=2)]


@operation
def figures_and_the_cache(pool: Any, mark: str) -> Any:
    with pool.checkout() as lease:
        lease.execute("SELECT 1")
        pool.clear_cache()
        lease.execute("SELECT 1")
        stats = lease.stats()
        needed = {"queries_executed", "cache_hits", "cache_misses", "errors", "connections_created", "uptime"}
        return needed <= set(stats), stats["queries_executed"] >= 2, lease.worker_id in pool.worker_stats()


@operation
def the_same_in_coroutines(pool: Any, mark: str) -> Any:
    async def main() -> Any:
        aio = pool.aio
        await aio.transaction(add, 1)
        async with aio.checkout() as lease:
            await lease.execute("INSERT INTO t VALUES (2, 'x')")
            listed = [row[0] async for row in lease.iterate("SELECT id FROM t ORDER BY id", batch=1)]
        try:
            async with aio.transaction() as tx:
                await tx.run(add, 3)
                raise KeyError
        except KeyError:
            pass
        error = None
        try:
            await aio.execute("SELECT * FROM nowhere")
        except Exception as caught:
            error = type(caught)
        return listed, error, (await aio.execute("SELECT count(*) FROM t")).scalar(), (await aio.status()).monitors

    return asyncio.run(main())


# -- the tests -------------------------------------------------------------------------------------------------


EXPECTED: dict[str, Any] = {
    "a statement for many rows": ("gives", (2, [(1, "a"), (2, "b")])),
    "a transaction of a function": ("gives", (1, ("raises", KeyError, "'no'"), "never mind", [(1, "x")])),
    "a transaction of a block": ("gives", ([(1, "x"), (2, "x")], 0)),
    "transactions nest as savepoints": ("gives", (("raises", KeyError, "'no'"), [(1, "x"), (3, "x"), (5, "x")])),
    "a transaction that is ended from inside": ("gives", (True, [(1, "x")])),
    "what a lease leaves open is rolled back": ("gives", []),
    "figures and the cache": ("gives", (True, True, True)),
}
"""What every kind of database gives alike."""


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.slow
def test_every_way_gives_the_same(name: str, bench: Bench) -> None:
    outcomes = {}
    for way in WAYS:
        pool = bench.pools[way]
        pool.execute("DELETE FROM t")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            outcomes[way] = outcome(lambda: OPERATIONS[name](pool, bench.mark))  # noqa: B023
        assert pool.status().monitors == 0
    assert outcomes["node"] == outcomes["local"]
    assert outcomes["messages"] == outcomes["local"]
    assert outcomes["local"] == EXPECTED.get(name, outcomes["local"])


def test_errors_arrive_with_the_workers_traceback(bench: Bench) -> None:
    for way in WAYS:
        with pytest.raises(Exception, match="nowhere") as caught:
            bench.pools[way].execute("SELECT * FROM nowhere")
        assert "_execute" in caught.value.remote_traceback  # type: ignore[attr-defined]
        with pytest.raises(MethodNotFound, match="frobnicate") as missing:
            bench.pools[way].frobnicate()
        assert missing.value.pool == bench.pools[way].name
