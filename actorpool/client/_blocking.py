"""The driver of threads: every step blocks, and nothing is left for a fork to inherit.

A connection is taken from the free ones of `transport.client` for each request, and given back when nothing is under
way on it any more.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine
from concurrent import futures
from typing import Any, TypeVar

from actorpool.client import _sticky
from actorpool.client._calls import LeaseHandle
from actorpool.client._driver import Answer, Driver, Queue, Read
from actorpool.transport import client, frames
from actorpool.transport.client import ClientConn, Gone, NotDelivered, TimedOut

T = TypeVar("T")


def drive(coroutine: Coroutine[Any, Any, T]) -> T:
    """Carry out a coroutine whose driver is `THREADS`: its first step is all of it."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]
    raise AssertionError(f"{coroutine!r} waits for what is no step of a thread")


class Threads(Driver):
    """Blocks the thread that calls it; safe to share."""

    async def pause(self, seconds: float) -> None:
        time.sleep(seconds)

    async def connect(self, path: str, spin: float, deadline: float | None) -> ClientConn:
        return client.take(path, spin, deadline)

    def free(self, path: str) -> ClientConn | None:
        return client.take_free(path)

    def release(self, conn: ClientConn) -> None:
        client.give(conn)

    async def request(
        self, conn: ClientConn, kind: int, body: bytes, deadline: float | None, read: Read[T], lead: bytes = b"",
        cancels: bool = False,
    ) -> T:  # fmt: skip
        ref = conn.new_ref()
        try:
            result = read(conn, *conn.exchange(kind, lead, body, deadline, ref))
        except (NotDelivered, Gone):
            client.forget(conn.path)
            raise
        except BaseException:  # timed out or interrupted
            if cancels:
                conn.cancel(ref)
            raise
        client.give(conn)
        return result

    async def call(
        self, lease: LeaseHandle, path: str, spin: float, head: bytes, payload: bytes, deadline: float | None
    ) -> Answer:
        free = None
        conn: ClientConn | None = lease.conn
        if conn is None and lease.conns:
            try:
                conn = lease.conns.pop()
            except IndexError:  # another thread has just taken it
                pass
        if conn is None:
            conn = free = client.take_free(path)
        if conn is None:
            conn = ClientConn(path, spin=spin, deadline=deadline)
        while True:
            try:
                answer = conn.exchange(frames.CALL, head, payload, deadline)
            except BaseException as problem:  # closed, so no late answer can come to another request
                conn.close()
                if not isinstance(problem, NotDelivered):
                    raise
                client.forget(path)
                if conn is not free:
                    raise
                conn = ClientConn(path, spin=spin, deadline=deadline)  # that one was to a predecessor of the same pid
                continue
            if lease.sticky:
                lease.conn = conn
            elif lease.open:
                lease.conns.append(conn)
            else:  # it ended meanwhile
                client.give(conn)
            return answer

    def tell(self, path: str, spin: float, pid: int, kind: int, ref: int, body: bytes = b"") -> bool:
        """If the process is gone, so is all it knew. If it does not read, a new connection has room for a frame."""
        for _ in range(2):
            try:
                conn = client.take(path, spin, time.perf_counter())
                told = conn.pid == pid and conn.tell(kind, ref, body)
            except (NotDelivered, TimedOut):
                pass
            else:
                if told or conn.pid != pid:
                    client.give(conn)
                    return told
            client.forget(path)  # a free one may be to a predecessor, or have no room: once more, by a new one
        return False

    def sticky_path(self, path: str) -> str:
        return path

    async def wait_sticky(self, path: str, seconds: float) -> LeaseHandle | None:
        return _sticky.wait(path, min(seconds, _sticky.PATIENCE))

    async def wait_turn(self, queue: Queue, seconds: float) -> bool:
        ticket = queue.ticket()
        try:
            futures.wait([ticket], seconds)
        except BaseException:  # interrupted
            if queue.give_up(ticket):
                queue.leave()
            raise
        return ticket.done() or queue.give_up(ticket)

    async def in_thread(
        self, function: Callable[..., T], *args: Any, holder: bool = False, undo: Callable[[], object] | None = None
    ) -> T:
        return function(*args)

    def error(self, error: BaseException) -> BaseException:
        return error


THREADS = Threads()
