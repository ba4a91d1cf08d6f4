"""The coordinator: carries out what `core.cluster.core` decides. A cluster has one, wherever the engine puts it.

It keeps nothing that the agents do not know, so the engine may restart it anywhere.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from actorpool._protocol.manager import Happened
from actorpool.cluster.engine import Engine, Handle, Lost
from actorpool.core.cluster.core import ClusterCore, Dismiss, Effect, Tell
from actorpool.core.cluster.members import Declaration, Orders, View
from actorpool.core.effects import Emit
from actorpool.errors import InvalidConfig, PoolAlreadyExists, PoolDown, PoolNotFound
from actorpool.messages import Event
from actorpool.serialization.exceptions import OpaqueError

log = logging.getLogger("actorpool.cluster")

LOOK_EVERY = 0.25
"""Seconds between two looks at the list of hosts."""
AGAIN = 0.1
"""Seconds until an agent that did not answer is told again."""
UNUSABLE_FOR = 5.0
"""Seconds until a host where no node could run is tried again."""
RECOVERY = 10.0
"""Seconds for the first agent to say what it knows when a coordinator starts."""
LATECOMERS = 0.5
"""Seconds for the others, once one has."""
GRACE = 5.0
"""Seconds that agents which are being told something may take when the cluster ends."""
PARTING = 1.0
"""Seconds that the agent of a host which has left goes on saying so, to callers that have not heard of it yet."""
KEPT = 1000
"""Events that are kept."""


class Coordinator:
    """All methods that are coroutines may be called from other hosts.

    Args:
        engine: of the coordinator's process.
        node: the name of each host's node, for callers of that host.
    """

    def __init__(self, engine: Engine, node: str) -> None:
        self._engine = engine
        self._node = node
        self._core = ClusterCore()
        self._epoch = time.time_ns()  # versions of one coordinator are never those of another
        self._change: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._failed: dict[str, BaseException] = {}
        self._watched: dict[str, Handle] = {}  # the agents, by host
        self._tasks: set[asyncio.Task[Any]] = set()
        self._ready = asyncio.Event()
        self._events: collections.deque[Event] = collections.deque(maxlen=KEPT)
        self._numbers = 0
        self._ending = False
        self._telling: set[asyncio.Task[Any]] = set()
        self._running = self._spawn(self._run())

    async def _run(self) -> None:
        await self._recover()
        while True:
            members = await asyncio.to_thread(self._engine.members)
            await self._carry(self._core.members_are(time.time(), members))
            self._ready.set()
            await asyncio.sleep(LOOK_EVERY)

    async def _recover(self) -> None:
        """Ask the agents, of which each knows everything; the pool that was changed last is as it was changed last."""
        asked = {self._spawn(self._known(handle)) for handle in await asyncio.to_thread(self._engine.agents)}
        heard: list[Orders] = []
        told: dict[str, Orders] = {}
        deadline = time.monotonic() + RECOVERY
        while asked and (left := deadline - time.monotonic()) > 0:
            done, asked = await asyncio.wait(asked, timeout=left, return_when=asyncio.FIRST_COMPLETED)
            for host, orders, carried_out in filter(None, (task.result() for task in done)):
                if orders is None:
                    continue
                if not heard:  # each knows everything but what was under way
                    deadline = min(deadline, time.monotonic() + LATECOMERS)
                heard.append(orders)
                if carried_out:
                    told[host] = orders
        declared: dict[str, Declaration] = {}
        gone: set[str] = set()
        for orders in heard:
            gone |= orders.left
            for name, known in orders.declared.items():
                other = declared.get(name)
                if other is None or (other.born, other.changed) < (known.born, known.changed):
                    declared[name] = known
        self._core = ClusterCore(declared, gone, told)

    async def _known(self, handle: Handle) -> tuple[str, Orders | None, bool] | None:
        try:
            return await handle.ask("known").wait()  # type: ignore[no-any-return]
        except Lost:
            return None

    # -- effects ----------------------------------------------------------------------------------------------

    async def _carry(self, effects: Iterable[Effect]) -> None:
        effects = list(effects)
        told = [effect for effect in effects if isinstance(effect, Emit)]
        if told and self._ready.is_set():  # at its start, what a coordinator finds is no news
            self._spread(told)
        for effect in effects:
            if isinstance(effect, Tell):
                if self._ending:
                    continue
                task = self._spawn(self._tell(effect.host, effect.orders))
                self._telling.add(task)
                task.add_done_callback(self._telling.discard)
            elif isinstance(effect, Dismiss):
                self._spawn(self._dismiss(effect.host))
            else:
                self._note(effect)
        if effects:
            self._changed()

    def _note(self, effect: Emit) -> None:
        self._numbers += 1
        metadata = dict(effect.metadata)
        self._events.append(Event(effect.name, metadata.pop("pool", ""), time.time(), effect.measurements, metadata))
        log.info("%s %s %s", effect.name, effect.metadata, effect.measurements)

    def _spread(self, told: list[Emit]) -> None:
        """Have the nodes of all hosts with an agent tell it, too."""
        events = [Happened(effect.name, effect.measurements, effect.metadata) for effect in told]
        for handle in self._watched.values():
            with contextlib.suppress(Lost):
                handle.ask("happened", events)

    async def _tell(self, host: str, orders: Orders) -> None:
        try:
            handle = await asyncio.to_thread(self._engine.start_agent, host)
            if host not in self._watched:
                self._watched[host] = handle
                self._spawn(self._watch(host, handle))
            unusable, failed = await handle.ask("assume", orders).wait()
        except Lost as loss:
            log.warning("host %s was not told its shares, and will be told again: %s", host, loss)
            await asyncio.sleep(AGAIN)
            await self._carry(self._core.failed(host, orders))
            return
        for name, error in failed.items():
            self._failed[name] = OpaqueError(error)
            log.warning("pool %s could not be started on host %s: %s", name, host, self._failed[name])
        if unusable is None:
            await self._carry(self._core.told(host, orders))
        else:
            log.warning("host %s can run no pool: %s", host, unusable)
            await self._carry(self._core.failed(host, orders, unusable, time.time() + UNUSABLE_FOR))
        self._changed()

    async def _watch(self, host: str, handle: Handle) -> None:
        """A token of the agent ends with its process: its successor has to be told everything."""
        await self._engine.ended(handle.hold())
        self._watched.pop(host, None)
        await self._carry(self._core.agent_lost(host))

    async def _dismiss(self, host: str) -> None:
        try:
            handle = await asyncio.to_thread(self._engine.agent, host)
            await handle.ask("leave").wait()
            await asyncio.sleep(PARTING)
            await asyncio.to_thread(self._engine.end, handle)
        except Lost:
            pass
        await self._carry(self._core.dismissed(host))

    # -- what clients ask -------------------------------------------------------------------------------------

    async def seen(self, version: int, timeout: float) -> View:
        """The view, as soon as it is another one than `version`, at the latest after `timeout` seconds."""
        await self._ready.wait()
        await self._until(lambda: self._version() != version, timeout)
        view = self._core.view()
        agents = {host: self._epoch + number for host, number in view.agents.items()}
        return replace(view, version=self._version(), agents=agents, node=self._node)

    def _version(self) -> int:
        return self._epoch + self._core.version

    async def declare(self, declaration: Declaration, timeout: float) -> BaseException | None:
        """Start a pool on all hosts that fit, and wait until it has been started everywhere.

        Returns:
            Why there is no such pool now; None: there is.
        """
        await self._ready.wait()
        name = declaration.name
        if name in self._core.declared:
            text = f"a pool named {name!r} is running in the cluster; it was not touched: stop it first"
            return PoolAlreadyExists(text, pool=name)
        self._failed.pop(name, None)
        await self._carry(self._core.declare(declaration))
        if not self._core.hosts_of(name):
            await self._carry(self._core.remove(name))
            hosts = {info.name: dict(info.labels) for info in self._core.view().hosts.values()}
            text = f"no host has {dict(declaration.placement or {})}; hosts and their labels are {hosts}"
            return InvalidConfig("Cluster.start_pool", {"placement": text})
        await self._until(lambda: name in self._failed or self._core.settled(name), timeout)
        if not self._core.hosts_of(name):
            await self._carry(self._core.remove(name))
            reasons = "; ".join(f"{one.name}: {one.reason}" for one in self._core.view().hosts.values() if one.reason)
            return PoolDown(f"pool {name!r} was started on no host ({reasons or 'all that fit were lost'})", pool=name)
        if name not in self._failed:  # it is started, or as good as: where a host is slow, the rest comes when it comes
            return None
        await self._carry(self._core.remove(name))
        return self._failed.pop(name)

    async def remove(self, name: str, timeout: float) -> BaseException | None:
        """Stop a pool everywhere, and wait until it is stopped."""
        await self._ready.wait()
        if name not in self._core.declared:
            known = ", ".join(sorted(self._core.declared)) or "none"
            return PoolNotFound(f"no pool named {name!r} is running in the cluster (running: {known})", pool=name)
        await self._carry(self._core.remove(name))
        await self._until(lambda: not self._core.runs(name), timeout)
        return None

    async def resize(
        self, name: str, size: int | None, max_overflow: int | None, timeout: float
    ) -> BaseException | None:
        """Change the sizes of all hosts together, and wait until each has its new share."""
        await self._ready.wait()
        if name not in self._core.declared:
            return PoolNotFound(f"no pool named {name!r} is running in the cluster", pool=name)
        await self._carry(self._core.resize(name, size, max_overflow))
        await self._until(lambda: name not in self._core.declared or self._core.settled(name), timeout)
        return None

    async def _until(self, done: Callable[[], bool], timeout: float) -> bool:
        """Wait for what the hosts do; whether it has come to that in time."""
        deadline = time.monotonic() + timeout
        while not done():
            if (left := deadline - time.monotonic()) <= 0:
                return False
            await asyncio.wait([self._change], timeout=left)
        return True

    def _changed(self) -> None:
        """Have those look who wait for something."""
        change, self._change = self._change, asyncio.get_running_loop().create_future()
        change.set_result(None)

    async def leave(self, host: str) -> None:
        """Have a host leave in order."""
        await self._ready.wait()
        await self._carry(self._core.leave(host))

    async def join(self, host: str) -> None:
        """Have a host that left take part again."""
        await self._ready.wait()
        await self._carry(self._core.join(host))

    async def events(self) -> list[Event]:
        """The last `KEPT` events of this coordinator."""
        return list(self._events)

    async def belong(self, token: Any) -> None:
        """End the cluster once the process that gave this token has ended."""
        self._spawn(self._end_with(token))

    async def _end_with(self, token: Any) -> None:
        await self._engine.ended(token)
        await self.shutdown()
        try:
            await asyncio.to_thread(self._engine.end, await asyncio.to_thread(self._engine.coordinator, False))
        except Lost:  # somebody else has ended it
            pass

    async def shutdown(self) -> None:
        """End all agents, and what they started. The caller then ends this coordinator."""
        self._ending = True
        self._running.cancel()
        for name in list(self._core.declared):
            self._core.remove(name)
        if self._telling:
            await asyncio.wait(self._telling, timeout=GRACE)  # an agent that is being started has to be found
        handles = await asyncio.to_thread(self._engine.agents)
        await asyncio.gather(*(self._end_agent(handle) for handle in handles))

    async def _end_agent(self, handle: Handle) -> None:
        try:
            await asyncio.wait_for(handle.ask("leave").wait(), 15.0)
        except (Lost, asyncio.TimeoutError):
            pass
        await asyncio.to_thread(self._engine.end, handle)

    def _spawn(self, work: Any) -> asyncio.Task[Any]:
        task: asyncio.Task[Any] = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
