"""Functions that are pickled once: exactly those that nothing can change."""

from __future__ import annotations

import importlib.util
import pickle
import sys
import types
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cloudpickle
import pytest

from actorpool.serialization import functions, pickling

module = types.ModuleType("not_on_the_path")
module.__dict__.update(limit=3)


def made(source: str) -> Callable[..., Any]:
    """A function that lives in a module which no other process can import."""
    exec(source, module.__dict__)
    function: Callable[..., Any] = module.__dict__.pop("f")
    return function


def travel(function: Callable[..., Any], *args: Any) -> Any:
    what, arguments, _ = pickle.loads(pickling.dumps_call(function, args, {}))
    return what(*arguments)


def is_kept(function: Callable[..., Any]) -> bool:
    assert isinstance(function, types.FunctionType)
    return functions.kept(function, pickling._dumps_by_value) is not None


@pytest.mark.parametrize(
    "source",
    [
        "f = lambda connection, a: a + 1",
        "def f(connection, a): return [b + 1 for b in range(a + 1)][-1]",
        "def f(connection, a):\n    import math\n    return math.trunc(a + 1.5)",
        "def f(connection, a):\n    def inner(b): return a + b\n    return inner(1)",
        "def f(connection: 'Any', a: int) -> int: return sum((a, 1))",
    ],
)
def test_a_function_that_refers_to_nothing_is_pickled_once_and_rebuilt_once(source: str) -> None:
    function = made(source)
    assert is_kept(function)
    first, second = (pickle.loads(pickling.dumps_call(function, (None, 1), {}))[0] for _ in range(2))
    assert first is second
    assert travel(function, None, 1) == 2


def test_a_lambda_that_is_made_anew_for_each_call_is_pickled_once_too() -> None:
    module.__dict__["make"] = made("def f(): return lambda connection: 5")
    first, second = module.__dict__["make"](), module.__dict__["make"]()
    del module.__dict__["make"]
    assert first is not second
    assert pickling.dumps_call(first, (), {}) == pickling.dumps_call(second, (), {})


@pytest.mark.parametrize(
    "source",
    [
        "f = lambda connection: limit",
        "f = lambda connection, a=[]: a",
        "def f(connection, *, a=1): return a",
        "def f(connection):\n    def inner(): return limit\n    return inner()",
        "def f(connection):\n    global count\n    count = 1",
        "def f(connection): return globals()",
        "def f(connection): exec('x = 1', {})",
    ],
)
def test_one_that_refers_to_something_is_looked_at_each_time(source: str) -> None:
    assert not is_kept(made(source))


def test_a_closure_and_an_attribute_are_taken_along_as_they_are_at_the_call() -> None:
    make = made("def f(start):\n    return lambda connection: start")
    assert [travel(make(number), None) for number in (1, 2)] == [1, 2]
    tagged = made("f = lambda connection: 1")
    tagged.tag = 1  # type: ignore[attr-defined]
    assert not is_kept(tagged)


def test_a_global_that_appears_later_is_taken_along_from_then_on() -> None:
    function = made("def f(connection): return answer")
    with pytest.raises(NameError):
        travel(function, None)
    module.__dict__["answer"] = 41
    assert travel(function, None) == 41
    module.__dict__["answer"] = 42
    assert travel(function, None) == 42


def test_a_global_that_changes_is_seen_by_the_next_call() -> None:
    function = made("f = lambda connection: limit")
    assert travel(function, None) == 3
    module.__dict__["limit"] = 4
    try:
        assert travel(function, None) == 4
    finally:
        module.__dict__["limit"] = 3


def test_keeping_is_bounded() -> None:
    for number in range(2 * functions.MOST):
        assert travel(made(f"f = lambda connection: {number}"), None) == number
    assert len(functions._kept) <= functions.MOST


def test_threads_may_send_classes_of_a_module_that_others_cannot_import(tmp_path: Path) -> None:
    (tmp_path / "unseen.py").write_text("".join(f"class K{n}:\n    pass\n" for n in range(30)))
    spec = importlib.util.spec_from_file_location("unseen", tmp_path / "unseen.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules["unseen"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    classes = [getattr(module, f"K{n}") for n in range(30)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(6) as threads:
            sent = list(threads.map(lambda _: pickling.dumps(classes), range(200)))
    finally:
        sys.setswitchinterval(interval)
        del sys.modules["unseen"]  # as in a worker
    for data in sent:
        assert [cls.__name__ for cls in pickle.loads(data)] == [cls.__name__ for cls in classes]
    assert cloudpickle.list_registry_pickle_by_value() == set()


def test_a_module_that_the_program_sends_by_value_stays_so() -> None:
    module = sys.modules["unseen"] = types.ModuleType("unseen")
    module.K = type("K", (), {"__module__": "unseen"})  # type: ignore[attr-defined]
    cloudpickle.register_pickle_by_value(module)
    try:
        pickling.dumps(module.K)
        assert cloudpickle.list_registry_pickle_by_value() == {"unseen"}
    finally:
        cloudpickle.unregister_pickle_by_value(module)
        del sys.modules["unseen"]
