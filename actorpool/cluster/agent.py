"""The agent of a host: has the host's node run what the coordinator says, and carries the calls of other hosts."""

from __future__ import annotations

import asyncio
import dataclasses
import os
from collections.abc import Awaitable, Callable
from typing import Any

from actorpool._protocol.manager import Happened
from actorpool.cluster.calls import RAISED, REFUSED, STRANGER, VALUE, is_refusal
from actorpool.cluster.engine import Engine
from actorpool.cluster.nodes import Node
from actorpool.core.cluster.members import Orders, Share
from actorpool.errors import ActorPoolError, LeaseExpired, PoolAlreadyExists, PoolDown, PoolNotFound
from actorpool.serialization import pickling
from actorpool.serialization.exceptions import dump_error
from actorpool.supervisors.upward import tell_manager

LOOK_EVERY = 0.5
"""Seconds between two looks at the host's own node and at the hosts of callers."""

Answer = tuple[str, Any]


class Agent:
    """All methods that are coroutines may be called from other hosts.

    Args:
        engine: of the agent's process.
        open_node: attaches to the host's node, or starts one; blocks. Raises `SystemDown` if there is to be none.
        fall: ends the process so that the engine starts another one.
    """

    def __init__(
        self, engine: Engine, open_node: Callable[[], Node], fall: Callable[[], None] = lambda: os._exit(1)
    ) -> None:
        self._engine = engine
        self._open_node = open_node
        self._fall = fall
        self._node: Node | None = None
        self._orders: Orders | None = None
        self._carried_out = False
        self._pools: dict[str, Any] = {}  # by name, their asyncio side
        self._shares: dict[str, Share] = {}
        self._leases: dict[str, tuple[str, Any]] = {}  # by number: the caller, and the lease
        self._unwanted: dict[str, None] = {}  # leases given back before they were granted
        self._callers: dict[str, set[asyncio.Task[Any]]] = {}  # what runs for each caller that is watched
        self._tasks: set[asyncio.Task[Any]] = set()
        self._lock = asyncio.Lock()
        self._members: frozenset[str] | None = None
        self._looking = False

    # -- the coordinator's ------------------------------------------------------------------------------------

    async def ping(self) -> int:
        """That it answers; the agent's process."""
        return os.getpid()

    async def known(self) -> tuple[str, Orders | None, bool]:
        """The host, its last orders, and whether it has carried them out; for a coordinator that starts again."""
        return self._engine.here, self._orders, self._carried_out

    async def assume(self, orders: Orders) -> tuple[str | None, dict[str, bytes]]:
        """Have the node run exactly what the orders say.

        Returns:
            Why no node can run here, or None; and by pool the error of those that could not be started.
        """
        async with self._lock:
            self._orders, self._carried_out = orders, False
            try:
                if self._node is None and orders.shares:
                    self._node = await asyncio.to_thread(self._open_node)
                    self._spawn(self._watch_node(self._node))
            except ActorPoolError as error:
                return str(error), {}
            wanted = list(orders.shares.items())
            results = await asyncio.gather(*(self._have(*one) for one in wanted), return_exceptions=True)
            failed: dict[str, bytes] = {}
            for (name, share), result in zip(wanted, results, strict=True):
                if isinstance(result, Exception):
                    failed[name] = dump_error(result, share.declaration.name)
            for name in [name for name in self._pools if name not in orders.shares]:
                await self._stop(name)
            self._carried_out = not failed
            return None, failed

    async def _have(self, name: str, share: Share) -> None:
        known = self._shares.get(name)
        if known is not None and known.declaration.born != share.declaration.born:
            await self._stop(name)
        if name not in self._pools:
            await self._start(name, share)
        elif (known and (known.size, known.max_overflow)) != (share.size, share.max_overflow):
            await self._pools[name].resize(share.size, share.max_overflow)
        self._shares[name] = share

    async def _start(self, name: str, share: Share) -> None:
        assert self._node is not None
        system, config = self._node.system, pickling.loads(share.declaration.config)
        config = dataclasses.replace(config, size=share.size, max_overflow=share.max_overflow, placement=None)
        try:
            pool = await asyncio.to_thread(system.start_pool, name, config)
        except PoolAlreadyExists:  # a former agent started it, in a node that goes on
            pool = await asyncio.to_thread(system.pool, name)
            await pool.aio.resize(share.size, share.max_overflow)
        self._pools[name] = pool.aio

    async def _stop(self, name: str) -> None:
        assert self._node is not None
        self._pools.pop(name, None)
        self._shares.pop(name, None)
        try:
            await asyncio.to_thread(self._node.system.stop_pool, name)
        except PoolNotFound:
            pass

    async def happened(self, events: list[Happened]) -> None:
        """Events of the cluster, for the sinks and the history of this host's node."""
        directory = getattr(self._node and self._node.system, "directory", None)
        for event in events if directory is not None else ():
            tell_manager(event, directory)

    async def leave(self) -> None:
        """Stop what was started here; the node, too, if it was. The coordinator ends this process next."""
        async with self._lock:
            for name in list(self._pools):
                await self._stop(name)
            node, self._node = self._node, None
            if node is not None:
                await asyncio.to_thread(node.system.shutdown)

    async def _watch_node(self, node: Node) -> None:
        """An agent without its node would refuse all calls for ever: end, so that the engine starts both anew."""
        while self._node is node:
            if not await asyncio.to_thread(node.serves):
                if self._node is node:
                    self._fall()
                return
            await asyncio.sleep(LOOK_EVERY)

    # -- callers ----------------------------------------------------------------------------------------------

    async def watch(self, caller: str, host: str, token: Any) -> None:
        """Serve a caller until its process ends, or its host.

        Args:
            caller: names the caller's process.
            host: where it runs.
            token: ends with it; see `Handle.hold`.
        """
        if caller not in self._callers:
            self._callers[caller] = set()
            self._spawn(self._until_gone(caller, host, token))
        if not self._looking:
            self._looking = True
            self._spawn(self._look())

    async def _look(self) -> None:
        while True:
            members = await asyncio.to_thread(self._engine.members)
            self._members = frozenset(member.id for member in members)
            await asyncio.sleep(LOOK_EVERY)

    async def _until_gone(self, caller: str, host: str, token: Any) -> None:
        """A process that ends is told by the token. A host that falls silent is only missing in the list of hosts."""
        ended = asyncio.ensure_future(self._engine.ended(token))
        while not ended.done() and (self._members is None or host in self._members):
            await asyncio.wait([ended], timeout=LOOK_EVERY / 2)
        ended.cancel()
        for task in list(self._callers.pop(caller)):
            task.cancel()
        for number in [number for number, (holder, _) in self._leases.items() if holder == caller]:
            _, lease = self._leases.pop(number)
            await lease.checkin()

    # -- calls ------------------------------------------------------------------------------------------------

    async def perform(self, caller: str, pool: str, verb: str, payload: bytes) -> Answer:
        """Use a verb of a pool, with arguments that were pickled as a pair."""
        if caller not in self._callers:
            return STRANGER, None
        args, kwargs = pickling.loads(payload)
        return await self._answer(caller, lambda: getattr(self._pool(pool), verb)(*args, **kwargs))

    async def look(self, pool: str, verb: str, payload: bytes) -> Answer:
        """Use a verb that looks at a pool or operates it; anybody may."""
        args, kwargs = pickling.loads(payload)
        return await self._answer("", lambda: getattr(self._pool(pool), verb)(*args, **kwargs))

    async def checkout(self, caller: str, number: str, pool: str, options: dict[str, Any]) -> Answer:
        """Lease a worker.

        Args:
            number: names the lease; the caller's choice, so that it can give back what it has not heard of.
            options: keywords of `checkout`.
        """
        if caller not in self._callers:
            return STRANGER, None

        async def lend() -> dict[str, Any]:
            lease = await self._pool(pool).checkout(**options)
            if caller not in self._callers or number in self._unwanted:
                self._unwanted.pop(number, None)
                await lease.checkin()
                raise LeaseExpired(f"pool {pool!r}: the caller has given up", pool=pool)
            self._leases[number] = (caller, lease)
            return _facts(lease)

        return await self._answer(caller, lend)

    async def lease(self, number: str, verb: str, payload: bytes) -> tuple[str, Any, dict[str, Any] | None]:
        """Use a verb of a lease.

        Returns:
            The answer, and the lease's facts; None: it has ended.
        """
        known = self._leases.get(number)
        if known is None:
            return RAISED, dump_error(LeaseExpired("the lease is over: given back, or its agent was restarted")), None
        caller, lease = known
        args, kwargs = pickling.loads(payload)
        kind, value = await self._answer(caller, lambda: getattr(lease, verb)(*args, **kwargs))
        if lease.closed:
            self._leases.pop(number, None)
        return kind, value, None if lease.closed else _facts(lease)

    async def checkin(self, number: str) -> None:
        """Give a lease back; one that is not granted yet will not be."""
        known = self._leases.pop(number, None)
        if known is not None:
            await known[1].checkin()
        else:
            self._unwanted[number] = None
            while len(self._unwanted) > 1000:  # of agents that were restarted, say
                self._unwanted.pop(next(iter(self._unwanted)))

    def _pool(self, name: str) -> Any:
        try:
            return self._pools[name]
        except KeyError:
            raise PoolDown(f"pool {name!r} has no share on this host now", pool=name) from None

    async def _answer(self, caller: str, act: Callable[[], Awaitable[Any]]) -> Answer:
        """What comes of it; a caller's end cancels the task that this runs in."""
        running, task = self._callers.get(caller, set()), asyncio.current_task()
        assert task is not None
        running.add(task)
        try:
            return VALUE, pickling.dumps(await act())
        except Exception as error:
            return (REFUSED if is_refusal(error) else RAISED), dump_error(error)
        finally:
            running.discard(task)

    def _spawn(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _facts(lease: Any) -> dict[str, Any]:
    """What a far holder of a lease may ask it."""
    names = ("id", "worker_id", "worker_pid", "fresh", "lost")
    return {name: getattr(type(lease), name).fget(lease) for name in names if hasattr(type(lease), name)}
