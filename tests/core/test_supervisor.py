"""Who is restarted, in what order, how often, and when a supervisor gives up: OTP's rules, cell by cell."""

import pytest

from actorpool.core.machine import Backoff
from actorpool.core.supervisor import events
from actorpool.core.supervisor.children import End, is_ordinary, restarts
from actorpool.errors import SupervisorError
from actorpool.messages import CountChildren, RestartChild, StartChild, TerminateChild, WhichChildren
from tests.core.supervisor_world import DIE, HANG, IGNORE, World, child, tree

PLENTY = {"max_restarts": 1000, "max_seconds": 5}
RESTART = ("permanent", "transient", "temporary")
ORDINARY = ("normal", "shutdown", ("shutdown", "update"))
ABNORMAL = ("boom", ("error", 3), None)  # None: without a reason, as by kill -9
REASONS = ORDINARY + ABNORMAL

AFTER_RESTART = {
    "one_for_one": [("start", "b")],
    "rest_for_one": [("stop", "c"), ("start", "b"), ("start", "c")],
    "one_for_all": [("stop", "c"), ("stop", "a"), ("start", "a"), ("start", "b"), ("start", "c")],
}


def restarted(restart, reason):
    return restart == "permanent" or (restart == "transient" and reason in ABNORMAL)


@pytest.mark.parametrize("reason", REASONS, ids=str)
@pytest.mark.parametrize("restart", RESTART)
@pytest.mark.parametrize("strategy", AFTER_RESTART)
def test_every_cell_of_strategy_restart_type_and_reason(strategy, restart, reason):
    world = World(tree(child("a"), child("b", restart), child("c"), strategy=strategy, **PLENTY)).forget_the_past()
    world.ends("b", reason)
    if restarted(restart, reason):
        assert world.log == AFTER_RESTART[strategy]
        assert world.states() == dict.fromkeys("abc", "running")
    else:
        assert world.log == []
        assert (
            world.states()
            == {
                "transient": {"a": "running", "b": "stopped", "c": "running"},
                "temporary": {"a": "running", "c": "running"},
            }[restart]
        )
    assert world.exit is None


@pytest.mark.parametrize("reason", REASONS, ids=str)
@pytest.mark.parametrize("restart", RESTART)
def test_every_cell_for_one_of_many_children(restart, reason):
    world = World(tree(child("many", restart), strategy="simple_one_for_one", **PLENTY))
    first, second = world.reply(StartChild({"n": 1})), world.reply(StartChild({"n": 2}))
    world.forget_the_past()
    world.ends(first, reason)
    if restarted(restart, reason):
        assert world.log[-1] == ("start", "many")
        assert len(world.machine.children) == 2
        assert world.extras[max(world.alive)] == ({"n": 1}, None), "the same args as before"
    else:
        assert ("start", "many") not in world.log
        assert [item.address for item in world.machine.children.values()] == [second]


@pytest.mark.parametrize("reason", REASONS, ids=str)
def test_the_policy_itself(reason):
    assert is_ordinary(reason) is (reason in ORDINARY)
    assert [restarts(word, reason) for word in RESTART] == [True, reason in ABNORMAL, False]


@pytest.mark.parametrize(
    ("restart", "reason", "told"),
    [
        ("permanent", "normal", True),
        ("permanent", "boom", True),
        ("transient", "normal", False),
        ("transient", "boom", True),
        ("temporary", "shutdown", False),
        ("temporary", "boom", True),
    ],
)
def test_an_end_that_was_not_to_be_expected_is_reported(restart, reason, told):
    world = World(tree(child("a", restart), **PLENTY)).forget_the_past()
    world.ends("a", reason, "Traceback ...")
    assert ("terminated" in world.kinds) is told
    if told:
        assert world.reports[0][:4] == ("terminated", "a", world.reports[0].pid, End(reason, "Traceback ..."))


# -- start ----------------------------------------------------------------------------------------------------------


def test_children_start_in_order_each_after_the_one_before_is_up():
    world = World(tree(child("a"), child("b"), child("c")), boot=False)
    world.inits["a"].append(HANG)
    world.tell(events.Boot())
    assert world.log == [("start", "a")]
    assert not world.ready
    world.comes_up("a")
    assert world.log == [("start", "a"), ("up", "a"), ("start", "b"), ("start", "c")]
    assert world.ready


@pytest.mark.parametrize("how", ["no disk", DIE])
def test_a_failed_initial_start_stops_the_others_in_reverse_and_is_not_tried_again(how):
    world = World(tree(child("a"), child("b"), child("c"), child("d"), **PLENTY), boot=False)
    world.inits["c"].append(how)
    world.tell(events.Boot())
    assert world.log == [("start", "a"), ("start", "b"), ("start", "c"), ("stop", "b"), ("stop", "a")]
    reason = ("shutdown", ("failed_to_start_child", "c", "died" if how == DIE else how))
    assert world.exit.reason == world.exit.failed.reason == reason
    assert "'c'" in str(world.exit.failed)
    assert str(reason[1][2]) in str(world.exit.failed)


def test_an_ignored_child_keeps_its_spec_unless_it_is_temporary():
    world = World(tree(child("a"), child("b"), child("c", "temporary"), child("d")), boot=False)
    world.inits["b"].append(IGNORE)
    world.inits["c"].append(IGNORE)
    world.tell(events.Boot())
    assert world.ready
    assert world.states() == {"a": "running", "b": "stopped", "d": "running"}
    assert set(world.alive.values()) == {"a", "d"}


def test_a_supervisor_of_many_starts_with_none():
    world = World(tree(child("many"), strategy="simple_one_for_one"))
    assert world.ready
    assert world.log == []


def test_nothing_is_answered_before_all_are_up():
    world = World(tree(child("a"), child("b")), boot=False)
    world.inits["b"].append(HANG)
    world.tell(events.Boot())
    ref = world.ask(CountChildren())
    assert ref not in world.answers
    world.comes_up("b")
    assert world.answers[ref].value.active == 2


def test_a_request_that_met_a_failing_start_gets_its_reason():
    world = World(tree(child("a")), boot=False)
    world.inits["a"].append(HANG)
    world.tell(events.Boot())
    ref = world.ask(WhichChildren())
    world.fails("a", "no disk")
    assert world.answers[ref].error.reason == ("shutdown", ("failed_to_start_child", "a", "no disk"))


def test_a_child_that_stops_itself_in_its_init_has_failed_to_start():
    world = World(tree(child("a")), boot=False)
    world.inits["a"].append(HANG)
    world.tell(events.Boot())
    world.tell(events.Leaving(world.token("a"), End("not today")))
    assert world.exit.reason == ("shutdown", ("failed_to_start_child", "a", "not today"))


def test_a_child_whose_init_failed_has_its_shutdown_time_to_leave_and_is_then_killed():
    world = World(tree(child("a", shutdown=2.0)), boot=False)
    world.inits["a"].append("no disk")
    world.stubborn.add("a")
    world.tell(events.Boot())
    assert world.exit is None
    world.advance(2.0)
    assert world.log == [("start", "a"), ("kill", "a")]
    assert world.exit.reason[1][2] == "no disk"


# -- intensity --------------------------------------------------------------------------------------------------------


def test_the_restart_beyond_the_intensity_ends_the_supervisor_with_shutdown():
    world = World(tree(child("a"), child("b"), child("c"), max_restarts=2, max_seconds=5))
    world.ends("b")
    world.ends("b")
    assert world.exit is None
    world.forget_the_past()
    world.ends("b")
    assert world.log == [("stop", "c"), ("stop", "a")]
    assert world.exit == events.Exit("shutdown", None)
    assert world.kinds == ["terminated", "gave_up"]
    assert world.reports[1].window == 3
    assert world.reports[1].limit == 2


def test_the_window_is_shared_by_all_children():
    world = World(tree(child("a"), child("b"), child("c"), max_restarts=2, max_seconds=5))
    for id in "abc":
        world.ends(id)
    assert world.exit.reason == "shutdown"


def test_restarts_that_left_the_window_do_not_count():
    world = World(tree(child("a"), max_restarts=1, max_seconds=5))
    for _ in range(20):
        world.ends("a")
        world.advance(6)
    assert world.exit is None
    world.ends("a")
    world.advance(5)
    world.ends("a")
    assert world.exit is not None


def test_intensity_zero_ends_with_the_first_restart():
    world = World(tree(child("a", "transient"), max_restarts=0))
    world.ends("a")
    assert world.exit.reason == "shutdown"


def test_an_end_that_leads_to_no_restart_is_not_counted():
    world = World(tree(child("a", "transient"), child("b", "temporary"), child("c"), max_restarts=0))
    world.ends("a", "normal")
    world.ends("b", "boom")
    assert world.exit is None


def test_the_group_of_one_for_all_counts_as_one_restart():
    world = World(tree(*map(child, "abcdef"), strategy="one_for_all", max_restarts=1))
    world.ends("c")
    assert world.exit is None


def test_every_failed_attempt_counts():
    world = World(tree(child("a"), max_restarts=3, max_seconds=5))
    world.inits["a"].extend(["no disk"] * 3)
    world.forget_the_past()
    world.ends("a")
    assert world.log.count(("start", "a")) == 3
    assert world.kinds == ["terminated", *["start_failed"] * 3, "gave_up"]
    assert world.exit.reason == "shutdown"


# -- restarts that fail ---------------------------------------------------------------------------------------------


def test_between_attempts_the_supervisor_answers():
    world = World(tree(child("a"), child("b"), **PLENTY))
    world.inits["a"].append(HANG)
    world.ends("a")
    assert world.reply(WhichChildren())[-1].state == "restarting"
    assert world.reply(CountChildren()).active == 1
    waiting = world.ask(TerminateChild("a"))
    assert waiting not in world.answers
    world.inits["a"].extend(["no disk"] * 50)
    world.fails("a", "no disk")
    assert world.answers[waiting].error is None, "it came before the next attempt"
    assert world.states()["a"] == "stopped"
    assert len(world.inits["a"]) == 50, "terminating ended the attempts"


def test_a_failed_restart_under_one_for_all_stops_those_started_and_tries_all_again():
    world = World(tree(child("a"), child("b"), child("c"), strategy="one_for_all", **PLENTY)).forget_the_past()
    world.inits["b"].append("no disk")
    world.ends("c")
    assert world.log == [
        ("stop", "b"),
        ("stop", "a"),
        ("start", "a"),
        ("start", "b"),
        ("stop", "a"),
        ("start", "a"),
        ("start", "b"),
        ("start", "c"),
    ]


def test_a_failed_restart_under_rest_for_one_tries_again_from_the_one_that_failed():
    world = World(tree(*map(child, "abcd"), strategy="rest_for_one", **PLENTY)).forget_the_past()
    world.inits["c"].append("no disk")
    world.ends("b")
    assert world.log == [
        ("stop", "d"),
        ("stop", "c"),
        ("start", "b"),
        ("start", "c"),
        ("start", "c"),
        ("start", "d"),
    ]
    assert world.states() == dict.fromkeys("abcd", "running")


def test_a_child_ignored_at_its_restart_is_stopped():
    world = World(tree(child("a"), child("b"), strategy="one_for_all", **PLENTY))
    world.inits["a"].append(IGNORE)
    world.ends("b")
    assert world.states() == {"a": "stopped", "b": "running"}


def test_one_of_many_that_is_ignored_at_its_restart_is_forgotten():
    world = World(tree(child("many"), strategy="simple_one_for_one", **PLENTY))
    address = world.reply(StartChild())
    world.inits["many"].append(IGNORE)
    world.ends(address)
    assert world.machine.children == {}


# -- bystanders -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", ["one_for_all", "rest_for_one"])
def test_a_temporary_bystander_is_stopped_and_forgotten(strategy):
    world = World(tree(child("a"), child("b", "temporary"), child("c"), strategy=strategy, **PLENTY)).forget_the_past()
    world.ends("a")
    assert world.log == [("stop", "c"), ("stop", "b"), ("start", "a"), ("start", "c")]
    assert world.states() == {"a": "running", "c": "running"}


def test_a_terminated_bystander_is_started_again_with_the_others_as_in_otp():
    world = World(tree(child("a"), child("b"), strategy="one_for_all", **PLENTY))
    world.reply(TerminateChild("b"))
    world.ends("a")
    assert world.states() == {"a": "running", "b": "running"}


def test_two_that_end_together_are_restarted_by_one_restart():
    world = World(tree(*map(child, "abc"), strategy="one_for_all", max_restarts=1)).forget_the_past()
    world.stubborn.add("c")
    world.ends("a")  # c takes its time to stop
    world.ends("b")  # and b ends meanwhile
    world.stubborn.clear()
    world.dies("c")
    assert world.log == [("stop", "c"), ("start", "a"), ("start", "b"), ("start", "c")]
    assert world.exit is None


def test_a_child_before_the_failed_one_that_ends_during_the_restart_is_restarted_after_it():
    world = World(tree(*map(child, "abc"), strategy="rest_for_one", **PLENTY)).forget_the_past()
    world.inits["b"].append(HANG)
    world.ends("b")
    world.ends("a")
    assert ("start", "a") not in world.log
    world.comes_up("b")
    assert world.log[-6:] == [
        ("start", "c"),
        ("stop", "c"),
        ("stop", "b"),
        ("start", "a"),
        ("start", "b"),
        ("start", "c"),
    ]


# -- stale news -------------------------------------------------------------------------------------------------------


def test_a_death_that_is_told_twice_restarts_once():
    world = World(tree(child("a"), max_restarts=1))
    token = world.token("a")
    world.forget_the_past()
    world.ends("a")
    world.tell(events.Exited(token), events.Exited(token))
    assert world.log == [("start", "a")]
    assert world.exit is None


def test_late_words_of_an_old_incarnation_change_nothing():
    world = World(tree(child("a"), **PLENTY))
    old = world.token("a")
    world.ends("a")
    world.forget_the_past()
    world.tell(
        events.Began(old, "@old", 1),
        events.Refused(old, End("late")),
        events.Ignored(old),
        events.Leaving(old, End("normal")),
        events.Remembered(old, {"x": 1}),
    )
    assert world.log == []
    assert world.reply(WhichChildren())[0].address == f"@{world.token('a')}"


def test_a_child_that_was_started_again_meanwhile_is_not_restarted_for_its_old_death():
    world = World(tree(child("a"), child("b"), strategy="one_for_all", **PLENTY)).forget_the_past()
    world.stubborn.add("b")
    world.ends("a")
    world.dies("b")
    assert [entry for entry in world.log if entry[0] == "start"] == [("start", "a"), ("start", "b")]


# -- one slow child ---------------------------------------------------------------------------------------------------


def test_under_one_for_one_a_slow_restart_holds_up_nobody_else():
    world = World(tree(child("slow"), child("b"), **PLENTY)).forget_the_past()
    world.inits["slow"].append(HANG)
    world.ends("slow")
    world.ends("b")
    assert world.log == [("start", "slow"), ("start", "b")]
    assert world.reply(StartChild(child("c"))) == f"@{world.token('c')}"
    assert world.reply(TerminateChild("b")) is None
    waiting = world.ask(TerminateChild("slow"))
    assert waiting not in world.answers
    world.comes_up("slow")
    assert world.answers[waiting].error is None
    assert world.states() == {"slow": "stopped", "b": "stopped", "c": "running"}


@pytest.mark.parametrize("strategy", ["one_for_all", "rest_for_one"])
def test_where_children_share_their_fate_changes_wait_for_the_running_plan(strategy):
    world = World(tree(child("a"), child("b"), strategy=strategy, **PLENTY))
    world.inits["b"].append(HANG)
    world.ends("b")
    refs = [world.ask(StartChild(child("c"))), world.ask(TerminateChild("a"))]
    assert not set(refs) & set(world.answers)
    assert world.reply(CountChildren()).active == 1
    world.comes_up("b")
    assert set(refs) <= set(world.answers)
    assert world.states() == {"a": "stopped", "b": "running", "c": "running"}


# -- memory, backoff, and a window for each child --------------------------------------------------------------------


def test_a_restarted_child_is_told_what_it_asked_to_remember():
    world = World(tree(child("a"), **PLENTY))
    world.tell(events.Remembered(world.token("a"), {"pools": 1}))
    world.tell(events.Remembered(world.token("a"), {"pools": 2}))
    world.ends("a")
    assert world.extras[world.token("a")] == (None, {"pools": 2})


def test_with_a_backoff_restarts_are_delayed_more_and_more_and_less_after_a_long_life():
    world = World(tree(child("a"), max_restarts=100, backoff=Backoff(1, 60)), random=0.0)
    world.random = 0.999999
    for delay in (2, 4, 8):
        world.forget_the_past()
        world.ends("a")
        assert world.states() == {"a": "restarting"}
        assert world.timers == [pytest.approx(delay, rel=1e-4)]
        world.advance(delay)
        assert world.log == [("start", "a")]
    world.advance(61)
    world.ends("a")
    assert world.timers == [pytest.approx(2, rel=1e-4)]


def test_a_start_that_fails_under_a_backoff_is_delayed_as_well_and_counted():
    world = World(tree(child("a"), max_restarts=2, max_seconds=100, backoff=Backoff(1, 1)))
    world.inits["a"].extend(["no disk"] * 5)
    world.ends("a")
    world.advance(1)
    world.advance(1)
    assert world.exit.reason == "shutdown"
    assert len(world.inits["a"]) == 3


def test_a_delayed_restart_of_one_for_all_stops_the_others_at_once():
    world = World(tree(child("a"), child("b"), strategy="one_for_all", backoff=Backoff(1, 1))).forget_the_past()
    world.ends("b")
    assert world.log == [("stop", "a")]
    world.advance(1)
    assert world.log == [("stop", "a"), ("start", "a"), ("start", "b")]


def test_terminating_a_child_that_waits_for_its_delay_ends_the_attempts():
    world = World(tree(child("a"), backoff=Backoff(1, 1), **PLENTY))
    world.ends("a")
    assert world.reply(RestartChild("a")).reason == "restarting"
    assert world.reply(TerminateChild("a")) is None
    assert world.reply(RestartChild("a")) == f"@{world.token('a')}"
    world.forget_the_past()
    world.ends("a")  # a new delay, while the timer of the old one is still on its way
    world.advance(0.5)
    assert world.log == []
    world.advance(0.5)
    assert world.log == [("start", "a")]


def test_with_a_window_for_each_child_one_that_gives_up_leaves_the_others_alone():
    world = World(tree(child("a"), child("b"), max_restarts=2), per_child=True).forget_the_past()
    for id in "aabba":
        world.ends(id)
    assert world.exit is None
    assert world.states() == {"a": "failed", "b": "running"}
    assert world.kinds.count("gave_up") == 1
    world.advance(1000)
    assert world.states()["a"] == "failed"
    assert world.reply(RestartChild("a")) == f"@{world.token('a')}"
    world.ends("a")
    assert world.states() == {"a": "running", "b": "running"}


def test_a_child_that_gave_up_can_be_terminated_and_deleted():
    world = World(tree(child("a"), max_restarts=0), per_child=True)
    world.ends("a")
    assert world.states() == {"a": "failed"}
    assert world.reply(TerminateChild("a")) is None
    assert world.states() == {"a": "stopped"}


def test_a_child_counts_its_restarts():
    world = World(tree(child("a"), child("b"), strategy="rest_for_one", **PLENTY))
    world.ends("b")
    world.ends("a")
    world.reply(TerminateChild("a"))
    world.reply(RestartChild("a"))
    assert {info.id: info.restarts for info in world.reply(WhichChildren())} == {"a": 1, "b": 2}


# -- the end ----------------------------------------------------------------------------------------------------------


def test_requests_that_wait_when_the_supervisor_ends_are_refused():
    world = World(tree(child("a"), child("b"), strategy="one_for_all", max_restarts=0))
    world.stubborn.add("a")
    world.ends("b")
    refs = [world.ask(StartChild(child("c"))), world.ask(WhichChildren())]
    world.dies("a")
    refs.append(world.ask(CountChildren()))
    assert [world.answers[ref].error.reason for ref in refs] == ["shutdown"] * 3
    assert all(isinstance(world.answers[ref].error, SupervisorError) for ref in refs)
    assert world.exit.reason == "shutdown"


def test_a_start_on_its_way_when_the_supervisor_ends_is_refused_and_its_process_ended():
    world = World(tree(child("a"), max_restarts=0))
    world.inits["slow"].append(HANG)
    ref = world.ask(StartChild(child("slow")))
    world.ends("a")
    assert world.answers[ref].error.reason == "shutdown"
    assert world.log[-1] == ("stop", "slow")
    assert world.exit.reason == "shutdown"
