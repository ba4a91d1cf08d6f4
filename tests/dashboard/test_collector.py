"""How often a node is asked, however many watch."""

from __future__ import annotations

import asyncio
import time
from collections import Counter

import pytest

from actorpool.dashboard import collector
from actorpool.dashboard.collector import Collector
from actorpool.messages import Event
from actorpool.status import PoolMetrics, PoolStatus, TreeNode

EVERY = 0.02


class Node:
    """A node of one pool that counts what it is asked."""

    name = "shop"

    def __init__(self):
        self.asked = Counter()
        self.kept = []
        self.state = "running"
        self._node_client = self  # whose pools are asked directly

    def pool(self, name):
        return self

    def _ask(self, request, timeout):
        return self.status("write")

    def pools(self):
        return ["write"]

    def status(self, name):
        self.asked["status"] += 1
        return PoolStatus(name, "ready", size=1, overflow=0, workers=1, waiting=0, monitors=0)

    def metrics(self, name):
        self.asked["metrics"] += 1
        return PoolMetrics((), 0, 0, 0.0)

    def tree(self):
        self.asked["tree"] += 1
        return TreeNode("root", "supervisor", 1, self.state)

    def events(self, after, limit):
        return [event for event in self.kept if event.number > after][-limit:]

    def happens(self, name, number=None):
        number = number if number is not None else len(self.kept) + 1
        self.kept.append(Event(name, "write", 1.0, {}, {}, number=number))


@pytest.fixture
def node(monkeypatch):
    monkeypatch.setattr(collector, "EVERY", EVERY)
    return Node()


async def until(told):
    for _ in range(500):
        if told():
            return
        await asyncio.sleep(EVERY / 4)
    raise AssertionError("not within 500 looks")


def watched(node, readers, scene):
    """Have so many read while `scene(collector, streams)` runs."""

    async def run():
        watching = Collector(lambda: node)
        await watching.fresh()
        streams = [watching.streams.open(state=True) for _ in range(readers)]
        watching.watch()
        try:
            return await scene(watching, streams)
        finally:
            watching.close()

    return asyncio.run(run())


def test_a_pool_is_asked_once_for_each_look_however_many_read(node):
    async def scene(watching, streams):
        loop = asyncio.get_running_loop()
        began = loop.time()
        await until(lambda: node.asked["status"] >= 10)
        return loop.time() - began

    took = watched(node, 50, scene)
    assert node.asked["status"] <= took / (EVERY * 0.9) + 2
    assert node.asked["metrics"] == 1  # every ten seconds


def test_a_look_that_takes_long_does_not_make_looks_rarer(node, monkeypatch):
    monkeypatch.setattr(collector, "EVERY", 0.2)
    whole = node.status

    def slowly(name):
        time.sleep(0.08)
        return whole(name)

    monkeypatch.setattr(node, "status", slowly)

    async def scene(watching, streams):
        loop = asyncio.get_running_loop()
        began = loop.time()
        wanted = node.asked["status"] + 6
        await until(lambda: node.asked["status"] >= wanted)
        return loop.time() - began

    most = 6 * 0.2 * 1.6  # it would be twice as long
    assert any(watched(node, 1, scene) < most for _ in range(3))  # the machine may be busy meanwhile


def test_nobody_is_asked_when_nobody_reads(node):
    async def scene(watching, streams):
        await until(lambda: node.asked["status"] >= 3)
        for stream in streams:
            watching.streams.drop(stream)
        await asyncio.sleep(EVERY * 3)
        before = node.asked.total()
        await asyncio.sleep(EVERY * 10)
        return node.asked.total() - before

    assert watched(node, 3, scene) == 0


def test_the_tree_is_asked_for_only_after_something_has_changed(node):
    async def scene(watching, streams):
        counts = []

        async def looks(number):
            wanted = node.asked["status"] + number
            await until(lambda: node.asked["status"] >= wanted)
            counts.append(node.asked["tree"])

        await looks(5)
        node.happens("pool.timeout")
        await looks(5)
        for _ in range(20):
            node.happens("worker.restarted")
        await looks(5)
        return counts

    assert watched(node, 2, scene) == [1, 1, 2]


def test_a_tree_with_something_that_is_being_restarted_is_asked_for_again(node, monkeypatch):
    monkeypatch.setattr(collector, "UNSETTLED_AFTER", EVERY)
    node.state = "restarting"

    async def scene(watching, streams):
        await until(lambda: node.asked["tree"] >= 3)
        node.state = "running"
        await until(lambda: watching.seen_tree.state == "running")
        before = node.asked["tree"], node.asked["status"] + 5
        await until(lambda: node.asked["status"] >= before[1])
        return node.asked["tree"] - before[0]

    assert watched(node, 1, scene) == 0


def test_events_that_were_gone_before_they_could_be_asked_for_are_told_as_a_gap(node):
    node.happens("worker.died", 1)

    async def scene(watching, streams):
        reading = streams[0].frames()
        node.happens("worker.died", 40)
        got = b""
        while b"event: gap" not in got:
            got += await reading.__anext__()
        return got

    assert b'event: gap\ndata: {"dropped":38}\n\nid: 40\n' in watched(node, 1, scene)
