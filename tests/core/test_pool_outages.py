"""The pool's decisions while connections are away: what callers are told, and who is hired once they are back."""

from __future__ import annotations

from typing import Any

import pytest

from actorpool.config import PoolConfig
from actorpool.core.effects import Granted, Open, Refused, Start
from actorpool.core.pool.core import PoolCore
from actorpool.errors import CheckoutTimeout, WorkerUnavailable

GONE = ConnectionError("the server went away")


def pool(**fields: Any) -> PoolCore:
    """A pool whose base workers are connected."""
    config = PoolConfig(worker="actorpool.workers:EchoWorker", **{"size": 1, "max_overflow": 0, **fields})
    core = PoolCore("p", config, int(config.size), 0.0, lambda: 0.5)
    for effect in core.start(0.0):
        if isinstance(effect, Start):
            core.worker_started(0.0, effect.worker)
            core.opened(0.0, effect.worker)
    return core


def of(kind: type, effects: list[Any]) -> list[Any]:
    return [effect for effect in effects if isinstance(effect, kind)]


def test_who_waits_while_a_lost_connection_is_being_made_again_hears_why_it_was_lost() -> None:
    core = pool()
    assert of(Open, core.lost(1.0, 1, GONE))
    assert core.status(1.0).state == "degraded"
    core.checkout(1.0, "ref", "caller", timeout=0.5)
    (refused,) = of(Refused, core.tick(1.5))
    assert isinstance(refused.error, WorkerUnavailable)
    assert refused.error.cause is GONE
    core.check()


def test_a_loss_is_forgotten_once_a_connection_works() -> None:
    core = pool()
    core.lost(1.0, 1, GONE)
    core.opened(1.1, 1)
    assert core.status(1.1).state == "ready"
    core.checkout(1.2, "first", "caller")
    core.checkout(1.2, "second", "caller", timeout=0.5)
    (refused,) = of(Refused, core.tick(1.7))
    assert isinstance(refused.error, CheckoutTimeout)


def test_a_refusal_tells_how_many_workers_are_not_ready_yet() -> None:
    core = pool(size=0, max_overflow=1)
    core.checkout(1.0, "ref", "caller", timeout=0.5)
    (refused,) = of(Refused, core.tick(1.5))
    assert "0 busy, 1 not ready yet, 0 waiting" in str(refused.error)


@pytest.mark.parametrize("failures", [0, 1])
def test_those_who_queued_during_an_outage_get_the_overflow_they_would_have_got_without_it(failures: int) -> None:
    core = pool(max_overflow=2)
    core.lost(1.0, 1, GONE)
    for number in range(failures):
        core.open_failed(1.1 + number, 1, GONE)
        core.tick(2.0)
    for number in range(3):
        core.checkout(2.0, number, f"caller {number}")
    effects = core.opened(2.1, 1)
    assert [grant.holder for grant in of(Granted, effects)] == ["caller 0"]
    assert len(of(Start, effects)) == (2 if failures else 0), "without a failed attempt they were hired at once"
    assert len(core.workers) == 3
    core.check()
