"""Programs on hosts of a Ray cluster, told what to do by lines: `python raycaller.py callers|holder|local ...`."""

from __future__ import annotations

import sys
import threading
import time
import uuid
from collections import Counter
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


def speed(rounds: str) -> None:
    """Compares calls of a far worker with plain calls of an actor of Ray on the same host, in turns."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    class Plain:
        async def echo(self, value: Any) -> Any:
            return value

    cluster = Cluster("speed")
    pool = cluster.start_pool("db", worker=EchoWorker, size=1, max_overflow=0, placement={"role": "db"}, most=1)
    host = next(iter(cluster._client.view.shares["db"]))
    pinned = NodeAffinitySchedulingStrategy(host, soft=False)
    plain = ray.remote(Plain).options(num_cpus=0, scheduling_strategy=pinned, max_concurrency=100).remote()
    ours: list[float] = []
    theirs: list[float] = []
    for _ in range(int(rounds)):
        for times, call in ((ours, lambda: pool.echo(b"x")), (theirs, lambda: ray.get(plain.echo.remote(b"x")))):
            for _ in range(50):
                began = time.perf_counter()
                call()
                times.append(time.perf_counter() - began)
    median = sorted(ours)[len(ours) // 2], sorted(theirs)[len(theirs) // 2]
    say("p50", *(f"{1e6 * one:.0f}" for one in median))
    cluster.shutdown()
    say("ended")


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


if __name__ == "__main__":
    {"callers": callers, "holder": holder, "speed": speed, "local": local}[sys.argv[1]](*sys.argv[2:])
