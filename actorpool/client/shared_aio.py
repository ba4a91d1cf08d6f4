"""`AsyncSharedPool`: the verbs of `SharedPool` as coroutines on the running event loop."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, Protocol

from actorpool._protocol import shared
from actorpool.client._asyncio import TASKS
from actorpool.client._shared_calls import STARTING, SharedTransport
from actorpool.serialization import tracing
from actorpool.status import ConnInfo


class _Handle(Protocol):
    """What an `AsyncSharedPool` shares with the `SharedPool` it belongs to."""

    name: str
    _transport: SharedTransport


class AsyncSharedPool:
    """`SharedPool` for asyncio: no thread per call, any number of event loops. Got by `pool.aio`.

    Cancelling an awaited call takes it out of its queue; one that runs is left to end, and its result is dropped.

    Args:
        pool: the handle whose pool it is.
    """

    def __init__(self, pool: _Handle) -> None:
        self._pool = pool
        self.name = pool.name
        self._transport = pool._transport

    def __reduce__(self) -> tuple[Any, ...]:
        return (AsyncSharedPool, (self._pool,))

    async def add(
        self,
        worker: Any,
        worker_args: Mapping[str, Any] | None = None,
        *,
        resource: Hashable = None,
        extra: Any = None,
        ttl: float | None = None,
        revive: bool | str = False,
        timeout: float = 5.0,
        penalties: Sequence[float] | None = None,
    ) -> int:
        """As `SharedPool.add`."""
        args = {} if worker_args is None else worker_args
        request = shared.AddConnection(self.name, worker, args, resource, extra, ttl, revive, timeout, penalties)
        return await self._ask(request, timeout + STARTING)  # type: ignore[no-any-return]

    async def info(self, id: int) -> ConnInfo:
        """As `SharedPool.info`."""
        return await self._ask(shared.GetConnection(self.name, id))  # type: ignore[no-any-return]

    async def extra(self, id: int, value: Any) -> Any:
        """As `SharedPool.extra`."""
        return await self._ask(shared.SetExtra(self.name, id, value))

    async def update(self, resource: Hashable, where: Any = None, **settings: Any) -> int:
        """As `SharedPool.update`."""
        request = shared.UpdateConnections(self.name, resource, where, settings)
        return await self._ask(request)  # type: ignore[no-any-return]

    async def pop(self, id: int) -> ConnInfo:
        """As `SharedPool.pop`."""
        return await self._ask(shared.PopConnection(self.name, id), None)  # type: ignore[no-any-return]

    async def pop_all(self, resource: Hashable, where: Any = None) -> list[ConnInfo]:
        """As `SharedPool.pop_all`."""
        request = shared.PopConnections(self.name, resource, where)
        return await self._ask(request, None)  # type: ignore[no-any-return]

    async def is_empty(self, resource: Hashable) -> bool:
        """As `SharedPool.is_empty`."""
        return await self._ask(shared.IsEmpty(self.name, resource))  # type: ignore[no-any-return]

    async def resources(self) -> list[Any]:
        """As `SharedPool.resources`."""
        return await self._ask(shared.ListResources(self.name))  # type: ignore[no-any-return]

    async def call(
        self,
        resource: Hashable,
        method: str,
        /,
        *args: Any,
        where: Any = None,
        timeout: float | None = None,
        **kwargs: Any,
    ) -> Any:
        """As `SharedPool.call`."""
        if timeout is not None or where is not None or type(method) is not str:
            shared.check_call(method, where, timeout)
        transport = self._transport
        return transport.value(await transport.call(TASKS, resource, method, args, kwargs, where, timeout), TASKS)

    async def map(
        self, resource: Hashable, method: str, /, *args: Any, timeout: float | None = None, **kwargs: Any
    ) -> dict[int, Any]:
        """As `SharedPool.map`."""
        request = shared.CallAll(self.name, resource, method, args, tracing.carried(kwargs), None, timeout)
        answer = await self._transport.call_all(TASKS, request)
        return self._transport.value(answer, TASKS)  # type: ignore[no-any-return]

    async def _ask(self, request: Any, timeout: float | None = 5.0) -> Any:
        return await self._transport.ask(TASKS, request, timeout)

    def __repr__(self) -> str:
        return f"<asyncio side of {self._pool!r}>"
