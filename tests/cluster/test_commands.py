"""`actorpool hosts`, `leave` and `status --hosts`, on the engine in one process."""

from __future__ import annotations

import json

import pytest

from actorpool import cli
from actorpool.cli import hosts as commands
from actorpool.cluster import Cluster
from actorpool.workers.echo import EchoWorker
from tests.cluster.double import FakeNodes, Network


@pytest.fixture
def nodes(monkeypatch):
    nodes = FakeNodes()
    network = Network({"a": {"role": "db"}, "b": {"role": "db", "ssd": True}}, nodes)

    def connect(name, address="auto"):
        return Cluster.with_engine(network.engine("a"), name or "shop", start=False)

    monkeypatch.setattr(commands, "connect", connect)
    with Cluster.with_engine(network.engine("a"), "shop") as cluster:
        cluster.start_pool("db", worker=EchoWorker, size=3, max_overflow=2)
        yield nodes
    network.close()


def run(capsys, *words):
    code = cli.main(list(words))
    return code, capsys.readouterr()


def test_hosts_shows_states_shares_and_labels(nodes, capsys):
    code, said = run(capsys, "hosts", "shop")
    assert code == 0
    assert "HOST" in said.out
    assert "db 1" in said.out
    assert "db 2" in said.out
    assert "role=db, ssd" in said.out
    code, said = run(capsys, "hosts", "--json")
    told = json.loads(said.out)
    assert (code, told["cluster"], [one["name"] for one in told["hosts"]]) == (0, "shop", ["a", "b"])
    assert sum(one["pools"]["db"] for one in told["hosts"]) == 3


def test_status_by_hosts_shows_each_and_the_sum(nodes, capsys):
    code, said = run(capsys, "status", "shop", "db", "--hosts", "--check")
    assert code == 0
    assert "(all)" in said.out
    code, said = run(capsys, "status", "shop", "db", "--hosts", "--json")
    told = json.loads(said.out)["pool"]
    assert (code, told["size"], set(told["hosts"])) == (0, 3, {"a", "b"})
    code, said = run(capsys, "status", "shop", "--hosts")
    assert code == 2
    assert "actorpool status NAME POOL --hosts" in said.err


def test_leave_has_a_host_leave_in_order(nodes, capsys, eventually):
    code, said = run(capsys, "leave", "shop", "--host", "x")
    assert code != 0
    assert "no host 'x'" in said.err
    code, said = run(capsys, "leave", "shop", "--host", "b")
    assert (code, said.out) == (0, "host b leaves shop\n")
    eventually(lambda: nodes.sizes("db") == {"a": 3})
