"""1 000 hosts of 100 workers each, on the real cores of coordinator and pools, in one process."""

from __future__ import annotations

import random
import time

import pytest

from actorpool import PoolConfig
from actorpool.core import effects as fx
from actorpool.core.cluster.core import ClusterCore, Tell
from actorpool.core.cluster.members import Declaration, Member
from actorpool.core.pool.core import PoolCore
from actorpool.workers.echo import EchoWorker

HOSTS, EACH, LEASES, LOST = 1000, 100, 20_000, 10


class SimulatedHost:
    """A pool core whose processes do at once what they are told."""

    def __init__(self, size: int) -> None:
        self.granted: dict[object, fx.Granted] = {}
        self.pool = PoolCore("db", PoolConfig(worker=EchoWorker), size, 0.0, lambda: 0.5)
        self.carry(self.pool.start(0.0))

    def carry(self, effects) -> None:
        for effect in effects:
            if isinstance(effect, fx.Start):
                self.carry(self.pool.worker_started(0.0, effect.worker))
                self.carry(self.pool.opened(0.0, effect.worker, 0.0))
            elif isinstance(effect, fx.Stop):
                self.carry(self.pool.died(0.0, effect.worker, "stopped"))
            elif isinstance(effect, fx.Granted):
                self.granted[effect.holder] = effect
            elif isinstance(effect, fx.Revoke):
                self.carry(self.pool.revoked(0.0, effect.worker, effect.lease))

    def resize(self, size: int) -> None:
        self.carry(self.pool.resize(0.0, size, None))


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_thousand_hosts_have_their_exact_shares_after_ten_are_lost_at_once():
    core, hosts, dice = ClusterCore(), {}, random.Random(1)

    def carry(effects) -> None:
        for effect in effects:
            if isinstance(effect, Tell):
                size = effect.orders.shares["db"].size
                if effect.host in hosts:
                    hosts[effect.host].resize(size)
                else:
                    hosts[effect.host] = SimulatedHost(size)
                core.told(effect.host, effect.orders)

    members = [Member(f"h{number}", f"h{number}") for number in range(HOSTS)]
    carry(core.members_are(0.0, members))
    carry(core.declare(Declaration("db", None, HOSTS * EACH, 0)))
    assert {host.pool.status(0.0).workers for host in hosts.values()} == {EACH}

    callers = []
    for number in range(LEASES):
        caller, lender = (dice.choice(members).id for _ in range(2))
        hosts[lender].carry(hosts[lender].pool.checkout(0.0, number, (caller, number)))
        callers.append((caller, lender, number))
    assert sum(len(host.granted) for host in hosts.values()) == LEASES

    lost = {member.id for member in dice.sample(members, LOST)}
    began = time.perf_counter()
    for caller, lender, number in callers:  # as agents hear of callers whose host is gone
        if caller in lost and lender not in lost:
            hosts[lender].carry(hosts[lender].pool.caller_down(0.0, (caller, number)))
    for host in lost:
        del hosts[host]
    carry(core.members_are(1.0, [member for member in members if member.id not in lost]))
    print(f"\n{LOST} of {HOSTS} hosts lost: shares exact after {time.perf_counter() - began:.2f} s")

    core.check()
    left = sum(caller not in lost and lender not in lost for caller, lender, _ in callers)
    assert sum(host.pool.status(0.0).monitors for host in hosts.values()) == left
    assert sum(host.pool.status(0.0).size for host in hosts.values()) == HOSTS * EACH
    assert sum(host.pool.status(0.0).total for host in hosts.values()) == HOSTS * EACH
    for host in hosts.values():
        host.pool.check()
