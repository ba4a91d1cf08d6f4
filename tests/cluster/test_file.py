"""`[cluster]` of a file, and what `up` does with it, on the engine in one process."""

from __future__ import annotations

import pytest

from actorpool.cli import spreading
from actorpool.cli.refusals import Refusal
from actorpool.cluster import Cluster
from actorpool.configuration import InvalidFile, checks, load
from actorpool.errors import PoolNotFound
from tests.cluster.double import FakeNodes, Network

FILE = """
[system]
name = "shop"
[cluster]
engine = "ray"
[pools.own]
worker = "actorpool.workers.echo:EchoWorker"
[pools.db]
worker = "actorpool.workers.echo:EchoWorker"
size = 4
max_overflow = 0
spread = true
placement = { role = "db" }
most = 3
"""


@pytest.fixture(autouse=True)
def _with_ray(monkeypatch):
    monkeypatch.setattr(checks, "find_spec", lambda name: object())


def read(tmp_path, text):
    path = tmp_path / "shop.toml"
    path.write_text(text)
    return load(str(path), {})


def test_a_file_says_what_is_spread(tmp_path):
    config = read(tmp_path, FILE)
    assert (config.cluster.engine, config.cluster.address) == ("ray", "auto")
    assert set(config.pools) == {"own"}
    assert (config.spread["db"].most, config.spread["db"].config.size) == (3, 4)
    assert config.spread["db"].config.placement == {"role": "db"}


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("spread = true\n", "", "placement: is of a pool that is spread over hosts: add spread = true"),
        ("spread = true", "spread = 3", "spread: must be true or false, not 3"),
        ("most = 3", "most = 0", "most: must be a whole number of at least 1, not 0"),
        ('engine = "ray"', 'engine = "dask"', "engine: must be one of 'ray', not 'dask'"),
        ('[cluster]\nengine = "ray"\n', "", "spread: needs the hosts of a cluster: add a table [cluster]"),
    ],
)
def test_a_bad_file_is_refused_with_table_and_key(tmp_path, old, new, problem):
    assert old in FILE
    with pytest.raises(InvalidFile) as caught:
        read(tmp_path, FILE.replace(old, new))
    key, _, text = problem.partition(": ")
    assert key in str(caught.value)
    assert text in str(caught.value)


def test_up_starts_what_no_other_host_has_started_and_leaves_at_its_end(tmp_path, monkeypatch, eventually):
    nodes = FakeNodes()
    network = Network({"a": {"role": "db"}, "b": {"role": "db"}}, nodes)
    here = iter("abb")

    def open_cluster(name, address, start=True):
        return Cluster.with_engine(network.engine(next(here)), name, detached=True)

    monkeypatch.setattr(spreading, "open_cluster", open_cluster)
    config = read(tmp_path, FILE)
    part = spreading.part_of(config)
    spreading.take_part(part)
    spreading.take_part(part)
    assert nodes.sizes("db") == {"a": 2, "b": 2}
    spreading.withdraw(part)
    eventually(lambda: nodes.sizes("db") == {"a": 3})
    Cluster.with_engine(network.engine("a"), "shop", start=False).shutdown()
    with pytest.raises(PoolNotFound):
        nodes.systems["a"].stop_pool("db")
    network.close()


def test_up_is_refused_with_the_reason_where_there_is_no_cluster(tmp_path, monkeypatch):
    (tmp_path / "ray.py").write_text("raise ModuleNotFoundError('no ray here')")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(Refusal, match=r"^\[cluster\] a cluster needs Ray: pip install"):
        spreading.join(read(tmp_path, FILE))
    spreading.leave(read(tmp_path, FILE))
    alone = read(tmp_path, FILE[: FILE.index("[cluster]")])
    monkeypatch.setattr(spreading, "_apart", None)
    spreading.join(alone)
    spreading.leave(alone)
