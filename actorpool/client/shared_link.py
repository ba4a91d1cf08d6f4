"""The ways to a shared pool: over the channel, and by Thespian's messages.

Questions are asked again when the pool is restarted meanwhile. A call is not: once the pool may have read it, it may
have taken effect.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from actorpool import portable
from actorpool.channel import line as lines
from actorpool.channel import wire
from actorpool.channel.line import Gone, Line, NotDelivered, TimedOut
from actorpool.client import faults
from actorpool.client.channel_link import PoolAsker
from actorpool.client.link import pauses
from actorpool.client.message_link import PoolMail
from actorpool.sharing import CallAll, CancelCall, SharedCall

REACH = 5.0
"""Seconds to find the pool's process again, for a call without a timeout of its own."""
_NO_LIMIT = float("inf")


@functools.lru_cache(maxsize=256)
def _known_route(resource: Any, method: str) -> bytes:
    return portable.dumps((resource, method))


def frame_parts(
    resource: Any, method: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], where: Any
) -> tuple[bytes, bytes, bytes]:
    """The parts of a `SHARED` frame: where it may go (two pickles), and what the worker gets.

    Raises:
        Exception: whatever a user's value raises that cannot be pickled.
    """
    try:
        route = _known_route(resource, method)  # a program has but a few different ones
    except TypeError:  # not hashable: no connection's resource, as the pool will say
        route = portable.dumps((resource, method))
    return route, b"" if where is None else portable.dumps(where), portable.dumps_call(method, args, kwargs)


def head(timeout: float | None, route: bytes, where: bytes) -> bytes:
    """The first part of a `SHARED` frame's body."""
    return wire.SHARED_HEAD.pack(_NO_LIMIT if timeout is None else timeout, len(route), len(where)) + route + where


class SharedChannel(PoolAsker):
    """The way over the channel; blocking, safe to share between threads."""

    def call(
        self, resource: Any, method: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], where: Any, timeout: Any
    ) -> Any:
        """Have a method called on one connection and return its result; see `SharedPool.call`."""
        route, where, payload = frame_parts(resource, method, args, kwargs, where)
        kind, body = self._once(wire.SHARED, payload, (route, where), method, timeout)
        if kind == wire.RESULT:
            return faults.result(body)
        raise wire.load_error(body)

    def call_all(self, request: CallAll) -> Any:
        """Have a method called on every connection; see `SharedPool.map`."""
        kind, body = self._once(wire.ASK, portable.dumps(request), None, request.method, request.timeout)
        if kind == wire.REPLY:
            return faults.result(body)
        raise wire.load_error(body)

    def _once(
        self, kind: int, body: bytes, way: tuple[bytes, bytes] | None, method: str, timeout: float | None
    ) -> tuple[int, bytes | memoryview]:
        """Send a frame that must not be read twice, and wait for its answer."""
        began = time.perf_counter()
        reach = began + (REACH if timeout is None else timeout)
        deadline = None if timeout is None else reach + faults.grace(timeout)
        for pause in pauses():
            try:
                line = self._line(pause, began, reach)
                left = timeout if timeout is None or not pause else max(reach - time.perf_counter(), 0.0)
                return self._exchange(line, kind, body, b"" if way is None else head(left, *way), deadline)
            except NotDelivered:
                lines.forget(self.path)
            except Gone:
                lines.forget(self.path)
                raise faults.pool_ended(self.pool, method) from None
            except TimedOut:
                raise faults.shared_timeout(self.pool, method, time.perf_counter() - began) from None
        raise AssertionError

    def _exchange(
        self, line: Line, kind: int, body: bytes, lead: bytes, deadline: float | None
    ) -> tuple[int, bytes | memoryview]:
        ref = line.new_ref()
        try:
            line.send(kind, ref, body, lead, deadline)
            answer = line.receive(ref, deadline)
        except (NotDelivered, Gone):
            raise
        except BaseException:  # timed out or interrupted: nobody waits for it any more
            with suppress(NotDelivered, TimedOut):
                line.send(wire.CANCEL, ref)
            raise
        lines.give(line)
        return answer


class SharedMail(PoolMail):
    """The way by Thespian's messages."""

    def call(
        self, resource: Any, method: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], where: Any, timeout: Any
    ) -> Any:
        """Have a method called on one connection and return its result; see `SharedPool.call`."""
        return self._once(SharedCall(self.pool, resource, method, args, kwargs, where, timeout))

    def call_all(self, request: CallAll) -> Any:
        """Have a method called on every connection; see `SharedPool.map`."""
        return self._once(request)

    def _once(self, request: SharedCall) -> Any:
        """Send a request that must not be handled twice, and wait for its answer."""
        timeout = request.timeout
        began = time.monotonic()
        address = self._pool_address(began + (REACH if timeout is None else timeout))
        patience = None if timeout is None else timeout + faults.grace(timeout)
        answer = None
        try:
            answer = self.mail.ask(address, request, patience, lambda: self._ended(request.method))
        finally:
            if answer is None:  # timed out or interrupted: nobody waits for it any more
                self.mail.tell(address, CancelCall(self.pool, ref=request.ref, caller=request.caller))
        if answer is None:
            raise faults.shared_timeout(self.pool, request.method, time.monotonic() - began)
        return answer.unwrap()

    def _ended(self, method: str) -> BaseException | None:
        return faults.pool_ended(self.pool, method) if self._moved() else None


SharedLink = SharedChannel | SharedMail
