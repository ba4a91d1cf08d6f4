"""The waiting queue: order, deadlines, callers, CoDel; and all of it against a list that does the same naively."""

from __future__ import annotations

import math

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from actorpool.core.pool.queue import Waiter, WaitingQueue


def waiter(ref, since=0.0, timeout=5.0, caller="c"):
    return Waiter(ref, caller, since, since + timeout)


def filled(*refs, **settings_):
    queue = WaitingQueue(**settings_)
    for ref in refs:
        queue.push(waiter(ref))
    return queue


def refs(waiters):
    return [item.ref for item in waiters]


def served(queue, now):
    first, shed = queue.pop(now)
    return first.ref if first else None, refs(item for item, _ in shed)


# -- order and deadlines ----------------------------------------------------------------------------------


def test_waiters_are_served_in_the_order_they_came():
    queue = filled("a", "b", "c")
    assert [served(queue, 1)[0] for _ in range(4)] == ["a", "b", "c", None]


def test_a_waiter_that_is_removed_is_never_served():
    queue = filled("a", "b")
    assert queue.remove("a").ref == "a"
    assert queue.remove("a") is None
    assert served(queue, 1)[0] == "b"


def test_a_waiter_put_back_is_first_again_and_keeps_its_deadline():
    queue = filled("a", "b")
    first, _ = queue.pop(1)
    queue.front(first)
    assert queue.next_deadline() == 5
    assert refs(queue) == ["a", "b"]
    assert refs(queue.expired(5)) == ["a", "b"]
    assert queue.expired(99) == []


def test_deadlines_differ_and_the_earliest_is_announced():
    queue = WaitingQueue()
    for ref, timeout in (("slow", 9), ("quick", 1), ("endless", math.inf), ("medium", 4)):
        queue.push(waiter(ref, timeout=timeout))
    assert queue.next_deadline() == 1
    assert refs(queue.expired(0.9)) == []
    assert refs(queue.expired(4)) == ["quick", "medium"]
    assert queue.next_deadline() == 9
    assert refs(queue.expired(1e12)) == ["slow"]
    assert queue.next_deadline() is None
    assert refs(queue) == ["endless"]


def test_a_waiter_past_its_deadline_is_not_served_but_reported_as_expired():
    queue = WaitingQueue()
    queue.push(waiter("late", timeout=1))
    queue.push(waiter("patient", timeout=9))
    assert served(queue, 2) == ("patient", [])
    assert len(queue) == 0
    assert queue.next_deadline() == 1
    assert refs(queue.expired(2)) == ["late"]
    assert queue.next_deadline() is None


def test_all_waiters_of_a_caller_leave_together():
    queue = WaitingQueue()
    for ref, caller in (("a", "x"), ("b", "y"), ("c", "x")):
        queue.push(waiter(ref, caller=caller))
    assert refs(queue.of_caller("x")) == ["a", "c"]
    assert queue.of_caller("x") == []
    assert refs(queue) == ["b"]


def test_clearing_returns_everybody_including_the_expired_that_were_not_collected():
    queue = filled("b", "c")
    queue.push(waiter("a", timeout=1))
    queue.pop(2)
    assert refs(queue.clear()) == ["a", "c"]
    assert len(queue) == 0
    assert queue.next_deadline() is None
    assert queue.of_caller("c") == []


def test_a_second_waiter_of_the_same_ref_is_refused():
    queue = filled("a")
    with pytest.raises(ValueError, match="already waiting"):
        queue.push(waiter("a"))


def test_the_oldest_wait_is_that_of_the_first():
    queue = WaitingQueue()
    assert queue.oldest(3) == 0
    queue.push(waiter("a", since=1))
    queue.push(waiter("b", since=2))
    assert queue.oldest(3) == 2


def test_deadlines_of_those_who_left_do_not_pile_up():
    queue = WaitingQueue()
    for number in range(100_000):
        queue.push(waiter(number, since=number / 1000, timeout=3600))
        assert served(queue, number / 1000)[0] == number
    assert len(queue._deadlines) < 100


# -- CoDel ------------------------------------------------------------------------------------------------


def overloaded(seconds, *, arrivals=30, services=20, **settings_):
    """A queue that gets more than it can serve for some seconds; what it served and shed, as (age, time)."""
    queue = WaitingQueue(**settings_)
    done, shed, now = [], [], 0.0
    for step in range(int(seconds * 600)):
        now = step / 600
        if step % (600 // arrivals) == 0:
            queue.push(waiter(step, since=now, timeout=60))
        if step % (600 // services) == 0:
            first, dropped = queue.pop(now)
            done += [(now - first.since, now)] if first else []
            shed += [(now - item.since, now) for item, _ in dropped]
    return done, shed


def test_without_a_target_nobody_is_shed_however_long_they_wait():
    done, shed = overloaded(30)
    assert not shed
    assert done[-1][0] == pytest.approx(10, abs=0.2)


def test_overload_is_shed_until_the_served_wait_about_twice_the_target():
    done, shed = overloaded(30, target=0.1, interval=1.0)
    late = [age for age, at in done if at > 2]
    assert max(late) <= 0.2
    assert all(age > 0.2 for age, _ in shed)
    assert len(done) >= 0.95 * 30 * 20  # the workers lose nothing by it


def test_a_burst_that_drains_within_the_interval_is_absorbed():
    queue = WaitingQueue(target=0.1, interval=1.0)
    for number in range(9):
        queue.push(waiter(number))
    for number in range(9):
        assert served(queue, number / 10) == (number, [])
    assert served(queue, 0.9) == (None, [])


def test_shedding_starts_only_when_every_wait_of_an_interval_was_above_target():
    queue = WaitingQueue(target=0.1, interval=1.0)
    for number, since in enumerate((0.0, 0.0, 0.45, 0.9, 0.9, 0.9)):
        queue.push(waiter(number, since=since))
    assert served(queue, 0.3) == (0, [])
    assert served(queue, 0.4) == (1, [])
    assert served(queue, 0.5) == (2, [])  # waited 0.05: this interval was not slow
    assert served(queue, 1.3) == (3, [])  # 0.4 is too long, but the interval before it was fine
    assert served(queue, 1.9) == (4, [])
    first, shed = queue.pop(2.4)  # the second interval is over, its shortest wait was 0.4
    assert first is None
    assert [(item.ref, round(least, 6)) for item, least in shed] == [(5, 0.4)]


def test_a_stuck_pool_sheds_by_timer():
    queue = WaitingQueue(target=0.1, interval=1.0)
    queue.push(waiter("a", timeout=60))
    assert queue.next_deadline() == 1.0
    queue.push(waiter("b", since=0.9, timeout=60))
    assert queue.shed(0.5) == []
    assert [(item.ref, least) for item, least in queue.shed(1.0)] == [("a", 1.0)]
    assert queue.next_deadline() == 2.0
    assert [(item.ref, round(least, 6)) for item, least in queue.shed(2.0)] == [("b", 1.1)]
    assert queue.next_deadline() is None


def test_an_idle_stretch_ends_the_slow_state_so_that_the_next_burst_is_absorbed():
    queue = WaitingQueue(target=0.1, interval=1.0)
    queue.push(waiter("a", timeout=60))
    queue.shed(1.0)
    assert queue.slow
    assert queue.pop(1.1) == (None, [])  # a worker became free and nobody waited
    assert not queue.slow
    queue.push(waiter("b", since=1.2))
    assert served(queue, 1.6) == ("b", [])


def test_an_interval_that_ended_with_nobody_waiting_was_not_slow():
    queue = WaitingQueue(target=0.1, interval=1.0)
    queue.push(waiter("a"))
    assert served(queue, 0.9) == ("a", [])
    queue.push(waiter("b", since=50))
    assert served(queue, 50.9) == ("b", [])
    assert not queue.slow


def test_a_suspended_queue_sheds_nobody_and_starts_afresh():
    queue = WaitingQueue(target=0.1, interval=1.0)
    queue.push(waiter("a", timeout=60))
    queue.suspend()
    assert queue.next_deadline() == 60
    assert queue.shed(30) == []
    queue.resume(30)
    assert queue.next_deadline() == 31
    assert served(queue, 30.5) == ("a", [])


# -- against a naive model --------------------------------------------------------------------------------


class QueueAgainstList(RuleBasedStateMachine):
    """A list searched from end to end does the same as the queue, only slowly."""

    def __init__(self):
        super().__init__()
        self.queue = WaitingQueue()
        self.model = []
        self.late = []
        self.taken = []
        self.now = 0.0
        self.number = 0

    def collect(self):
        due = [item for item in self.model if item.deadline <= self.now]
        self.model = [item for item in self.model if item.deadline > self.now]
        return due

    @rule(timeout=st.sampled_from([0.5, 1.0, 2.0, 5.0, math.inf]), caller=st.sampled_from("xyz"))
    def push(self, timeout, caller):
        self.number += 1
        item = waiter(self.number, since=self.now, timeout=timeout, caller=caller)
        self.queue.push(item)
        self.model.append(item)

    @rule(step=st.sampled_from([0.0, 0.3, 1.0]))
    def pass_time(self, step):
        self.now += step

    @rule()
    def pop(self):
        self.late += self.collect()
        expected = self.model.pop(0) if self.model else None
        assert self.queue.pop(self.now) == (expected, [])
        self.taken += [expected] if expected else []

    @rule()
    def put_back(self):
        if self.taken:
            item = self.taken.pop()
            self.queue.front(item)
            self.model.insert(0, item)

    @rule(back=st.integers(0, 12))
    def remove(self, back):
        ref = self.number - back
        expected = next((item for item in self.model if item.ref == ref), None)
        assert self.queue.remove(ref) is expected
        self.model = [item for item in self.model if item is not expected]

    @rule(caller=st.sampled_from("xyz"))
    def caller_dies(self, caller):
        gone = self.queue.of_caller(caller)
        assert set(refs(gone)) == {item.ref for item in self.model if item.caller == caller}
        self.model = [item for item in self.model if item.caller != caller]

    @rule()
    def expire(self):
        expected = self.late + self.collect()
        self.late = []
        assert sorted(refs(self.queue.expired(self.now))) == sorted(refs(expected))

    @invariant()
    def same_order_and_same_next_deadline(self):
        assert list(self.queue) == self.model
        assert len(self.queue) == len(self.model)
        deadlines = [item.deadline for item in self.model if item.deadline < math.inf]
        if self.late:
            assert self.queue.next_deadline() <= self.now
        else:
            assert self.queue.next_deadline() == min(deadlines, default=None)


TestQueueAgainstList = QueueAgainstList.TestCase
TestQueueAgainstList.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
