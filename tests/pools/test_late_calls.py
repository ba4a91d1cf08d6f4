"""Calls by message to workers that have died: answered in their place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from thespian.actors import ActorExitRequest

import actorpool
from actorpool.errors import LeaseExpired
from actorpool.workers import EchoWorker
from tests.pools.actors import LateCaller
from tests.pools.conftest import StartPool


def test_an_actor_that_calls_a_dead_worker_is_told_so(
    node: actorpool.System, start: StartPool, eventually: Callable[..., Any]
) -> None:
    pool = start(EchoWorker, size=1)
    with node.actor_system.private() as thespian:
        caller = thespian.createActor(LateCaller)
        pid = thespian.ask(caller, (node.manager, pool.name), 5)
        eventually(lambda: pid not in {worker.pid for worker in pool.workers()})
        with pytest.raises(LeaseExpired, match="has died; the call was not started"):
            thespian.ask(caller, "call", 5).unwrap()
        thespian.tell(caller, ActorExitRequest())
    assert pool.echo("another") == "another"
