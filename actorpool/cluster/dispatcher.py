"""What is submitted to a `ClusterPool`: worked off by the thread that works off what is submitted to pools."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from actorpool.client.futures import ASKING, FOREVER, Dispatcher, Submitted, check_interpreter, pools_loop

MOST = 1000
"""Calls under way at once; more are queued here."""


class ClusterDispatcher(Dispatcher):
    """Runs what is submitted, each call under a lease of its own, on whatever host has a worker."""

    def __init__(self, pool: Any) -> None:
        super().__init__(pools_loop(), MOST, ASKING)
        self.pool = pool

    def submit(self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Submitted:
        """Queue `fn(connection, *args, **kwargs)`."""
        check_interpreter()
        call = Submitted(fn, args, kwargs)
        self.put(call)
        return call

    async def ask_lease(self) -> Any:
        """Ask for a worker on any host."""
        return await self.pool.aio.checkout(timeout=FOREVER)

    async def turn(self, lease: Any) -> None:
        """Run the next call."""
        call = self.next()
        if call is not None:
            await call.run(lease)
