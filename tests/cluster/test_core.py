"""Pools over hosts: shares, keys, choices and figures, without a host."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from actorpool.core.cluster.choice import TRIES, Choice, attempts
from actorpool.core.cluster.core import ClusterCore, Dismiss, Tell
from actorpool.core.cluster.figures import merged
from actorpool.core.cluster.members import Declaration, Member, display_names
from actorpool.core.cluster.shares import canonical, host_of_key, overflow_shares, shares
from actorpool.core.effects import Emit
from actorpool.status import PoolStatus

names = st.lists(st.text("abcdef", min_size=1, max_size=4), max_size=12, unique=True)


# -- shares -----------------------------------------------------------------------------------------------


@given(st.integers(0, 1000), names, st.sampled_from(["db", "web"]))
def test_shares_sum_to_the_size_and_differ_by_one_at_most(total, hosts, pool):
    share = shares(total, hosts, pool)
    assert share.keys() == set(hosts)
    assert sum(share.values()) == (total if hosts else 0)
    assert max(share.values(), default=0) - min(share.values(), default=0) <= 1
    assert shares(total, reversed(hosts), pool) == share


@given(st.integers(0, 100), names, st.integers(0, 20))
def test_no_host_has_more_than_most_and_all_is_given_that_may_be(total, hosts, most):
    share = shares(total, hosts, "db", most)
    assert all(number <= most for number in share.values())
    assert sum(share.values()) == min(total, most * len(hosts))


def test_the_rest_of_different_pools_goes_to_different_hosts():
    hosts = [f"h{number}" for number in range(7)]
    first = {max(share, key=share.get) for pool in map(str, range(60)) if (share := shares(8, hosts, pool))}
    assert len(first) == 7


def test_the_rest_of_overflow_goes_first_to_those_with_fewer_workers():
    hosts = ["a", "b", "c", "d"]
    share, extra = shares(6, hosts, "db"), overflow_shares(2, hosts, "db")
    assert {host for host in hosts if extra[host]} == {host for host in hosts if share[host] == 1}


# -- keys -------------------------------------------------------------------------------------------------


def test_keys_are_spread_evenly():
    hosts = [f"h{number}" for number in range(4)]
    counts = Counter(host_of_key(("user", number), hosts) for number in range(4000))
    assert set(counts) == set(hosts)
    assert all(850 < count < 1150 for count in counts.values()), counts


@given(names.filter(lambda hosts: len(hosts) > 1), st.lists(st.integers(), max_size=30), st.data())
def test_a_key_moves_only_if_its_host_goes(hosts, keys, data):
    gone = data.draw(st.sampled_from(hosts))
    left = [host for host in hosts if host != gone]
    for key in keys:
        before = host_of_key(key, hosts)
        assert before == gone or host_of_key(key, left) == before


def test_equal_keys_belong_together_and_others_do_not():
    text = "".join(["u", "1"])
    assert canonical(("u1", "u1")) == canonical((text, "u1"))  # one object or two
    assert canonical(1) == canonical(1.0) == canonical(True)
    assert len({canonical(key) for key in ("1", b"1", 1, ("1",), (("1",),), frozenset("1"), None, ("1", ""))}) == 8
    assert canonical(frozenset({"a", "b"})) == canonical(frozenset({"b", "a"}))


def test_a_key_belongs_to_the_same_host_in_every_process():
    hosts = [f"h{number}" for number in range(9)]
    program = (
        f"from actorpool.core.cluster.shares import host_of_key; print(host_of_key(('user', 'Ä', 3.5, None), {hosts}))"
    )
    env = {**os.environ, "PYTHONHASHSEED": "12345"}
    told = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True, check=True)
    assert told.stdout.strip() == host_of_key(("user", "Ä", 3.5, None), hosts)


# -- choices ----------------------------------------------------------------------------------------------


def test_the_own_host_comes_first_where_it_has_a_share():
    choice = Choice("b", "me")
    assert choice.order({"a": 1, "b": 1, "c": 1})[0] == "b"
    assert "b" not in choice.order({"a": 1, "b": 0, "c": 1})
    assert choice.order({"b": 2}) == ["b"]
    assert choice.order({}) == []


def test_other_hosts_are_chosen_in_proportion_to_their_shares():
    choice = Choice("x", "me")
    first = Counter(choice.order({"a": 1, "b": 2, "c": 3})[0] for _ in range(600))
    assert abs(first["a"] - 100) < 10
    assert abs(first["b"] - 200) < 10
    assert abs(first["c"] - 300) < 10


def test_clients_do_not_all_begin_at_the_same_host():
    hosts = dict.fromkeys("abcdef", 1)
    assert len({Choice("x", f"client {number}").order(hosts)[0] for number in range(60)}) == 6


def test_a_suspect_host_is_left_out_until_it_has_answered():
    choice = Choice("a", "me")
    assert choice.suspect("a")
    assert not choice.suspect("a")
    assert choice.order({"a": 3, "b": 1}) == ["b"]
    choice.cleared("a")
    assert choice.order({"a": 3, "b": 1}) == ["a", "b"]


def test_some_hosts_are_asked_for_an_idle_worker_before_the_caller_waits_at_the_first():
    assert attempts([]) == []
    assert attempts(["a"]) == [("a", True)]
    assert attempts(["a", "b"]) == [("a", False), ("b", False), ("a", True)]
    many = attempts(list("abcdefgh"))
    assert many == [(host, False) for host in "abcdefgh"[:TRIES]] + [("a", True)]


# -- names and figures --------------------------------------------------------------------------------------


def test_hosts_of_one_name_are_told_apart():
    members = {
        "1111111122": Member("1111111122", "web"),
        "3333333344": Member("3333333344", "web"),
        "5": Member("5", "db"),
    }
    assert display_names(members) == {"1111111122": "web~11111111", "3333333344": "web~33333333", "5": "db"}


@pytest.mark.parametrize(
    ("placement", "fits"),
    [
        (None, True),
        ({}, True),
        ({"role": "db"}, True),
        ({"role": "web"}, False),
        ({"gpu": True}, True),
        ({"ssd": True}, False),
    ],
)
def test_a_host_fits_if_it_has_every_label(placement, fits):
    assert Member("1", "h", {"role": "db", "gpu": True}).fits(placement) is fits


def test_figures_are_sums_and_the_worst_and_name_those_who_did_not_answer():
    one = PoolStatus("db", "full", 3, 1, 0, 2, 4, total=4, checkouts=30, wait_ms_p50=4.0, wait_ms_p99=9.0, since=5.0)
    two = PoolStatus("db", "ready", 2, 0, 2, 0, 0, total=2, checkouts=10, wait_ms_p50=0.0, wait_ms_p99=1.0, since=9.0)
    status = merged("db", {"a": one, "b": two, "c": None})
    assert (status.state, status.size, status.overflow, status.workers, status.waiting) == ("ready", 5, 1, 2, 2)
    assert (status.total, status.checkouts, status.wait_ms_p99, status.since) == (6, 40, 9.0, 9.0)
    assert status.wait_ms_p50 == 3.0
    assert status.hosts == {"a": one, "b": two, "c": None}
    assert merged("db", {"c": None}).state == "degraded"


# -- the coordinator ------------------------------------------------------------------------------------------


def pool(name: str = "db", size: int = 9, **fields) -> Declaration:
    return Declaration(name, None, size, fields.pop("max_overflow", 3), **fields)


class Hosts:
    """Agents that do what they are told, when the test has them do it."""

    def __init__(self, core: ClusterCore) -> None:
        self.core = core
        self.under_way: list[Tell] = []
        self.runs: dict[str, dict[str, int]] = {}
        self.dismissed: list[str] = []
        self.parting: list[str] = []
        self.events: list[str] = []

    def take(self, effects) -> None:
        for effect in effects:
            if isinstance(effect, Tell):
                self.under_way.append(effect)
            elif isinstance(effect, Dismiss):
                self.dismissed.append(effect.host)
                self.parting.append(effect.host)
                self.runs.pop(effect.host, None)
            else:
                assert isinstance(effect, Emit)
                self.events.append(effect.name)
        self.core.check()

    def part(self) -> None:
        """An agent that was dismissed ends."""
        host = self.parting.pop(0)
        assert host not in self.runs, "an agent that ends was told something"
        self.take(self.core.dismissed(host))

    def lose(self, host: str) -> None:
        """What its agent ran and was told is gone."""
        self.runs.pop(host, None)
        self.under_way = [tell for tell in self.under_way if tell.host != host]

    def obey(self, number: int = 0) -> None:
        tell = self.under_way.pop(number)
        self.runs[tell.host] = {name: share.size for name, share in tell.orders.shares.items()}
        self.take(self.core.told(tell.host, tell.orders))

    def obey_all(self) -> None:
        while self.under_way:
            self.obey()

    def total(self, name: str = "db") -> int:
        return sum(runs.get(name, 0) for host, runs in self.runs.items() if host in self.core.members)


def three() -> Hosts:
    hosts = Hosts(ClusterCore())
    hosts.take(hosts.core.members_are(1.0, [Member(host, host, {"role": "db"}) for host in "abc"]))
    hosts.take(hosts.core.declare(pool()))
    hosts.obey_all()
    return hosts


def test_a_lost_host_is_made_up_for_by_the_others_and_a_new_one_gets_its_share():
    hosts = three()
    assert hosts.runs == {host: {"db": 3} for host in "abc"}
    assert hosts.core.settled("db")
    hosts.take(hosts.core.members_are(2.0, [hosts.core.members[host] for host in "ab"]))
    assert hosts.core.view().shares == {"db": {"a": 3, "b": 3}}
    hosts.obey_all()
    assert sorted(hosts.core.view().shares["db"].values()) == [4, 5]
    hosts.take(hosts.core.members_are(3.0, [Member(host, host) for host in "abd"]))
    growing = [tell.host for tell in hosts.under_way]
    assert growing[-1] == "d", "those that lose workers are told first"
    hosts.obey_all()
    assert hosts.total() == 9
    assert hosts.events.count("host.up") == 4
    assert hosts.events.count("host.down") == 1


def test_a_host_that_leaves_has_its_workers_moved_before_its_agent_ends():
    hosts = three()
    hosts.take(hosts.core.leave("a"))
    assert not hosts.dismissed
    hosts.obey_all()
    assert hosts.dismissed == ["a"]
    assert hosts.total() == 9
    assert hosts.core.view().hosts["a"].state == "left"
    hosts.take(hosts.core.join("a"))
    assert all(tell.host != "a" for tell in hosts.under_way), "its agent has not ended yet"
    former = hosts.core.view().agents
    hosts.part()
    hosts.obey_all()
    assert (hosts.total(), set(hosts.runs)) == (9, {"a", "b", "c"})
    told = hosts.core.view().agents
    assert {host for host in told if told[host] != former[host]} == {"a"}, "callers have to look for it anew"
    hosts.take(hosts.core.leave("a"))
    hosts.obey_all()
    hosts.take(hosts.core.members_are(9.0, [hosts.core.members[host] for host in "bc"]))
    assert hosts.events.count("host.left") == 2
    assert "host.down" not in hosts.events, "that it has left is told already"


def test_a_host_where_no_node_can_run_is_left_out_and_tried_again():
    hosts = three()
    hosts.take(hosts.core.agent_lost("c"))
    tell = hosts.under_way.pop()
    assert tell.host == "c"
    hosts.take(hosts.core.failed("c", tell.orders, "no node of that name runs there", again=20.0))
    assert hosts.core.view().hosts["c"].reason == "no node of that name runs there"
    hosts.runs.pop("c")
    hosts.obey_all()
    assert hosts.total() == 9
    members = list(hosts.core.members.values())
    hosts.take(hosts.core.members_are(19.0, members))
    assert hosts.core.view().hosts["c"].state == "unusable"
    hosts.take(hosts.core.members_are(20.0, members))
    hosts.obey_all()
    assert hosts.runs == {host: {"db": 3} for host in "abc"}


def test_orders_that_failed_are_given_again():
    hosts = three()
    hosts.take(hosts.core.resize("db", 12, None))
    tell = hosts.under_way.pop(0)
    hosts.take(hosts.core.failed(tell.host, tell.orders))
    assert tell in hosts.under_way
    hosts.obey_all()
    assert hosts.total() == 12


def test_a_coordinator_that_starts_again_goes_on_from_what_an_agent_knows():
    hosts = three()
    hosts.take(hosts.core.leave("a"))
    orders = hosts.under_way[-1].orders
    hosts.obey_all()
    again = Hosts(ClusterCore(orders.declared, orders.left))
    again.take(again.core.members_are(1.0, hosts.core.members.values()))
    again.obey_all()
    assert again.core.view().shares == hosts.core.view().shares
    assert again.core.view().hosts["a"].state == "left"


def test_callers_of_a_coordinator_that_starts_again_have_the_shares_that_the_agents_have():
    hosts = three()
    orders = {host: hosts.core._told[host] for host in "ab"}
    again = Hosts(ClusterCore(orders["a"].declared, (), {**orders, "gone": orders["a"]}))
    again.runs = dict(hosts.runs)
    again.take(again.core.members_are(1.0, list(hosts.core.members.values())))
    assert again.core.view().shares["db"] == {"a": 3, "b": 3}
    assert [tell.host for tell in again.under_way] == ["c"], "the others have carried it out"
    again.obey_all()
    assert again.core.view().shares["db"] == {"a": 3, "b": 3, "c": 3}


def test_only_hosts_that_fit_get_workers_and_others_no_agent():
    hosts = Hosts(ClusterCore())
    hosts.take(hosts.core.members_are(1.0, [Member("a", "a", {"role": "db"}), Member("b", "b", {})]))
    hosts.take(hosts.core.declare(pool(placement={"role": "db"})))
    assert [tell.host for tell in hosts.under_way] == ["a"]


def test_a_pool_of_overflow_alone_is_served_by_every_host():
    hosts = Hosts(ClusterCore())
    hosts.take(hosts.core.members_are(1.0, [Member("a", "a"), Member("b", "b")]))
    hosts.take(hosts.core.declare(pool(size=0, max_overflow=4)))
    shares = {tell.host: tell.orders.shares["db"] for tell in hosts.under_way}
    assert {host: (share.size, share.max_overflow) for host, share in shares.items()} == {"a": (0, 2), "b": (0, 2)}
    hosts.obey_all()
    assert hosts.core.view().shares == {"db": {"a": 1, "b": 1}}


class ClusterMachine(RuleBasedStateMachine):
    """Hosts come, go, leave and return, agents die and refuse, pools are declared, resized and stopped."""

    def __init__(self) -> None:
        super().__init__()
        self.hosts = Hosts(ClusterCore())
        self.core = self.hosts.core
        self.ids = itertools.count()
        self.now = 0.0

    def members(self) -> list[Member]:
        return list(self.core.members.values())

    @rule(role=st.sampled_from(["db", "web"]))
    @precondition(lambda self: len(self.core.members) < 6)
    def comes(self, role):
        host = f"h{next(self.ids)}"
        self.hosts.take(self.core.members_are(self.now, [*self.members(), Member(host, host, {"role": role})]))

    @rule(data=st.data())
    @precondition(lambda self: self.core.members)
    def goes(self, data):
        before = {key: self._home(key) for key in range(20)}
        gone = data.draw(st.sampled_from(sorted(self.core.members)))
        left = [member for member in self.members() if member.id != gone]
        self.hosts.lose(gone)
        self.hosts.take(self.core.members_are(self.now, left))
        for key, home in before.items():
            assert home in (gone, None) or self._home(key) == home

    def _home(self, key):
        hosts = list(self.core.members)
        return host_of_key(key, hosts) if hosts else None

    @rule(name=st.sampled_from("pq"), size=st.integers(0, 20), most=st.sampled_from([None, None, 2]),
          placement=st.sampled_from([None, {"role": "db"}]))  # fmt: skip
    def declares(self, name, size, most, placement):
        self.hosts.take(self.core.declare(pool(name, size, most=most, placement=placement)))

    @rule(name=st.sampled_from("pq"), size=st.integers(0, 20))
    def resizes(self, name, size):
        if name in self.core.declared:
            self.hosts.take(self.core.resize(name, size, None))

    @rule(name=st.sampled_from("pq"))
    def stops(self, name):
        self.hosts.take(self.core.remove(name))

    @rule(data=st.data())
    @precondition(lambda self: self.core.members)
    def leaves_or_joins(self, data):
        host = data.draw(st.sampled_from(sorted(self.core.members)))
        self.hosts.take(self.core.join(host) if host in self.core.left else self.core.leave(host))

    @rule(data=st.data())
    @precondition(lambda self: self.core.members)
    def agent_dies(self, data):
        host = data.draw(st.sampled_from(sorted(self.core.members)))
        self.hosts.lose(host)
        self.hosts.take(self.core.agent_lost(host))

    @rule(data=st.data())
    @precondition(lambda self: self.hosts.under_way)
    def obeys(self, data):
        self.hosts.obey(data.draw(st.integers(0, len(self.hosts.under_way) - 1)))

    @rule()
    @precondition(lambda self: self.hosts.parting)
    def ends(self):
        self.hosts.part()

    @rule(data=st.data(), reason=st.sampled_from([None, "no node"]))
    @precondition(lambda self: self.hosts.under_way)
    def refuses(self, data, reason):
        tell = self.hosts.under_way.pop(data.draw(st.integers(0, len(self.hosts.under_way) - 1)))
        if reason is not None:  # without a node nothing runs
            self.hosts.lose(tell.host)
        self.hosts.take(self.core.failed(tell.host, tell.orders, reason, self.now + 5.0))

    @rule(seconds=st.sampled_from([1.0, 5.0]))
    def waits(self, seconds):
        self.now += seconds
        self.hosts.take(self.core.members_are(self.now, self.members()))

    @invariant()
    def is_consistent(self):
        self.core.check()
        view = self.core.view()
        assert all(host in self.core.members for share in view.shares.values() for host in share)

    def teardown(self) -> None:
        """Once every agent obeys, the workers are as many as were asked for, each pool on hosts that fit."""
        self.now += 10.0
        self.hosts.take(self.core.members_are(self.now, self.members()))
        while self.hosts.parting:
            self.hosts.part()
        for _ in range(100):
            if self.hosts.under_way:
                self.hosts.obey()
            elif self.hosts.parting:
                self.hosts.part()
            else:
                break
        assert not self.hosts.under_way
        for name, known in self.core.declared.items():
            fit = [m.id for m in self.members() if m.fits(known.placement) and m.id not in self.core.left]
            want = 0 if not fit else known.size if known.most is None else min(known.size, known.most * len(fit))
            assert self.hosts.total(name) == want
            assert all(host in fit for host, runs in self.hosts.runs.items() if runs.get(name))


TestClusterMachine = ClusterMachine.TestCase
TestClusterMachine.settings = settings(max_examples=100, stateful_step_count=40)
