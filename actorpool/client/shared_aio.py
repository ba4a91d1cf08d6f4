"""`AsyncSharedPool`: the verbs of `SharedPool` as coroutines on the running event loop."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Hashable, Mapping
from typing import TYPE_CHECKING, Any

from actorpool import portable, sharing
from actorpool.channel import wire
from actorpool.channel.aioline import AioLine, answered
from actorpool.channel.line import Gone, NotDelivered, TimedOut
from actorpool.client import faults
from actorpool.client.aio_link import AioAsker
from actorpool.client.link import pauses
from actorpool.client.shared_link import REACH, SharedChannel, SharedMail, frame_parts, head
from actorpool.sharing import CallAll
from actorpool.status import ConnInfo

if TYPE_CHECKING:
    from actorpool.client.shared import SharedPool


class AioShared(AioAsker):
    """The way over the channel: any number of calls under way on one connection, told apart by their refs."""

    async def call(
        self, resource: Any, method: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], where: Any, timeout: Any
    ) -> Any:
        """As `SharedChannel.call`."""
        route, where, payload = frame_parts(resource, method, args, kwargs, where)
        kind, body = await self._once(wire.SHARED, payload, (route, where), method, timeout)
        if kind == wire.RESULT:
            return faults.result(body)
        raise wire.load_error(body)

    async def call_all(self, request: CallAll) -> Any:
        """As `SharedChannel.call_all`."""
        kind, body = await self._once(wire.ASK, portable.dumps(request), None, request.method, request.timeout)
        if kind == wire.REPLY:
            return faults.result(body)
        raise wire.load_error(body)

    async def _once(
        self, kind: int, body: bytes, way: tuple[bytes, bytes] | None, method: str, timeout: float | None
    ) -> tuple[int, Any]:
        """Send a frame that must not be read twice, and wait for its answer."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        reach = began + (REACH if timeout is None else timeout)
        for pause in pauses():
            try:
                line = await self._line(pause, began, reach)
                left = timeout if timeout is None or not pause else max(reach - loop.time(), 0.0)
                return await self._exchange(line, kind, body, b"" if way is None else head(left, *way), left)
            except NotDelivered:
                continue
            except Gone:
                raise faults.pool_ended(self.pool, method) from None
            except TimedOut:
                raise faults.shared_timeout(self.pool, method, loop.time() - began) from None
        raise AssertionError

    async def _exchange(
        self, line: AioLine, kind: int, body: bytes, lead: bytes, timeout: float | None
    ) -> tuple[int, Any]:
        ref, future = line.request(kind, body, lead)
        try:
            return await answered(future, None if timeout is None else timeout + faults.grace(timeout))
        except (NotDelivered, Gone):
            raise
        except BaseException:  # timed out or cancelled: nobody waits for it any more
            line.forget(ref)
            line.tell(wire.CANCEL, ref)
            raise


class ThreadedShared:
    """The same for pools that can only be reached by Thespian's messages, which block: each request in a thread."""

    def __init__(self, link: SharedMail) -> None:
        self.link = link

    async def ask(self, request: Any, timeout: float | None = 5.0) -> Any:
        """As `SharedMail.ask`."""
        return await self._in_thread(self.link.ask, request, timeout)

    async def call(self, *values: Any) -> Any:
        """As `SharedMail.call`."""
        return await self._in_thread(self.link.call, *values)

    async def call_all(self, request: CallAll) -> Any:
        """As `SharedMail.call_all`."""
        return await self._in_thread(self.link.call_all, request)

    async def _in_thread(self, function: Any, *values: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(None, functools.partial(function, *values))


class AsyncSharedPool:
    """`SharedPool` for asyncio: no thread per call, any number of event loops. Got by `pool.aio`.

    Cancelling an awaited call takes it out of its queue; one that runs is left to end, and its result is dropped.

    Args:
        pool: the handle whose pool it is.
    """

    def __init__(self, pool: SharedPool) -> None:
        self._pool = pool
        self.name = pool.name
        link = pool._link
        self._link = AioShared(link) if isinstance(link, SharedChannel) else ThreadedShared(link)

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
    ) -> int:
        """As `SharedPool.add`."""
        from actorpool.client.shared import STARTING  # that module knows this one

        args = {} if worker_args is None else worker_args
        request = sharing.AddConnection(self.name, worker, args, resource, extra, ttl, revive, timeout)
        return await self._link.ask(request, timeout + STARTING)  # type: ignore[no-any-return]

    async def info(self, id: int) -> ConnInfo:
        """As `SharedPool.info`."""
        return await self._link.ask(sharing.GetConnection(self.name, id))  # type: ignore[no-any-return]

    async def extra(self, id: int, value: Any) -> Any:
        """As `SharedPool.extra`."""
        return await self._link.ask(sharing.SetExtra(self.name, id, value))

    async def update(self, resource: Hashable, where: Any = None, **settings: Any) -> int:
        """As `SharedPool.update`."""
        request = sharing.UpdateConnections(self.name, resource, where, settings)
        return await self._link.ask(request)  # type: ignore[no-any-return]

    async def pop(self, id: int) -> ConnInfo:
        """As `SharedPool.pop`."""
        return await self._link.ask(sharing.PopConnection(self.name, id), None)  # type: ignore[no-any-return]

    async def pop_all(self, resource: Hashable, where: Any = None) -> list[ConnInfo]:
        """As `SharedPool.pop_all`."""
        request = sharing.PopConnections(self.name, resource, where)
        return await self._link.ask(request, None)  # type: ignore[no-any-return]

    async def is_empty(self, resource: Hashable) -> bool:
        """As `SharedPool.is_empty`."""
        return await self._link.ask(sharing.IsEmpty(self.name, resource))  # type: ignore[no-any-return]

    async def resources(self) -> list[Any]:
        """As `SharedPool.resources`."""
        return await self._link.ask(sharing.ListResources(self.name))  # type: ignore[no-any-return]

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
            sharing.check_call(method, where, timeout)
        return await self._link.call(resource, method, args, kwargs, where, timeout)

    async def map(
        self, resource: Hashable, method: str, /, *args: Any, timeout: float | None = None, **kwargs: Any
    ) -> dict[int, Any]:
        """As `SharedPool.map`."""
        request = sharing.CallAll(self.name, resource, method, args, kwargs, None, timeout)
        return await self._link.call_all(request)  # type: ignore[no-any-return]

    def __repr__(self) -> str:
        return f"<asyncio side of {self._pool!r}>"
