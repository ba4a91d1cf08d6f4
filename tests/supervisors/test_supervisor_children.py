"""What can be a child of a supervisor of one's own: worker actors, pools, the manager, beside ordinary actors."""

import os
import signal

import pytest

from actorpool import process
from actorpool.config import PoolConfig
from actorpool.errors import SupervisorError
from actorpool.messages import Call, GetPoolStatus, StartPool, WithConnection
from actorpool.supervisors import (
    ChildSpec,
    CountChildren,
    StartChild,
    SupervisorSpec,
    TerminateChild,
    WhereIs,
    WhichChildren,
    pool_child_spec,
    start_supervisor,
)
from actorpool.supervisors.manager import ConnectionManager
from actorpool.workers import EchoWorker, SqliteWorker, Worker
from tests.supervisors.stock import THESPIAN_LEAKS, ask, info

pytestmark = THESPIAN_LEAKS
PLENTY = {"max_restarts": 1000, "max_seconds": 5}


class Refusing(Worker):
    """A worker whose constructor fails."""

    def __init__(self) -> None:
        raise ValueError("no licence")


def add(worker, a, b):
    return worker.echo(a) + worker.echo(b)


def test_a_worker_is_a_child_and_is_restarted_when_it_is_killed(any_base, eventually):
    supervisor = start_supervisor(any_base, SupervisorSpec([ChildSpec("echo", EchoWorker)], **PLENTY))
    address = ask(any_base, supervisor, WhereIs("echo"))
    assert ask(any_base, address, Call(None, "echo", (7,))) == 7
    pid = info(any_base, supervisor, "echo").pid
    if pid is not None:
        os.kill(pid, signal.SIGKILL)
        eventually(lambda: info(any_base, supervisor, "echo").restarts == 1)
        address = ask(any_base, supervisor, WhereIs("echo"))
        assert ask(any_base, address, Call(None, "echo", (8,))) == 8


def test_a_worker_gets_its_arguments(any_base, tmp_path):
    spec = ChildSpec("db", SqliteWorker, {"database": str(tmp_path / "x.db")})
    supervisor = start_supervisor(any_base, SupervisorSpec([spec]))
    address = ask(any_base, supervisor, WhereIs("db"))
    ask(any_base, address, Call(None, "execute", ("create table t (x)",)))
    assert ask(any_base, address, Call(None, "execute", ("select count(*) from t",))).rows == [(0,)]
    assert (tmp_path / "x.db").exists()


def test_a_worker_whose_constructor_fails_does_not_start(any_base):
    with pytest.raises(SupervisorError, match="'r' did not start: ValueError: no licence"):
        start_supervisor(any_base, SupervisorSpec([ChildSpec("r", Refusing)]))


def test_a_supervisor_of_ones_own_can_own_pools(processes, eventually):
    config = PoolConfig(worker=EchoWorker, size=2, max_overflow=0)
    spec = SupervisorSpec([pool_child_spec("echo", config), ChildSpec("single", EchoWorker)], "rest_for_one", **PLENTY)
    supervisor = start_supervisor(processes, spec)
    pool = ask(processes, supervisor, WhereIs("echo"))
    assert ask(processes, pool, WithConnection("echo", add, (1, 2))) == 3
    single = info(processes, supervisor, "single").pid
    os.kill(info(processes, supervisor, "echo").pid, signal.SIGKILL)
    eventually(lambda: info(processes, supervisor, "single").restarts == 1)
    assert not process.alive(single), "it comes after the pool and shares its fate"
    pool = ask(processes, supervisor, WhereIs("echo"))
    assert ask(processes, pool, WithConnection("echo", add, (3, 4))) == 7
    ask(processes, supervisor, TerminateChild("echo"))


def test_a_pool_that_cannot_start_tells_why(processes):
    supervisor = start_supervisor(processes, SupervisorSpec())
    with pytest.raises(SupervisorError, match="'bad' did not start: ValueError: no licence"):
        ask(processes, supervisor, StartChild(pool_child_spec("bad", PoolConfig(worker=Refusing, size=1))))
    assert ask(processes, supervisor, CountChildren()).specs == 0


def test_the_manager_can_be_a_child_and_keeps_its_pools_over_a_kill(processes, eventually):
    supervisor = start_supervisor(processes, SupervisorSpec([ConnectionManager.child_spec()], **PLENTY))
    manager = ask(processes, supervisor, WhereIs("manager"))
    ask(processes, manager, StartPool("echo", PoolConfig(worker=EchoWorker, size=1)))
    assert ask(processes, manager, WithConnection("echo", add, (1, 2))) == 3
    (child,) = ask(processes, supervisor, WhichChildren())
    assert child.type == "supervisor"
    os.kill(child.pid, signal.SIGKILL)
    eventually(lambda: info(processes, supervisor, "manager").restarts == 1)
    manager = ask(processes, supervisor, WhereIs("manager"))
    assert eventually(lambda: ask(processes, manager, WithConnection("echo", add, (3, 4))) == 7)
    assert ask(processes, manager, GetPoolStatus("echo")).size == 1
