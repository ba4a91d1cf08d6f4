"""A program on a host of a Ray cluster that uses all that is promised of a cluster, and says "well" at its end."""

from __future__ import annotations

import asyncio
import os
import time
from typing import Any

from actorpool import CallTimeout, InvalidConfig, LeaseExpired, PoolAlreadyExists, PoolDown, PoolNotFound, PoolStatus
from actorpool.cluster import Cluster
from actorpool.workers import Worker, method
from tests.cluster import jobs


class Mine(Worker):
    """A worker class that only this program has: it travels by value."""

    @method
    def echo(self, value: Any) -> Any:
        return value

    @method
    def pid(self) -> int:
        return os.getpid()


def refused(kind: type[BaseException], act: Any) -> BaseException:
    try:
        act()
    except kind as error:
        return error
    raise AssertionError(f"no {kind.__name__}")


def eventually(fn: Any, timeout: float = 20.0) -> Any:
    deadline = time.monotonic() + timeout
    while not (value := fn()):
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.05)
    return value


def everything(cluster: Cluster) -> None:
    db = cluster.start_pool("db", worker=Mine, size=3, max_overflow=0, placement={"role": "db"}, call_timeout=30.0)
    known = cluster.hosts()
    assert [info.name for info in known] == ["h1", "h2", "h3"]
    assert sorted(info.pools.get("db", 0) for info in known) == [0, 1, 2]
    assert {info.labels["role"] for info in known} == {"web", "db"}
    assert len({info.node_id for info in known}) == 3
    refused(PoolAlreadyExists, lambda: cluster.start_pool("db", worker=Mine, size=1))
    error = refused(InvalidConfig, lambda: cluster.start_pool("x", worker=Mine, size=1, placement={"role": "cache"}))
    assert "no host has" in str(error)
    assert cluster.pools() == ["db"]

    assert db.echo("x") == "x"
    assert db.run(lambda worker, a, b: a * b, 6, b=7) == 42
    assert len(db.echo(b"x" * 5_000_000)) == 5_000_000
    assert list(db.map(jobs.add, range(20), [1] * 20, chunksize=3)) == list(range(1, 21))
    assert db.submit(jobs.add, 1, 2).result(10) == 3
    assert db.run(jobs.pid, host="h2") in {info.pid for info in db.workers() if info.host == "h2"}
    refused(KeyError, lambda: db.run(jobs.fail, "x"))
    refused(CallTimeout, lambda: db.run(jobs.sleep, 30.0, call_timeout=0.3))
    eventually(lambda: db.status().monitors == 0)
    with db.checkout(host="h3") as lease:
        assert (lease.host, lease.pid()) == ("h3", lease.worker_pid)
        assert [one.id for one in db.leases(host="h3")] == [lease.id]
    refused(LeaseExpired, lease.pid)
    with db.checkout(key="k") as lease:
        lease.run(jobs.remember, 7)
        host = lease.host
    with db.checkout(key="k") as lease:
        assert (lease.host, lease.fresh, lease.run(jobs.recall)) == (host, False, 7)
    assert db.end_session("k")
    status = db.status()
    assert (status.size, status.state) == (3, "ready")
    assert all(isinstance(one, PoolStatus) for one in status.hosts.values())
    db.resize(size=5)
    assert db.status().size == 5
    db.suspend()
    db.resume()
    db.recycle(timeout=20.0)
    db.drain(timeout=5.0)
    db.resume()

    async def main() -> None:
        async with db.aio.checkout() as lease:
            assert await lease.echo(1) == 1
        task = asyncio.ensure_future(db.aio.run(jobs.sleep, 30.0))
        while not (await db.aio.status()).monitors:
            await asyncio.sleep(0.05)
        task.cancel()
        await asyncio.wait([task])
        while (await db.aio.status()).monitors:
            await asyncio.sleep(0.05)

    asyncio.run(main())


def elsewhere(cluster: Cluster) -> None:
    """What other processes see: a task of Ray with the pool's handle, and who connects without a name."""
    import ray

    db = cluster.pool("db")
    assert ray.get(ray.remote(num_cpus=0)(lambda pool: pool.echo("task")).remote(db)) == "task"
    with Cluster.connect() as other:
        assert (other.name, other.pools()) == ("shop", ["db"])
        assert other.pool("db").echo(1) == 1


def leaving(cluster: Cluster) -> None:
    db = cluster.pool("db")
    for host in ("h2", "h3"):
        cluster.leave(host)
    eventually(lambda: not any(info.pools for info in cluster.hosts()))
    assert "members: h1, h2, h3" in str(refused(PoolDown, lambda: db.echo(1, checkout_timeout=0.5)))
    for host in ("h2", "h3"):
        cluster.join(host)
    assert eventually(lambda: db.call("echo", 1, checkout_timeout=20.0)) == 1
    names = {event.name for event in cluster.events()}
    assert names == {"host.up", "host.left", "pool.share"}, names
    cluster.stop_pool("db")
    assert cluster.pools() == []
    refused(PoolNotFound, lambda: db.echo(1))


if __name__ == "__main__":
    with Cluster("shop", attach=False) as shop:
        everything(shop)
        elsewhere(shop)
        leaving(shop)
    print("well", flush=True)
