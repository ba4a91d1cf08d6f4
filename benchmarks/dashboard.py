"""What the dashboard costs, and how its page bears many pools: `python -m benchmarks.dashboard`, about three minutes.

One node with 50 pools of 10 workers and a dashboard. What pools are asked is counted by a second server, in a thread
of this process, whose questions to the node are counted on their way; all else is measured on the node's own.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import httpx
import psutil

import actorpool
from actorpool.benchmarks import browser
from actorpool.workers import EchoWorker

POOLS, WORKERS, READERS = 50, 10, 50
WINDOW = 15.0
"""Seconds of each measurement."""
EVENTS = 10_000
EVENTS_A_SECOND = 500
MOST_SECONDS = 60.0
"""For all of them; on a machine that is too slow for that there are fewer."""


class Counting:
    """A `System` that counts how often pools are asked for something: one of them, or, by `tree()`, all."""

    def __init__(self, system: Any, asked: Counter[str]) -> None:
        self._system = system
        self._asked = asked
        self._node_client = self  # whose `pool` is used to ask one directly

    def __getattr__(self, name: str) -> Any:
        return getattr(self._system, name)

    def tree(self) -> Any:
        """As `System.tree`."""
        self._asked["tree"] += 1
        return self._system.tree()

    def metrics(self, name: str) -> Any:
        """As `System.metrics`."""
        self._asked[name] += 1
        return self._system.metrics(name)

    def pool(self, name: str) -> Any:
        """As `System.pool`; a handle is made to ask once."""
        self._asked[name] += 1
        return self._system.pool(name)


@contextlib.contextmanager
def counted_server(node: str) -> Iterator[tuple[tuple[str, int], Counter[str]]]:
    """A dashboard's server in a thread: where it listens, and what it has asked the node's pools."""
    from actorpool.dashboard.collector import Collector
    from actorpool.dashboard.server import Server, server_of

    asked: Counter[str] = Counter()
    with socket.create_server(("127.0.0.1", 0)) as ours:
        servers: list[Server] = []

        async def run() -> None:
            collector = Collector(lambda: Counting(actorpool.connect(node), asked))  # type: ignore[arg-type, return-value]
            servers.append(server_of(collector, ours))
            await servers[0].serve([ours])

        thread = threading.Thread(target=lambda: asyncio.run(run()), daemon=True)
        thread.start()
        yield ours.getsockname()[:2], asked
        servers[0].should_exit = True
        thread.join(10)


class Readers:
    """Programs that read the page's stream, as many as are wanted, in a thread."""

    def __init__(self, address: tuple[str, int], number: int) -> None:
        self.bytes = 0
        self._lines = [socket.create_connection(address) for _ in range(number)]
        for line in self._lines:
            line.sendall(b"GET /api/events?state=1&after=0 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        import selectors

        with selectors.DefaultSelector() as waiting:
            for line in self._lines:
                waiting.register(line, selectors.EVENT_READ)
            while waiting.get_map():
                for key, _ in waiting.select():
                    data = key.fileobj.recv(1 << 20)  # type: ignore[union-attr]
                    self.bytes += len(data)
                    if not data:
                        waiting.unregister(key.fileobj)

    def close(self) -> None:
        """Read no more."""
        for line in self._lines:
            with contextlib.suppress(OSError):
                line.shutdown(socket.SHUT_RDWR)
        self._thread.join(10)
        for line in self._lines:
            line.close()


def processes(system: Any) -> tuple[list[int], list[int]]:
    """The pids of all processes of a node: those of its dashboard's server, and the others."""
    root = system.tree()
    dashboard = next(child for child in root.children[0].children if child.id == "dashboard")
    served = psutil.Process(dashboard.pid).children(recursive=True)  # its keeper, and the server
    top = psutil.Process(root.pid)
    while (above := top.parent()) is not None and above.pid not in (1, os.getpid()):
        top = above
    found = {top.pid, *(each.pid for each in top.children(recursive=True))}
    server = {each.pid for each in served}
    return sorted(server), sorted(found - server)


def processor_seconds(pids: list[int]) -> float:
    """What these have used so far, to the nanosecond."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            for task in os.listdir(f"/proc/{pid}/task"):
                with contextlib.suppress(OSError), open(f"/proc/{pid}/task/{task}/schedstat") as file:
                    total += int(file.read().split()[0])
    return total / 1e9


def share(pids: list[int], seconds: float) -> float:
    """The share of a core, in percent, that these use in that time."""
    before, began = processor_seconds(pids), time.monotonic()
    time.sleep(seconds)
    return (processor_seconds(pids) - before) / (time.monotonic() - began) * 100


def load_of_readers(system: Any) -> dict[str, float]:
    """What 50 readers cost the node's other processes, and its own server."""
    address = httpx.URL(system.dashboard)
    server, pids = processes(system)
    without = share(pids, WINDOW)
    readers = Readers((address.host, address.port or 80), READERS)
    try:
        time.sleep(3)  # the beginning is not the rule
        before, began = processor_seconds(server), time.monotonic()
        with_them = share(pids, WINDOW)
        of_server = (processor_seconds(server) - before) / (time.monotonic() - began) * 100
    finally:
        readers.close()
    return {
        "node_without_readers_percent_of_a_core": without,
        "node_with_50_readers_percent_of_a_core": with_them,
        "difference_percent_of_a_core": with_them - without,
        "server_percent_of_a_core": of_server,
    }


def questions(system: Any) -> dict[str, float]:
    """How often a pool is asked with 50 readers, and with none."""
    with counted_server(system.name) as (address, asked):
        readers = Readers(address, READERS)
        try:
            time.sleep(2)
            asked.clear()
            began = time.monotonic()
            time.sleep(WINDOW)
            took = time.monotonic() - began
            rates = {name: count / took for name, count in asked.items()}
        finally:
            readers.close()
        time.sleep(2)
        asked.clear()
        time.sleep(5)
        most = max((rate for name, rate in rates.items() if name != "tree"), default=0.0)
        if most < 0.2:
            raise RuntimeError(
                f"a pool was asked {most:.2f} times a second: the readers see nothing, or it is not counted"
            )
        return {
            "a_pool_is_asked_times_a_second_at_most": most,
            "tree_times_a_second_while_nothing_changes": rates.get("tree", 0.0),
            "questions_in_5_s_without_readers": float(sum(asked.values())),
        }


def burst(system: Any) -> tuple[int, float, float]:
    """10 000 events: how many there were, in how many seconds, and how often a server asked for the tree in one."""
    names = system.pools()
    with counted_server(system.name) as (address, asked), contextlib.ExitStack() as stack:
        full = system.pool(names[0])
        for _ in range(WORKERS):
            stack.enter_context(full.checkout())
        readers = Readers(address, 1)
        stack.callback(readers.close)
        time.sleep(2)
        asked.clear()
        began, first = time.monotonic(), system.events()[-1].number
        for number in range(EVENTS):
            if time.monotonic() > began + MOST_SECONDS:
                break
            if number % 100:
                with contextlib.suppress(actorpool.CheckoutTimeout):
                    full.checkout(timeout=0)  # a caller in vain
            else:
                with contextlib.suppress(actorpool.ActorPoolError):  # it is slow to answer on a busy machine
                    system.pool(names[1]).resize(WORKERS, number // 100 % 2)  # the tree may have changed
            time.sleep(max(0.0, began + number / EVENTS_A_SECOND - time.monotonic()))
        took = time.monotonic() - began
        return system.events()[-1].number - first, took, asked["tree"] / took


def page(system: Any) -> dict[str, float]:
    """First paint, nodes and heap of the page, before and after 10 000 events."""
    with browser.chromium() as driver:
        driver.execute_cdp_cmd("Performance.enable", {})
        paints = []
        for _ in range(3):
            driver.get("about:blank")
            driver.get(system.dashboard)
            told = (
                "return performance.getEntriesByName('first-contentful-paint').map(each => each.startTime)[0] ?? null"
            )
            deadline = time.monotonic() + 10
            while (paint := driver.execute_script(told)) is None and time.monotonic() < deadline:
                time.sleep(0.05)
            paints.append(paint)
        time.sleep(12)  # a look at the samples among it
        before = _state(driver)
        events, took, trees = burst(system)
        time.sleep(5)
        after = _state(driver)
        return {
            "first_contentful_paint_ms": max(paints),
            "dom_nodes": before["nodes"], "dom_nodes_after_10000_events": after["nodes"],
            "heap_mb": before["heap"], "heap_mb_after_10000_events": after["heap"],
            "events": float(events),
            "seconds_of_events": took, "tree_times_a_second_meanwhile": trees,
            "console_messages": float(len(driver.get_log("browser"))),
        }  # fmt: skip


def _state(driver: Any) -> dict[str, float]:
    driver.execute_cdp_cmd("HeapProfiler.enable", {})
    for _ in range(2):
        driver.execute_cdp_cmd("HeapProfiler.collectGarbage", {})
    told = {one["name"]: one["value"] for one in driver.execute_cdp_cmd("Performance.getMetrics", {})["metrics"]}
    nodes = driver.execute_script(
        "let count = 0; const all = document.createTreeWalker(document); while (all.nextNode()) count++; return count"
    )
    return {"nodes": nodes, "heap": told["JSHeapUsedSize"] / 2**20}


LIMITS = {
    "difference_percent_of_a_core": 2.0,
    "a_pool_is_asked_times_a_second_at_most": 1.2,
    "tree_times_a_second_while_nothing_changes": 0.0,
    "questions_in_5_s_without_readers": 0.0,
    "first_contentful_paint_ms": 1000.0,
    "dom_nodes": 6000.0,
    "dom_nodes_after_10000_events": 6000.0,
    "heap_mb": 10.0,
    "heap_mb_after_10000_events": 10.0,
    "tree_times_a_second_meanwhile": 1.0,
    "console_messages": 0.0,
}


def main() -> int:
    """Measure everything; 1 if a limit is missed. Writes JSON."""
    if missing := browser.missing():
        print(f"needs {' and '.join(missing)}", file=sys.stderr)
        return 2
    with actorpool.start(dashboard=0) as system:
        for number in range(POOLS):
            system.start_pool(f"pool-{number}", worker=EchoWorker, size=WORKERS, max_overflow=0)
        figures: dict[str, float] = {}
        for part in (load_of_readers, questions, page):
            print(f"{part.__name__} ...", file=sys.stderr, flush=True)
            figures |= (found := part(system))
            print(found, file=sys.stderr, flush=True)
    print(json.dumps({name: round(value, 2) for name, value in figures.items()}, indent=1))
    missed = [
        f"{name}: {figures[name]:.2f}, wanted at most {most:g}" for name, most in LIMITS.items() if figures[name] > most
    ]
    print("\n".join(missed) or "every limit is kept", file=sys.stderr)
    return int(bool(missed))


if __name__ == "__main__":
    sys.exit(main())
