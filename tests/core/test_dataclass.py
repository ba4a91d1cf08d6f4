"""Our dataclasses are those of the standard library, from their first use on, whatever that is."""

import copy
import dataclasses
import inspect
import pickle
import subprocess
import sys
import threading
from dataclasses import FrozenInstanceError, field
from types import SimpleNamespace
from typing import Any

import pytest

from actorpool import messages
from actorpool._dataclass import dataclass as deferred
from actorpool._protocol import requests


def classes(dataclass):
    @dataclass(frozen=True)
    class Base:
        """A base."""

        ref: Any = field(default=0, kw_only=True)

    @dataclass(frozen=True)
    class Point(Base):
        """A point."""

        x: int
        y: int = 2
        tags: list = field(default_factory=list, compare=False)
        note: str = field(default="", repr=False, hash=False)
        twice: int = field(init=False, default=0)

        def __post_init__(self):
            object.__setattr__(self, "twice", 2 * self.x)

        def norm(self):
            return self.x + self.y

    @dataclass(frozen=True, kw_only=True)
    class Settings:
        """Settings."""

        size: int = 5

        def __new__(cls, **given):
            assert given.get("size", 1) > 0
            return super().__new__(cls)

        def __repr__(self):
            return "Settings!"

    @dataclass(frozen=True)
    class Own(Point):
        """With methods of its own."""

        def __eq__(self, other):
            return True

        def __hash__(self):
            return 7

    @dataclass(unsafe_hash=True)
    class Open:
        """Not frozen."""

        x: int = 1

    @dataclass(frozen=True)
    class Alike(Base):
        """It says only what is equal to it."""

        x: int = 1

        def __eq__(self, other):
            return True

    return SimpleNamespace(base=Base, point=Point, settings=Settings, own=Own, alike=Alike, open=Open)


USES = {
    "making": lambda of: (vars(of.point(1, ref=3)), vars(of.point(y=5, x=1)), vars(of.own(4))),
    "class attributes": lambda of: (of.settings.size, of.point(1).tags, hasattr(of.point, "tags")),
    "repr": lambda of: [repr(of.base()), repr(of.point(1)), repr(of.settings(size=2)), repr(of.own(1))],
    "eq": lambda of: (
        of.point(1) == of.point(1, tags=[3]), of.point(1) == of.point(2), of.point(1) == of.own(1),
        of.own(1) == of.own(2), of.base() != of.base(),
    ),
    "hash": lambda of: (
        hash(of.base(ref=4)), hash(of.point(1)) == hash(of.point(1, note="x")), hash(of.settings()), hash(of.own(1)),
        hash(of.alike(2)) == hash(of.alike(2)),
    ),
    "fields": lambda of: [
        [(f.name, f.default is dataclasses.MISSING, f.kw_only, f.init, f.repr) for f in dataclasses.fields(cls)]
        for cls in (of.own, of.point, of.settings, of.base)
    ],
    "is_dataclass": lambda of: (dataclasses.is_dataclass(of.point), dataclasses.is_dataclass(of.own)),
    "replace": lambda of: repr(dataclasses.replace(of.own(1, ref=5), y=6)),
    "asdict": lambda of: dataclasses.asdict(of.point(1, tags=["a"])),
    "match": lambda of: [cls.__match_args__ for cls in (of.base, of.point, of.settings, of.own)],
    "signature": lambda of: (str(inspect.signature(of.point)), str(inspect.signature(of.own.__init__))),
    "copy": lambda of: (repr(copy.copy(of.point(1))), repr(copy.deepcopy(of.point(1)))),
    "state": lambda of: of.point(1).__reduce_ex__(5)[2:],
    "params": lambda of: repr(of.point.__dataclass_params__),
    "derived": lambda of: repr(
        dataclasses.dataclass(frozen=True)(type("More", (of.point,), {"__annotations__": {"z": int}, "z": 1}))(1, z=2)
    ),
    "replaced copy": lambda of: hasattr(copy, "replace") and repr(copy.replace(unpickled(of.point), y=7)),
    "not frozen": lambda of: changed(of.open(3)),
    "plain subclass": lambda of: grown(type("Plain", (of.point,), {})(1)),
}  # fmt: skip


def unpickled(cls):
    """As pickle makes it: no `__init__` is called."""
    value = object.__new__(cls)
    vars(value).update(ref=0, x=1, y=2, tags=[], note="", twice=2)
    return value


def changed(value):
    before = hash(value), repr(value), value == type(value)(3)
    value.x = 4
    return before, value.x, value != type(value)(3)


def grown(value):
    value.extra = 1
    before = vars(value).copy()
    del value.extra
    with pytest.raises(FrozenInstanceError):
        value.x = 2
    return before, vars(value)


@pytest.mark.parametrize("use", USES)
def test_the_first_use_finds_what_the_standard_library_makes(use):
    assert USES[use](classes(deferred)) == USES[use](classes(dataclasses.dataclass))


@pytest.mark.parametrize("act", [lambda p: setattr(p, "x", 3), lambda p: delattr(p, "x"), lambda p: setattr(p, "q", 3)])
def test_it_is_frozen_before_and_after(act):
    point = classes(deferred).point
    untouched = object.__new__(point)  # as pickle makes it
    for value in (untouched, point(1)):
        with pytest.raises(FrozenInstanceError, match="cannot .* field '[xq]'"):
            act(value)


@pytest.mark.parametrize("args", [(), (1, 2, [], "", 5, 6)])
def test_bad_arguments_are_refused_as_by_any_function(args):
    with pytest.raises(TypeError, match=r"Point.__init__\(\)"):
        classes(deferred).point(*args)


def test_threads_that_use_a_class_first_at_the_same_time_all_get_it():
    for _ in range(10):
        point = classes(deferred).own
        start, made = threading.Barrier(4), []

        def make(point=point, start=start, made=made):
            start.wait(10)
            made.append(repr(point(3, tags=[1])))

        threads = [threading.Thread(target=make) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
        assert len(made) == 4
        assert len(set(made)) == 1


def test_messages_are_dataclasses_that_pickle():
    call = messages.Call(None, "execute", ("select 1",))
    assert pickle.loads(pickle.dumps(call)) == call
    assert [item.name for item in dataclasses.fields(messages.StopPool)] == ["ref", "caller", "name", "timeout"]
    assert dataclasses.replace(messages.StopPool("a"), timeout=1.0).timeout == 1.0
    with pytest.raises(FrozenInstanceError):
        call.method = "other"


def test_a_message_that_arrives_in_a_process_that_never_made_one_is_whole():
    message = pickle.dumps(requests.Cancel(("a", 1)))
    code = f"import pickle; m = pickle.loads({message!r}); print(m == m, hash(m) == hash(m), m == type(m)(**vars(m)))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert out.stdout.split("\n")[0] == "True True True", out.stderr
