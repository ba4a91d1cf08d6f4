"""Small questions to the table `t (x int)`."""

from __future__ import annotations

from typing import Any

COUNT = "SELECT count(*) FROM t"


def count(pool: Any) -> int:
    return int(pool.execute(COUNT).scalar())


def add(pool: Any, x: int) -> None:
    pool.execute(f"INSERT INTO t VALUES ({x})")


def values(pool: Any) -> list[int]:
    return [row[0] for row in pool.execute("SELECT x FROM t ORDER BY x")]


def count_by(conn: Any) -> int:
    return int(conn.execute(COUNT).fetchone()[0])


def add_by(conn: Any, x: int, error: BaseException | None = None) -> int:
    conn.execute(f"INSERT INTO t VALUES ({x})")
    if error is not None:
        raise error
    return x


def worker_of(conn: Any) -> int:
    import os

    return os.getpid()
