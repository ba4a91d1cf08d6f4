"""OTP's answers to those who administer a supervisor, call by call and state by state."""

import pytest

from actorpool.core.machine import Backoff
from actorpool.errors import InvalidConfig, SupervisorError
from actorpool.messages import (
    CountChildren,
    DeleteChild,
    GetChildSpec,
    RestartChild,
    StartChild,
    TerminateChild,
    WhereIs,
    WhichChildren,
)
from actorpool.serialization.pickling import Pickled
from actorpool.status import ChildInfo, Counts
from tests.core.supervisor_world import HANG, IGNORE, World, child, tree

PLENTY = {"max_restarts": 1000, "max_seconds": 5}


def in_state(state):
    """A world whose child "a" is in a state."""
    world = World(tree(child("a"), child("z"), **PLENTY))
    if state == "stopped":
        world.reply(TerminateChild("a"))
    elif state == "restarting":
        world = World(tree(child("a"), child("z"), backoff=BACKOFF, **PLENTY))
        world.ends("a")
    elif state == "unknown":
        world = World(tree(child("z"), **PLENTY))
    return world.forget_the_past()


BACKOFF = Backoff(1, 1)
OK = object()


def told(answer):
    """What a table compares: OK for a success, the word for a refusal."""
    if not isinstance(answer, SupervisorError):
        return OK
    return answer.reason if isinstance(answer.reason, str) else answer.reason[0]


TABLE = [
    # request, and its answer for a child that is: running, stopped, restarting, unknown
    (TerminateChild, OK, OK, OK, "not_found"),
    (RestartChild, "running", OK, "restarting", "not_found"),
    (DeleteChild, "running", OK, "restarting", "not_found"),
    (GetChildSpec, OK, OK, OK, "not_found"),
    (WhereIs, OK, OK, OK, "not_found"),
    (lambda id: StartChild(child(id)), "already_started", "already_present", "already_present", OK),
]


@pytest.mark.parametrize("column", range(4), ids=["running", "stopped", "restarting", "unknown"])
@pytest.mark.parametrize(
    "row", TABLE, ids=lambda row: getattr(row[0], "__name__", "x").replace("<lambda>", "StartChild")
)
def test_every_request_in_every_state(row, column):
    world = in_state(["running", "stopped", "restarting", "unknown"][column])
    request, *answers = row
    assert told(world.reply(request("a"))) == answers[column]


def test_a_started_child_is_answered_with_its_address():
    world = World(tree())
    assert world.reply(StartChild(child("a"))) == f"@{world.token('a')}"
    assert world.reply(WhereIs("a")) == f"@{world.token('a')}"


def test_started_twice_the_second_is_told_the_address_of_the_first():
    world = World(tree(child("a")))
    assert world.reply(StartChild(child("a"))).reason == ("already_started", f"@{world.token('a')}")


def test_a_child_that_does_not_start_leaves_no_spec_and_its_reason_in_the_text():
    world = World(tree())
    world.inits["a"].append("no disk")
    error = world.reply(StartChild(child("a")))
    assert error.reason == ("failed_to_start_child", "a", "no disk")
    assert "'a'" in str(error)
    assert "no disk" in str(error)
    assert world.states() == {}
    assert told(world.reply(StartChild(child("a")))) is OK


def test_a_restart_by_hand_that_fails_keeps_the_spec():
    world = World(tree(child("a")))
    world.reply(TerminateChild("a"))
    world.inits["a"].append("no disk")
    assert world.reply(RestartChild("a")).reason == ("failed_to_start_child", "a", "no disk")
    assert world.states() == {"a": "stopped"}
    assert world.reply(RestartChild("a")) == f"@{world.token('a')}"


def test_an_ignored_child_is_answered_with_none():
    world = World(tree())
    world.inits["a"].extend([IGNORE, IGNORE])
    world.inits["t"].append(IGNORE)
    assert world.reply(StartChild(child("a"))) is None
    assert world.reply(StartChild(child("t", "temporary"))) is None
    assert world.states() == {"a": "stopped"}
    assert world.reply(RestartChild("a")) is None
    assert told(world.reply(StartChild(child("a")))) == "already_present"
    assert world.reply(WhereIs("a")) is None


def test_terminating_a_temporary_child_forgets_it():
    world = World(tree(child("a", "temporary")))
    assert world.reply(TerminateChild("a")) is None
    assert told(world.reply(TerminateChild("a"))) == "not_found"


def test_children_are_listed_latest_first():
    world = World(tree(child("a"), child("b", type="supervisor")))
    world.reply(StartChild(child("c")))
    world.reply(TerminateChild("a"))
    b, c = world.token("b"), world.token("c")
    assert world.reply(WhichChildren()) == [
        ChildInfo("c", f"@{c}", c, "worker", "running", 0),
        ChildInfo("b", f"@{b}", b, "supervisor", "running", 0),
        ChildInfo("a", None, None, "worker", "stopped", 0),
    ]


def test_children_are_counted():
    world = World(tree(child("a"), child("b", type="supervisor"), child("c")))
    world.reply(TerminateChild("c"))
    assert world.reply(CountChildren()) == Counts(specs=3, active=2, supervisors=1, workers=2)


def test_a_spec_is_found_by_id_and_by_address():
    spec = child("a", "transient", shutdown=1.5)
    world = World(tree(spec))
    assert world.reply(GetChildSpec("a")) is spec
    assert world.reply(GetChildSpec(f"@{world.token('a')}")) is spec
    assert told(world.reply(GetChildSpec("@0"))) == "not_found"


@pytest.mark.parametrize("id", ["@1", ["a"], {"a": 1}, None, 1.5])
def test_what_cannot_be_an_id_is_not_found(id):
    world = World(tree(child("a"), child("b")))
    for request in (TerminateChild, RestartChild, DeleteChild, WhereIs):
        assert told(world.reply(request(id))) == "not_found"


def test_two_requests_to_start_the_same_child_start_it_once():
    world = World(tree()).forget_the_past()
    world.inits["a"].append(HANG)
    first, second = world.ask(StartChild(child("a"))), world.ask(StartChild(child("a")))
    assert world.answers == {}
    world.comes_up("a")
    assert world.answers[first].value == f"@{world.token('a')}"
    assert told(world.answers[second].error) == "already_started"
    assert world.log.count(("start", "a")) == 1


def test_a_waiting_request_is_answered_once_a_slow_stop_is_over():
    world = World(tree(child("a", shutdown=3.0)))
    world.stubborn.add("a")
    refs = [world.ask(request("a")) for request in (TerminateChild, DeleteChild, RestartChild)]
    world.advance(3)
    assert [told(world.answers[ref].error) for ref in refs] == [OK, OK, "not_found"]


# -- many children of one spec ----------------------------------------------------------------------------------------


def many(**fields):
    return World(tree(child("many", type="supervisor"), strategy="simple_one_for_one", **PLENTY, **fields))


def test_a_child_of_many_gets_the_given_args_over_those_of_the_template():
    world = many()
    address = world.reply(StartChild({"n": 1}))
    assert world.extras[world.token(address)] == ({"n": 1}, None)
    packed = Pickled.of({"n": 2})
    assert world.extras[world.token(world.reply(StartChild(packed)))] == (packed, None)


def test_children_of_many_have_no_ids():
    world = many()
    address = world.reply(StartChild())
    assert world.reply(WhichChildren())[0].id is None
    for request in (TerminateChild("many"), RestartChild("many"), DeleteChild("many"), RestartChild(address)):
        assert world.reply(request).reason == "simple_one_for_one"


def test_children_of_many_are_counted_by_the_type_of_the_template():
    world = many()
    for _ in range(3):
        last = world.reply(StartChild())
    world.inits["many"].append(HANG)
    world.ends(last)
    assert world.reply(CountChildren()) == Counts(specs=1, active=2, supervisors=3, workers=0)
    assert [info.state for info in world.reply(WhichChildren())] == ["restarting", "running", "running"]


def test_terminating_one_of_many_that_is_gone_is_fine_and_a_stranger_is_not_found():
    world = many()
    address = world.reply(StartChild())
    assert world.reply(TerminateChild(address)) is None
    assert world.reply(TerminateChild(address)) is None
    assert told(world.reply(TerminateChild("@4711"))) == "not_found"


def test_one_of_many_is_named_by_its_last_address_while_it_restarts():
    world = many(backoff=BACKOFF)
    address = world.reply(StartChild())
    world.ends(address)
    assert world.reply(WhereIs(address)) is None
    assert world.reply(TerminateChild(address)) is None
    assert world.machine.children == {}


def test_the_spec_of_one_of_many_is_the_template():
    world = many()
    template = world.machine.spec.children[0]
    address = world.reply(StartChild({"n": 1}))
    assert world.reply(GetChildSpec(address)) is template
    assert world.reply(GetChildSpec("many")) is template
    assert told(world.reply(GetChildSpec("other"))) == "not_found"


def test_one_of_many_that_does_not_start_or_is_ignored_is_not_stored():
    world = many()
    world.inits["many"].extend(["no disk", IGNORE])
    assert world.reply(StartChild()).reason == ("failed_to_start_child", "many", "no disk")
    assert world.reply(StartChild()) is None
    assert world.machine.children == {}


# -- what may be started ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("given", [None, {"id": "a"}, "a", tree()])
def test_only_a_child_spec_can_be_started(given):
    assert told(World(tree()).reply(StartChild(given))) == "invalid_child_spec"


@pytest.mark.parametrize("given", [child("a"), [1], "a"])
def test_only_args_can_be_given_to_one_of_many(given):
    assert told(many().reply(StartChild(given))) == "invalid_child_spec"


def test_a_significant_child_is_refused_where_that_means_nothing():
    spec = child("a", "transient", significant=True)
    error = World(tree()).reply(StartChild(spec))
    assert error.reason == ("bad_combination", (("auto_shutdown", "never"), ("significant", True)))
    assert told(World(tree(auto_shutdown="any_significant")).reply(StartChild(spec))) is OK


def test_a_spec_with_problems_never_comes_to_a_supervisor():
    with pytest.raises(InvalidConfig):
        child("a", restart="sometimes")
