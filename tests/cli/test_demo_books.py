"""The demo's judgement: every kind of broken promise is seen, and honest books are believed."""

from __future__ import annotations

import os
import pickle
import sqlite3
import subprocess
import sys
import time
from array import array
from dataclasses import replace

import pytest

from actorpool import errors
from actorpool.cli.demo import bank
from actorpool.cli.demo.books import Books, Faults, Promise, promises
from actorpool.cli.demo.caller import Assignment, Caller

SOUND = Faults(
    workers_killed=3,
    callers_killed=2,
    recoveries=[0.01, 0.02, 0.01],
    releases=[0.001, 0.002],
    leases_out=0,
    waiting=0,
    workers=4,
    size=4,
    processes_left=[],
)
LINES = {
    0: ["tried 1\n", "done 1\n", "tried 2\n", "done 2\n", "read 3\n", "tried 4\n", "doubtful 4 WorkerDied\n"],
    1: ["tried 1\n", "refused 1 PoolFull: full\n", "tried 2\n", "done 2\n", "tried 3\n", "do"],
}


def books(**changes: list[str]) -> Books:
    found = Books()
    for caller, lines in LINES.items():
        found.add(caller, lines)
    found.add(2, changes.get("more", []))
    return found


def contents(*more: tuple, balances: tuple[int, ...] = (990, 1010, 1000), integrity: str = "ok") -> bank.Contents:
    receipts = [(0, 1, None, None, 0), (0, 2, 0, 1, 10), (1, 2, None, None, 0), *more]
    return bank.Contents(receipts, array("q", balances), integrity)


def broken(found: list[Promise]) -> list[str]:
    return [promise.text for promise in found if not promise.kept]


def test_honest_books_and_a_sound_pool_break_no_promise():
    assert broken(promises(books(), contents(), SOUND)) == []


def test_a_write_in_flight_at_a_kill_may_have_taken_effect():
    assert broken(promises(books(), contents((0, 4, None, None, 0), (1, 3, None, None, 0)), SOUND)) == []


def test_lines_are_counted_and_a_line_cut_off_by_a_kill_was_never_written():
    found = books()
    assert (found.calls, found.reads, found.doubtful) == (4, 1, 1)
    assert found.in_flight == {(0, 4), (1, 3)}
    assert found.refused == {(1, 1)}


@pytest.mark.parametrize(
    ("bank_now", "text"),
    [
        (replace(contents(), receipts=contents().receipts[1:]), "every acknowledged write is there"),
        (contents((0, 1, None, None, 0)), "no write ran twice"),
        (contents((0, 9, None, None, 0)), "nothing is there that was refused or never asked for"),
        (contents((1, 1, None, None, 0)), "nothing is there that was refused or never asked for"),
        (contents(balances=(990, 1000, 1000)), "every account holds what its receipts say"),
        (contents(balances=(1010, 990, 1000)), "every account holds what its receipts say"),
        (contents(integrity="page 7 is lost"), "every account holds what its receipts say"),
    ],
)
def test_what_is_wrong_in_the_bank_is_seen(bank_now, text):
    assert broken(promises(books(), bank_now, SOUND)) == [text]


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("misread total 5 instead of 3000\n", "every read saw a consistent bank"),
        ("unexpected caller 2: KeyError: 1\n", "no other error reached a caller"),
    ],
)
def test_what_callers_complain_about_is_seen(line, text):
    found = promises(books(more=[line]), contents(), SOUND)
    assert broken(found) == [text]


def test_more_failed_calls_than_killed_workers_are_seen():
    assert broken(promises(books(), contents(), replace(SOUND, workers_killed=1, recoveries=[0.1]))) == [
        "a killed worker costs at most the one call that ran on it"
    ]


@pytest.mark.parametrize(
    ("faults", "text"),
    [
        ({"workers": 3}, "every killed worker was replaced"),
        ({"recoveries": [0.1]}, "every killed worker was replaced"),
        ({"leases_out": 1}, "every lease came back"),
        ({"waiting": 1}, "every lease came back"),
        ({"releases": []}, "every lease came back"),
        ({"releases": [0.1, 5.0]}, "recovery took less than 2 s each time"),
        ({"processes_left": [7]}, "no process is left"),
    ],
)
def test_what_is_wrong_in_the_pool_is_seen(faults, text):
    assert broken(promises(books(), contents(), replace(SOUND, **faults))) == [text]


@pytest.fixture
def database(tmp_path):
    path = tmp_path / "bank.db"
    bank.create(path, 100)
    connection = sqlite3.connect(path, isolation_level=None)
    yield path, connection
    connection.close()


def test_what_workers_run_leaves_a_bank_that_balances(database):
    path, connection = database
    bank.deposit_slip(connection, 0, 1)
    bank.transfer(connection, 0, 2, 5, 6, 3)
    with pytest.raises(sqlite3.Error):
        bank.transfer(connection, 0, 3, 5, 6, object())  # type: ignore[arg-type]
    assert bank.total(connection) == 100 * bank.OPENING
    assert bank.balance(connection, 6) == bank.OPENING + 3
    assert bank.busy_work(connection, 100, 1) > 0
    found = bank.read(path)
    assert found.receipts == [(0, 1, None, None, 0), (0, 2, 5, 6, 3)]
    assert found.integrity == "ok"


class OneConnection:
    """As much of a pool as a caller uses, on one connection; `failures` are raised instead of calls."""

    def __init__(self, connection: sqlite3.Connection, failures: list[Exception | None]) -> None:
        self.connection = connection
        self.failures = failures

    def run(self, fn, *args):
        self._fail()
        return fn(self.connection, *args)

    def checkout(self):
        self._fail()
        return self

    def _fail(self) -> None:
        failure = self.failures.pop() if self.failures else None
        if failure is not None:
            raise failure

    def __enter__(self):
        return self.connection

    def __exit__(self, *exc):
        pass


def test_a_callers_books_agree_with_the_bank_whatever_fails(database, tmp_path):
    path, connection = database
    failures: list[Exception | None] = [errors.WorkerDied("gone"), errors.PoolFull("full"), None, None] * 25
    assignment = Assignment(0, os.getpid(), str(tmp_path / "0.book"), 100, time.monotonic() + 1.0, seed=3)
    Caller(assignment, OneConnection(connection, failures)).run()
    found = Books()
    with open(tmp_path / "0.book") as lines:
        found.add(0, lines)
    faults = replace(SOUND, workers_killed=50, recoveries=[0.01] * 50)
    assert broken(promises(found, bank.read(path), faults)) == []
    assert found.doubtful == 25
    assert len(found.done) > 50
    assert found.reads > 50
    assert len(found.refused) > 0


def test_an_error_that_is_no_part_of_the_bargain_is_written_down(database, tmp_path):
    _, connection = database
    assignment = Assignment(7, os.getpid(), str(tmp_path / "7.book"), 100, time.monotonic() + 0.05, seed=3)
    Caller(assignment, OneConnection(connection, [KeyError("surprise\nindeed")])).run()
    assert "unexpected caller 7: KeyError: 'surprise\\nindeed'\n" in (tmp_path / "7.book").read_text()


def test_a_callers_process_ends_by_itself(tmp_path):
    assignment = Assignment(0, os.getpid(), str(tmp_path / "0.book"), 100, time.monotonic() - 1, seed=3)
    command = [sys.executable, "-m", "actorpool.cli.demo.caller"]
    done = subprocess.run(command, input=pickle.dumps((assignment, None)), timeout=30)
    assert done.returncode == 0
    assert (tmp_path / "0.book").read_bytes() == b""
