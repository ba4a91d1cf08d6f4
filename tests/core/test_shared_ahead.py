"""Quick calls are sent to a worker while another one runs; whatever happens to it, nobody can tell."""

from __future__ import annotations

from typing import Any

import pytest

from actorpool.core.shared.calls import AHEAD
from actorpool.core.shared.records import ENDING, LIVE, QUICK, SURE
from actorpool.errors import NoResource, PoolStopped, WorkerDied
from tests.core.shared_bench import Bench


@pytest.fixture
def pool() -> Bench:
    return Bench()


def quick(pool: Bench, prompt: bool = True, **settings: Any) -> int:
    """A connection on which `get` is known to be quick; its id."""
    pool("add", ("add", len(pool.core.connections.by_id)), "spec", resource="r", **settings)
    worker = max(pool.core.connections.by_worker)
    pool("worker_started", worker, 7000 + worker, prompt)
    pool("opened", worker, methods=("get", "put"))
    id = pool.core.connections.by_worker[worker].id
    pool("extra", object(), id, {"id": id})
    for number in range(SURE):
        pool.call(("practice", id, number), where={"id": id})
        pool.finish(id, took=QUICK / 2)
    return id


def busy(pool: Bench, number: int = 4, prompt: bool = True, **settings: Any) -> int:
    """A quick connection on which call 0 runs and calls 1, 2, ... were sent ahead; its id."""
    id = quick(pool, prompt, **settings)
    pool.call("first")
    for each in range(number):
        pool.call(each)
    pool.finish(id, took=QUICK / 2)
    return id


def sent(pool: Bench, id: int) -> list[Any]:
    """The refs of what its worker has got: what it runs, and what was sent ahead."""
    connection = pool.core.connections.by_id[id]
    return [call.ref for call in (connection.running, *connection.sent) if call is not None]


def send_back(pool: Bench, id: int, error: Exception | None = None) -> None:
    """Have the worker refuse the first call that it has got."""
    connection = pool.core.connections.by_id[id]
    pool("not_run", pool.worker(id), connection.running.number, error)


def test_calls_of_a_quick_method_are_sent_while_another_runs_and_answered_in_order(pool: Bench) -> None:
    id = busy(pool)
    assert (sent(pool, id), pool.waiting(id)) == ([0, 1, 2, 3], [])
    assert [one[3] for one in pool.asked[-4:]] == [False, True, True, True]
    assert [pool.finish(id, took=0.0) for _ in range(4)] == [0, 1, 2, 3]


def test_no_more_than_a_few_are_sent(pool: Bench) -> None:
    id = busy(pool, 30)
    for done in range(20):
        assert len(sent(pool, id)) <= AHEAD + 1
        assert pool.finish(id, took=0.0) == done


def test_nothing_is_sent_behind_a_call_that_may_be_interrupted_nor_is_one_that_may(pool: Bench) -> None:
    id = quick(pool)
    pool.call("first")
    for ref, timeout in (("a", None), ("limited", 9.0), ("b", None), ("c", None)):
        pool.call(ref, timeout=timeout)
    pool.finish(id, took=0.0)
    assert sent(pool, id) == ["a"]
    pool.finish(id, took=0.0)
    assert sent(pool, id) == ["limited"]
    pool.finish(id, took=0.0)
    assert sent(pool, id) == ["b", "c"]


@pytest.mark.parametrize("method", ["put", "get"], ids=["never measured", "it has become slow"])
def test_nothing_is_sent_ahead_of_its_time_unless_it_is_known_to_be_quick(pool: Bench, method: str) -> None:
    id = quick(pool)
    if method == "get":
        pool.call("slow")
        pool.finish(id, took=1.0)
    for ref in "abc":
        pool.call(ref, method)
    pool.finish(id, took=QUICK / 2)
    assert sent(pool, id) == ["b"]


def test_a_worker_whose_answers_may_be_behind_its_deeds_gets_one_call_at_a_time(pool: Bench) -> None:
    id = busy(pool, prompt=False)
    assert (sent(pool, id), pool.waiting(id)) == ([0], [1, 2, 3])
    other = pool.open()
    pool.die(id)
    assert isinstance(pool.answers[0], WorkerDied)
    assert (sent(pool, other), pool.waiting(other)) == ([1], [2, 3])


def test_only_the_first_without_an_answer_is_lost_with_its_process(pool: Bench) -> None:
    id = busy(pool)
    pool.finish(id, took=0.0)
    other = pool.open()
    pool.die(id)
    assert pool.answers[0] == "done"
    assert isinstance(pool.answers[1], WorkerDied)
    assert (sent(pool, other), pool.waiting(other)) == ([2], [3])


def test_what_could_not_even_be_sent_to_a_dead_process_is_not_lost_with_it(pool: Bench) -> None:
    id, other = busy(pool), pool.open()
    first = pool.core.connections.by_id[id].running
    pool("died", pool.worker(id), begun=False, refused=first.number)  # type: ignore[union-attr]
    assert not any(ref in pool.answers for ref in range(4))
    assert (sent(pool, other), pool.waiting(other)) == ([0], [1, 2, 3])


def test_an_unread_last_order_says_nothing_of_the_first(pool: Bench) -> None:
    id, other = busy(pool), pool.open()
    pool("died", pool.worker(id), begun=False)
    assert isinstance(pool.answers[0], WorkerDied)
    assert (sent(pool, other), pool.waiting(other)) == ([1], [2, 3])


def test_a_pause_brings_back_what_was_sent_and_it_is_run_in_order_after_it(pool: Bench) -> None:
    id = busy(pool, 20)
    before = len(sent(pool, id))
    pool.call("later")
    pool.finish(id, took=0.0, cooldown=0.01)
    for _ in range(before - 1):
        pool.call(object())
        send_back(pool, id)
    assert sent(pool, id) == []
    assert pool.waiting(id)[:4] == [1, 2, 3, 4]
    pool.after(0.01)
    assert sent(pool, id)[0] == 1
    assert pool.asked[-len(sent(pool, id))][3] is False, "at once: that ends the worker's refusing"


def test_nothing_is_sent_after_a_call_that_came_back_until_all_have(pool: Bench) -> None:
    """Whatever the reason: a worker that refuses one refuses all behind it, and would refuse that as well."""
    id = busy(pool)
    send_back(pool, id)
    assert (sent(pool, id), pool.waiting(id)) == ([1, 2, 3], [0])
    for _ in range(3):
        send_back(pool, id)
    assert (sent(pool, id), pool.waiting(id)) == ([0, 1, 2, 3], [])
    assert [one[3] for one in pool.asked[-4:]] == [False, True, True, True]


def test_a_connection_that_closes_sends_all_back_and_they_go_elsewhere_in_order(pool: Bench) -> None:
    id, other = busy(pool, revive=True), pool.open()
    pool("extra", "x", other, {"busy": True})
    pool.call("long", where={"busy": True})
    pool.finish(id, took=0.0, close=True)
    assert pool.state(id) is ENDING
    for _ in range(3):
        send_back(pool, id, ConnectionError("the connection was closed"))
    assert pool.waiting(other) == [1, 2, 3]
    assert pool.asked[-1] == ("Open", 1), "opened again once all have come back"


def test_nothing_is_sent_to_an_expired_connection_even_if_nobody_has_ticked(pool: Bench) -> None:
    id = busy(pool, 20, ttl=10.0, revive=True)
    other = pool.open()
    pool.now += 10.0
    pool.finish(id, took=0.0)
    assert pool.state(id) is ENDING
    assert sent(pool, id) == list(range(1, AHEAD + 1)), "what it has got, it runs"
    assert sent(pool, other) == [AHEAD + 1]


def test_a_cancelled_call_that_was_sent_is_run_and_its_answer_dropped_but_not_run_again(pool: Bench) -> None:
    id, other = busy(pool), pool.open()
    pool("cancel", 2)
    pool.finish(id, took=0.0)
    pool.die(id)
    assert isinstance(pool.answers[1], WorkerDied)
    assert 2 not in pool.answers
    assert (sent(pool, other), pool.waiting(other)) == ([3], [])


def test_a_cancelled_call_that_comes_back_is_gone(pool: Bench) -> None:
    id = busy(pool)
    pool("caller_down", "c")
    for _ in range(4):
        send_back(pool, id)
    assert (sent(pool, id), pool.waiting(id), pool.answers.get(0)) == ([], [], None)


def test_a_stopping_pool_lets_what_was_sent_finish_and_fails_what_comes_back(pool: Bench) -> None:
    id = busy(pool)
    pool("stop", "stop", 5.0)
    pool.finish(id, took=0.0, cooldown=60.0)
    assert pool.answers[0] == "done"
    for _ in range(3):
        send_back(pool, id)
    assert all(isinstance(pool.answers[ref], PoolStopped) for ref in (1, 2, 3))
    assert not pool.core.connections.by_id, "nothing is left to be waited for, and no pause is sat out"


def test_a_popped_connection_runs_what_came_back(pool: Bench) -> None:
    id = busy(pool)
    pool("pop", "pop", id)
    pool.finish(id, took=0.0, cooldown=1.0)
    for _ in range(3):
        send_back(pool, id)
    assert "pop" not in pool.answers
    pool.after(1.0)
    for _ in range(3):
        pool.finish(id, took=0.0)
    assert pool.answers["pop"].stats["get"].count == SURE + 5


def test_dead_callers_calls_are_neither_begun_nor_moved_while_they_are_removed(pool: Bench) -> None:
    id = quick(pool)
    pool.call("first", caller="dead")
    pool.finish(id, cooldown=1.0)
    for ref in "abc":
        pool.call(ref, caller="dead")
    pool.now += 1.0  # and nobody has ticked
    pool("caller_down", "dead")
    assert sent(pool, id) == []
    pool("update", "u", "r", None, {"ttl": 2.0})
    for ref in "def":
        pool.call(ref, caller="another")
    pool.call("g", caller="last")
    pool.now += 1000.0
    pool("caller_down", "another")
    assert "e" not in pool.answers, "it has left, and did not fail"


def test_a_call_that_moved_takes_its_place_among_those_that_were_not_sent(pool: Bench) -> None:
    first, second = busy(pool, 2), pool.open()
    pool("extra", "x", second, {"here": True})
    pool.call("long", where={"here": True})
    pool.call("late", where={"here": True})
    pool.die(first)
    assert pool.waiting(second) == [1, "late"]
    assert pool.state(second) is LIVE


def test_the_last_connection_takes_what_was_sent_ahead_along(pool: Bench) -> None:
    id = busy(pool)
    pool.die(id)
    assert isinstance(pool.answers[0], WorkerDied)
    assert all(isinstance(pool.answers[ref], NoResource) for ref in (1, 2, 3))
