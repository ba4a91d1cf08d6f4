"""Every error: where it stands in Python's own hierarchy, what it carries, and that it travels."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import pytest

import actorpool
from actorpool import errors

BASES: dict[str, type[BaseException]] = {
    "InvalidConfig": ValueError, "PoolNotFound": LookupError, "CheckoutTimeout": TimeoutError,
    "CallTimeout": TimeoutError,
    "MethodNotFound": AttributeError,
}  # fmt: skip
ALL = """
InvalidConfig PoolNotFound PoolAlreadyExists PoolStopped PoolDown CheckoutTimeout PoolFull
TooManyWaiting QueueShed CircuitOpen WorkerUnavailable CallTimeout WorkerDied LeaseExpired
MethodNotFound RemoteError PermanentError AuthenticationFailed SystemDown RestartIntensityExceeded
""".split()


@pytest.mark.parametrize("name", ALL)
def test_each_error_is_an_actorpool_error_and_of_its_builtin_kind(name: str) -> None:
    kind = getattr(errors, name)
    assert issubclass(kind, errors.ActorPoolError)
    assert issubclass(kind, BASES.get(name, Exception))


def _caught(call: Callable[[], Any]) -> BaseException:
    with pytest.raises(actorpool.ActorPoolError) as caught:
        call()
    return caught.value


def test_the_errors_that_calls_raise_carry_the_pool_the_wait_and_the_status_and_travel(
    node: actorpool.System, pool: Callable[..., actorpool.Pool], tmp_path: Any, eventually: Callable[..., Any]
) -> None:
    from tests.acceptance import kit

    p = pool(max_waiting=0, max_restarts=100)
    raised = {"MethodNotFound": _caught(lambda: p.call("nothing")), "WorkerDied": _caught(lambda: p.run(kit.die))}
    eventually(lambda: p.status().restarts == 1 and p.status().workers == 1)
    with p.checkout() as lease:
        raised["TooManyWaiting"] = _caught(p.checkout)
        raised["PoolFull"] = _caught(lambda: p.checkout(block=False))
        raised["CheckoutTimeout"] = _caught(lambda: p.checkout(timeout=0))
    raised["LeaseExpired"] = _caught(lambda: lease.echo(1))
    raised["CallTimeout"] = _caught(lambda: p.call("sleep", 5, call_timeout=0.05))
    raised["RemoteError"] = _caught(lambda: p.run(kit.raise_unpicklable))
    raised["PoolAlreadyExists"] = _caught(lambda: node.start_pool(p.name, worker=kit.Toy))
    raised["PoolNotFound"] = _caught(lambda: node.status("nothing"))
    away = pool(kit.Gate, worker_args={"gate": str(tmp_path / "gate")}, checkout_timeout=0.1)
    raised["WorkerUnavailable"] = _caught(lambda: away.echo(1))

    for name, error in raised.items():
        assert type(error).__name__ == name
        assert error.pool in (p.name, away.name, "nothing"), name  # type: ignore[attr-defined]
        copy = pickle.loads(pickle.dumps(error))
        assert type(copy) is type(error)
        assert str(copy) == str(error)
        assert copy.pool == error.pool  # type: ignore[attr-defined]
        assert getattr(copy, "waited", None) == getattr(error, "waited", None)
        assert getattr(copy, "status", None) == getattr(error, "status", None)
        assert "<" not in str(error).replace("<module>", ""), f"{name} shows no bare object: {error}"
    for name in ("CheckoutTimeout", "PoolFull", "TooManyWaiting"):
        error: Any = raised[name]
        assert isinstance(error.waited, float)
        assert isinstance(error.status, actorpool.PoolStatus)
        assert error.status.name == p.name
        assert p.name in str(error)
    for name in ("CheckoutTimeout", "TooManyWaiting", "PoolFull"):
        text = str(raised[name])
        assert any(word in text for word in ("size", "max_overflow", "max_waiting", "checkout_timeout")), text
        assert any(character.isdigit() for character in text), text


@pytest.mark.parametrize("name", ALL)
def test_each_error_can_be_made_and_pickled_by_anybody(name: str) -> None:
    kind = getattr(errors, name)
    made = kind("pool", {"size": "is wrong"}) if name == "InvalidConfig" else kind("what happened")
    copy = pickle.loads(pickle.dumps(made))
    assert type(copy) is kind
    assert str(copy) == str(made)
    if name == "InvalidConfig":
        assert copy.problems == {"size": "is wrong"}


def test_an_error_that_crossed_three_processes_still_is_what_it_was(pool: Callable[..., actorpool.Pool]) -> None:
    from tests.acceptance import kit

    inner, outer = pool(), pool()
    with pytest.raises(kit.LocalProblem) as caught:
        outer.run(call_through, inner)
    assert caught.value.code == 42
    with inner.checkout(), pytest.raises(actorpool.CheckoutTimeout) as timed:
        outer.run(wait_through, inner)
    assert timed.value.pool == inner.name
    assert timed.value.status.name == inner.name


def call_through(_connection: Any, inner: actorpool.Pool) -> Any:
    from tests.acceptance import kit

    return inner.run(kit.raise_problem)


def wait_through(_connection: Any, inner: actorpool.Pool) -> Any:
    return inner.checkout(timeout=0.05)
