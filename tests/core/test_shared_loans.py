"""When a connection of a shared pool is lent to the caller that is alone with it, and how it comes back."""

from __future__ import annotations

from typing import Any

import pytest

from actorpool.core.shared.loans import ALONE, TELLING
from actorpool.core.shared.records import DRAINING, Loan
from actorpool.errors import NoResource, UnknownConnection
from tests.core.shared_bench import Bench


@pytest.fixture
def pool() -> Bench:
    return Bench()


def calls(pool: Bench, id: int, times: int, caller: str = "alone", **options: Any) -> None:
    """One call after the other, each answered before the next."""
    for _ in range(times):
        pool.call(("call", pool.core.connections.last_id, len(pool.answers)), caller=caller, direct=True, **options)
        pool.finish(id)


def lend(pool: Bench, caller: str = "alone", **settings: Any) -> int:
    """A connection that is lent to a caller; its id."""
    id = pool.open(**settings)
    calls(pool, id, ALONE, caller)
    assert isinstance(pool.core.connections.by_id[id].running, Loan)
    return id


def give_back(pool: Bench, id: int, done: dict[str, tuple[int, float, int]] | None = None, **options: Any) -> None:
    """Have the worker return what is lent."""
    connection = pool.core.connections.by_id[id]
    assert isinstance(connection.running, Loan)
    pool("returned", pool.worker(id), connection.running.number, done or {}, pool.now, **options)


def recalls(pool: Bench) -> int:
    return sum(name == "Recall" for name, *_ in pool.asked)


def test_a_caller_that_calls_alone_gets_the_connection_with_an_answer(pool: Bench) -> None:
    id = pool.open()
    calls(pool, id, ALONE - 1)
    assert not pool.loans
    calls(pool, id, 1)
    loan = pool.loans["alone"]
    assert pool.core.connections.by_id[id].running is loan
    assert loan.caller == "alone"


@pytest.mark.parametrize(
    "options", [{"timeout": 5.0}, {"where": {}}, {"direct": False}], ids=["a timeout", "a filter", "no channel"]
)
def test_calls_that_need_the_pool_are_never_lent_to(pool: Bench, options: dict[str, Any]) -> None:
    id = pool.open(extra={})
    for number in range(2 * ALONE):
        pool.call(number, **{"direct": True, **options})
        pool.finish(id)
    assert not pool.loans


def test_callers_that_take_turns_or_wait_for_each_other_are_not_alone(pool: Bench) -> None:
    id = pool.open()
    for _ in range(ALONE):
        calls(pool, id, ALONE - 1, "one")
        calls(pool, id, ALONE - 1, "two")
    for number in range(2 * ALONE):  # each call waits for the one before it
        pool.call(number, caller="busy", direct=True)
        if number:
            pool.finish(id)
    assert not pool.loans


def test_nothing_is_lent_that_expires_pauses_or_is_watched(pool: Bench) -> None:
    expires = pool.open("expires", ttl=60.0)
    calls(pool, expires, 2 * ALONE, resource="expires")
    pauses = pool.open("pauses")
    for number in range(2 * ALONE):
        pool.call(number, resource="pauses", direct=True)
        pool.finish(pauses, cooldown=1.0)
        pool.after(1.0)
    pool("observe", True)
    watched = pool.open("watched")
    calls(pool, watched, 2 * ALONE, resource="watched")
    assert not pool.loans
    pool("observe", False)
    calls(pool, watched, 1, resource="watched")
    assert pool.loans


def test_a_failed_call_brings_no_loan(pool: Bench) -> None:
    id = pool.open()
    calls(pool, id, ALONE - 1)
    pool.call("fails", caller="alone", direct=True)
    pool.finish(id, failed=True)
    assert not pool.loans


def test_who_comes_while_it_is_lent_waits_until_it_is_back(pool: Bench) -> None:
    id = lend(pool)
    pool.call("a")
    pool.call("b")
    assert (recalls(pool), pool.waiting(id)) == (1, ["a", "b"])
    give_back(pool, id)
    assert (pool.running(id), pool.waiting(id)) == ("a", ["b"])


def test_another_connection_that_is_idle_comes_before_one_that_is_lent(pool: Bench) -> None:
    lent = lend(pool)
    idle = pool.open()
    pool.call("a")
    assert (pool.running(idle), recalls(pool)) == ("a", 0)
    pool.call("b")
    assert (pool.waiting(lent), recalls(pool)) == (["b"], 1)  # nobody is ahead of it there


def test_what_was_done_in_a_loan_counts_like_any_other_call(pool: Bench) -> None:
    id = lend(pool)
    pool.now += 1.0
    give_back(pool, id, {"get": (6, 0.5, 2), "put": (1, 3.0, 0)})
    pool("info", "info", id)
    info = pool.answers["info"]
    assert (info.stats["get"].count, info.stats["get"].errors) == (ALONE + 6, 2)
    assert info.stats["get"].mean == pytest.approx((0.001 * ALONE + 0.5 * 6) / (ALONE + 6))
    assert info.stats["put"].mean == 3.0
    assert info.last_call == 1000.0 + pool.now


def test_old_calls_fade_from_the_mean_when_many_come_at_once(pool: Bench) -> None:
    id = lend(pool)
    give_back(pool, id, {"get": (10_000, 2.0, 0)})
    assert pool.core.connections.by_id[id].meters["get"].mean == pytest.approx(2.0, rel=0.01)


def test_who_asks_about_a_lent_connection_is_told_once_the_worker_has_told(pool: Bench) -> None:
    id = lend(pool)
    pool("info", "first", id)
    pool("info", "second", id)
    assert recalls(pool) == 1
    assert "first" not in pool.answers
    give_back(pool, id, {"get": (1, 0.0, 0)})
    assert pool.answers["first"].stats["get"].count == pool.answers["second"].stats["get"].count == ALONE + 1


def test_who_asks_while_a_long_call_runs_in_a_loan_is_told_what_is_known(pool: Bench) -> None:
    id = lend(pool)
    pool("info", "info", id)
    pool.after(TELLING)
    assert pool.answers["info"].stats["get"].count == ALONE
    give_back(pool, id)  # and nobody is answered twice


def test_asking_does_not_cost_the_caller_its_place(pool: Bench) -> None:
    id = lend(pool)
    pool("info", "info", id)
    give_back(pool, id)
    calls(pool, id, 1)
    assert isinstance(pool.core.connections.by_id[id].running, Loan)


def test_a_popped_connection_is_called_back_and_goes_when_it_is_back(pool: Bench) -> None:
    id = lend(pool)
    pool("pop", "pop", id)
    assert (recalls(pool), pool.state(id)) == (1, DRAINING)
    assert "pop" not in pool.answers
    give_back(pool, id, {"get": (3, 0.0, 0)})
    assert pool.answers["pop"].stats["get"].count == ALONE + 3


def test_a_pause_or_an_end_that_a_lent_call_asked_for_holds_for_everybody(pool: Bench) -> None:
    id = lend(pool)
    give_back(pool, id, cooldown=2.0)
    pool.call("a")
    assert pool.running(id) is None
    pool.after(2.0)
    assert pool.finish(id) == "a"
    calls(pool, id, ALONE)
    give_back(pool, id, close=True)
    assert isinstance(pool.call("b"), NoResource)


def test_the_calls_that_wait_for_a_loan_go_elsewhere_when_its_process_dies(pool: Bench) -> None:
    first = lend(pool)
    second = pool.open()
    pool("extra", "x", first, {"n": 1})
    pool.call("a", where={"n": 1})
    pool("extra", "y", first, None)
    pool("extra", "z", second, {"n": 1})
    pool.die(first)
    assert pool.running(second) == "a"
    pool("info", "info", first)
    assert isinstance(pool.answers["info"], UnknownConnection)


def test_a_time_to_live_calls_a_lent_connection_back_so_that_a_call_meets_it(pool: Bench) -> None:
    id = lend(pool, revive=True)
    pool("update", "update", "r", None, {"ttl": 1.0})
    assert recalls(pool) == 1
    give_back(pool, id)
    calls(pool, id, ALONE)
    assert pool.core.connections.by_id[id].running is None
    pool.after(1.0)
    assert isinstance(pool.call("late"), NoResource)


def test_a_caller_that_dies_gives_its_loan_back(pool: Bench) -> None:
    lent, other = lend(pool), pool.open("other")
    calls(pool, other, ALONE, "somebody", resource="other")
    pool("caller_down", "alone")
    assert recalls(pool) == 1
    give_back(pool, lent)
    assert pool.core.connections.by_id[lent].running is None


def test_who_wants_to_see_every_call_has_loans_called_back(pool: Bench) -> None:
    lend(pool)
    pool("observe", True)
    assert recalls(pool) == 1


def test_who_wants_to_see_every_call_is_answered_once_none_can_go_unseen(pool: Bench) -> None:
    pool("observe", True, "nothing is lent")
    assert pool.answers["nothing is lent"] is None
    pool("observe", False)
    back, dies = lend(pool), pool.open("other")
    calls(pool, dies, ALONE, "somebody", resource="other")
    pool("observe", True, "first")
    pool("observe", True, "second")
    assert recalls(pool) == 2
    give_back(pool, back)
    assert "first" not in pool.answers
    pool.die(dies)
    assert pool.answers["first"] is pool.answers["second"] is None
    pool.after(1.0)


@pytest.mark.parametrize("end", ["died", "stopped"])
def test_who_asks_about_a_loan_that_is_lost_is_told_what_is_known(pool: Bench, end: str) -> None:
    id = lend(pool)
    pool("info", "info", id)
    if end == "died":
        pool.die(id)
    else:
        pool("stop", "stop", 0.0)
        pool.after(0.0)
    assert pool.answers["info"].stats["get"].count == ALONE
    pool.after(TELLING)


def test_late_news_of_a_loan_fall_through(pool: Bench) -> None:
    id = lend(pool)
    connection = pool.core.connections.by_id[id]
    loan = connection.running
    assert isinstance(loan, Loan)
    give_back(pool, id)
    pool.call("a")
    for worker, number in ((pool.worker(id), loan.number), (pool.worker(id), 999), (99, loan.number)):
        pool("returned", worker, number, {"get": (5, 0.0, 0)})
    assert pool.running(id) == "a"
    assert connection.meters["get"].count == ALONE


def test_stopping_waits_for_what_is_lent_and_then_goes_without_it(pool: Bench) -> None:
    id = lend(pool)
    pool("stop", "stop", 1.0)
    assert recalls(pool) == 1
    assert pool.core.connections.by_id
    pool.after(1.0)
    assert not pool.core.connections.by_id
    assert pool.asked[-1][0] == "Stop"
    assert id == 1


# -- a pool that is started again ------------------------------------------------------------------------------------


def test_what_is_kept_comes_back_under_its_id_and_opens_in_the_background(pool: Bench) -> None:
    pool.open("gone with the pool")
    kept = pool.open("kept", extra={"a": 1}, ttl=9.0, revive=True)
    forced = pool.adding("forced", "forced", revive="force")
    pool("open_failed", forced, OSError("not yet"))
    popped = pool.open("popped", revive=True)
    pool("pop", "pop", popped)
    again = Bench()
    again("restore", *pool.core.kept())
    assert [connection.id for connection in again.core.connections.by_id.values()] == [kept, 3]
    for worker in list(again.core.connections.by_worker):
        again("worker_started", worker, 7)
        again("opened", worker, methods=("get",))
    again("info", "info", kept)
    info = again.answers["info"]
    assert (info.resource, info.extra, info.ttl, info.revive) == ("kept", {"a": 1}, 9.0, True)
    again("resources", "resources")
    assert again.answers["resources"] == ["kept", "forced"]
    assert again.open("new") == popped + 1, "ids are never used again"


def test_a_call_that_a_dead_worker_has_not_read_moves_like_those_that_wait(pool: Bench) -> None:
    first, second = pool.open(), pool.open()
    pool.call("a")
    pool.call("b")
    pool("died", pool.worker(first), begun=False)
    assert (pool.running(second), pool.waiting(second)) == ("b", ["a"])
    assert "a" not in pool.answers
