"""Separate pools for separate workloads, so that a slow report never keeps an order waiting.

Four pools on one database, each with a size and a queue of its own: the time a caller may typically wait
(`queue_target`) and for how long the queue may be slower than that (`queue_interval`) before the hopeless are shed.
The figures are those of a web shop of middling size; for your own, begin with `pool_size` (below) and measure.

Run it: python examples/workloads.py
"""

from __future__ import annotations

import sqlite3
import tempfile
import threading
from pathlib import Path

import actorpool
from actorpool import PoolConfig, Pools, pool_size
from actorpool.workers import SqliteWorker


def configs(database: str) -> dict[str, PoolConfig]:
    """One configuration for each kind of work; with PostgreSQL each would have a URL of its own."""
    arguments = {"database": database, "pragmas": {"journal_mode": "wal"}}

    def config(size: int, queue_target: float, queue_interval: float) -> PoolConfig:
        return PoolConfig(
            worker=SqliteWorker,
            worker_args=arguments,
            size=size,
            max_overflow=0,
            queue_target=queue_target,
            queue_interval=queue_interval,
        )

    return {
        "main": config(size=20, queue_target=1.0, queue_interval=5.0),
        "write": config(size=30, queue_target=2.0, queue_interval=5.0),  # bursts of orders: more workers, more patience
        "read": config(size=10, queue_target=0.5, queue_interval=1.0),  # a page must not wait
        "jobs": config(size=5, queue_target=0.1, queue_interval=2.0),  # few: background work yields to the rest
    }


def order(conn: sqlite3.Connection, item: str) -> int:
    """Runs in a worker of `write`, inside a transaction."""
    conn.execute("UPDATE stock SET left = left - 1 WHERE item = ?", [item])
    return conn.execute("INSERT INTO orders (item) VALUES (?)", [item]).lastrowid or 0


def report(conn: sqlite3.Connection) -> list[tuple[str, int]]:
    """Runs in a worker of `jobs`; however long it takes, no page and no order waits for it."""
    return conn.execute("SELECT item, count(*) FROM orders GROUP BY item ORDER BY item").fetchall()


def main() -> None:
    """Take orders from several threads, show a page meanwhile, and report at the end."""
    print("a server with 100 connections, 20 kept back, shared by 3 nodes:", pool_size(100, 20, 3), "for each")
    with tempfile.TemporaryDirectory() as folder, actorpool.start() as system:
        pools = Pools.start(system, **configs(str(Path(folder) / "shop.db")))
        pools.write.execute("CREATE TABLE stock (item TEXT PRIMARY KEY, left INTEGER)")
        pools.write.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY, item TEXT)")
        pools.write.executemany("INSERT INTO stock VALUES (?, ?)", [("tea", 100), ("jam", 100)])

        def customer(item: str) -> None:
            for _ in range(10):
                pools.write.transaction(order, item)

        customers = [threading.Thread(target=customer, args=(item,)) for item in ("tea", "jam") * 4]
        for each in customers:
            each.start()
        print("while orders come in, a page reads:", pools.read.execute("SELECT item, left FROM stock").dicts())
        for each in customers:
            each.join()

        print("the report:", pools.jobs.run(report))
        for name, status in pools.status().items():
            waited = f"waited {status.wait_ms_p99:.1f} ms (p99)"
            print(f"{name:>6}: {status.size} workers, {status.checkouts} calls, {waited}")
        left = pools.read.execute("SELECT sum(left) FROM stock").scalar()
        assert left == 200 - pools.read.execute("SELECT count(*) FROM orders").scalar() == 120


if __name__ == "__main__":
    main()
