"""Penalties: how long a shared pool waits before each further attempt to open a connection."""

from __future__ import annotations

import itertools
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import actorpool
from actorpool import InvalidConfig
from actorpool.config import SharedPoolConfig
from actorpool.core.machine import Series
from actorpool.workers import Worker, method

Eventually = Callable[..., Any]


class Gated(Worker):
    """Notes when it is opened; can be opened while a file is not there."""

    def __init__(self, gate: str) -> None:
        self.gate = gate

    def open(self) -> None:
        with open(f"{self.gate}.log", "a") as log:
            log.write(f"{time.monotonic()}\n")
        if os.path.exists(self.gate):
            raise ConnectionError("not now")

    @method
    def pid(self) -> int:
        return os.getpid()


def attempts(gate: Path) -> list[float]:
    return [float(line) for line in Path(f"{gate}.log").read_text().splitlines()]


def waits(gate: Path, since: float) -> list[float]:
    times = [since, *(at for at in attempts(gate) if at > since)]
    return [later - earlier for earlier, later in itertools.pairwise(times)]


@pytest.fixture(scope="module")
def node() -> Iterator[actorpool.System]:
    with actorpool.start() as system:
        yield system


def test_the_last_delay_is_repeated_and_a_success_starts_anew() -> None:
    series = Series((0.1, 0.5, 2.0))
    assert [series.next(0.9) for _ in range(5)] == [0.1, 0.5, 2.0, 2.0, 2.0]
    series.reset()
    assert series.next(0.0) == 0.1


def test_what_was_open_for_a_moment_only_is_opened_at_once_but_not_again_and_again() -> None:
    series = Series((0.1, 0.5))
    assert [series.again(0.0), series.again(0.0), series.again(0.0)] == [0.0, 0.5, 0.5]


def test_penalties_hold_unless_a_backoff_is_asked_for() -> None:
    assert SharedPoolConfig().series == (0.1, 0.5, 1.0, 5.0, 30.0)
    assert SharedPoolConfig(backoff_max=1.0).series is None
    assert SharedPoolConfig(backoff_max=1.0, penalties=[2]).series == (2,)


@pytest.mark.parametrize("called", [True, False], ids=["after a call", "never called"])
@pytest.mark.slow
def test_a_lost_connection_is_reopened_at_once_and_then_after_each_penalty(
    node: actorpool.System, tmp_path: Path, eventually: Eventually, called: bool
) -> None:
    gate = tmp_path / "gate"
    pool = node.start_shared_pool(f"feeds-{called}", penalties=(0.2, 0.5))
    id = pool.add(Gated, {"gate": str(gate)}, resource="r", revive=True)
    pid = pool.call("r", "pid") if called else pool.info(id).pid
    gate.touch()
    killed = time.monotonic()
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: len(waits(gate, killed)) >= 4, timeout=20)
    at_once, first, second, third = waits(gate, killed)[:4]
    assert at_once < 0.2 + 0.5
    assert 0.2 <= first < 0.5 + 0.3
    assert second >= 0.5
    assert third >= 0.5
    gate.unlink()
    eventually(lambda: not pool.info(id).closed and pool.call("r", "pid"), timeout=20)
    node.stop_pool(pool.name)


def test_a_connection_may_have_penalties_of_its_own(
    node: actorpool.System, tmp_path: Path, eventually: Eventually
) -> None:
    gate = tmp_path / "gate"
    gate.touch()
    pool = node.start_shared_pool("own", penalties=(60.0,))
    pool.add(Gated, {"gate": str(gate)}, resource="r", revive="force", penalties=(0.05,))
    eventually(lambda: len(attempts(gate)) >= 4, timeout=20)
    node.stop_pool("own")


@pytest.mark.parametrize("penalties", [(), 3, "1", [1, -1], [None], [float("nan")]])
def test_what_are_no_penalties_is_refused(node: actorpool.System, penalties: Any) -> None:
    with pytest.raises(InvalidConfig, match="penalties"):
        node.start_shared_pool("bad", penalties=penalties)
    pool = node.start_shared_pool("good")
    with pytest.raises(InvalidConfig, match="penalties"):
        pool.add(Gated, {"gate": "x"}, resource="r", penalties=penalties)
    node.stop_pool("good")
