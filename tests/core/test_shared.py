"""What a shared pool decides, one behaviour at a time. The clock is driven; nothing sleeps, nothing runs."""

from __future__ import annotations

import pickle
from typing import Any

import pytest

from actorpool.core.shared.effects import Deliver, Run
from actorpool.core.shared.records import CLOSED, ENDING, LIVE, Call, Connection, Deadlines
from actorpool.core.workers import DOWN, OPENING, STOPPING, IllegalMove
from actorpool.errors import (
    ActorPoolError,
    CallTimeout,
    InvalidConfig,
    MethodNotFound,
    NoMatch,
    NoResource,
    PermanentError,
    PoolStopped,
    UnknownConnection,
    WorkerDied,
    WorkerUnavailable,
)
from tests.core.shared_bench import Bench


@pytest.fixture
def pool() -> Bench:
    return Bench()


# -- where a call goes --------------------------------------------------------------------------------------


def test_a_call_runs_at_once_on_an_idle_connection_and_its_reply_is_passed_on(pool: Bench) -> None:
    id = pool.open()
    assert pool.call("a") is None
    name, worker, call, _ahead = pool.asked[-1]
    assert (name, worker, call.payload) == ("Run", pool.worker(id), "payload of a")
    pool.finish(id, "reply")
    assert pool.answers["a"] == "reply"


def test_calls_on_one_connection_run_one_at_a_time_in_order_of_arrival(pool: Bench) -> None:
    id = pool.open()
    for ref in "abcd":
        pool.call(ref)
    assert pool.waiting(id) == ["b", "c", "d"]
    assert [pool.finish(id) for _ in "abcd"] == ["a", "b", "c", "d"]


def test_the_next_call_is_sent_before_the_last_answer_is_passed_on(pool: Bench) -> None:
    id = pool.open()
    pool.call("a")
    pool.call("b")
    connection = pool.core.connections.by_id[id]
    assert connection.running is not None
    effects = pool("done", pool.worker(id), connection.running.number, "reply")
    assert [type(effect) for effect in effects] == [Run, Deliver]


def test_what_is_missing_is_told_in_the_order_resource_method_filter(pool: Bench) -> None:
    pool.open(extra={"zone": "north"})
    error = pool.call("a", "nonsense", resource="elsewhere", where={"zone": "south"})
    assert isinstance(error, NoResource)
    assert error.reason == "resource"
    error = pool.call("b", "nonsense", where={"zone": "south"})
    assert isinstance(error, MethodNotFound)
    assert error.reason == "method"
    error = pool.call("c", where={"zone": "south"})
    assert isinstance(error, NoMatch)
    assert error.reason == "filter"
    assert pool.call("d", where={"zone": "north"}) is None
    assert all(isinstance(pool.answers[ref], ActorPoolError) and pool.answers[ref].pool == "mirrors" for ref in "abc")


def test_a_mapping_matches_when_extra_contains_it_and_never_an_extra_that_is_no_mapping(pool: Bench) -> None:
    tagged = pool.open(extra={"zone": "north", "tier": 1})
    plain = pool.open(extra="north")
    assert pool.call("a", where={"zone": "north", "tier": 1}) is None
    assert pool.running(tagged) == "a"
    assert isinstance(pool.call("b", where={"zone": "north", "tier": 2}), NoMatch)
    assert isinstance(pool.call("c", where={"other": None}), NoMatch)
    assert pool.call("d", where={}) is None, "the empty mapping is contained in every mapping"
    assert pool.running(plain) is None


def test_a_function_chooses_by_everything_that_info_tells(pool: Bench) -> None:
    pool.open(extra=1)
    second = pool.open(extra=2)
    assert pool.call("a", where=lambda info: info.extra == 2 and info.methods == ("get", "put")) is None
    assert pool.running(second) == "a"


def test_a_function_that_raises_matches_nothing_and_is_logged(pool: Bench) -> None:
    pool.open(extra=None)
    assert isinstance(pool.call("a", where=lambda info: info.extra["zone"]), NoMatch)
    assert pool.logs[-1].level == "warning"
    assert "TypeError" in pool.logs[-1].text


def test_something_unhashable_is_no_resource(pool: Bench) -> None:
    pool.open()
    assert isinstance(pool.call("a", resource=["r"]), NoResource)
    pool("is_empty", "e", ["r"])
    assert pool.answers["e"] is True


@pytest.mark.parametrize(
    ("means", "queued", "chosen"),
    [
        ((0.010, 0.010), (2, 1), 1),  # equally fast: the shorter queue
        ((0.010, 0.030), (2, 1), 0),  # 20 ms against 30 ms
        ((0.010, 0.030), (4, 1), 1),  # 40 ms against 30 ms
        ((0.010, 0.020), (2, 1), 1),  # a tie of 20 ms: the fewest calls ahead
        ((0.010, 0.010), (1, 1), 0),  # a tie in everything: the oldest
        ((0.001, 9.000), (1, 0), 1),  # nothing beats an idle connection
    ],
)
def test_a_call_goes_where_the_expected_wait_is_least(
    pool: Bench, means: tuple[float, ...], queued: tuple[int, ...], chosen: int
) -> None:
    ids = [pool.open() for _ in means]
    for id, mean in zip(ids, means, strict=True):
        pool.measure(id, mean)
    for id, count in zip(ids, queued, strict=True):
        for number in range(count):
            pool.call((id, number), where={"id": id})
    before = [len(pool.waiting(id)) + (pool.running(id) is not None) for id in ids]
    assert tuple(before) == queued
    pool.call("new")
    assert "new" in [pool.running(ids[chosen]), *pool.waiting(ids[chosen])]


def test_a_method_that_was_never_measured_counts_as_the_mean_of_the_others(pool: Bench) -> None:
    slow, fast = pool.open(), pool.open()
    pool.measure(slow, 0.4, "put")
    pool.measure(fast, 0.1, "get")
    pool.call("a", "put", where={"id": slow})
    pool.call("b", "get", where={"id": fast})
    pool.call("c", "get")  # 1 × 0.4 (of put) against 1 × 0.1
    assert pool.waiting(fast) == ["c"]


def test_a_new_connection_is_not_drowned_before_its_first_answer(pool: Bench) -> None:
    old = pool.open()
    pool.measure(old, 0.1)
    new = pool.open()
    for number in range(20):
        pool.call(number)
    assert len(pool.waiting(old)) == len(pool.waiting(new)) == 9


def test_a_cooldown_counts_as_expected_wait(pool: Bench) -> None:
    rested, tired = pool.open(), pool.open()
    for id in (rested, tired):
        pool.measure(id, 0.1)
    pool.call("a", where={"id": tired})
    pool.finish(tired, cooldown=0.35)
    for number in range(3):
        pool.call(number)
    assert pool.waiting(rested) == [1, 2]
    pool.call("later")  # 3 × 0.1 against 0.35
    pool.call("last")  # 4 × 0.1 against 0.35
    assert pool.waiting(tired) == ["last"]


def test_a_connection_begins_nothing_while_it_cools_down(pool: Bench) -> None:
    id = pool.open()
    pool.call("a")
    pool.finish(id, cooldown=0.5)
    pool.call("b")
    assert pool.running(id) is None
    pool("info", "i", id)
    assert pool.answers["i"].cooldown == pytest.approx(0.5)
    pool.after(0.49)
    assert pool.running(id) is None
    pool.after(0.02)
    assert pool.running(id) == "b"


@pytest.mark.parametrize(("cooldown", "moves"), [(0.04, False), (0.06, True)])
def test_a_short_cooldown_is_sat_out_and_a_long_one_sends_waiting_calls_to_better_connections(
    pool: Bench, cooldown: float, moves: bool
) -> None:
    first, second = pool.open(), pool.open()
    for id in (first, second):
        pool.measure(id, 0.01)
    for ref in ("a", "busy", "b"):
        pool.call(ref)
    pool.finish(second)
    assert pool.waiting(first) == ["b"]
    pool.finish(first, cooldown=cooldown)
    assert (pool.running(second) == "b") is moves
    assert (pool.waiting(first) == ["b"]) is not moves


def test_figures_are_kept_for_each_method(pool: Bench) -> None:
    id = pool.open()
    for seconds, failed in ((0.1, False), (0.3, True)):
        pool.call(seconds)
        pool.now += seconds
        pool.finish(id, failed=failed)
    pool("info", "i", id)
    info = pool.answers["i"]
    assert (info.stats["get"].count, info.stats["get"].errors) == (2, 1)
    assert info.stats["get"].mean == pytest.approx(0.2)
    assert info.stats["put"].count == 0
    assert info.methods == ("get", "put")
    assert (info.connected_at, info.last_call) == (1100.0, pytest.approx(1100.4))
    assert info.pid == 7001
    assert pickle.loads(pickle.dumps(info)) == info


def test_the_mean_forgets_what_is_long_past(pool: Bench) -> None:
    id = pool.open()
    for _ in range(300):
        pool.measure(id, 0.001)
    for _ in range(300):
        pool.measure(id, 0.1)
    assert 0.09 < pool.core.connections.by_id[id].meters["get"].mean < 0.1


# -- calls that do not end well -----------------------------------------------------------------------------


def test_a_call_that_times_out_while_it_waits_is_never_run(pool: Bench) -> None:
    id = pool.open()
    pool.call("a")
    pool.call("b", timeout=1.0)
    pool.after(1.0)
    assert isinstance(pool.answers["b"], CallTimeout)
    assert pool.answers["b"].started is False
    assert pool.answers["b"].waited == pytest.approx(1.0)
    pool.finish(id)
    assert pool.running(id) is None


def test_a_call_whose_time_is_over_is_not_begun_even_if_nobody_has_ticked(pool: Bench) -> None:
    id = pool.open()
    pool.call("a")
    pool.call("b", timeout=1.0)
    pool.call("c")
    pool.now += 1.5
    pool.finish(id)
    assert isinstance(pool.answers["b"], CallTimeout)
    assert pool.running(id) == "c"


def test_a_call_that_times_out_while_it_runs_is_interrupted_and_its_late_answer_is_dropped(pool: Bench) -> None:
    id = pool.open()
    pool.call("a", timeout=1.0)
    pool.call("b")
    pool.after(1.0)
    assert isinstance(pool.answers["a"], CallTimeout)
    assert pool.answers["a"].started is True
    call = pool.core.connections.by_id[id].running
    assert call is not None
    assert ("Interrupt", 1, call.number) in pool.asked
    assert pool.running(id) == "a", "nothing else begins before the worker has answered"
    pool.finish(id, "too late", failed=True)
    assert isinstance(pool.answers["a"], CallTimeout)
    assert pool.running(id) == "b"
    pool.after(10.0)
    assert ("Kill", 1) not in pool.asked


def test_calls_behind_one_that_is_being_interrupted_go_to_a_better_connection(pool: Bench) -> None:
    stuck, other = pool.open(), pool.open()
    pool("extra", "x", stuck, {"id": 1})
    pool.call("a", where={"id": 1}, timeout=1.0)
    pool.call("busy")
    pool.call("b")
    assert pool.waiting(stuck) == ["b"]
    pool.after(1.0)
    assert pool.waiting(other) == ["b"]
    pool.call("c")
    assert pool.waiting(other) == ["b", "c"]


def test_a_worker_that_ignores_the_interrupt_is_killed(pool: Bench) -> None:
    id = pool.open()
    pool.call("a", timeout=1.0)
    pool.call("b")
    pool.after(2.99)
    assert ("Kill", 1) not in pool.asked
    pool.after(0.02)
    assert ("Kill", 1) in pool.asked
    pool.die(id)
    assert isinstance(pool.answers["b"], NoResource)


def test_the_call_that_runs_on_a_process_that_dies_may_have_taken_effect_and_only_waiting_ones_move(
    pool: Bench,
) -> None:
    first, second = pool.open(), pool.open()
    for ref in "abcd":
        pool.call(ref)
    assert (pool.waiting(first), pool.waiting(second)) == (["c"], ["d"])
    pool.die(first)
    assert isinstance(pool.answers["a"], WorkerDied)
    assert "may have taken effect" in str(pool.answers["a"])
    assert pool.waiting(second) == ["c", "d"], "they keep their order of arrival"


def test_moved_calls_fail_with_no_resource_only_when_nobody_is_left_who_can_take_them(pool: Bench) -> None:
    dying = pool.open(methods=("get", "put"))
    other = pool.open(methods=("get",), extra={"zone": "south"})
    pool.call("a", "put")
    pool.call("b", "put")
    pool.call("c", where=lambda info: info.id == dying or info.extra == {"zone": "south"})
    pool.call("d", where=lambda info: info.id == dying)
    assert pool.waiting(dying) == ["b", "d"]
    pool.die(dying)
    assert isinstance(pool.answers["b"], NoResource)
    assert isinstance(pool.answers["d"], NoResource)
    assert pool.running(other) == "c"


def test_a_call_that_the_worker_could_not_begin_fails_when_nobody_else_is_there(pool: Bench) -> None:
    id = pool.open(revive=True)
    pool.call("a")
    call = pool.core.connections.by_id[id].running
    assert call is not None
    pool("not_run", 1, call.number, ConnectionError("gone"))
    assert isinstance(pool.answers["a"], NoResource)
    assert [name for name, *_ in pool.asked].count("Run") == 1


def test_a_call_that_the_worker_could_not_begin_moves_and_keeps_its_place(pool: Bench) -> None:
    first, second = pool.open(), pool.open()
    for ref in "abcd":
        pool.call(ref)
    call = pool.core.connections.by_id[first].running
    assert call is not None
    pool("not_run", 1, call.number, ConnectionError("gone"))
    assert pool.waiting(second) == ["a", "c", "d"]
    assert first not in pool.core.connections.by_id
    assert [pool.finish(second) for _ in "bacd"] == ["b", "a", "c", "d"]


def test_a_call_that_moves_after_its_time_is_over_is_not_begun_either(pool: Bench) -> None:
    first, second = pool.open(), pool.open()
    pool.call("busy")
    pool.call("other")
    pool.call("a", timeout=1.0)
    pool.finish(second)
    pool.now += 1.0
    pool.die(first)
    assert isinstance(pool.answers["a"], CallTimeout)
    assert pool.running(second) is None


def test_a_call_without_time_is_never_begun(pool: Bench) -> None:
    pool.open()
    assert isinstance(pool.call("a", timeout=0.0), CallTimeout)


def test_a_dead_callers_waiting_calls_are_removed_and_its_running_call_ends_by_itself(pool: Bench) -> None:
    id = pool.open()
    pool.call("a", caller="dead")
    pool.call("b", caller="dead")
    pool.call("c", caller="alive")
    pool("caller_down", "dead")
    assert pool.waiting(id) == ["c"]
    assert pool.running(id) == "a"
    pool.finish(id)
    assert "a" not in pool.answers
    assert pool.running(id) == "c"


def test_a_dead_callers_running_call_is_still_interrupted_at_its_deadline(pool: Bench) -> None:
    id = pool.open()
    pool.call("a", caller="dead", timeout=1.0)
    pool("caller_down", "dead")
    pool.after(1.0)
    assert [name for name, *_ in pool.asked].count("Interrupt") == 1
    assert "a" not in pool.answers
    pool.finish(id)
    assert "a" not in pool.answers


def test_a_cancelled_call_leaves_its_queue_and_an_unknown_one_is_nothing(pool: Bench) -> None:
    id = pool.open()
    pool.call("a")
    pool.call("b")
    pool("cancel", "b")
    pool("cancel", "b")
    assert pool.waiting(id) == []
    pool.finish(id)
    assert "b" not in pool.answers


def test_the_same_request_twice_is_one_call(pool: Bench) -> None:
    id = pool.open()
    pool.call("a")
    pool.call("a")
    assert pool.waiting(id) == []


def test_late_news_fall_through(pool: Bench) -> None:
    id = pool.open(revive=True)
    pool.call("a")
    pool.die(id)
    for step, args in {
        "done": (1, 1, "late"),
        "not_run": (1, 1, OSError()),
        "lost": (1, OSError()),
        "opened": (1,),
        "worker_started": (1,),
        "open_failed": (1, OSError()),
        "start_failed": (1, OSError()),
        "died": (1,),
    }.items():
        assert pool(step, *args) == [], step


# -- one answer of many connections -------------------------------------------------------------------------


def test_map_runs_on_every_live_connection_and_answers_once(pool: Bench) -> None:
    first, second = pool.open(), pool.open()
    other = pool.open(methods=("put",))
    pool("map", "m", "c", "r", "get", "payload")
    assert "m" not in pool.answers
    pool.finish(second, "two")
    pool.finish(first, "one")
    answer = pool.answers["m"]
    assert (answer[first], answer[second]) == ("one", "two")
    assert isinstance(answer[other], MethodNotFound)
    assert list(answer) == [first, second, other]


def test_map_over_an_unknown_resource_is_empty(pool: Bench) -> None:
    pool("map", "m", "c", "nothing", "get")
    assert pool.answers["m"] == {}


def test_a_mapped_call_stays_with_its_connection(pool: Bench) -> None:
    first, second = pool.open(), pool.open()
    pool.call("busy")
    pool("map", "m", "c", "r", "get", timeout=5.0)
    pool.die(first)
    pool.finish(second, "two")
    assert isinstance(pool.answers["m"][first], NoResource)
    assert pool.answers["m"][second] == "two"


def test_a_mapped_call_that_times_out_is_told_in_its_place(pool: Bench) -> None:
    first, second = pool.open(), pool.open()
    pool("map", "m", "c", "r", "get", timeout=1.0)
    pool.finish(second, "two")
    pool.after(1.0)
    assert isinstance(pool.answers["m"][first], CallTimeout)


# -- figures, settings --------------------------------------------------------------------------------------


def test_extra_gives_back_what_was_there_before(pool: Bench) -> None:
    id = pool.open()
    pool("extra", "first", id, "tag")
    pool("extra", "second", id, None)
    assert (pool.answers["first"], pool.answers["second"]) == (None, "tag")


@pytest.mark.parametrize("request_", ["info", "extra", "pop"])
def test_an_unknown_connection_is_an_error_that_says_so(pool: Bench, request_: str) -> None:
    pool(request_, "x", 99, *(["value"] if request_ == "extra" else []))
    assert isinstance(pool.answers["x"], UnknownConnection)
    assert "99" in str(pool.answers["x"])


def test_update_changes_the_matching_connections_and_says_how_many(pool: Bench) -> None:
    for zone in ("north", "north", "south"):
        pool.open(extra={"zone": zone})
    pool("update", "u", "r", {"zone": "north"}, {"ttl": 5.0, "revive": True})
    assert pool.answers["u"] == 2
    assert [(info.ttl, info.revive) for info in pool.core.infos(pool.now)] == [(5.0, True), (5.0, True), (None, False)]
    pool("update", "v", "nothing", None, {"extra": 1})
    assert pool.answers["v"] == 0


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"ttl": 0}, "ttl"),
        ({"ttl": True}, "ttl"),
        ({"ttl": float("nan")}, "ttl"),
        ({"revive": "maybe"}, "revive"),
        ({"revive": None}, "revive"),
        ({"resource": []}, "resource"),
    ],
)
def test_bad_settings_are_refused_by_name(pool: Bench, settings: dict[str, Any], field: str) -> None:
    pool("add", "a", "spec", **{"resource": "r", **settings})
    assert isinstance(pool.answers["a"], InvalidConfig)
    assert list(pool.answers["a"].problems) == [field]
    assert not pool.core.connections.by_id
    pool("update", "u", "r", None, settings)
    assert field in pool.answers["u"].problems


def test_resources_and_is_empty_tell_of_live_connections_only(pool: Bench) -> None:
    id = pool.open("a")
    pool.open("b")
    pool.adding("pending", "c")
    pool("resources", 1)
    assert pool.answers[1] == ["a", "b"]
    pool.die(id)
    pool("resources", 2)
    pool("is_empty", 3, "a")
    pool("is_empty", 4, "b")
    assert (pool.answers[2], pool.answers[3], pool.answers[4]) == (["b"], True, False)


# -- adding -------------------------------------------------------------------------------------------------


def test_adding_starts_opens_and_answers_the_id(pool: Bench) -> None:
    pool("add", "a", {"the": "spec"}, resource="r")
    pool("worker_started", 1, 7001)
    assert pool.asked == [("Start", 1, {"the": "spec"}), ("Open", 1)]
    assert "a" not in pool.answers
    pool("opened", 1, 0.01, methods=("get",))
    assert pool.answers["a"] == 1


def test_the_resource_may_be_what_the_worker_says(pool: Bench) -> None:
    for ref, said, filed in (("a", "mine", "mine"), ("b", "mine", "mine")):
        pool("add", ref, "spec")
        worker = max(pool.core.connections.by_worker)
        pool("worker_started", worker)
        pool("opened", worker, resource=said, methods=("get",))
        assert pool.core.connections.by_id[pool.answers[ref]].resource == filed
    assert pool.call("x", resource="mine") is None
    worker = pool.adding("c", "given")
    pool("opened", worker, resource="ignored")
    assert pool.core.connections.by_id[pool.answers["c"]].resource == "given"


@pytest.mark.parametrize("said", [None, []])
def test_a_connection_without_a_usable_resource_is_refused(pool: Bench, said: Any) -> None:
    pool("add", "a", "spec")
    pool("worker_started", 1)
    pool("opened", 1, resource=said)
    assert isinstance(pool.answers["a"], InvalidConfig)
    assert ("Stop", 1, False) in pool.asked


@pytest.mark.parametrize("revive", [False, True])
def test_adding_tries_again_until_its_timeout_and_leaves_nothing_behind(pool: Bench, revive: bool) -> None:
    worker = pool.adding(revive=revive, timeout=5.0)
    cause = ConnectionRefusedError("nobody there")
    pool("open_failed", worker, cause)
    assert "add" not in pool.answers
    pool.after(1.5)  # minimum + half of the way to twice the minimum
    assert pool.asked.count(("Open", worker)) == 2
    pool("open_failed", worker, cause)
    pool.after(2.5)
    pool("open_failed", worker, cause)
    error = pool.answers["add"]
    assert isinstance(error, WorkerUnavailable), "the next attempt would come too late, so it says so now"
    assert error.cause is cause
    assert not pool.core.connections.by_id
    assert ("Stop", worker, False) in pool.asked


def test_adding_ends_at_its_timeout_although_open_hangs(pool: Bench) -> None:
    worker = pool.adding(timeout=5.0)
    pool.after(5.0)
    assert isinstance(pool.answers["add"], WorkerUnavailable)
    assert ("Stop", worker, True) in pool.asked
    pool.after(2.0)
    assert ("Kill", worker) in pool.asked
    pool("died", worker)
    assert not pool.core.workers.by_state[STOPPING]


def test_forced_adding_succeeds_although_the_resource_is_away(pool: Bench) -> None:
    worker = pool.adding(revive="force", timeout=5.0)
    pool("open_failed", worker, ConnectionRefusedError())
    assert pool.answers["add"] == 1
    assert isinstance(pool.call("a"), NoResource)
    pool.after(1.5)
    pool("opened", worker, methods=("get",))
    assert pool.call("b") is None


def test_forced_adding_succeeds_at_its_timeout_although_open_hangs(pool: Bench) -> None:
    pool.adding(revive="force", timeout=5.0)
    pool.after(5.0)
    assert pool.answers["add"] == 1
    assert pool.state(1) is OPENING


def test_the_delay_that_a_worker_asks_for_is_kept(pool: Bench) -> None:
    worker = pool.adding(timeout=60.0)
    pool("open_failed", worker, OSError(), retry_after=20.0)
    pool.after(19.9)
    assert pool.asked.count(("Open", worker)) == 1
    pool.after(0.2)
    assert pool.asked.count(("Open", worker)) == 2


@pytest.mark.parametrize("revive", [False, True, "force"])
def test_a_permanent_error_is_never_tried_again(pool: Bench, revive: Any) -> None:
    worker = pool.adding(revive=revive, timeout=5.0)
    error = PermanentError("wrong password")
    pool("open_failed", worker, error, permanent=True)
    assert pool.answers["add"] is error
    assert not pool.core.connections.by_id
    assert ("Stop", worker, False) in pool.asked


def test_a_worker_whose_init_fails_is_refused_with_that_error(pool: Bench) -> None:
    pool("add", "a", "spec", resource="r", revive="force")
    error = TypeError("unexpected argument")
    pool("start_failed", 1, error)
    assert pool.answers["a"] is error
    assert not pool.core.connections.by_id


def test_a_process_that_dies_while_it_opens_is_started_again(pool: Bench) -> None:
    worker = pool.adding(timeout=60.0)
    pool("died", worker)
    pool.after(1.5)
    assert pool.asked[-1] == ("Start", worker + 1, "spec")
    assert "worker.restarted" in pool.events


# -- how connections end ------------------------------------------------------------------------------------


def test_an_expired_connection_that_is_not_revived_is_dropped_on_time(pool: Bench) -> None:
    pool.open(ttl=50.0)
    pool.after(49.9)
    assert pool.call("a") is None
    pool.finish(1)
    pool.after(0.1)
    pool("resources", "res")
    assert pool.answers["res"] == []
    assert isinstance(pool.call("b"), NoResource)
    assert ("Stop", 1, False) in pool.asked


def test_expiry_is_met_by_a_call_even_if_nobody_has_ticked(pool: Bench) -> None:
    pool.open(ttl=50.0)
    pool.now += 50.0
    assert isinstance(pool.call("a"), NoResource)
    assert not pool.core.connections.by_id


def test_the_call_that_meets_an_expired_connection_fails_while_it_is_revived_in_the_background(pool: Bench) -> None:
    id = pool.open(ttl=10.0, revive=True)
    pool.after(60.0)
    assert ("Open", 1) not in pool.asked[2:], "nobody needed it, so it was not opened again"
    assert isinstance(pool.call("a"), NoResource)
    assert pool.asked[-1] == ("Open", 1)
    pool("opened", 1, methods=("get",))
    assert pool.call("b") is None
    assert pool.running(id) == "b"


def test_the_time_to_live_counts_from_connecting(pool: Bench) -> None:
    id = pool.open(ttl=10.0, revive=True)
    pool.after(10.0)
    pool.call("a")
    pool.after(5.0)
    pool("opened", 1, methods=("get",))
    pool.after(9.9)
    assert pool.call("b") is None
    assert pool.running(id) == "b"


@pytest.mark.parametrize("revive", [False, True])
def test_calls_that_wait_when_their_connection_expires_move_and_the_running_one_ends(pool: Bench, revive: bool) -> None:
    first = pool.open(ttl=10.0, revive=revive)
    second = pool.open()
    for ref in "abcd":
        pool.call(ref)
    pool.after(10.0)
    assert pool.waiting(second) == ["c", "d"]
    assert pool.state(first) is ENDING
    pool.finish(first)
    assert pool.answers["a"] == "done"
    assert (first in pool.core.connections.by_id) is revive


def test_a_waiting_call_is_not_begun_on_an_expired_connection_even_if_nobody_has_ticked(pool: Bench) -> None:
    first, second = pool.open(ttl=10.0), pool.open()
    for ref in "abc":
        pool.call(ref)
    pool.now += 10.0
    pool.finish(first)
    assert pool.waiting(second) == ["c"]


def test_the_waiting_calls_of_an_expired_connection_fail_when_it_was_the_only_one(pool: Bench) -> None:
    pool.open(ttl=10.0, revive=True)
    pool.call("a")
    pool.call("b")
    pool.after(10.0)
    assert isinstance(pool.answers["b"], NoResource)
    assert "was not run" in str(pool.answers["b"])


def test_several_expired_connections_that_are_met_at_once_end_once_each(pool: Bench) -> None:
    first, second, third = (pool.open(ttl=10.0, revive=True) for _ in range(3))
    pool("extra", "x", first, {"id": first})
    pool.call("a", where={"id": first})
    pool.call("b", where={"id": first})
    pool.now += 10.0
    assert isinstance(pool.call("c"), NoResource)
    assert isinstance(pool.answers["b"], NoResource)
    assert [pool.state(id) for id in (first, second, third)] == [ENDING, OPENING, OPENING]


def test_calls_of_several_connections_that_end_at_once_move_in_order_of_arrival(pool: Bench) -> None:
    first, second = pool.open(), pool.open()
    for ref in "abcd":
        pool.call(ref)
    pool("update", "u", "r", None, {"ttl": 1.0})
    pool.now += 1.0
    third = pool.open()
    pool.die(first)  # c looks for a place, and finds the second one expired, where d waits
    assert (pool.running(third), pool.waiting(third)) == ("c", ["d"])
    assert pool.state(second) is ENDING


def test_a_changed_time_to_live_holds_at_once(pool: Bench) -> None:
    pool.open()
    pool.after(5.0)
    pool("update", "u", "r", None, {"ttl": 10.0})
    pool.after(5.0)
    assert not pool.core.connections.by_id


@pytest.mark.parametrize("revive", [True, "force"])
@pytest.mark.parametrize("end", ["reply", "infinite", "lost", "died"])
def test_a_connection_is_revived_however_it_ends(pool: Bench, revive: Any, end: str) -> None:
    id = pool.open(revive=revive)
    pool.call("a")
    if end == "reply":
        pool.finish(id, close=True)
    elif end == "infinite":
        pool.finish(id, cooldown=float("inf"))
    elif end == "lost":
        pool.finish(id)
        pool("lost", 1, ConnectionResetError())
    else:
        pool.finish(id)
        pool.die(id)
    assert pool.answers["a"] == "done"
    assert pool.asked[-1] == (("Start", 2, "spec") if end == "died" else ("Open", 1)), "at once: it had served"
    assert isinstance(pool.call("b"), NoResource)
    if end == "died":
        pool("worker_started", 2, 7002)
    pool("opened", max(pool.core.connections.by_worker), methods=("get",))
    assert pool.call("c") is None


@pytest.mark.parametrize("end", ["reply", "lost", "died"])
def test_a_connection_that_is_not_revived_is_dropped_however_it_ends(pool: Bench, end: str) -> None:
    id = pool.open()
    pool.call("a")
    pool.call("b")
    if end == "reply":
        pool.finish(id, close=True)
    elif end == "lost":
        pool("lost", 1, ConnectionResetError())
        pool.finish(id)
    else:
        pool.die(id)
    assert isinstance(pool.answers["b"], NoResource)
    assert not pool.core.connections.by_id
    assert (("Stop", 1, False) in pool.asked) is (end != "died")


def test_failing_to_reopen_backs_off_and_a_call_that_is_answered_ends_the_series(pool: Bench) -> None:
    id = pool.open(revive=True)
    pool.call("a")
    pool.finish(id, close=True)
    delays = []
    for _ in range(5):
        before = pool.now
        pool("open_failed", 1, OSError("down"))
        assert pool.state(id) is DOWN
        moment = pool.core.deadline()
        assert moment is not None
        delays.append(moment - before)
        pool.after(moment - before)
    assert delays == [1.5, 2.5, 4.5, 4.5, 4.5]
    assert pool.logs[-1].level == "warning"
    pool("opened", 1, methods=("get",))
    pool.call("b")
    pool.finish(id, close=True)
    pool("open_failed", 1, OSError("down"))
    assert pool.core.deadline() == pool.now + 1.5


def test_a_process_that_dies_again_and_again_before_it_answers_anything_is_restarted_ever_later(pool: Bench) -> None:
    id = pool.open(revive=True)
    delays = []
    for _ in range(3):
        pool.die(id)
        moment = pool.core.deadline()
        assert moment is not None
        delays.append(moment - pool.now)
        pool.after(delays[-1])
        worker = max(pool.core.connections.by_worker)
        pool("worker_started", worker)
        pool("opened", worker, methods=("get",))
    assert delays == [1.5, 2.5, 4.5]


def test_reviving_ends_for_good_with_a_permanent_error(pool: Bench) -> None:
    id = pool.open(revive=True)
    pool.call("stop")
    pool.finish(id, close=True)
    pool("open_failed", 1, PermanentError("dead"), permanent=True)
    assert pool.logs[-1].level == "error"
    pool("resources", "res")
    pool("is_empty", "empty", "r")
    assert (pool.answers["res"], pool.answers["empty"]) == ([], True)


def test_no_revival_asked_for_meanwhile_lets_the_planned_attempt_be_the_last(pool: Bench) -> None:
    id = pool.open(revive=True)
    pool.call("a")
    pool.finish(id, close=True)
    pool("open_failed", 1, OSError())
    pool("update", "u", "r", None, {"revive": False})
    pool.after(1.5)
    pool("open_failed", 1, OSError())
    assert not pool.core.connections.by_id


def test_no_resource_says_what_is_known_and_when_it_may_be_back(pool: Bench) -> None:
    id = pool.open(revive=True)
    pool.call("a")
    pool.finish(id, close=True)
    pool("open_failed", 1, OSError("no route"))
    error = pool.call("b")
    assert "1 down" in str(error)
    assert "in 1.5 s" in str(error)
    assert "no route" in str(error)
    assert error.resource == "r"


# -- leaving ------------------------------------------------------------------------------------------------


def test_pop_waits_for_the_queued_calls_and_takes_no_new_ones(pool: Bench) -> None:
    id = pool.open(revive="force")
    pool.call("a")
    pool.call("b")
    pool("pop", "p", id)
    assert isinstance(pool.call("c"), NoResource)
    pool.finish(id)
    assert pool.running(id) == "b"
    assert "p" not in pool.answers
    pool.finish(id)
    assert pool.answers["p"].id == id
    assert pool.answers["p"].closed is True
    assert pool.answers["p"].stats["get"].count == 2
    assert not pool.core.connections.by_id, "whoever is popped is not revived"
    assert pool.asked[-1] == ("Stop", 1, False)
    pool("pop", "again", id)
    assert isinstance(pool.answers["again"], UnknownConnection)


def test_a_popped_connection_that_dies_is_answered_and_its_calls_move(pool: Bench) -> None:
    first, second = pool.open(revive=True), pool.open()
    pool("extra", "x", first, {"id": 1})
    pool.call("a", where={"id": 1})
    pool.call("busy")
    pool.call("b", where=lambda info: True)
    assert pool.waiting(first) == ["b"]
    pool("pop", "p", first)
    pool.die(first)
    assert pool.answers["p"].id == first
    assert pool.waiting(second) == ["b"]
    assert first not in pool.core.connections.by_id


def test_a_connection_that_is_down_is_popped_at_once(pool: Bench) -> None:
    id = pool.open(revive=True)
    pool.call("a")
    pool.finish(id, close=True)
    pool("open_failed", 1, OSError())
    pool("pop", "p", id)
    assert pool.answers["p"].closed is True
    pool.after(60.0)
    assert pool.core.deadline() is None


def test_pop_all_takes_the_matching_ones_and_answers_when_all_are_done(pool: Bench) -> None:
    first = pool.open(extra={"zone": "north"})
    second = pool.open(extra={"zone": "north"})
    kept = pool.open(extra={"zone": "south"})
    pool.call("a")
    pool.call("b")
    pool("pop_all", "p", "r", {"zone": "north"})
    pool.finish(second)
    assert "p" not in pool.answers
    pool.finish(first)
    assert [info.id for info in pool.answers["p"]] == [first, second]
    assert list(pool.core.connections.by_id) == [kept]
    pool("pop_all", "q", "r", {"zone": "north"})
    assert pool.answers["q"] == []


def test_popping_what_is_still_being_added_tells_both(pool: Bench) -> None:
    pool.adding("a")
    pool("pop_all", "p", "r")
    assert isinstance(pool.answers["a"], UnknownConnection)
    assert [info.id for info in pool.answers["p"]] == [1]


def test_a_cancelled_last_call_lets_a_popped_connection_go(pool: Bench) -> None:
    id = pool.open()
    pool.call("a")
    pool.finish(id, cooldown=60.0)
    pool.call("b")
    pool("pop", "p", id)
    assert "p" not in pool.answers
    pool("cancel", "b")
    assert pool.answers["p"].id == id


def test_stopping_refuses_what_waits_and_lets_what_runs_finish(pool: Bench) -> None:
    busy, idle = pool.open(revive=True), pool.open()
    worker = pool.adding("pending")
    pool("extra", "x", busy, {"id": 1})
    pool.call("a", where={"id": 1})
    pool.call("b", where={"id": 1})
    pool("stop", "s", 5.0)
    assert isinstance(pool.answers["b"], PoolStopped)
    assert isinstance(pool.answers["pending"], PoolStopped)
    assert isinstance(pool.call("c"), PoolStopped)
    pool("add", "d", "spec", resource="r")
    assert isinstance(pool.answers["d"], PoolStopped)
    assert list(pool.core.connections.by_id) == [busy]
    pool.finish(busy)
    assert pool.answers["a"] == "done"
    assert pool.stopped == 0
    for gone in (1, idle, worker):
        pool("died", gone)
    assert pool.stopped == 1
    assert pool.answers["s"] is None


def test_stopping_ends_a_connection_that_would_have_been_revived(pool: Bench) -> None:
    id = pool.open(revive=True)
    pool.call("a")
    pool("lost", 1, ConnectionResetError())
    pool("stop", "s", 5.0)
    pool.finish(id)
    assert pool.answers["a"] == "done"
    assert not pool.core.connections.by_id


def test_stopping_lets_a_popped_connection_go_whose_queue_it_has_emptied(pool: Bench) -> None:
    id = pool.open()
    pool.call("a")
    pool.finish(id, cooldown=60.0)
    pool.call("b")
    pool("pop", "p", id)
    pool("stop", "s", 5.0)
    assert pool.answers["p"].id == id
    assert isinstance(pool.answers["b"], PoolStopped)
    assert not pool.core.connections.by_id


def test_stopping_interrupts_what_still_runs_at_its_timeout(pool: Bench) -> None:
    pool.open()
    pool.call("a")
    pool("stop", "s", 5.0)
    pool.after(5.0)
    assert isinstance(pool.answers["a"], PoolStopped)
    assert ("Stop", 1, True) in pool.asked
    pool.after(2.0)
    assert ("Kill", 1) in pool.asked
    pool("died", 1)
    assert pool.stopped == 1


def test_an_empty_pool_is_stopped_at_once(pool: Bench) -> None:
    pool("stop", "s", 5.0)
    assert pool.stopped == 1
    assert pool.answers["s"] is None


# -- the records --------------------------------------------------------------------------------------------


def test_an_illegal_move_raises_and_changes_nothing(pool: Bench) -> None:
    connection = pool.core.connections.by_id[pool.open()]
    with pytest.raises(IllegalMove, match="connection 1: live -> down"):
        connection.move(CLOSED)
    assert connection.state is LIVE


def test_a_connection_shows_what_it_is(pool: Bench) -> None:
    connection: Connection = pool.core.connections.by_id[pool.open()]
    pool.call("a")
    pool.call("b")
    assert repr(connection) == "<connection 1 to 'r' live, 1 waiting, 1 running>"


def test_events_for_each_call_are_made_only_while_somebody_listens(pool: Bench) -> None:
    id = pool.open()
    pool.call("a")
    pool.finish(id)
    assert "call.done" not in pool.events
    pool.core.loans.observed = True
    pool.call("b")
    pool.finish(id)
    assert "call.done" in pool.events


def test_deadlines_of_calls_that_are_over_do_not_pile_up() -> None:
    deadlines = Deadlines()
    for number in range(10_000):
        deadlines.add(Call(number, number, "c", "r", "get", None, None, 0.0, 1e9))
    assert len(deadlines) < 200
    assert deadlines.next() is None
