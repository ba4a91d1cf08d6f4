"""Hosts that come, go and fail, with fake nodes: what the coordinator and its agents make of them."""

from __future__ import annotations

import time

import pytest

from actorpool import Autoscale, InvalidConfig, PermanentError, PoolAlreadyExists, PoolDown, PoolNotFound, SystemDown
from actorpool.cluster import Cluster
from actorpool.workers import PostgresWorker
from actorpool.workers.echo import EchoWorker
from tests.cluster.double import FakeNodes, Network

HOSTS = {"a": {"role": "db"}, "b": {"role": "db"}, "c": {"role": "db", "ssd": True}, "d": {}}


@pytest.fixture
def nodes():
    return FakeNodes()


@pytest.fixture
def network(nodes):
    network = Network(HOSTS, nodes)
    yield network
    network.close()


@pytest.fixture
def cluster(network):
    with Cluster.with_engine(network.engine("d"), "shop") as cluster:
        yield cluster


def start(cluster, name="db", size=9, **fields):
    fields.setdefault("placement", {"role": "db"})
    return cluster.start_pool(name, worker=EchoWorker, size=size, max_overflow=0, **fields)


def test_a_pool_is_started_on_every_host_that_fits(cluster, nodes):
    pool = start(cluster)
    assert nodes.sizes("db") == {"a": 3, "b": 3, "c": 3}
    assert "d" not in nodes.systems, "a host without a share needs no agent"
    status = pool.status()
    assert (status.state, status.size, status.total) == ("ready", 9, 9)
    assert {host: one.size for host, one in status.hosts.items()} == {"a": 3, "b": 3, "c": 3}
    assert cluster.pools() == ["db"]
    hosts = {info.name: info for info in cluster.hosts()}
    assert {name: dict(info.pools) for name, info in hosts.items()} == {
        "a": {"db": 3},
        "b": {"db": 3},
        "c": {"db": 3},
        "d": {},
    }
    assert {info.state for info in hosts.values()} == {"up"}
    assert hosts["c"].labels == {"role": "db", "ssd": True}
    assert hosts["a"].node_id == "id-a"
    assert abs(hosts["a"].since - time.time()) < 60


def test_most_limits_what_one_host_gets(cluster, nodes):
    start(cluster, most=2)
    assert nodes.sizes("db") == {"a": 2, "b": 2, "c": 2}


def test_a_lost_host_is_made_up_for_and_gets_its_share_when_it_is_back(cluster, network, nodes, eventually):
    start(cluster)
    network.lose("a")
    eventually(lambda: sorted([nodes.sizes("db")["b"], nodes.sizes("db")["c"]]) == [4, 5])
    nodes.systems.clear()
    network.bring_back("a")
    eventually(lambda: nodes.sizes("db").get("a") == 3)
    names = [event.name for event in cluster.events()]
    assert names.count("host.up") == 5
    assert names.count("host.down") == 1
    assert names.count("pool.share") == 3
    down = next(event for event in cluster.events() if event.name == "host.down")
    assert down.metadata == {"host": "a", "node_id": "id-a"}


def test_an_agent_that_is_restarted_is_told_its_share_again(cluster, network, nodes, eventually):
    start(cluster)
    nodes.systems.pop("a")
    network.kill_agent("a")
    eventually(lambda: nodes.sizes("db").get("a") == 3)


def test_an_agent_that_is_restarted_takes_over_the_pools_of_a_node_that_went_on(cluster, network, nodes, eventually):
    start(cluster)
    pool = nodes.systems["a"].pools["db"]
    pool.size = 1
    network.kill_agent("a")
    eventually(lambda: pool.size == 3)
    assert nodes.systems["a"].pools["db"] is pool


def test_a_coordinator_that_is_restarted_knows_what_the_agents_know(cluster, network, nodes, eventually):
    pool = start(cluster)
    cluster.leave("c")
    eventually(lambda: "c" not in nodes.sizes("db"))
    network.kill_coordinator()
    eventually(lambda: cluster.pools() == ["db"])
    assert {info.name: info.state for info in cluster.hosts()} == {"a": "up", "b": "up", "c": "left", "d": "up"}
    pool.resize(size=12)
    assert nodes.sizes("db") == {"a": 6, "b": 6}


def test_a_pool_is_resized_as_a_whole(cluster, nodes):
    pool = start(cluster)
    pool.resize(size=4)
    assert sorted(nodes.sizes("db").values()) == [1, 1, 2]
    pool.resize(max_overflow=6)
    assert {system.pools["db"].max_overflow for system in nodes.systems.values()} == {2}
    assert sum(nodes.sizes("db").values()) == 4


def test_a_host_leaves_and_joins_again(cluster, nodes, network, eventually):
    start(cluster)
    cluster.leave("b")
    eventually(lambda: sorted(nodes.sizes("db").items()) in ([("a", 4), ("c", 5)], [("a", 5), ("c", 4)]))
    eventually(lambda: "agent/id-b" not in network.actors)
    assert "host.left" in [event.name for event in cluster.events()]
    cluster.join("b")
    eventually(lambda: nodes.sizes("db") == {"a": 3, "b": 3, "c": 3})


def test_a_host_where_no_node_runs_is_named_and_the_others_take_over(cluster, nodes, eventually):
    nodes.missing.add("a")
    start(cluster)
    eventually(lambda: sum(nodes.sizes("db").values()) == 9)
    info = next(info for info in cluster.hosts() if info.name == "a")
    assert (info.state, info.reason) == ("unusable", "no node runs on a")


def test_a_pool_for_which_no_host_has_a_node_is_refused_with_the_reasons(cluster, nodes):
    nodes.missing.update("abc")
    with pytest.raises(PoolDown, match=r"on no host \(a: no node runs on a; b: no node runs on b"):
        start(cluster)
    assert cluster.pools() == []


def test_a_pool_that_is_stopped_is_stopped_everywhere(cluster, nodes):
    start(cluster)
    cluster.stop_pool("db")
    assert nodes.sizes("db") == {}
    assert cluster.pools() == []
    with pytest.raises(PoolNotFound, match="running: none"):
        cluster.stop_pool("db")
    with pytest.raises(PoolNotFound):
        cluster.pool("db")
    start(cluster, size=3)
    assert nodes.sizes("db") == {"a": 1, "b": 1, "c": 1}


def test_a_start_that_fails_on_one_host_fails_and_leaves_nothing_behind(cluster, nodes, network, eventually):
    start(cluster, "other")
    nodes.systems["b"].refusing = PermanentError("wrong password")
    with pytest.raises(PermanentError, match="wrong password"):
        start(cluster)
    eventually(lambda: nodes.sizes("db") == {})
    assert cluster.pools() == ["other"]


def test_a_pool_that_exists_is_not_touched(cluster, nodes):
    start(cluster)
    with pytest.raises(PoolAlreadyExists):
        start(cluster, size=30)
    assert sum(nodes.sizes("db").values()) == 9


def test_what_cannot_be_spread_is_refused_all_at_once_before_anything_starts(cluster, nodes):
    with pytest.raises(InvalidConfig) as caught:
        cluster.start_pool("db", worker=PostgresWorker, size="auto", autoscale=Autoscale(), most=0, placement=3)
    assert set(caught.value.problems) == {"size", "autoscale", "most", "placement"}
    with pytest.raises(InvalidConfig, match="hosts and their labels") as caught:
        start(cluster, placement={"role": "cache"})
    assert "placement" in caught.value.problems
    assert nodes.systems == {}


def test_without_a_coordinator_there_is_nothing_to_connect_to(network):
    with pytest.raises(SystemDown, match="no cluster named 'shop'"):
        Cluster.with_engine(network.engine("a"), "shop", start=False)


def test_a_cluster_ends_with_the_process_that_started_it_and_a_detached_one_goes_on(network, nodes, eventually):
    engine = network.engine("a")
    start(Cluster.with_engine(engine, "shop"))
    engine.die()
    eventually(lambda: not network.actors)
    assert all(not system.pools for system in nodes.systems.values())
    engine = network.engine("a")
    start(Cluster.with_engine(engine, "shop", detached=True))
    engine.die()
    time.sleep(0.2)
    other = Cluster.with_engine(network.engine("b"), "shop", start=False)
    assert other.pools() == ["db"]
    other.shutdown()
    assert not network.actors


def test_two_hundred_hosts_have_their_new_shares_within_a_second_of_a_loss(nodes):
    network = Network({f"h{number}": {} for number in range(200)}, nodes)
    try:
        with Cluster.with_engine(network.engine("h0"), "big") as cluster:
            start(cluster, size=2000, placement=None)
            assert set(nodes.sizes("db").values()) == {10}
            for number in range(10, 20):
                network.lose(f"h{number}")
                del nodes.systems[f"h{number}"]
            began = time.monotonic()
            while sum(nodes.sizes("db").values()) != 2000:
                assert time.monotonic() < began + 10
                time.sleep(0.002)
            took = time.monotonic() - began
            print(f"\n200 hosts: new shares after {took:.2f} s")
            assert took < 2.0  # 1 s on a machine of its own
    finally:
        network.close()
