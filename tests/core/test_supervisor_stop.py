"""How children are stopped: asked, given their time, killed; one after another, or many under one timer."""

import pytest

from actorpool.core.supervisor import events
from actorpool.core.supervisor.children import End
from actorpool.messages import CountChildren, StartChild, TerminateChild
from actorpool.status import Counts
from tests.core.supervisor_world import DIE, HANG, World, child, tree

PLENTY = {"max_restarts": 1000, "max_seconds": 5}


def test_a_child_that_ignores_the_request_is_killed_at_its_time():
    world = World(tree(child("a", shutdown=3.0))).forget_the_past()
    world.stubborn.add("a")
    ref = world.ask(TerminateChild("a"))
    world.advance(2.9)
    assert world.log == [("stop", "a")]
    assert ref not in world.answers
    world.advance(0.1)
    assert world.log == [("stop", "a"), ("kill", "a")]
    assert world.answers[ref].error is None
    assert world.kinds == ["stop_failed"]
    assert world.reports[0].end.reason == "killed"


def test_brutal_kill_asks_nobody():
    world = World(tree(child("a", shutdown="brutal_kill"))).forget_the_past()
    world.reply(TerminateChild("a"))
    assert world.log == [("kill", "a")]
    assert world.kinds == []


def test_infinity_waits_for_ever():
    world = World(tree(child("a", shutdown="infinity")))
    world.stubborn.add("a")
    ref = world.ask(TerminateChild("a"))
    world.advance(10**6)
    assert ref not in world.answers
    world.dies("a")
    assert world.answers[ref].error is None


def test_a_time_of_zero_kills_after_one_turn():
    world = World(tree(child("a", shutdown=0)))
    world.stubborn.add("a")
    ref = world.ask(TerminateChild("a"))
    world.advance(0)
    assert ref in world.answers


def test_the_timer_of_a_child_that_obeyed_kills_nobody_else():
    world = World(tree(child("a", shutdown=3.0)))
    world.reply(TerminateChild("a"))
    world.ask(StartChild(child("b")))
    world.forget_the_past()
    world.advance(10)
    assert world.log == []


@pytest.mark.parametrize(
    ("restart", "reason", "reported"),
    [
        ("permanent", "shutdown", False),
        ("permanent", "normal", True),
        ("transient", "normal", False),
        ("transient", ("shutdown", "x"), False),
        ("temporary", "boom", True),
    ],
)
def test_a_child_that_ends_by_itself_while_it_is_stopped_keeps_its_reason(restart, reason, reported):
    world = World(tree(child("a", restart), child("b"))).forget_the_past()
    world.stubborn.add("a")
    world.ask(TerminateChild("a"))
    world.tell(events.Leaving(world.token("a"), End(reason)))
    world.dies("a")
    assert [report.end.reason for report in world.reports] == ([reason] if reported else [])
    assert ("kill", "a") not in world.log


def test_children_are_stopped_in_reverse_order_each_after_the_one_before_is_gone():
    world = World(tree(*map(child, "abc"), max_restarts=0)).forget_the_past()
    world.stubborn.update("ac")
    world.ends("b")
    assert world.log == [("stop", "c")]
    world.advance(5)
    assert world.log == [("stop", "c"), ("kill", "c"), ("stop", "a")]
    world.advance(5)
    assert world.log[-1] == ("kill", "a")
    assert world.exit.reason == "shutdown"


def test_many_children_of_one_spec_are_stopped_side_by_side_under_one_timer():
    world = World(tree(child("many", shutdown=4.0), strategy="simple_one_for_one", max_restarts=0))
    for _ in range(1000):
        world.ask(StartChild())
    assert world.reply(CountChildren()) == Counts(specs=1, active=1000, supervisors=0, workers=1000)
    world.forget_the_past()
    world.stubborn.add("many")
    world.ends(world.machine.children[next(iter(world.machine.children))].address)
    assert world.log == [("stop", "many")] * 999
    assert world.timers == [4.0]
    world.advance(4)
    assert world.log[999:] == [("kill", "many")] * 999
    assert world.exit.reason == "shutdown"


def test_one_of_many_is_stopped_alone():
    world = World(tree(child("many"), strategy="simple_one_for_one"))
    first, second = world.reply(StartChild()), world.reply(StartChild())
    world.forget_the_past()
    assert world.reply(TerminateChild(first)) is None
    assert world.log == [("stop", "many")]
    assert [item.address for item in world.machine.children.values()] == [second]


def test_a_child_that_says_it_ends_and_then_hangs_is_killed_in_time():
    world = World(tree(child("a", shutdown=2.0), **PLENTY)).forget_the_past()
    world.stubborn.add("a")
    world.ends("a", "boom")
    assert world.log == []
    world.advance(2)
    assert world.log == [("kill", "a"), ("start", "a")]
    assert world.reports[0].end.reason == "boom"


def test_a_child_that_is_killed_while_it_starts_has_failed_to_start():
    world = World(tree(child("a"), **PLENTY))
    world.inits["a"].append(DIE)
    world.ends("a")
    assert world.kinds == ["terminated", "start_failed", "restarted"]
    assert world.reports[1].end.reason == "died"


def test_a_death_that_shows_its_cause_is_reported_with_it():
    world = World(tree(child("a"), **PLENTY))
    token = world.token("a")
    del world.alive[token]
    world.tell(events.Exited(token, End("killed by SIGKILL")))
    assert world.reports[0].end.reason == "killed by SIGKILL"


# -- the order in which a supervisor that must end at once ends its children ------------------------------------------


def test_the_last_stand_is_in_reverse_order_and_leaves_out_who_has_no_process():
    world = World(tree(*map(child, "abcd")))
    world.reply(TerminateChild("b"))
    world.inits["e"].append(HANG)
    world.ask(StartChild(child("e")))
    assert [[item.spec.id for item in together] for together in world.machine.last_stand()] == [
        ["e"],
        ["d"],
        ["c"],
        ["a"],
    ]


def test_the_last_stand_of_many_is_one():
    world = World(tree(child("many"), strategy="simple_one_for_one"))
    assert world.machine.last_stand() == []
    for _ in range(3):
        world.ask(StartChild())
    assert [len(together) for together in world.machine.last_stand()] == [3]


# -- significant children ---------------------------------------------------------------------------------------------


def significant(id, restart="transient"):
    return child(id, restart, significant=True)


@pytest.mark.parametrize(
    ("restart", "reason", "ends"),
    [
        ("transient", "normal", True),
        ("transient", ("shutdown", 1), True),
        ("transient", "boom", False),  # it is restarted
        ("temporary", "normal", True),
        ("temporary", "boom", True),
    ],
)
def test_any_significant_child_that_ends_for_good_ends_the_supervisor(restart, reason, ends):
    spec = tree(child("a"), significant("b", restart), significant("c"), auto_shutdown="any_significant", **PLENTY)
    world = World(spec).forget_the_past()
    world.ends("b", reason)
    assert (world.exit is not None) is ends
    if ends:
        assert world.log == [("stop", "c"), ("stop", "a")]
        assert world.exit.reason == "shutdown"


def test_all_significant_children_must_have_ended():
    spec = tree(
        significant("a"), significant("b", "temporary"), child("c", "transient"), auto_shutdown="all_significant"
    )
    world = World(spec)
    world.ends("c", "normal")
    world.ends("b", "boom")
    assert world.exit is None
    world.ends("a", "normal")
    assert world.exit.reason == "shutdown"


def test_a_significant_child_that_is_being_restarted_counts_as_there():
    spec = tree(significant("a"), significant("b"), auto_shutdown="all_significant", **PLENTY)
    world = World(spec)
    world.inits["a"].append(HANG)
    world.ends("a", "boom")
    world.ends("b", "normal")
    assert world.exit is None
    world.comes_up("a")
    world.ends("a", "normal")
    assert world.exit is not None


def test_terminating_a_significant_child_ends_nothing():
    world = World(tree(significant("a"), child("b"), auto_shutdown="any_significant"))
    world.reply(TerminateChild("a"))
    assert world.exit is None


def test_a_significant_child_stopped_because_of_a_sibling_ends_nothing():
    spec = tree(child("a"), significant("b", "temporary"), strategy="one_for_all", auto_shutdown="any_significant")
    world = World(spec)
    world.ends("a")
    assert world.exit is None
    assert world.states() == {"a": "running"}


def test_an_ordinary_child_ends_nothing():
    world = World(tree(child("a", "temporary"), significant("b"), auto_shutdown="any_significant"))
    world.ends("a", "normal")
    assert world.exit is None
