"""Reminders: in order of time, never cancelled, forgotten when nobody wants them any more."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from actorpool.core.machine import TimerQueue


def test_reminders_come_when_they_are_due_and_once():
    timers = TimerQueue()
    timers.at(2.0, "second")
    timers.at(1.0, "first")
    timers.at(3.0, "third")
    assert timers.next() == 1.0
    assert timers.due(0.5) == []
    assert timers.due(2.0) == ["first", "second"]
    assert timers.due(2.0) == []
    assert (timers.next(), len(timers)) == (3.0, 1)


def test_reminders_of_the_same_moment_come_in_the_order_they_were_made_whatever_they_are():
    timers = TimerQueue()
    things = [object(), {}, lambda: None, "text"]
    for thing in things:
        timers.at(1.0, thing)
    assert timers.due(1.0) == things


def test_an_empty_agenda_is_never_due():
    assert TimerQueue().next() is None
    assert TimerQueue().due(1e9) == []


@given(st.lists(st.floats(0, 100)), st.floats(0, 100))
def test_what_is_due_is_all_that_is_not_later(times, now):
    timers = TimerQueue()
    for time in times:
        timers.at(time, time)
    assert timers.due(now) == sorted(time for time in times if time <= now)
    assert len(timers) == sum(time > now for time in times)


def test_tidying_forgets_only_what_is_not_wanted():
    timers = TimerQueue()
    for number in range(1000):
        timers.at(float(number), number)
    timers.tidy(lambda number: number % 100 == 0)
    assert len(timers) == 10
    assert timers.due(500.0) == [0, 100, 200, 300, 400, 500]


def test_tidying_costs_little_however_often_it_is_asked_for():
    timers, looked, living = TimerQueue(), [], set(range(500))

    def wanted(key):
        looked.append(key)
        return key in living

    for number in range(5000):
        timers.at(float(number), number % 500)
        timers.tidy(wanted)
        if number == 2000:
            living.intersection_update(range(3))
    assert len(looked) < 4 * 5000
    assert len(timers) < 2200
