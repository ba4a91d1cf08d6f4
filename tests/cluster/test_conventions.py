"""Thespian's own conventions: callers of other members are served, and what they hold ends with their host."""

from __future__ import annotations

import sys
import time

import pytest

from actorpool.pools.holders import Holders, MessageCaller
from actorpool.process import Caller
from tests.cluster.rayhosts import Hosts, why_not

LEADER = """
import pickle, sys, time
from thespian.actors import ActorSystem
from actorpool import ConnectionManager, GetPoolStatus, PoolConfig, StartPool
from actorpool.workers.echo import EchoWorker
system = ActorSystem("multiprocTCPBase", {"Convention Address.IPv4": "10.77.0.1:1900", "Admin Port": 1900})
manager = system.createActor(ConnectionManager)
system.ask(manager, StartPool("db", PoolConfig(worker=EchoWorker, size=2)), 20).unwrap()
pickle.dump(manager, open(sys.argv[1], "wb"))
print("serving", flush=True)
last = None
while True:
    held = system.ask(manager, GetPoolStatus("db"), 10).unwrap().monitors
    if held != last:
        print("leases", held, flush=True)
        last = held
    time.sleep(0.05)
"""

MEMBER = """
import pickle, sys
from thespian.actors import ActorSystem
from actorpool import Call, Checkout
system = ActorSystem("multiprocTCPBase", {"Convention Address.IPv4": "10.77.0.1:1900", "Admin Port": 1900})
manager = pickle.load(open(sys.argv[1], "rb"))
grant = system.ask(manager, Checkout("db"), 10).unwrap()
print("echo", system.ask(grant.worker, Call(grant, "echo", ("far",)), 10).unwrap(), flush=True)
sys.stdin.readline()
"""


class Place:
    def __init__(self, ip: str) -> None:
        self.addressDetails = type("Details", (), {"sockname": (ip, 1)})()


def test_what_callers_of_a_lost_host_hold_is_over_and_of_others_is_not():
    gone, asked = [], []
    holders = Holders(None, gone.append, lambda: asked.append(1))
    far = [MessageCaller(Caller(f"h{n}", 7, 1.0, f"machine {n}"), Place(f"10.0.0.{n}"), n) for n in (1, 2)]
    other = MessageCaller(Caller("h1", 8, 1.0, "machine 1"), Place("10.0.0.1"), 9)
    for holder in [*far, other]:
        assert holders.add(holder)
    holders.remove(other)
    assert asked == [1], "the first one has notices asked for"
    holders.host_gone("10.0.0.9")
    assert gone == []
    holders.host_gone("10.0.0.1")
    assert gone == far[:1]
    holders.host_gone("10.0.0.1")
    assert len(gone) == 1


@pytest.mark.slow
@pytest.mark.skipif(why_not() is not None, reason=str(why_not()))
def test_the_lease_of_a_caller_on_another_member_is_given_back_when_the_convention_has_lost_it(tmp_path):
    periods = {"CONVENTION_REREGISTRATION_PERIOD": "0:1", "CONVENTION_RESTART_PERIOD": "0:1"}
    address = str(tmp_path / "manager")
    with Hosts(["leader", "member"], periods, ray=False) as hosts:
        leader = hosts.all[0].program("-c", LEADER, address)
        leader.wait(lambda line: line == "serving", 30)
        member = hosts.all[1].program("-c", MEMBER, address)
        member.wait(lambda line: line == "echo far", 30)
        leader.wait(lambda line: line == "leases 1", 10)
        began = time.monotonic()
        hosts.all[1].power_off()
        moment, _ = leader.wait(lambda line: line == "leases 0", 20, began)
        print(f"\nlease given back {moment - began:.1f} s after the power failure", file=sys.stderr)
