"""Events on their way to subscribers: together, in order, and never without a limit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from actorpool._protocol.requests import Events
from actorpool.messages import Event
from actorpool.supervisors.post import EVERY, KEPT, SOON, TOGETHER, Post


class Actor:
    """Remembers what it is to do."""

    is_process = True

    def __init__(self, together: bool = True) -> None:
        self.sends_together = together
        self.sent: list[tuple[Any, Any]] = []
        self.timers: list[float] = []
        self.rings: list[Callable[[], None]] = []
        self.stuck: set[str] = set()

    def send(self, address: Any, message: Any) -> None:
        self.sent.append((address, message))

    def set_timer(self, seconds: float, then: Callable[[], None]) -> None:
        self.timers.append(seconds)
        self.rings.append(then)

    def waits_for(self, address: Any) -> bool:
        return address in self.stuck


def done(number: int) -> Event:
    return Event("call.done", "db", 1.0, {"n": number})


DIED = Event("worker.died", "db", 1.0)


def test_frequent_events_go_together_when_the_timer_runs_out():
    actor = Actor()
    mail = Post(actor)
    for number in range(3):
        mail.add([("alice", done(number))])
    assert actor.sent == []
    assert actor.timers == [EVERY]
    mail.deliver()
    assert actor.sent == [("alice", Events((done(0), done(1), done(2))))]
    assert actor.timers == [EVERY], "nothing is left to be sent"


def test_a_rare_event_goes_soon_with_all_that_happened_before():
    actor = Actor()
    mail = Post(actor)
    mail.add([("alice", done(1))])
    mail.add([("alice", DIED), ("bob", DIED)])
    assert actor.timers == [EVERY, SOON]
    mail.deliver()
    assert actor.sent == [("alice", Events((done(1), DIED))), ("bob", DIED)]


def test_many_rare_events_in_a_moment_go_in_one_message():
    actor = Actor()
    mail = Post(actor)
    for _ in range(100):
        mail.add([("alice", DIED)])
    assert actor.timers == [SOON]
    mail.deliver()
    assert actor.sent == [("alice", Events((DIED,) * 100))]
    mail.add([("alice", DIED)])
    assert actor.timers == [SOON, SOON]


def test_who_does_not_read_is_sent_nothing_more_and_what_is_kept_has_a_limit(caplog):
    actor = Actor()
    mail = Post(actor)
    actor.stuck.add("alice")
    for number in range(KEPT + 50):
        mail.add([("alice", done(number)), ("bob", done(number))] if number == 0 else [("alice", done(number))])
    mail.deliver()
    assert [address for address, _ in actor.sent] == ["bob"]
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    actor.stuck.clear()
    actor.sent.clear()
    mail.deliver()
    assert [len(message.events) for _, message in actor.sent] == [TOGETHER] * (KEPT // TOGETHER)


def test_without_a_transport_that_unfolds_each_event_is_a_message():
    actor = Actor(together=False)
    mail = Post(actor)
    mail.add([("alice", done(1))])
    mail.add([("alice", DIED)])
    mail.deliver()
    assert actor.sent == [("alice", done(1)), ("alice", DIED)]


def test_what_was_gathered_for_somebody_who_is_gone_is_dropped():
    actor = Actor()
    mail = Post(actor)
    alice, bob = "alice", "bob"
    mail.add([(alice, done(1)), (bob, done(1))])
    mail.forget([bob])
    mail.deliver()
    assert actor.sent == [("bob", done(1))]


def test_timers_do_not_multiply_however_rare_and_frequent_events_alternate():
    actor = Actor()
    mail = Post(actor)
    for _ in range(20):  # each turn: a timer of a frequent event is overtaken by that of a rare one
        mail.add([("alice", done(1))])
        mail.add([("alice", DIED)])
        rings, actor.rings = actor.rings, []
        for ring in reversed(rings):
            ring()
            mail.add([("alice", done(2))])
    assert len(actor.rings) <= 2
    assert len(actor.timers) <= 3 * 20


def test_an_actor_without_a_process_sends_rare_events_at_once():
    actor = Actor()
    actor.is_process = False
    mail = Post(actor)
    mail.add([("alice", done(1))])
    mail.add([("alice", DIED)])
    assert actor.sent == [("alice", Events((done(1), DIED)))]
