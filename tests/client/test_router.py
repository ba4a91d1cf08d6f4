"""`Pools`: one pool for each kind of work."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest

from actorpool import LocalPool, PoolConfig
from actorpool.client.router import Pools
from actorpool.errors import InvalidConfig
from actorpool.workers import EchoWorker, SqliteWorker


class Starts:
    """What `Pools.start` needs of a system, with pools in this process."""

    def __init__(self) -> None:
        self.running: dict[str, LocalPool] = {}

    def start_pool(self, name: str, config: PoolConfig) -> LocalPool:
        self.running[name] = LocalPool(config, name)
        return self.running[name]

    def stop_pool(self, name: str) -> None:
        self.running.pop(name).close()


@pytest.fixture
def pools(tmp_path: Path) -> Pools:
    database = {"database": str(tmp_path / "app.db")}
    system: Any = Starts()
    return Pools.start(
        system,
        read=PoolConfig(worker=SqliteWorker, worker_args=database),
        write={"worker": SqliteWorker, "worker_args": database, "queue_target": 2.0},
        jobs={"worker": EchoWorker, "size": 1},
    )


def test_pools_are_found_by_the_work_they_are_for(pools: Pools) -> None:
    pools.write.execute("CREATE TABLE t (x)")
    assert pools.read.execute("SELECT count(*) FROM t").scalar() == 0
    assert pools["jobs"].echo(1) == 1
    assert sorted(pools) == ["jobs", "read", "write"]
    assert len(pools) == 3
    with pytest.raises(AttributeError, match="there are read, write, jobs"):
        _ = pools.reports
    with pytest.raises(KeyError):
        _ = pools["reports"]


def test_work_is_routed_by_whether_it_writes(pools: Pools) -> None:
    assert pools.route(read_only=True) is pools.read
    assert pools.route(read_only=False) is pools.write
    only = Pools(main=pools.write)
    assert only.route(read_only=True) is only.route(read_only=False) is only.main
    with pytest.raises(KeyError, match="no pool called write or main"):
        Pools(jobs=pools.jobs).route(read_only=True)


def test_the_figures_of_all_pools_are_asked_at_once(pools: Pools) -> None:
    assert {name: status.name for name, status in pools.status().items()} == {
        "read": "read",
        "write": "write",
        "jobs": "jobs",
    }


def test_they_travel_together(pools: Pools) -> None:
    copy = pickle.loads(pickle.dumps(pools))
    assert copy.jobs.echo(2) == 2
    assert "read: <local pool 'read'" in repr(copy)


def test_when_one_cannot_start_none_is_left(tmp_path: Path) -> None:
    system: Any = Starts()
    with pytest.raises(InvalidConfig):
        Pools.start(system, jobs={"worker": EchoWorker}, read={"worker": SqliteWorker})
    assert system.running == {}
