"""`placement` asks for hosts of a cluster, so a pool of one host refuses it, by whatever way it is started."""

from __future__ import annotations

import pytest

import actorpool
from actorpool import InvalidConfig, PoolConfig, StartPool
from actorpool.workers.echo import EchoWorker

PLACED = {"worker": EchoWorker, "size": 1, "placement": {"role": "db"}}


@pytest.mark.parametrize("enabled", [True, False])
def test_a_pool_of_one_host_refuses_a_placement_before_anything_starts(enabled):
    with actorpool.start(base="simpleSystemBase") as system:
        with pytest.raises(InvalidConfig, match=r"placement: needs a cluster of hosts: start the pool by Cluster"):
            system.start_pool("db", enabled=enabled, **PLACED)
        assert system.pools() == []


def test_a_message_that_starts_a_pool_with_a_placement_is_refused():
    with actorpool.start(base="simpleSystemBase") as system:
        answer = system.actor_system.ask(system.manager, StartPool("db", PoolConfig(**PLACED)), 10)
        with pytest.raises(InvalidConfig, match="needs a cluster of hosts"):
            answer.unwrap()
        assert system.pools() == []
