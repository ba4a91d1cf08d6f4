"""Requests with anything in them: each is answered once, and the children are what they were."""

from __future__ import annotations

from typing import Any

import pytest

from actorpool.core.supervisor import events
from actorpool.core.supervisor.core import SupervisorCore
from actorpool.core.supervisor.requests import REQUESTS
from actorpool.errors import SupervisorError
from actorpool.messages import DeleteChild, StartChild, TerminateChild, WhereIs, WhichChildren
from actorpool.supervisors import ChildSpec, SupervisorSpec
from tests.hostile_messages import Bare, Fake, Touchy, spoiled
from tests.supervisors.supervised_actors import Child

STRATEGIES = ("one_for_one", "one_for_all", "rest_for_one", "simple_one_for_one")


class Shell:
    """Carries out nothing but what makes a child run or end."""

    def __init__(self, strategy: str) -> None:
        self.machine = SupervisorCore(SupervisorSpec([ChildSpec("db", Child)], strategy), lambda value: False)
        self.answers: dict[int, Any] = {}
        self.take(events.Boot())

    def take(self, event: Any) -> None:
        effects = self.machine.handle(event, 0.0)
        for effect in effects:
            if isinstance(effect, events.Start):
                self.take(events.Began(effect.token, f"address {effect.token}", effect.token))
            elif isinstance(effect, events.Terminate):
                self.take(events.Exited(effect.token))
            elif isinstance(effect, events.Answer):
                assert effect.ref not in self.answers, "answered twice"
                self.answers[effect.ref] = effect.error or effect.value

    def ask(self, request: Any) -> Any:
        number = len(self.answers) + 1
        self.take(events.Asked(number, request))
        return self.answers[number]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_spoiled_request_is_answered_and_the_supervisor_goes_on(strategy: str) -> None:
    shell = Shell(strategy)
    for message in spoiled({"id": "db", "spec": ChildSpec("new", Child)}):
        if message.cls in REQUESTS:
            shell.ask(message.made())
    assert all(isinstance(info.state, str) for info in shell.ask(WhichChildren()))
    if strategy != "simple_one_for_one":
        assert shell.ask(StartChild(ChildSpec("afterwards", Child))) is not None
        assert shell.ask(TerminateChild("afterwards")) is None
        assert shell.ask(DeleteChild("afterwards")) is None


@pytest.mark.parametrize("id", [("job", ["x"]), ["x"], {"a": 1}, set()], ids=repr)
@pytest.mark.parametrize("request_of", [TerminateChild, DeleteChild, WhereIs])
def test_an_id_that_cannot_be_looked_up_is_not_found(request_of: type, id: Any) -> None:
    answer = Shell("one_for_one").ask(request_of(id))
    assert isinstance(answer, SupervisorError)
    assert answer.reason == "not_found"


@pytest.mark.parametrize("id", [Touchy(), Fake("db")])
@pytest.mark.parametrize("request_of", [TerminateChild, DeleteChild, WhereIs])
def test_an_id_that_raises_when_it_is_touched_is_a_bad_argument(request_of: type, id: Any) -> None:
    answer = Shell("one_for_one").ask(request_of(id))
    assert isinstance(answer, SupervisorError)
    assert answer.reason == ("badarg", request_of.__name__)


def test_a_spec_that_no_constructor_has_seen_is_refused_by_its_fields() -> None:
    for wrong in (
        Bare(ChildSpec), Bare(ChildSpec, id="x", actor=Child, args={}, shutdown="soon"),
        Bare(ChildSpec, id=("job", ["x"]), actor=Child, args={}),
    ):  # fmt: skip
        answer = Shell("one_for_one").ask(Bare(StartChild, spec=wrong).made())
        assert isinstance(answer, SupervisorError)
        assert answer.reason == ("invalid_child_spec", "ChildSpec")


def test_a_childs_id_must_have_a_hash_all_through() -> None:
    with pytest.raises(ValueError, match="hashable"):
        ChildSpec(("agents", ["a"]), Child)
