"""The history: a ring of events in memory that the next manager finds."""

from __future__ import annotations

import mmap
import os
import signal
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import actorpool
from actorpool import Event, InvalidConfig
from actorpool.supervisors import ChildSpec, SupervisorSpec
from actorpool.telemetry import history
from actorpool.telemetry.history import KEPT, SIZE, History
from actorpool.workers import EchoWorker, Worker

Eventually = Callable[..., Any]


class Refusing(Worker):
    def __init__(self, dsn: str) -> None:
        self.dsn = dsn

    def open(self) -> None:
        raise ConnectionError(f"no way to {self.dsn}")


def event(number: int, text: str = "") -> Event:
    return Event("worker.died", "db", float(number), {"n": number}, {"text": text})


def numbers(kept: History) -> list[int]:
    return [one.number for one in kept.find("*", None, KEPT)]


def test_events_are_numbered_and_found_by_pattern_number_and_limit() -> None:
    kept = History()
    for name in ("worker.died", "pool.timeout", "worker.started", "pool.timeout"):
        kept.add(Event(name, "db", 1.0, {"ms": 2.5}, {"worker": 3}))
    assert [one.number for one in kept.find("worker.*", None, 10)] == [1, 3]
    assert [one.number for one in kept.find("*", 2, 10)] == [3, 4]
    assert [one.number for one in kept.find("*", None, 2)] == [3, 4]
    assert kept.find("*", None, 0) == []
    assert kept.find("worker.died", None, 1) == [Event("worker.died", "db", 1.0, {"ms": 2.5}, {"worker": 3}, 1)]


@pytest.mark.parametrize("name", ["pool.checkout", "pool.checkin", "call.done", "pool.sample"])
def test_events_of_each_call_and_samples_are_not_kept(name: str) -> None:
    kept = History()
    kept.add(Event(name, "db", 1.0))
    assert numbers(kept) == []


def test_the_last_thousand_are_kept() -> None:
    kept = History()
    for number in range(1500):
        kept.add(event(number))
    assert numbers(kept) == list(range(501, 1501))


@given(st.lists(st.integers(0, 9000), min_size=100, max_size=400))
@pytest.mark.slow
def test_long_events_are_kept_within_a_megabyte_and_a_successor_reads_the_same(lengths: list[int]) -> None:
    memory = mmap.mmap(-1, SIZE)
    kept = History(memory)
    for number, length in enumerate(lengths * 3):
        kept.add(event(number, "x" * length))
    successor = History(memory)
    assert successor.find("*", None, KEPT) == kept.find("*", None, KEPT)
    successor.add(event(0))
    assert numbers(successor)[-1] == 3 * len(lengths) + 1


def test_a_write_that_is_broken_off_at_any_point_leaves_a_history_that_can_be_read() -> None:
    class BrokenOff(Exception):
        pass

    class Killed(History):
        def _write(self, place: int, data: bytes) -> None:
            super()._write(place, data[: len(data) // 2])
            raise BrokenOff

    memory = mmap.mmap(-1, SIZE)
    kept = History(memory)
    for number in range(300):
        kept.add(event(number, "x" * 3990))
    with pytest.raises(BrokenOff):
        Killed(memory).add(event(0, "y" * 3990))
    found = History(memory).find("*", None, KEPT)
    assert [one.metadata["text"][0] for one in found] == ["x"] * len(found)
    assert found[-1].number == 300


def test_what_is_no_plain_value_is_kept_as_text() -> None:
    kept = History()
    kept.add(Event("worker.died", "db", 1.0, {}, {"cause": ValueError("no"), "long": "x" * 10_000}))
    told = kept.find("*", None, 1)[0].metadata
    assert told["cause"] == "ValueError('no')"
    assert len(told["long"]) == history.LONGEST + 3


def test_a_node_tells_what_has_happened_in_order_and_its_next_manager_goes_on(eventually: Eventually) -> None:
    with actorpool.start(log_level="CRITICAL") as system:
        pool = system.start_pool("db", worker=EchoWorker, size=1)
        [worker] = pool.workers()
        os.kill(worker.pid, signal.SIGKILL)
        eventually(lambda: system.events("worker.restarted"))
        before = system.events()
        assert [one.number for one in before] == list(range(1, len(before) + 1))
        [died] = system.events("worker.died")
        assert died.pool == "db"
        assert died.metadata == {"worker": worker.id, "pid": worker.pid, "reason": "killed by SIGKILL"}
        manager = system.tree().children[0]
        os.kill(manager.pid, signal.SIGKILL)
        eventually(lambda: len(system.events("pool.started")) == 2, timeout=20)
        eventually(lambda: "manager" in [one.metadata["child"] for one in system.events("supervisor.restarted")])
        after = system.events()
        assert after[: len(before)] == before
        assert [one.number for one in after] == list(range(1, len(after) + 1))
        assert system.events(after=before[-1].number) == after[len(before) :]


def test_supervisors_of_users_are_heard_and_calls_are_not(eventually: Eventually) -> None:
    with actorpool.start(log_level="CRITICAL") as system:
        system.supervise(ChildSpec("own", SupervisorSpec([ChildSpec("echo", EchoWorker)], max_restarts=3)))
        pool = system.start_pool("db", worker=EchoWorker, size=1)
        assert [pool.echo(number) for number in range(50)] == list(range(50))
        own = next(child for child in system.tree().children[0].children if child.id == "own")
        os.kill(own.children[0].pid, signal.SIGKILL)
        [restarted] = eventually(lambda: system.events("supervisor.*"))
        assert (restarted.metadata["supervisor"], restarted.metadata["child"]) == ("own", "echo")
        assert {one.name for one in system.events("pool.*")} == {"pool.started"}


def test_why_a_connection_failed_is_told_without_its_secrets(eventually: Eventually) -> None:
    dsn = "postgresql://app:hunter22@db/x"
    with actorpool.start(log_level="CRITICAL") as system:
        system.start_pool("db", worker=Refusing, worker_args={"dsn": dsn}, size=1, checkout_timeout=0.1)
        failed = eventually(lambda: system.events("worker.connect_error"))[0]
        assert failed.metadata["reason"] == "ConnectionError: no way to ***"
        assert failed.metadata["worker"] == 1
        assert failed.metadata["pid"]


def test_bad_arguments_are_named_all_at_once() -> None:
    with actorpool.start(base="simpleSystemBase") as system, pytest.raises(InvalidConfig) as refused:
        system.events(3, after="x", limit=-1)  # type: ignore[arg-type]
    assert set(refused.value.problems) == {"pattern", "after", "limit"}
