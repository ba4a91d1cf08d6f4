"""Specs are refused when they are made, with every problem named, and travel without their user code being opened."""

import pickle
import sys

import pytest
from thespian.actors import Actor

from actorpool.config import PoolConfig
from actorpool.core.machine import Backoff
from actorpool.errors import InvalidConfig, SupervisorError
from actorpool.serialization.pickling import Pickled
from actorpool.supervisors.specs import ChildSpec, SupervisorSpec, load_class, pool_child_spec
from actorpool.workers.base import Worker


class Planner(Actor):
    pass


class Session(Worker):
    pass


def problems(kind, *values, **fields):
    with pytest.raises(InvalidConfig) as caught:
        kind(*values, **fields)
    for field, text in caught.value.problems.items():
        assert field in str(caught.value)
        assert text in str(caught.value)
    return set(caught.value.problems)


@pytest.mark.parametrize(
    ("fields", "bad"),
    [
        ({}, {"id", "actor"}),
        ({"id": None, "actor": Planner}, {"id"}),
        ({"id": [], "actor": 7}, {"id", "actor"}),
        ({"id": "a", "actor": int}, {"actor"}),
        ({"id": "a", "actor": "no colon"}, {"actor"}),
        ({"id": "a", "actor": "no.such.module:Class"}, {"actor"}),
        ({"id": "a", "actor": "os:path"}, {"actor"}),
        ({"id": "a", "actor": Planner, "restart": "always"}, {"restart"}),
        ({"id": "a", "actor": Planner, "shutdown": -1}, {"shutdown"}),
        ({"id": "a", "actor": Planner, "shutdown": "soon"}, {"shutdown"}),
        ({"id": "a", "actor": Planner, "shutdown": float("inf")}, {"shutdown"}),
        ({"id": "a", "actor": Planner, "shutdown": True}, {"shutdown"}),
        ({"id": "a", "actor": Planner, "type": "leader"}, {"type"}),
        ({"id": "a", "actor": Planner, "significant": 1}, {"significant"}),
        ({"id": "a", "actor": Planner, "significant": True}, {"significant"}),  # with permanent
        ({"id": "a", "actor": Planner, "args": [1]}, {"args"}),
        ({"id": "a", "actor": Planner, "args": {1: 2}}, {"args"}),
        ({"id": "a", "actor": Planner, "args": {"x": (n for n in ())}}, {"args"}),
        ({"id": "a", "actor": Planner, "retries": 3}, {"retries"}),
        (
            {"restart": "x", "shutdown": "x", "type": "x", "color": "x"},
            {"id", "actor", "restart", "shutdown", "type", "color"},
        ),
    ],
)
def test_every_problem_of_a_child_spec_is_named(fields, bad):
    assert problems(ChildSpec, **fields) == bad


A = ChildSpec("a", Planner)
SIGNIFICANT = ChildSpec("s", Planner, restart="transient", significant=True)


@pytest.mark.parametrize(
    ("fields", "bad"),
    [
        ({"strategy": "one_for_some"}, {"strategy"}),
        ({"max_restarts": -1}, {"max_restarts"}),
        ({"max_restarts": 1.5}, {"max_restarts"}),
        ({"max_seconds": 0}, {"max_seconds"}),
        ({"max_seconds": float("inf")}, {"max_seconds"}),
        ({"auto_shutdown": True}, {"auto_shutdown"}),
        ({"backoff": 3}, {"backoff"}),
        ({"children": A}, {"children"}),
        ({"children": [A, "b"]}, {"children"}),
        ({"children": [A, A]}, {"children"}),
        ({"children": [SIGNIFICANT]}, {"auto_shutdown"}),
        ({"strategy": "simple_one_for_one"}, {"children"}),
        ({"strategy": "simple_one_for_one", "children": [A, SIGNIFICANT]}, {"children", "auto_shutdown"}),
        ({"strategy": "simple_one_for_one", "children": [A], "auto_shutdown": "all_significant"}, {"auto_shutdown"}),
        ({"intensity": 3, "max_seconds": "5"}, {"intensity", "max_seconds"}),
    ],
)
def test_every_problem_of_a_supervisor_spec_is_named(fields, bad):
    if bad == {"children", "auto_shutdown"}:
        fields = {**fields, "auto_shutdown": "any_significant"}
    assert problems(SupervisorSpec, **fields) == bad


def test_the_defaults_are_otps():
    spec = SupervisorSpec()
    assert (spec.children, spec.strategy, spec.max_restarts, spec.max_seconds) == ((), "one_for_one", 1, 5)
    assert (spec.auto_shutdown, spec.backoff) == ("never", None)
    assert (A.args, A.restart, A.shutdown, A.significant, A.type) == ({}, "permanent", 5.0, False, "worker")


def test_a_nested_supervisor_is_one_by_default_and_has_all_the_time_it_needs():
    nested = ChildSpec("team", SupervisorSpec([A]))
    assert (nested.type, nested.shutdown) == ("supervisor", "infinity")
    assert ChildSpec("team", SupervisorSpec([A]), shutdown=3).shutdown == 3
    assert ChildSpec("a", Planner, type="supervisor").shutdown == "infinity"


def test_fields_can_be_given_by_position():
    assert ChildSpec("a", Planner, {"x": 1}, "transient", 3.0) == ChildSpec(
        id="a", actor=Planner, args={"x": 1}, restart="transient", shutdown=3.0
    )
    assert SupervisorSpec([A], "one_for_all", 3, 10).max_seconds == 10


@pytest.mark.parametrize(
    ("actor", "kind"),
    [
        (Planner, "actor"),
        (Session, "worker"),
        ("actorpool.workers.base:Worker", "worker"),
        ("actorpool.thespian_adapter.shell:Shell", "actor"),
        (PoolConfig(worker=Session), "pool"),
        (SupervisorSpec(), "supervisor"),
    ],
)
def test_a_spec_knows_what_kind_of_child_it_describes_also_after_a_journey(actor, kind):
    spec = ChildSpec("a", actor)
    assert spec.kind == pickle.loads(pickle.dumps(spec)).kind == kind


def test_a_spec_is_the_same_after_a_journey():
    spec = ChildSpec("a", Planner, {"x": [1]}, "transient", "brutal_kill", True)
    tree = SupervisorSpec([spec], "rest_for_one", 3, 9.5, "any_significant", Backoff(1, 2))
    back = pickle.loads(pickle.dumps(pickle.loads(pickle.dumps(tree))))
    assert back == tree
    assert back.children[0].args == {"x": [1]}
    assert back.children[0].actor is Planner


def test_user_code_in_a_spec_is_opened_only_where_somebody_looks_at_it(tmp_path, monkeypatch):
    (tmp_path / "elsewhere_only.py").write_text("from thespian.actors import Actor\nclass Tool(Actor): pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    packed = pickle.dumps(ChildSpec("tool", "elsewhere_only:Tool", {"n": 1}))
    packed_class = pickle.dumps(ChildSpec("tool", load_class("elsewhere_only:Tool")))
    monkeypatch.undo()
    del sys.modules["elsewhere_only"]
    spec, of_class = pickle.loads(packed), pickle.loads(packed_class)
    assert (spec.id, spec.restart, spec.kind) == ("tool", "permanent", "actor")
    assert spec.parcels()[1] == Pickled.of({"n": 1})
    assert "elsewhere_only" not in sys.modules
    assert spec.actor == "elsewhere_only:Tool"
    with pytest.raises(ModuleNotFoundError):
        _ = of_class.actor


def test_a_spec_shows_no_args():
    assert "secret" not in repr(ChildSpec("a", Planner, {"password": "secret"}))


def test_a_pool_is_a_child_with_time_to_end_its_workers():
    config = PoolConfig(worker=Session, kill_after=3.0)
    spec = pool_child_spec("db", config, restart="transient")
    assert (spec.id, spec.kind, spec.type, spec.restart, spec.shutdown) == ("db", "pool", "worker", "transient", 8.0)
    with pytest.raises(InvalidConfig):
        pool_child_spec("no spaces", config)


def test_a_supervisor_error_keeps_its_reason_on_its_way():
    error = SupervisorError(
        ("failed_to_start_child", "a", "no disk"), "child 'a' did not start: no disk", cause=KeyError("x")
    )
    back = pickle.loads(pickle.dumps(error))
    assert (back.reason, str(back), repr(back.cause)) == (error.reason, str(error), "KeyError('x')")
    assert str(SupervisorError("running")) == "running"
