"""`ClusterPool` on real nodes of three hosts, this process being on the first: near, far, and losses."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pickle
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from actorpool import (
    AsyncLease,
    AsyncPool,
    CallTimeout,
    CheckoutTimeout,
    Lease,
    LeaseExpired,
    MethodNotFound,
    Pool,
    PoolDown,
    PoolFull,
    PoolNotFound,
    WorkerDied,
)
from actorpool.cluster import AsyncClusterLease, AsyncClusterPool, Cluster, ClusterLease, ClusterPool
from actorpool.workers import SqliteWorker
from actorpool.workers.echo import EchoWorker
from tests.cluster import jobs
from tests.cluster.double import Network, real_node, with_nodes


@pytest.fixture(scope="module")
def network():
    network = Network({"a": {"near": True}, "b": {"far": True}, "c": {"far": True}}, real_node)
    yield network
    network.close()


@pytest.fixture(scope="module")
def cluster(network):
    with with_nodes(network) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def every(cluster):
    """One worker on each host."""
    return cluster.start_pool("every", worker=EchoWorker, size=3, max_overflow=0, checkout_timeout=10.0)


@pytest.fixture(scope="module")
def far(cluster):
    """One worker on each of the two hosts that are not this one."""
    return cluster.start_pool("far", worker=EchoWorker, size=2, max_overflow=0, placement={"far": True})


@pytest.fixture
def lossy():
    """A network of one test, in which things may be lost."""
    network = Network({"a": {}, "b": {"far": True}, "c": {"far": True}}, real_node)
    yield network
    network.close()


@pytest.fixture
def shop(lossy):
    with Cluster.with_engine(lossy.engine("a"), "shop") as cluster:
        yield cluster


@pytest.fixture
def db(shop):
    """One worker on each of the two hosts that are not this one."""
    return shop.start_pool("db", worker=EchoWorker, size=2, max_overflow=0, placement={"far": True})


def pids(pool):
    return {info.host: info.pid for info in pool.workers()}


def idle(pool):
    return pool.status().monitors == 0


# -- where a call goes ------------------------------------------------------------------------------------------


def test_calls_stay_on_the_own_host_while_it_has_an_idle_worker(every):
    own = pids(every)["a"]
    assert {every.run(jobs.pid) for _ in range(20)} == {own}


def test_calls_go_to_other_hosts_when_the_own_one_is_full(every):
    with every.checkout() as first, every.checkout() as second, every.checkout() as third:
        assert first.host == socket.gethostname()
        assert {second.host, third.host} == {"b", "c"}
        assert {first.worker_pid, second.worker_pid, third.worker_pid} == set(pids(every).values())
        with pytest.raises(CheckoutTimeout):
            every.run(jobs.pid, checkout_timeout=0.1)
        with pytest.raises(PoolFull):
            every.checkout(block=False)
        assert every.status().monitors == 3


def test_a_pool_of_the_own_host_alone_has_a_caller_wait_once_and_as_long_as_it_says(cluster):
    near = cluster.start_pool("near", worker=EchoWorker, size=1, max_overflow=0, placement={"near": True})

    async def later():
        await near.aio.run(jobs.pid, checkout_timeout=0.2)

    with near.checkout():
        for call in (lambda: near.run(jobs.pid, checkout_timeout=0.2), lambda: asyncio.run(later())):
            with pytest.raises(CheckoutTimeout) as caught:
                call()
            assert caught.value.waited >= 0.2
    assert near.status().timeouts == 2
    cluster.stop_pool("near")
    with pytest.raises(PoolNotFound):
        near.run(jobs.pid)


def test_calls_without_a_share_of_the_own_host_are_spread_over_the_others(far):
    counts = Counter(far.run(jobs.pid) for _ in range(20))
    assert len(counts) == 2
    assert max(counts.values()) <= 12


def test_a_caller_waits_for_a_worker_of_another_host(far):
    with ThreadPoolExecutor(1) as thread:
        with far.checkout(), far.checkout():
            waiting = thread.submit(far.run, jobs.add, 1, 2)
            time.sleep(0.2)
            assert not waiting.done()
        assert waiting.result(5) == 3


def test_a_host_can_be_chosen_by_its_name(every, cluster):
    known = pids(every)
    for host in "abc":
        assert every.run(jobs.pid, host=host) == known[host]
        with every.checkout(host=f"id-{host}") as lease:
            assert lease.worker_pid == known[host]
            assert lease.host == (socket.gethostname() if host == "a" else host)
    with pytest.raises(LookupError, match=r"no host 'x'; there are a, b, c"):
        every.run(jobs.pid, host="x")


# -- verbs of a far pool, as of a near one ----------------------------------------------------------------------


def test_functions_methods_and_attributes_reach_a_worker_of_another_host(far):
    assert far.run(jobs.add, 1, b=2) == 3
    assert far.with_connection(lambda connection, x: x * 2, 21) == 42
    assert far.call("add", [1], [2]) == [1, 2]
    assert far.echo({"a": (1, None)}) == {"a": (1, None)}
    assert far.call("echo", value=b"x" * 2_000_000) == b"x" * 2_000_000


def test_exceptions_of_the_callers_function_arrive_as_they_are(far):
    with pytest.raises(KeyError, match="nothing") as caught:
        far.run(jobs.fail, "nothing")
    assert "jobs.py" in str(caught.value.__cause__)
    with pytest.raises(jobs.Odd) as caught:
        far.run(jobs.odd)
    assert (caught.value.a, caught.value.b) == (1, 2)
    with pytest.raises(MethodNotFound):
        far.nonsense()
    with pytest.raises(TypeError, match="its result cannot be sent back"):
        far.run(jobs.unsendable)
    with pytest.raises(TypeError, match="async def"):
        far.run(asyncio.sleep)
    assert idle(far)


def test_an_error_of_the_callers_function_that_looks_like_a_refusal_is_none(far, every, tmp_path):
    for pool in (far, every):
        path = tmp_path / pool.name
        with pytest.raises(PoolDown, match="of another pool"):
            pool.run(jobs.fail_as_a_pool_would, str(path))
        assert path.read_text() == "ran\n", "it must not run again on another host"


def test_the_callers_span_is_the_parent_of_those_in_a_worker_of_another_host(far):
    trace = pytest.importorskip("opentelemetry.trace", reason="needs opentelemetry-api")
    context = trace.SpanContext(0xABC, 0xDEF, False, trace.TraceFlags(1))
    with trace.use_span(trace.NonRecordingSpan(context)):
        assert far.run(jobs.trace) == "abc"
        assert far.call("add", 1, b=2) == 3
        with far.checkout() as lease:
            assert lease.run(jobs.trace) == "abc"
    assert far.run(jobs.trace) == "0"


def test_a_call_that_takes_too_long_is_interrupted(far, eventually):
    began = time.monotonic()
    with pytest.raises(CallTimeout):
        far.run(jobs.sleep, 30.0, call_timeout=0.2)
    assert time.monotonic() - began < 2.5
    eventually(lambda: idle(far))


def test_a_far_lease_has_one_worker_until_it_ends(far):
    lease = far.checkout()
    assert isinstance(lease, ClusterLease)
    with lease:
        assert {lease.run(jobs.pid) for _ in range(3)} == {lease.worker_pid}
        assert lease.echo(5) == 5
        assert lease.call("add", 1, 2) == 3
        assert not lease.closed
        assert "host" in repr(lease)
        with pytest.raises(KeyError):
            lease.run(jobs.fail, "x")
        assert lease.run(jobs.add, 1, 1) == 2
    assert lease.closed
    with pytest.raises(LeaseExpired):
        lease.run(jobs.pid)
    with pytest.raises(ValueError, match="has ended"):
        far.checkin(lease)
    with pytest.raises(TypeError, match="belongs to its process"):
        pickle.dumps(lease)


def test_a_near_lease_is_one_of_the_own_hosts_pool(every):
    with every.checkout() as lease:
        assert isinstance(lease, Lease)
        assert lease.run(jobs.pid) == lease.worker_pid


def test_a_far_lease_that_is_dropped_is_checked_in_with_a_warning(far, eventually):
    with pytest.warns(ResourceWarning, match="was dropped while open"):
        far.checkout()
    eventually(lambda: idle(far))


def test_figures_and_operations_are_of_all_hosts(every, eventually):
    assert set(every.status().hosts) == {"a", "b", "c"}
    assert set(every.status(host="b").hosts) == {"b"}
    assert sorted(info.host for info in every.workers()) == ["a", "b", "c"]
    with every.checkout(host="c"):
        assert len(every.leases()) == 1
        assert every.leases(host="b") == []
    assert every.metrics().average >= 0
    every.recycle(timeout=20.0)
    every.clear_cache()
    every.suspend()
    with pytest.raises(CheckoutTimeout):
        every.run(jobs.pid, checkout_timeout=0.1)
    every.resume()
    every.drain(timeout=5.0)
    assert every.status().state == "draining"
    every.resume()
    assert every.run(jobs.add, 1, 1) == 2


def test_a_keyed_lease_finds_its_state_on_its_host(far):
    homes = {}
    for key in ("ann", "bob", ("user", 3), "eve"):
        with far.checkout(key=key) as lease:
            assert lease.fresh
            homes[key] = lease.host
            lease.run(jobs.remember, key)
        if len(set(homes.values())) == 2:
            break
    assert set(homes.values()) == {"b", "c"}, "keys are spread over the hosts"
    key = next(reversed(homes))
    with far.checkout(key=key) as lease:
        assert (lease.host, lease.fresh) == (homes[key], False)
        assert lease.run(jobs.recall) == key
    assert key in [session.key for session in far.sessions()]
    assert far.end_session(key)
    assert not far.end_session(key)
    with far.checkout(key=key) as lease:
        assert lease.fresh
        assert lease.host == homes[key]
    far.end_session(key)

    async def main():
        async with far.aio.checkout(key=key) as lease:
            assert (lease.host, lease.fresh) == (homes[key], True)
            await lease.run(jobs.remember, key)
        assert key in [session.key for session in await far.aio.sessions()]
        assert await far.aio.end_session(key)

    asyncio.run(main())


def test_every_verb_of_a_pool_is_one_of_a_cluster_pool():
    def verbs(cls):
        return {name for name in dir(cls) if not name.startswith("_")}

    assert verbs(Pool) - verbs(ClusterPool) <= {"address"}
    assert verbs(AsyncPool) <= verbs(AsyncClusterPool)
    assert verbs(Lease) <= verbs(ClusterLease)
    assert verbs(AsyncLease) <= verbs(AsyncClusterLease)


def test_a_transaction_is_on_one_host(cluster, tmp_path):
    args = {"database": str(tmp_path / "x.db")}
    pool = cluster.start_pool(
        "sql", worker=SqliteWorker, worker_args=args, size=2, max_overflow=0, placement={"far": True}
    )
    pool.execute("create table t (x int)")
    pool.transaction(lambda connection: connection.execute("insert into t values (1)").rowcount)
    with pool.transaction() as tx:
        tx.execute("insert into t values (2)")
    with contextlib.suppress(KeyError), pool.transaction() as tx:
        tx.execute("insert into t values (3)")
        raise KeyError
    assert pool.execute("select x from t order by x").rows == [(1,), (2,)]
    assert pool.database_stats()["queries_executed"] >= 4
    assert {host for host, _ in pool.worker_stats()} == {"b", "c"}
    with pool.checkout() as lease:
        assert list(lease.iterate("select x from t order by x", batch=1)) == [(1,), (2,)]

    async def rows():
        async with pool.aio.checkout() as lease:
            return [row async for row in lease.iterate("select x from t order by x", batch=1)]

    assert asyncio.run(rows()) == [(1,), (2,)]
    cluster.stop_pool("sql")
    with pytest.raises(PoolNotFound):
        pool.execute("select 1")


def test_futures_and_map_use_workers_of_all_hosts(every):
    assert sorted(every.map(jobs.add, range(20), [1] * 20)) == list(range(1, 21))
    futures = [every.submit(jobs.sleep, 0.3) for _ in range(3)]
    began = time.monotonic()
    assert [future.result(10) for future in futures] == ["slept"] * 3
    assert time.monotonic() - began < 2
    assert every.submit(jobs.fail, "x").exception(10).args == ("x",)


# -- asyncio ------------------------------------------------------------------------------------------------------


def test_every_verb_as_a_coroutine(far, every):
    async def main():
        for pool in (far.aio, every.aio):
            assert await pool.run(jobs.add, 1, b=2) == 3
            assert await pool.call("echo", 7) == 7
            assert await pool.echo(8) == 8
            async with pool.checkout() as lease:
                assert await lease.run(jobs.pid) == lease.worker_pid
                assert await lease.echo(9) == 9
            with pytest.raises(KeyError):
                await pool.run(jobs.fail, "x")
            assert (await pool.status()).monitors == 0
            assert len(await pool.workers()) == len(
                await asyncio.gather(*(pool.run(jobs.pid) for _ in await pool.workers()))
            )
            await pool.suspend()
            await pool.resume()

    asyncio.run(main())


def test_cancelling_a_task_interrupts_its_worker_on_another_host(far, eventually):
    async def main():
        task = asyncio.ensure_future(far.aio.run(jobs.sleep, 30.0))
        await asyncio.sleep(0.3)
        assert (await far.aio.status()).monitors == 1
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    eventually(lambda: idle(far))
    assert far.run(jobs.add, 1, 1) == 2


def test_a_checkout_that_is_cancelled_leaves_no_lease_behind(far, eventually):
    async def main():
        async with far.aio.checkout(), far.aio.checkout():
            task = asyncio.ensure_future(far.aio._lease(True, 5.0, None))
            await asyncio.sleep(0.2)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(main())
    eventually(lambda: idle(far) and far.status().waiting == 0)


# -- what is lost -------------------------------------------------------------------------------------------------


def test_a_worker_that_dies_in_a_call_is_told_and_an_idle_one_is_not_noticed(db):
    with pytest.raises(WorkerDied):
        db.crash()
    for pid in pids(db).values():
        with contextlib.suppress(ProcessLookupError):  # that of the worker that has just died
            os.kill(pid, signal.SIGKILL)
    assert [db.run(jobs.add, 1, 1) for _ in range(4)] == [2] * 4


def test_a_call_whose_agent_dies_is_told_and_others_go_elsewhere_unseen(lossy, db, tmp_path, eventually):
    path = tmp_path / "ran"
    with ThreadPoolExecutor(2) as threads:
        futures = [threads.submit(db.run, jobs.note, str(path), str(n), 1.0) for n in range(2)]
        eventually(lambda: path.exists() and len(path.read_text().split()) == 2)
        lossy.kill_agent("b")
        assert [db.run(jobs.add, n, 1, checkout_timeout=5.0) for n in range(5)] == [1, 2, 3, 4, 5]
        outcomes = [future.exception(10) for future in futures]
    assert sorted(type(error).__name__ for error in outcomes) == ["NoneType", "WorkerDied"]
    died = next(error for error in outcomes if error)
    assert "host b" in str(died)
    assert "not run again" in str(died)
    assert sorted(path.read_text().split()) == ["0", "1"]
    eventually(lambda: set(Counter(db.run(jobs.pid) for _ in range(10))) == set(pids(db).values()), timeout=20)


def test_the_lease_of_a_caller_that_dies_is_given_back_and_its_call_interrupted(lossy, db, eventually):
    engine = lossy.engine("a")
    other = Cluster.with_engine(engine, "shop", start=False).pool("db")
    lease = other.checkout()
    with ThreadPoolExecutor(1) as thread:
        running = thread.submit(other.run, jobs.sleep, 30.0)
        eventually(lambda: db.status().monitors == 2)
        engine.die()
        eventually(lambda: db.status().monitors == 0)
        assert isinstance(running.exception(5), WorkerDied)
    with pytest.raises(LeaseExpired):
        lease.run(jobs.pid)


def test_the_leases_of_a_lost_host_are_over_and_the_rest_goes_on(lossy, db, shop, eventually):
    lease = db.checkout(host="c")
    lossy.lose("c")
    with pytest.raises((WorkerDied, LeaseExpired)):
        lease.run(jobs.pid)
    eventually(lambda: db.status().hosts.keys() == {"b"} and db.status().size == 2)
    assert db.run(jobs.add, 1, 1) == 2
    lossy.bring_back("c")
    eventually(lambda: db.status().hosts.keys() == {"b", "c"}, timeout=20)


def test_the_nodes_of_the_other_hosts_tell_what_happens_to_a_host(lossy, db, eventually):
    node = lossy.actors["agent/id-b"].target._node.system
    lossy.lose("c")
    eventually(lambda: {event.name for event in node.events("host.*")} == {"host.down"})
    eventually(lambda: [event.measurements for event in node.events("pool.share")] == [{"hosts": 1, "size": 2}])
    assert next(iter(node.events("pool.share"))).pool == "db"


@pytest.mark.slow
def test_without_a_host_the_error_names_those_there_are(lossy, shop, eventually):
    pool = shop.start_pool("alone", worker=EchoWorker, size=1, max_overflow=0, placement={"far": True}, most=1)
    for host in "bc":
        lossy.lose(host)
    try:
        with pytest.raises(PoolDown, match=r"pool 'alone' of cluster 'shop' has no host left: .*members: a"):
            pool.run(jobs.pid, checkout_timeout=1.0)
    finally:
        for host in "bc":
            lossy.bring_back(host)
    eventually(lambda: pool.run(jobs.add, 1, 1) == 2, timeout=20)


def test_importing_it_imports_no_ray():
    program = "import sys, actorpool.cluster as c; c.Cluster, c.ClusterPool; print('ray' in sys.modules)"
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "False"
