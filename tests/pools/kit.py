"""Small questions to pools of databases."""

from __future__ import annotations

from typing import Any

import psycopg

import actorpool


def backend(conn: psycopg.Connection[Any]) -> int:
    """The server's process behind a connection."""
    return conn.info.backend_pid


def backends(pool: actorpool.Pool, number: int) -> set[int]:
    """The server's processes behind that many workers, all of them idle again."""
    leases = [pool.checkout() for _ in range(number)]
    try:
        return {lease.run(backend) for lease in leases}
    finally:
        for lease in leases:
            lease.checkin()
