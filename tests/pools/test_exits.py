"""What user code raises is an error of the call in which it raised, also where it is `SystemExit` or the like."""

from __future__ import annotations

import os
import sys
from typing import Any

import pytest

import actorpool
from actorpool import WorkerUnavailable
from actorpool.workers import EchoWorker, Worker, method
from tests.pools.conftest import StartPool


class Abrupt(BaseException):
    """No `Exception`."""


def leave() -> None:
    sys.exit("left")


def throw() -> None:
    raise Abrupt("thrown")


ENDS = {"leave": (leave, SystemExit), "throw": (throw, Abrupt)}


class Leaver:
    """Leaves when it is pickled, or when it is unpickled."""

    def __init__(self, end: str, use_local: bool = False) -> None:
        self.end, self.use_local = end, use_local

    def __reduce__(self) -> Any:
        if not self.use_local:
            ENDS[self.end][0]()
        return (rebuild, (self.end,))


def rebuild(end: str) -> Any:
    ENDS[end][0]()


class Unspeakable(Exception):
    """An error that leaves when it is pickled, and when its text is asked for."""

    def __str__(self) -> str:
        sys.exit("left")

    def __reduce__(self) -> Any:
        sys.exit("left")


def result(_: Any, end: str) -> Leaver:
    return Leaver(end)


def fail(_: Any) -> None:
    raise Unspeakable


class Leaving(Worker):
    """Leaves in a hook."""

    def __init__(self, where: str, end: str) -> None:
        self.where, self.end = where, end
        self._pass("init")

    def _pass(self, hook: str) -> None:
        if hook == self.where:
            self.where = "nowhere else" if hook == "check" else hook  # what is never healthy is never lent
            ENDS[self.end][0]()

    def open(self) -> None:
        self._pass("open")

    def check(self) -> None:
        self._pass("check")

    def reset(self) -> None:
        self._pass("reset")

    def close(self) -> None:
        self._pass("close")

    @method
    def pid(self) -> int:
        """The worker's process."""
        return os.getpid()


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("way", ["run", "message"])
def test_what_pickling_a_result_raises_is_the_calls_error(
    node: actorpool.System, start: StartPool, end: str, way: str
) -> None:
    pool = start(EchoWorker, size=1)
    pid = pool.pid()
    if way == "run":
        with pytest.raises(ENDS[end][1]):
            pool.run(result, end)
    else:
        request = actorpool.WithConnection(pool.name, result, (end,))
        with pytest.raises(ENDS[end][1]):
            node.actor_system.ask(node.manager, request, 10).unwrap()
    assert pool.pid() == pid


@pytest.mark.parametrize("end", ENDS)
def test_what_unpickling_an_argument_raises_is_the_calls_error(start: StartPool, end: str) -> None:
    pool = start(EchoWorker, size=1)
    pid = pool.pid()
    with pytest.raises(ENDS[end][1]):
        pool.echo(Leaver(end, use_local=True))
    assert pool.pid() == pid


def test_an_error_that_leaves_when_it_is_looked_at_is_told_by_its_type(start: StartPool) -> None:
    pool = start(EchoWorker, size=1)
    pid = pool.pid()
    with pytest.raises(Unspeakable):
        pool.run(fail)
    assert pool.pid() == pid


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("hook", ["check", "reset", "close"])
def test_a_hook_that_leaves_is_a_lost_connection_and_not_a_dead_worker(start: StartPool, hook: str, end: str) -> None:
    pool = start(Leaving, worker_args={"where": hook, "end": end}, size=1, check_on_checkout=0.0, backoff_min=0.01)
    pids = {pool.pid() for _ in range(3)}
    assert len(pids) == 1
    assert pool.status().restarts == 0


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.slow
def test_an_open_that_leaves_has_failed_to_connect(start: StartPool, end: str) -> None:
    pool = start(Leaving, worker_args={"where": "open", "end": end}, size=1, checkout_timeout=1.0)
    with pytest.raises(WorkerUnavailable, match=ENDS[end][1].__name__):
        pool.pid()
    assert pool.status().restarts == 0


@pytest.mark.parametrize("end", ENDS)
def test_an_init_that_leaves_fails_the_start_by_an_ordinary_error(start: StartPool, end: str) -> None:
    with pytest.raises(RuntimeError, match=ENDS[end][1].__name__):
        start(Leaving, worker_args={"where": "init", "end": end}, size=1)
