"""The leases that blocks `async with sessions(key):` have: what is called in them for the same key uses these."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Hashable, Mapping
from contextvars import ContextVar
from typing import Any

from actorpool.client.aio import AsyncLease
from actorpool.client.lease import Lease
from actorpool.client.pool import Pool


class Held:
    """The lease of a conversation that a block around this call has.

    Args:
        lease: the lease.
        loop: that of an `AsyncLease`.
    """

    def __init__(self, lease: Lease | AsyncLease, loop: asyncio.AbstractEventLoop | None = None) -> None:
        self.lease = lease
        self._loop = loop

    async def call(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call a method of the worker; cancelled, it is interrupted, and the lease is over."""
        lease = self.lease
        if isinstance(lease, AsyncLease):
            if asyncio.get_running_loop() is self._loop:
                return await lease.call(name, *args, **kwargs)
            return await asyncio.wrap_future(self._there(lease.call(name, *args, **kwargs)))
        try:
            return await asyncio.to_thread(lease.call, name, *args, **kwargs)
        except asyncio.CancelledError:
            transport: Any = lease._transport
            transport.abandon(lease._handle)
            raise

    def call_blocking(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The same without a loop.

        Raises:
            RuntimeError: it would stop the very loop on which the lease was got.
        """
        lease = self.lease
        if not isinstance(lease, AsyncLease):
            return lease.call(name, *args, **kwargs)
        try:
            running = asyncio.get_running_loop()
        except RuntimeError:
            running = None
        if running is self._loop:
            raise RuntimeError(
                f"{name}.sync was called on the event loop that has this session by `async with`, and would stop it: "
                f"await {name}(...), or call it in a thread"
            )
        return self._there(lease.call(name, *args, **kwargs)).result()

    def _there(self, work: Coroutine[Any, Any, Any]) -> Any:
        assert self._loop is not None
        return asyncio.run_coroutine_threadsafe(work, self._loop)


Blocks = Mapping[tuple[Pool, Hashable], Held]
_blocks: ContextVar[Blocks] = ContextVar("actorpool_held_sessions")


def held(pool: Pool | None, key: Hashable) -> Held | None:
    """What a block around this call has of a conversation; None: nothing, or its lease is over."""
    found = blocks().get((pool, key)) if pool is not None else None
    return None if found is None or found.lease.closed else found


def blocks() -> Blocks:
    """Those around this call."""
    return _blocks.get({})


def enter(pool: Pool, key: Hashable, lease: Held) -> None:
    """What is called from now on, in this context, is in a block that has that lease."""
    _blocks.set({**blocks(), (pool, key): lease})


def leave(outer: Blocks) -> None:
    """Only those blocks are around what is called from now on."""
    _blocks.set(outer)
