"""The driver of tasks: every step awaits, and is safe under cancellation.

Whatever ends an await (a timeout, a cancellation), the other side is told in the same step of the event loop. Telling
is only a send, so it needs no await that could be cancelled in turn.
"""

from __future__ import annotations

import asyncio
import functools
import time
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from actorpool.client import client_errors
from actorpool.client._blocking import THREADS
from actorpool.client._calls import LeaseHandle
from actorpool.client._driver import Answer, Driver, Queue, Read
from actorpool.transport import frames
from actorpool.transport.aio import AioConn, answered, conns_of
from actorpool.transport.client import Gone, NotDelivered

T = TypeVar("T")

_holders: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, ThreadPoolExecutor] = weakref.WeakKeyDictionary()


def _left(deadline: float | None) -> float | None:
    return None if deadline is None else max(deadline - time.perf_counter(), 0.0)


class Tasks(Driver):
    """Awaits on the running event loop; of any number of them. All tasks of a loop share its connections."""

    async def pause(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def connect(self, path: str, spin: float, deadline: float | None) -> AioConn:
        return await conns_of(asyncio.get_running_loop()).connect(path, deadline)

    def free(self, path: str) -> AioConn | None:
        return conns_of(asyncio.get_running_loop()).known(path)

    def release(self, conn: AioConn) -> None:
        """It is shared."""

    async def request(
        self, conn: AioConn, kind: int, body: bytes, deadline: float | None, read: Read[T], lead: bytes = b"",
        cancels: bool = False,
    ) -> T:  # fmt: skip
        ref, future = conn.request(kind, body, lead)
        try:
            return read(conn, *await answered(future, _left(deadline)))
        except (NotDelivered, Gone):
            raise
        except BaseException:  # timed out or cancelled, perhaps with the answer already here
            if cancels:
                conn.cancel(kind, ref)
            else:
                conn.give_up(kind, ref)
            raise

    async def call(
        self, lease: LeaseHandle, path: str, spin: float, head: bytes, payload: bytes, deadline: float | None
    ) -> Answer:
        here = conns_of(asyncio.get_running_loop())
        known: AioConn | None = lease.conn
        if known is not None and not known.here():
            raise NotDelivered(path)
        conn = known or await (here.own(path, deadline) if lease.sticky else here.connect(path, deadline))
        if lease.sticky:
            lease.conn = conn  # whatever ends the lease from now on hangs up
        while True:
            ref, future = conn.request(frames.CALL, payload, head)
            try:
                return await answered(future, _left(deadline))
            except NotDelivered:
                here.drop(conn)
                if known is not None or ref == 1:
                    raise
                conn = await here.connect(path, deadline)  # that one was to a predecessor of the same pid
            except BaseException:  # timed out or cancelled
                conn.give_up(frames.CALL, ref)
                raise

    def tell(self, path: str, spin: float, pid: int, kind: int, ref: int, body: bytes = b"") -> bool:
        """By the connection of this loop; if it has none any more, as a thread does."""
        conn = conns_of(asyncio.get_running_loop()).known(path)
        if conn is None or conn.pid != pid:
            return THREADS.tell(path, spin, pid, kind, ref, body)
        conn.tell(kind, ref, body)
        return True

    def sticky_path(self, path: str) -> str:
        """Those of this loop: a worker knows them by the connection that they are used by."""
        return f"{path}@{id(asyncio.get_running_loop())}"

    async def wait_sticky(self, path: str, seconds: float) -> LeaseHandle | None:
        """Not at all: it is no less work for a loop than to ask the pool."""
        return None

    async def wait_turn(self, queue: Queue, seconds: float) -> bool:
        ticket = queue.ticket()
        try:
            if not ticket.done():
                await asyncio.wait_for(asyncio.wrap_future(ticket), seconds)
        except BaseException as error:
            if queue.give_up(ticket):
                queue.leave()
            if isinstance(error, (asyncio.TimeoutError, TimeoutError)):
                return False
            raise
        return True

    async def in_thread(
        self, function: Callable[..., T], *args: Any, holder: bool = False, undo: Callable[[], object] | None = None
    ) -> T:
        loop = asyncio.get_running_loop()
        threads = _holders.get(loop) if holder else None
        if holder and threads is None:
            threads = _holders[loop] = ThreadPoolExecutor(thread_name_prefix="actorpool")
        try:
            return await loop.run_in_executor(threads, functools.partial(client_errors.in_thread, function, *args))
        except asyncio.CancelledError:
            if undo is not None:
                undo()
            raise

    def error(self, error: BaseException) -> BaseException:
        return client_errors.for_a_loop(error)


TASKS = Tasks()
