"""The generator of hostile messages: it must reach every class and field, and what it makes must arrive."""

from __future__ import annotations

import pickle
from random import Random

from actorpool.messages import StartPool, TerminateChild
from actorpool.supervisors.child_host import HostChild
from tests.hostile_messages import INNER, PUBLIC, WRONG, Bare, classes, frames, spoiled


def test_every_class_is_made_with_each_field_spoiled_and_arrives_as_it_was_made():
    made = [message for modules in (PUBLIC, INNER) for message in spoiled(modules=modules)]
    arrived = [pickle.loads(pickle.dumps(message, 5)) for message in made]
    assert {type(message) for message in arrived} == {*classes(*PUBLIC), *classes(*INNER)}
    ids = [message.state.get("id") for message in made if isinstance(message, Bare) and message.cls is TerminateChild]
    assert len(ids) > len(WRONG)
    assert any(value == ("job", ["x"]) for value in ids if type(value) is tuple)
    assert {StartPool, HostChild} < {type(message) for message in arrived}


def test_frames_are_random_and_repeatable():
    assert list(frames(Random(7), 200)) == list(frames(Random(7), 200))
    assert len({body for _, _, body in frames(Random(7), 200)}) > 100
