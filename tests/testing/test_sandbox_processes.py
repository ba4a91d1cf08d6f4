"""Sandboxes and other processes: who was let in takes turns, and the death of a guest is not that of the owner."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

import pytest

from actorpool.errors import LeaseExpired
from actorpool.testing import sandbox
from tests.testing.conftest import Peer
from tests.testing.kit import add, count, values

StartPeer = Callable[[Any], Peer]
StartPool = Callable[..., Any]

ADD = "db.execute('INSERT INTO t VALUES ({})').rowcount"
COUNT = "db.execute('SELECT count(*) FROM t').scalar()"


@pytest.mark.parametrize("db", ["channel", "messages", "postgres"], indirect=True)
def test_a_process_that_is_let_in_uses_its_plain_handle(db: Any, peer: StartPeer) -> None:
    other = peer(db)
    with sandbox(db) as box:
        add(box, 1)
        box.allow(other.pid)
        assert other.says(COUNT) == "1"
        other.says(ADD.format(2))
        other.says("db.transaction(lambda conn: conn.execute('INSERT INTO t VALUES (3)') and None)")
        assert values(db) == [1, 2, 3]
        assert db.status().monitors == 1
    assert other.says(COUNT) == "0", "and once the sandbox is over, it is where it was before"
    other.says(ADD.format(7))
    assert values(db) == [7]


def test_who_is_not_let_in_is_outside(postgres: StartPool, peer: StartPeer) -> None:
    db = postgres()
    other, third = peer(db), peer(db)
    with sandbox(db) as box:
        add(box, 1)
        box.allow(other.pid)
        assert (other.says(COUNT), third.says(COUNT)) == ("1", "0")
        third.says(ADD.format(7))
    assert values(db) == [7]


def test_the_box_itself_travels_to_who_is_let_in(sqlite: StartPool, peer: StartPeer) -> None:
    db = sqlite()
    with sandbox(db) as box:
        add(box, 1)
        other = peer(box)
        assert other.says(COUNT).startswith("LeaseExpired: ")
        box.allow(other.pid)
        assert other.says(COUNT) == "1"
    assert other.says(COUNT).startswith("LeaseExpired: ")


def test_a_lease_of_a_guest_keeps_the_owner_waiting_and_calls_in_its_block_do_not_wait(
    sqlite: StartPool, peer: StartPeer, eventually: Callable[..., Any]
) -> None:
    db = sqlite()
    other = peer(db)
    with sandbox(db) as box:
        box.allow(other.pid)
        other.says("globals().update(lease=db.checkout()) or lease.begin() or 1")
        other.says("lease.execute('INSERT INTO t VALUES (1)').rowcount")
        other.says(ADD.format(2))
        assert other.says("lease.execute('SELECT count(*) FROM t').scalar()") == "2"
        with pytest.raises(TimeoutError):
            box.run(os.getpid, checkout_timeout=0.1)
        other.says("lease.rollback()")
        other.tell("lease.checkin()")
        assert count(box) == 0


@pytest.mark.parametrize("db", ["channel", "messages", "postgres"], indirect=True)
def test_the_death_of_a_guest_undoes_its_open_transaction_and_nothing_else(db: Any, peer: StartPeer) -> None:
    other = peer(db)
    with sandbox(db) as box:
        add(box, 1)
        box.allow(other.pid)
        other.says(ADD.format(2))
        other.says("globals().update(lease=db.checkout()) or lease.begin() or 1")
        other.says("lease.execute('INSERT INTO t VALUES (3)').rowcount")
        began = time.monotonic()
        other.kill()
        assert values(box) == [1, 2]
        assert time.monotonic() - began < 3
        add(db, 4)
        assert values(db) == [1, 2, 4]
    assert count(db) == 0


def test_a_guest_that_dies_in_the_middle_of_a_call_lets_the_others_go_on(
    postgres: StartPool, peer: StartPeer, pg: Any, eventually: Callable[..., Any]
) -> None:
    db = postgres()
    other = peer(db)
    with sandbox(db) as box:
        add(box, 1)
        box.allow(other.pid)
        other.tell("db.execute('SELECT pg_sleep(60)')")
        eventually(lambda: any("pg_sleep" in query for query in pg.running()))
        other.kill()
        assert values(box) == [1]
        assert not any("pg_sleep" in query for query in pg.running())


def test_the_end_of_the_sandbox_interrupts_a_guest(
    postgres: StartPool, peer: StartPeer, pg: Any, eventually: Callable[..., Any]
) -> None:
    db = postgres()
    other = peer(db)
    with sandbox(db) as box:
        box.allow(other.pid)
        other.tell("db.execute('SELECT pg_sleep(60)')")
        eventually(lambda: any("pg_sleep" in query for query in pg.running()))
        began = time.monotonic()
    assert time.monotonic() - began < 3
    assert other._line().startswith("LeaseExpired: ")
    assert other.says(COUNT) == "0"


OWNER = """
globals().update(sandboxing=__import__("actorpool.testing").testing.sandbox(db)) or 1
"""


@pytest.mark.parametrize("db", ["channel", "messages", "postgres"], indirect=True)
def test_the_owners_death_rolls_back_and_frees_the_worker(
    db: Any, peer: StartPeer, eventually: Callable[..., Any]
) -> None:
    owner, guest = peer(db), peer(db)
    owner.says(OWNER.strip())
    owner.says("globals().update(box=sandboxing.__enter__()) or 1")
    owner.says(f"box.allow({guest.pid})")
    owner.says(ADD.format(1))
    assert guest.says(COUNT) == "1"
    owner.kill()
    eventually(lambda: db.status().workers == 3, timeout=10)
    assert count(db) == 0
    eventually(lambda: guest.says(COUNT) == "0")
    add(db, 2)
    assert count(db) == 1, "nothing is locked any more"


def test_a_forked_child_has_to_be_let_in_and_then_is_in_with_its_inherited_handle(sqlite: StartPool) -> None:
    db = sqlite()
    with sandbox(db) as box:
        add(box, 1)
        for allowed in (False, True):
            begin, begun = os.pipe()
            child = os.fork()
            if not child:
                os.read(begin, 1)
                code = 9
                try:
                    code = 40 + count(db)
                except LeaseExpired as error:
                    code = 20 if "allow(pid)" in str(error) else 21
                finally:
                    os._exit(code)
            if allowed:
                box.allow(child)
            os.write(begun, b"x")
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == (41 if allowed else 20)
            os.close(begin)
            os.close(begun)
        assert count(box) == 1


def test_a_forked_child_that_leaves_the_block_ends_nothing(sqlite: StartPool) -> None:
    db = sqlite()
    opening = sandbox(db)
    with opening as box, box.checkout() as lease:
        add(lease, 1)
        child = os.fork()
        if not child:
            try:
                lease.__exit__(None, None, None)
                opening.__exit__(None, None, None)
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        add(lease, 2)
        assert values(box) == [1, 2]


def test_a_process_that_does_not_run_cannot_be_let_in(sqlite: StartPool, peer: StartPeer) -> None:
    db = sqlite()
    other = peer(db)
    other.kill()
    with sandbox(db) as box:
        with pytest.raises(ProcessLookupError):
            box.allow(other.pid)
        with pytest.raises(ProcessLookupError):
            box.allow(2**22 + 1)
    with pytest.raises(LeaseExpired):
        box.allow(os.getpid())


def test_a_process_is_in_one_sandbox_at_a_time(postgres: StartPool, peer: StartPeer) -> None:
    db = postgres()
    other = peer(db)
    with sandbox(db) as one, sandbox(db) as two:
        one.allow(other.pid)
        one.allow(other.pid)
        with pytest.raises(ValueError, match="another sandbox"):
            two.allow(other.pid)


def test_nobody_can_be_let_into_a_local_pool(tmp_path: Any) -> None:
    from actorpool import LocalPool, PoolConfig
    from actorpool.workers import SqliteWorker

    with (
        LocalPool(PoolConfig(worker=SqliteWorker, worker_args={"database": f"{tmp_path}/app.db"})) as db,
        sandbox(db) as box,
        pytest.raises(TypeError, match="LocalPool"),
    ):
        box.allow(os.getpid())


def test_a_worker_killed_under_a_guest_runs_nothing_of_his_elsewhere(
    postgres: StartPool, peer: StartPeer, pg: Any
) -> None:
    import signal

    db = postgres()
    other = peer(db)
    with sandbox(db) as box:
        box.allow(other.pid)
        other.says("globals().update(lease=db.checkout()) or 1")
        os.kill(int(other.says("lease.worker_pid")), signal.SIGKILL)
        assert other.says("lease.execute('INSERT INTO t VALUES (1)')").split(":")[0] in ("WorkerDied", "LeaseExpired")
    assert pg.query("SELECT count(*) FROM t") == [(0,)]
