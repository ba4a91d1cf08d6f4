"""The demo's data, a bank in an SQLite file: what makes it, what workers run on it, what it holds at the end.

`receipts` has no unique key on purpose: a call that ran twice must show.
"""

from __future__ import annotations

import random
import sqlite3
from array import array
from dataclasses import dataclass
from pathlib import Path

OPENING = 1000  # each account's balance at the start


def create(path: Path, accounts: int) -> None:
    """Make the database file with that many accounts."""
    connection = sqlite3.connect(path)
    try:
        connection.execute("pragma journal_mode = wal")  # kept in the file: readers do not wait for the writer
        connection.execute("create table accounts (id integer primary key, balance integer not null)")
        connection.execute("create table receipts (caller, number, source, target, amount)")
        rows = ((account, OPENING) for account in range(accounts))
        connection.executemany("insert into accounts values (?, ?)", rows)
        connection.commit()
    finally:
        connection.close()


# -- run inside a worker ------------------------------------------------------------------------------------


def deposit_slip(connection: sqlite3.Connection, caller: int, number: int) -> None:
    """Insert one receipt that moves nothing."""
    connection.execute("insert into receipts values (?, ?, null, null, 0)", (caller, number))


def transfer(connection: sqlite3.Connection, caller: int, number: int, source: int, target: int, amount: int) -> None:
    """Move money between two accounts and leave a receipt, all or nothing."""
    connection.execute("begin immediate")
    try:
        for statement, values in transfer_statements(caller, number, source, target, amount):
            connection.execute(statement, values)
        connection.execute("commit")
    except BaseException:  # an interrupt as well
        if connection.in_transaction:
            connection.execute("rollback")
        raise


def transfer_statements(
    caller: int, number: int, source: int, target: int, amount: int
) -> list[tuple[str, tuple[int, ...]]]:
    """The statements of one transfer, between `begin` and `commit`."""
    return [
        ("update accounts set balance = balance - ? where id = ?", (amount, source)),
        ("update accounts set balance = balance + ? where id = ?", (amount, target)),
        ("insert into receipts values (?, ?, ?, ?, ?)", (caller, number, source, target, amount)),
    ]


def total(connection: sqlite3.Connection) -> int:
    """All the money there is."""
    return int(connection.execute("select sum(balance) from accounts").fetchone()[0])


def balance(connection: sqlite3.Connection, account: int) -> int:
    """One account's balance."""
    return int(connection.execute("select balance from accounts where id = ?", (account,)).fetchone()[0])


def busy_work(connection: sqlite3.Connection, rows: int, seed: int) -> int:
    """A query that takes a while: the sum over a random part of the accounts."""
    start = random.Random(seed).randrange(max(rows // 2, 1))
    query = "select sum(balance * (id % 7)) from accounts where id between ? and ?"
    return int(connection.execute(query, (start, start + rows // 2)).fetchone()[0])


# -- afterwards ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Contents:
    """What the file holds: receipts as (caller, number, source, target, amount), balances by account."""

    receipts: list[tuple[int, int, int | None, int | None, int]]
    balances: array[int]
    integrity: str


def read(path: Path) -> Contents:
    """Everything that is in the file, and SQLite's own verdict on it."""
    connection = sqlite3.connect(path)
    try:
        return Contents(
            receipts=connection.execute("select * from receipts").fetchall(),
            balances=array("q", (row[0] for row in connection.execute("select balance from accounts order by id"))),
            integrity=connection.execute("pragma integrity_check").fetchone()[0],
        )
    finally:
        connection.close()
