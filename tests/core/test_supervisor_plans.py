"""Plans of one scope take turns; plans of different scopes run side by side; a plan about everything runs alone."""

import pytest

from actorpool.core.supervisor.plans import EVERYTHING, Sequencer


@pytest.fixture
def sequencer():
    return Sequencer()


@pytest.fixture
def log():
    return []


def plan(log, name, *tokens):
    """A plan that notes its begin, each token that it has waited for, and its end."""
    log.append(f"{name} begins")
    for token in tokens:
        yield [token]
        log.append(f"{name} got {token}")
    log.append(f"{name} ends")


def test_a_plan_begins_when_it_may_and_goes_on_when_its_token_is_settled(sequencer, log):
    sequencer.add("x", plan(log, "p", 1, 2))
    assert log == []
    sequencer.run()
    sequencer.settled(2)  # not what it waits for yet
    sequencer.run()
    assert log == ["p begins"]
    sequencer.settled(1)
    sequencer.run()
    sequencer.settled(2)
    sequencer.run()
    assert log == ["p begins", "p got 1", "p got 2", "p ends"]


def test_plans_of_one_scope_take_turns_in_the_order_they_came(sequencer, log):
    for name, token in (("p", 1), ("q", 2), ("r", 3)):
        sequencer.add("x", plan(log, name, token))
    for token in (3, 2, 1, 2, 3):
        sequencer.run()
        sequencer.settled(token)
    sequencer.run()
    assert log == ["p begins", "p got 1", "p ends", "q begins", "q got 2", "q ends", "r begins", "r got 3", "r ends"]


def test_plans_of_different_scopes_run_side_by_side(sequencer, log):
    sequencer.add("x", plan(log, "p", 1))
    sequencer.add("y", plan(log, "q", 2))
    sequencer.run()
    assert log == ["p begins", "q begins"]


def test_a_plan_about_everything_waits_for_all_and_all_that_come_after_wait_for_it(sequencer, log):
    sequencer.add("x", plan(log, "p", 1))
    sequencer.add(EVERYTHING, plan(log, "all", 2))
    sequencer.add("y", plan(log, "q"))
    sequencer.run()
    assert log == ["p begins"]
    sequencer.settled(1)
    sequencer.run()
    assert log[-1] == "all begins"
    sequencer.settled(2)
    sequencer.run()
    assert log[-4:] == ["all got 2", "all ends", "q begins", "q ends"]


def test_a_plan_may_wait_for_several_tokens_in_any_order(sequencer, log):
    def both():
        yield [1, 2]
        log.append("both")

    sequencer.add("x", both())
    sequencer.run()
    for token in (2, 1):
        assert log == []
        sequencer.settled(token)
        sequencer.run()
    assert log == ["both"]


def test_a_plan_can_add_another_and_forget_all_others(sequencer, log):
    def last():
        yield [7]
        log.append(sequencer.abandon_others())
        sequencer.add("z", plan(log, "after"))
        yield [8]
        log.append("last ends")

    sequencer.add("x", plan(log, "p", 1), ref="running")
    sequencer.add("x", plan(log, "q", 1), ref="queued")
    sequencer.add("y", plan(log, "r", 1))
    sequencer.add("w", last(), ref="its own")
    sequencer.run()
    sequencer.settled(7)
    sequencer.run()
    assert log[-3:] == [["running", "queued"], "after begins", "after ends"]
    sequencer.settled(1)
    sequencer.run()
    assert not any("got" in str(entry) for entry in log)
    sequencer.settled(8)
    sequencer.run()
    assert log[-1] == "last ends"


def test_what_nobody_waits_for_changes_nothing(sequencer):
    sequencer.settled(99)
    sequencer.run()
