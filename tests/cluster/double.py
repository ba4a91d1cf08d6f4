"""An engine in one process: hosts, agents and processes that come and go as a test says, on one event loop."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import dataclasses
import functools
import itertools
import threading
from collections.abc import Iterator
from typing import Any

import actorpool
from actorpool.cluster import Cluster
from actorpool.cluster.agent import Agent
from actorpool.cluster.coordinator import Coordinator
from actorpool.cluster.engine import Lost
from actorpool.cluster.nodes import Node
from actorpool.core.cluster.members import Member
from actorpool.errors import PoolAlreadyExists, PoolNotFound, SystemDown
from actorpool.node import runtime
from actorpool.serialization import pickling
from actorpool.status import PoolStatus
from actorpool.workers.echo import EchoWorker


class DoublePending:
    def __init__(self, future: concurrent.futures.Future[Any]) -> None:
        self.future = future

    def result(self, timeout: float | None = None) -> Any:
        try:
            return self.future.result(timeout)
        except concurrent.futures.TimeoutError:
            raise TimeoutError from None

    async def wait(self) -> Any:
        return await asyncio.shield(asyncio.wrap_future(self.future))

    def cancel(self) -> None:
        self.future.task.cancel_soon()


class Token:
    def __init__(self) -> None:
        self.gone: concurrent.futures.Future[None] = concurrent.futures.Future()

    def end(self) -> None:
        if not self.gone.done():
            self.gone.set_result(None)


class Actor:
    """An agent or a coordinator, and what is asked of it."""

    def __init__(self, target: Any) -> None:
        self.target = target
        self.asked: set[Call] = set()
        self.tokens: list[Token] = []

    def die(self) -> None:
        for token in self.tokens:
            token.end()
        for call in list(self.asked):
            call.fail(Lost("the actor has died"))
        for task in list(self.target._tasks):
            task.get_loop().call_soon_threadsafe(task.cancel)
        node = getattr(self.target, "_node", None)
        if isinstance(node, Node) and node.ours:  # it ends with the process that started it
            node.system.shutdown()


class Call:
    def __init__(self, network: Network, actor: Actor, operation: str, args: Any) -> None:
        self.network = network
        self.actor = actor
        self.future: Any = concurrent.futures.Future()
        self.future.task = self
        actor.asked.add(self)
        network.loop.call_soon_threadsafe(self._start, operation, args)

    def _start(self, operation: str, args: Any) -> None:
        self.task = asyncio.ensure_future(getattr(self.actor.target, operation)(*args))
        self.task.add_done_callback(self._done)

    def _done(self, task: Any) -> None:
        self.actor.asked.discard(self)
        if self.future.done():
            return
        if task.cancelled():
            self.future.set_exception(Lost("cancelled"))
        elif task.exception() is not None:
            self.future.set_exception(task.exception())
        else:
            self.future.set_result(self.network.travel(task.result()))

    def cancel_soon(self) -> None:
        self.network.loop.call_soon_threadsafe(lambda: self.task.cancel())

    def fail(self, error: Exception) -> None:
        self.actor.asked.discard(self)
        if not self.future.done():
            self.future.set_exception(error)
        self.network.loop.call_soon_threadsafe(lambda: self.task.cancel())


class DoubleHandle:
    def __init__(self, network: Network, name: str) -> None:
        self.network = network
        self.name = name

    def ask(self, operation: str, *args: Any, token: Any = None) -> DoublePending:
        actor = self.network.actors.get(self.name)
        if actor is None:
            future: Any = concurrent.futures.Future()
            future.set_exception(Lost("The actor is restarting.", sent=False))
            return DoublePending(future)
        args = self.network.travel(args) + (() if token is None else (token,))
        return DoublePending(Call(self.network, actor, operation, args).future)

    def hold(self) -> Token:
        token = Token()
        actor = self.network.actors.get(self.name)
        if actor is None:
            token.end()
        else:
            actor.tokens.append(token)
        return token


_numbers = itertools.count(1)


class Network:
    """All hosts.

    Args:
        hosts: names and labels.
        open_node: makes a host's `Node`.
    """

    def __init__(self, hosts: dict[str, dict[str, Any]], open_node: Any) -> None:
        self.hosts = {f"id-{name}": Member(f"id-{name}", name, labels) for name, labels in hosts.items()}
        self.lost: dict[str, Member] = {}
        self.open_node = open_node
        self.node = f"double-{next(_numbers)}"
        self.actors: dict[str, Actor] = {}
        self.systems: list[Any] = []
        self.engines: list[DoubleEngine] = []
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()

    def travel(self, value: Any) -> Any:
        """What arrives on another host."""
        return pickling.loads(pickling.dumps(value))

    def engine(self, host: str) -> DoubleEngine:
        engine = DoubleEngine(self, f"id-{host}")
        self.engines.append(engine)
        return engine

    def on_loop(self, make: Any) -> Any:
        """Make something on the event loop, also when called on it."""
        if threading.current_thread() is self.thread:
            return make()

        async def call() -> Any:
            return make()

        return asyncio.run_coroutine_threadsafe(call(), self.loop).result(10)

    def kill(self, name: str) -> None:
        """An actor's process ends, and is restarted when it is needed."""
        actor = self.actors.pop(name, None)
        if actor is not None:
            actor.die()

    def kill_agent(self, host: str) -> None:
        self.kill(f"agent/id-{host}")

    def kill_coordinator(self) -> None:
        self.kill("coordinator")
        self.start("coordinator", lambda: Coordinator(self.engine("coordinator"), self.node))

    def lose(self, host: str) -> None:
        """A host is gone, and everybody is told."""
        self.lost[f"id-{host}"] = self.hosts.pop(f"id-{host}")
        self.kill_agent(host)
        for engine in self.engines:
            if engine.here == f"id-{host}":
                engine.die()

    def bring_back(self, host: str) -> None:
        member = dataclasses.replace(self.lost.pop(f"id-{host}"))
        self.hosts[f"id-{host}"] = member

    def start(self, name: str, make: Any) -> DoubleHandle:
        if name not in self.actors:
            self.actors[name] = self.on_loop(lambda: Actor(make()))
        return DoubleHandle(self, name)

    def close(self) -> None:
        for name in list(self.actors):
            self.kill(name)
        asyncio.run_coroutine_threadsafe(self._finish(), self.loop).result(10)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(10)
        self.loop.close()
        for system in self.systems:  # of agents that died while they started one
            system.shutdown()

    async def _finish(self) -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        _, stuck = await asyncio.wait(tasks, timeout=5) if tasks else (None, ())
        assert not stuck, stuck
        await self.loop.shutdown_default_executor()


class DoubleEngine:
    def __init__(self, network: Network, here: str) -> None:
        self.network = network
        self.here = here
        self.tokens: list[Token] = []

    def members(self) -> list[Member]:
        return list(self.network.hosts.values())

    def agent(self, host: str) -> DoubleHandle:
        if f"agent/{host}" not in self.network.actors:
            raise Lost(f"no agent on {host}", sent=False)
        return Holding(self, f"agent/{host}")

    def start_agent(self, host: str) -> DoubleHandle:
        if host not in self.network.hosts:
            raise Lost(f"no host {host}", sent=False)
        engine = self.network.engine(host.removeprefix("id-"))
        name = host.removeprefix("id-")
        opened = functools.partial(self.network.open_node, self.network, name)
        self.network.start(f"agent/{host}", lambda: Agent(engine, opened, lambda: self.network.kill(f"agent/{host}")))
        return Holding(self, f"agent/{host}")

    def agents(self) -> list[DoubleHandle]:
        return [Holding(self, name) for name in self.network.actors if name.startswith("agent/")]

    def coordinator(self, start: bool) -> DoubleHandle:
        if start:
            engine = self.network.engine("coordinator")
            self.network.start("coordinator", lambda: Coordinator(engine, self.network.node))
        elif "coordinator" not in self.network.actors:
            raise Lost("no coordinator", sent=False)
        return Holding(self, "coordinator")

    def end(self, handle: DoubleHandle) -> None:
        self.network.kill(handle.name)

    async def ended(self, token: Any) -> None:
        await asyncio.shield(asyncio.wrap_future(token.gone))

    def die(self) -> None:
        """The process ends without a word."""
        for token in self.tokens:
            token.end()

    def close(self) -> None:
        self.die()


class Holding(DoubleHandle):
    """A handle of one process: its tokens end with that."""

    def __init__(self, engine: DoubleEngine, name: str) -> None:
        super().__init__(engine.network, name)
        self.engine = engine

    def hold(self) -> Token:
        token = super().hold()
        self.engine.tokens.append(token)
        return token


# -- nodes --------------------------------------------------------------------------------------------------------


def real_node(network: Network, host: str) -> Node:
    """A node of real processes; that of host "a" has the name by which clients of that host find it."""
    system = actorpool.start(network.node if host == "a" else f"{network.node}-{host}")
    network.systems.append(system)
    return Node(system, lambda: runtime.serves(system.directory), ours=True)


@contextlib.contextmanager
def with_nodes(network: Network) -> Iterator[Cluster]:
    """A cluster that has started the node of each host, so that no test is the first to have processes started."""
    with Cluster.with_engine(network.engine("a"), "shop") as cluster:
        cluster.start_pool("first", worker=EchoWorker, size=len(network.hosts), max_overflow=0)
        cluster.stop_pool("first")
        yield cluster


class FakePool:
    """A pool that has nothing but a size."""

    def __init__(self, name: str, config: Any) -> None:
        self.name, self.size, self.max_overflow = name, config.size, config.max_overflow

    @property
    def aio(self) -> FakePool:
        return self

    async def resize(self, size: int, max_overflow: int) -> None:
        self.size, self.max_overflow = size, max_overflow

    async def status(self) -> PoolStatus:
        return PoolStatus(self.name, "ready", self.size, 0, self.size, 0, 0, total=self.size)


class FakeSystem:
    """A node that only remembers; `refusing`: what starting a pool raises."""

    def __init__(self) -> None:
        self.pools: dict[str, FakePool] = {}
        self.refusing: Exception | None = None

    def start_pool(self, name: str, config: Any) -> FakePool:
        if self.refusing is not None:
            raise self.refusing
        if name in self.pools:
            raise PoolAlreadyExists(name)
        self.pools[name] = FakePool(name, config)
        return self.pools[name]

    def pool(self, name: str) -> FakePool:
        return self.pools[name]

    def stop_pool(self, name: str) -> None:
        if self.pools.pop(name, None) is None:
            raise PoolNotFound(name)

    def shutdown(self) -> None:
        self.pools.clear()


class FakeNodes:
    """Fake nodes by host; `missing`: hosts on which none can run."""

    def __init__(self) -> None:
        self.systems: dict[str, FakeSystem] = {}
        self.missing: set[str] = set()

    def __call__(self, network: Network, host: str) -> Node:
        if host in self.missing:
            raise SystemDown(f"no node runs on {host}")
        return Node(self.systems.setdefault(host, FakeSystem()), lambda: True, ours=False)

    def sizes(self, pool: str) -> dict[str, int]:
        return {host: system.pools[pool].size for host, system in self.systems.items() if pool in system.pools}
