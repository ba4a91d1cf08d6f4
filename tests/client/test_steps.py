"""How many steps a call takes on the caller's side: the fewer, the quicker, and the easier to follow."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest

import actorpool
from actorpool.client import sandboxes
from actorpool.workers.echo import EchoWorker


def same(_connection: Any, value: Any) -> Any:
    return value


def steps(call: Callable[[], Any]) -> list[str]:
    """The module of each Python function that a call enters."""
    entered: list[str] = []

    def note(frame: Any, event: str, _arg: Any) -> None:
        if event == "call" and "actorpool" in frame.f_code.co_filename:
            entered.append(frame.f_globals["__name__"])

    sys.setprofile(note)
    try:
        call()
    finally:
        sys.setprofile(None)
    return entered


@pytest.fixture(scope="module")
def pool() -> Any:
    with actorpool.start() as system:
        pool = system.start_pool("db", worker=EchoWorker, size=1, max_overflow=0)
        for _ in range(20):
            pool.call("echo", 1)
        yield pool


@pytest.fixture(autouse=True)
def _not_traced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another test may have imported it, or used a sandbox."""
    monkeypatch.delitem(sys.modules, "opentelemetry.trace", raising=False)
    monkeypatch.setattr(sandboxes, "used", False)


def fewest(call: Callable[[], Any]) -> list[str]:
    """Of several calls the one with the fewest steps: a worker may be recalled, or a look find nothing."""
    return min((steps(call) for _ in range(20)), key=len)


def test_a_call_with_a_sticky_lease_takes_at_most_20_steps_in_6_modules(pool: Any) -> None:
    entered = fewest(lambda: pool.call("echo", 1))
    assert len(entered) <= 20
    assert len(set(entered)) <= 6


def test_so_does_a_run_of_a_function(pool: Any) -> None:
    entered = fewest(lambda: pool.run(same, 1))
    assert len(entered) <= 20
    assert len(set(entered)) <= 6


def test_a_call_in_a_lease_takes_at_most_16_steps_in_6_modules(pool: Any) -> None:
    with pool.checkout() as lease:
        lease.call("echo", 1)
        entered = fewest(lambda: lease.call("echo", 1))
    assert len(entered) <= 16
    assert len(set(entered)) <= 6
