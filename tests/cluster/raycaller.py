"""Programs on hosts of a Ray cluster, told what to do by lines: `python raycaller.py callers|holder|local|... ...`."""

from __future__ import annotations

import sys
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable
from typing import Any

from actorpool.cluster import Cluster
from actorpool.workers.echo import EchoWorker
from tests.cluster import jobs


def say(*words: Any) -> None:
    sys.stdout.write(" ".join(map(str, words)).replace("\n", " ") + "\n")
    sys.stdout.flush()


def callers(ran: str) -> None:
    """Starts a pool of nine on the hosts of role db, and has four threads call it until it reads a line."""
    cluster = Cluster("shop")
    pool = cluster.start_pool("db", worker=EchoWorker, size=9, max_overflow=0, placement={"role": "db"})
    client, stop = cluster._client, threading.Event()
    answered: Counter[str] = Counter()
    errors: Counter[str] = Counter()

    def call() -> None:
        while not stop.is_set():
            began = time.monotonic()
            try:
                pool.run(jobs.note, ran, uuid.uuid4().hex, 0.03)
                answered["all"] += 1
            except Exception as error:
                errors[type(error).__name__] += 1
                say("error", type(error).__name__, f"after {time.monotonic() - began:.2f} s:", error)
                time.sleep(0.01)

    def watch() -> None:
        seen: Any = None
        while not stop.is_set():
            shares = client.view.shares.get("db", {})
            now = sorted(shares.values()), tuple(sorted(client.host_name(host) for host in shares))
            if now != seen:
                seen = now
                say("shares", *now)
            time.sleep(0.01)

    threads = [threading.Thread(target=target, daemon=True) for target in [call] * 4 + [watch]]
    for thread in threads:
        thread.start()
    say("ready")
    sys.stdin.readline()
    stop.set()
    for thread in threads:
        thread.join(10)
    status = pool.status()
    say("stopped", "answered", answered["all"], "errors", dict(errors), "leases", status.monitors, "size", status.size)
    sys.stdin.readline()
    cluster.shutdown()
    say("ended")


def holder() -> None:
    """Takes a lease of host h2, and keeps it."""
    pool = Cluster.connect("shop").pool("db")
    lease = pool.checkout(host="h2")
    say("holds", lease.worker_pid)
    sys.stdin.readline()


def medians(rounds: int, *calls: Callable[[], Any]) -> list[float]:
    """The median duration of each call in µs, taken in turns, 50 calls each."""
    times: list[list[float]] = [[] for _ in calls]
    for _ in range(rounds):
        for one, call in zip(times, calls, strict=True):
            for _ in range(50):
                began = time.perf_counter()
                call()
                one.append(time.perf_counter() - began)
    return [1e6 * sorted(one)[len(one) // 2] for one in times]


def far(rounds: str) -> None:
    """Compares calls of a far worker with plain calls of actors of Ray on the same host, until it reads a line."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    class Plain:
        def echo(self, value: Any) -> Any:
            return value

    class Async:
        async def echo(self, value: Any) -> Any:
            return value

    cluster = Cluster("speed")
    pool = cluster.start_pool("db", worker=EchoWorker, size=1, max_overflow=0, placement={"role": "db"}, most=1)
    host = next(iter(cluster._client.view.shares["db"]))
    pinned = NodeAffinitySchedulingStrategy(host, soft=False)
    plain, other = (ray.remote(cls).options(num_cpus=0, scheduling_strategy=pinned).remote() for cls in (Plain, Async))
    while True:
        say(
            "p50",
            *medians(
                int(rounds),
                lambda: pool.echo(b"x"),
                lambda: ray.get(plain.echo.remote(b"x")),
                lambda: ray.get(other.echo.remote(b"x")),
            ),
        )
        if sys.stdin.readline() != "again\n":
            break
    cluster.shutdown()
    say("ended")


def near(rounds: str) -> None:
    """Calls of a pool of this host before, while and after its node takes part in a cluster."""
    import actorpool

    with actorpool.start("shop") as system:
        own = system.start_pool("own", worker=EchoWorker, size=1, max_overflow=0)
        own.echo(b"x")
        before = medians(int(rounds), lambda: own.echo(b"x"))
        with Cluster("shop") as cluster:
            pool = cluster.start_pool("db", worker=EchoWorker, size=1, max_overflow=0)
            pool.echo(b"x")
            say("pools", system.pools())
            joined = medians(int(rounds), lambda: own.echo(b"x"), lambda: pool.echo(b"x"))
        after = medians(int(rounds), lambda: own.echo(b"x"))
        say("p50", *before, *joined, *after)


def asker() -> None:
    """Asks the coordinator again and again what it knows, and says when it did not answer as quickly as else."""
    cluster = Cluster.connect("shop")
    say("asking")
    while True:
        began = time.monotonic()
        pools = cluster.pools()
        if (took := time.monotonic() - began) > 0.2:
            say("answered", pools, f"after {took:.2f}")
        time.sleep(0.005)


def local() -> None:
    """A program without Ray, on a host whose node it started itself: it calls without a pause until it reads a line."""
    import actorpool

    system = actorpool.start("shop")
    system.start_pool("own", worker=EchoWorker, size=2, max_overflow=0)
    own = system.pool("own")
    say("ready")
    stop = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.readline(), stop.set()), daemon=True).start()
    calls = errors = 0
    while not stop.is_set():
        try:
            own.echo(calls)
            calls += 1
        except Exception as error:
            errors += 1
            say("error", repr(error))
    say("stopped", "calls", calls, "errors", errors, "pools", system.pools())
    system.shutdown()


PROGRAMS = {"callers": callers, "holder": holder, "far": far, "near": near, "asker": asker, "local": local}

if __name__ == "__main__":
    PROGRAMS[sys.argv[1]](*sys.argv[2:])
