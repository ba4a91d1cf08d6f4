"""Pools over several hosts, as somebody who only read the documentation would use them, on an engine in one process."""

from __future__ import annotations

import asyncio
import inspect
import json
import time

import pytest

import actorpool
from actorpool import AsyncPool, Autoscale, InvalidConfig, Pool, PoolConfig, PoolDown, PoolNotFound, PoolStatus
from actorpool.cli import hosts as commands
from actorpool.cli import main
from actorpool.cluster import AsyncClusterPool, Cluster, ClusterPool, HostInfo
from actorpool.config import SharedPoolConfig
from actorpool.workers import PostgresWorker
from actorpool.workers.echo import EchoWorker
from tests.acceptance.kit import Toy
from tests.cluster import jobs
from tests.cluster.double import Network, real_node, with_nodes


@pytest.fixture(scope="module")
def network():
    network = Network({"a": {"role": "web"}, "b": {"role": "db"}, "c": {"role": "db", "ssd": True}}, real_node)
    yield network
    network.close()


@pytest.fixture(scope="module")
def cluster(network):
    with with_nodes(network) as cluster:
        yield cluster


@pytest.fixture
def db(cluster):
    """Three workers on two hosts, neither of which is this one."""
    yield cluster.start_pool("db", worker=Toy, size=3, max_overflow=0, placement={"role": "db"})
    cluster.stop_pool("db")


def parameters(function):
    return {name: one.default for name, one in inspect.signature(function).parameters.items() if name != "self"}


def test_a_cluster_takes_these_arguments():
    none = inspect.Parameter.empty
    assert parameters(Cluster) == {
        "name": none,
        "address": "auto",
        "detached": False,
        "attach": None,
        "runtime_env": None,
        "namespace": "actorpool",
    }
    assert list(parameters(Cluster.start_pool))[:4] == ["name", "config", "placement", "most"]


def test_every_bad_argument_is_told_at_once_and_before_ray_is_looked_for():
    with pytest.raises(InvalidConfig) as caught:
        Cluster("no name", 3, detached=1, attach="yes", runtime_env="x", namespace=None)
    assert set(caught.value.problems) == {"name", "address", "detached", "attach", "runtime_env", "namespace"}


@pytest.mark.parametrize(("ours", "theirs"), [(ClusterPool, Pool), (AsyncClusterPool, AsyncPool)])
def test_a_pool_over_hosts_has_every_verb_of_a_pool_with_the_same_arguments(ours, theirs):
    for name in (name for name in vars(theirs) if not name.startswith("_")):
        if callable(getattr(theirs, name)):
            assert parameters(getattr(theirs, name)).items() <= parameters(getattr(ours, name)).items(), name
        else:
            assert hasattr(ours, name)
    for name in ("run", "call", "checkout", "transaction", "status", "workers", "leases"):
        assert parameters(getattr(ours, name))["host"] is None, name


def test_a_size_is_of_all_hosts_together_and_a_share_is_its_part(cluster, db):
    hosts = {info.name: info for info in cluster.hosts()}
    assert all(isinstance(info, HostInfo) for info in hosts.values())
    assert sorted(hosts[name].pools.get("db", 0) for name in "abc") == [0, 1, 2]
    assert hosts["a"].pools == {}
    assert {info.state for info in hosts.values()} == {"up"}
    assert hosts["c"].labels == {"role": "db", "ssd": True}
    assert len({info.node_id for info in hosts.values()}) == 3
    assert all(abs(time.time() - info.since) < 600 for info in hosts.values())
    most = cluster.start_pool("most", PoolConfig(worker=EchoWorker, size=9, max_overflow=0), most=2)
    assert {host: status.size for host, status in most.status().hosts.items()} == {"a": 2, "b": 2, "c": 2}
    assert cluster.pools() == ["db", "most"]
    cluster.stop_pool("most")
    assert cluster.pools() == ["db"]
    with pytest.raises(PoolNotFound):
        cluster.pool("most")


def test_every_verb_reaches_workers_of_other_hosts(cluster, db):
    assert cluster.pool("db").echo("x") == "x"
    assert db.run(jobs.add, 1, b=2) == db.with_connection(jobs.add, 1, b=2) == db.call("add", 1, b=2) == 3
    assert db.call("status") == "the worker's own"
    assert db.submit(jobs.add, 1, 2).result(10) == 3
    assert list(db.map(jobs.add, [1, 2, 3], [1, 1, 1], chunksize=2)) == [2, 3, 4]
    with db.checkout(host="b") as lease:
        assert lease.host == "b"
        assert lease.pid() == lease.worker_pid
        assert db.leases(host="b")[0].id == lease.id
    lease = db.checkout()
    db.checkin(lease)
    assert sorted({info.host for info in db.workers()}) == ["b", "c"]
    status = db.status()
    assert isinstance(status, PoolStatus)
    assert (status.size, status.workers, status.state) == (3, 3, "ready")
    assert all(isinstance(one, PoolStatus) for one in status.hosts.values())
    assert set(status.hosts) == {"b", "c"}
    db.resize(size=5)
    assert db.status().size == 5
    db.resize(size=3)

    async def main():
        aio = db.aio
        async with aio.checkout(key="k", host="c") as lease:
            assert lease.host == "c"
            assert await lease.echo(1) == 1
        assert await aio.run(jobs.add, 1, 2) == await aio.call("add", 1, 2) == 3
        return (await aio.status()).hosts.keys()

    assert asyncio.run(main()) == {"b", "c"}


def test_a_key_stays_on_its_host_and_finds_what_it_left(db):
    hosts = set()
    for number in range(8):
        with db.checkout(key=number) as lease:
            assert lease.fresh
            lease.run(jobs.remember, number)
            first = lease.host
        with db.checkout(key=number) as lease:
            hosts.add(lease.host)
            assert lease.host == first
            assert lease.fresh or lease.run(jobs.recall) == number
        db.end_session(number)
    assert hosts == {"b", "c"}


def test_what_cannot_be_spread_is_refused_with_the_reason(cluster):
    with pytest.raises(InvalidConfig) as caught:
        cluster.start_pool("x", worker=PostgresWorker, size="auto", autoscale=Autoscale())
    assert set(caught.value.problems) == {"size", "autoscale"}
    with pytest.raises(InvalidConfig, match="shared pool"):
        cluster.start_pool("x", SharedPoolConfig())
    with pytest.raises(InvalidConfig, match="no host has"):
        cluster.start_pool("x", worker=EchoWorker, size=1, placement={"role": "cache"})
    with actorpool.start() as system, pytest.raises(InvalidConfig, match="placement"):
        system.start_pool("x", worker=EchoWorker, size=1, placement={"role": "db"})


@pytest.mark.slow
def test_without_any_host_a_call_says_who_there_is_and_one_that_comes_serves_it(eventually):
    network = Network({"a": {}, "b": {"role": "db"}}, real_node)
    with Cluster.with_engine(network.engine("a"), "shop") as cluster:
        db = cluster.start_pool("db", worker=EchoWorker, size=2, max_overflow=0, placement={"role": "db"})
        cluster.leave("b")
        eventually(lambda: {info.name: (info.state, dict(info.pools)) for info in cluster.hosts()}["b"] == ("left", {}))
        with pytest.raises(PoolDown, match=r"members: a, b"):
            db.run(jobs.pid, checkout_timeout=0.3)
        cluster.join("b")
        eventually(lambda: db.status().hosts.keys() == {"b"} and db.echo(1) == 1, timeout=15)
        assert {"host.up", "host.left", "pool.share"} == {event.name for event in cluster.events()}
    network.close()


def test_the_commands_show_hosts_and_figures(network, cluster, db, monkeypatch, capsys):
    monkeypatch.setattr(
        commands,
        "connect",
        lambda name, address="auto": Cluster.with_engine(network.engine("a"), name or "shop", start=False),
    )
    for words in (["hosts"], ["hosts", "shop"], ["status", "shop", "db", "--hosts"]):
        assert main(words) == 0
        assert main([*words, "--json"]) == 0
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert set(last["pool"]["hosts"]) == {"b", "c"}
