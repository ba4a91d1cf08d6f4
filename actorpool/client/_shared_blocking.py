"""The ways to a shared pool: over the channel, and by Thespian's messages.

Questions are asked again when the pool is restarted meanwhile. A call is not: once the pool (or, under a loan, the
worker) may have read it, it may have taken effect.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from actorpool._protocol.shared import CallAll, CancelCall, SharedCall
from actorpool.client import client_errors
from actorpool.client._blocking import THREADS, drive
from actorpool.client._channel import PoolAsker
from actorpool.client._messages import PoolMessages
from actorpool.client._transport import pauses
from actorpool.serialization import pickling
from actorpool.transport import client as lines
from actorpool.transport import frames
from actorpool.transport.client import ClientConn, Gone, NotDelivered, TimedOut
from actorpool.transport.paths import Endpoint

if TYPE_CHECKING:
    from actorpool.transport.aio import AioConn

MAX_LOANS = 64
"""Loans that one line keeps; only a program that calls as many resources by turns forgets some, and asks the pool."""
REACH = 5.0
"""Seconds to find the pool's process again, for a call without a timeout of its own."""
STARTING = 10.0
"""Seconds beyond its timeout that `add` waits for the pool's verdict: a new process has to be made."""
_NO_LIMIT = float("inf")


class Route(NamedTuple):
    """Where calls of a method to a resource go: two pickles, and the name."""

    resource: bytes
    data: bytes
    method: str


@functools.lru_cache(maxsize=256)
def _known_route(resource: Any, method: str) -> Route:
    return Route(pickling.dumps(resource), pickling.dumps((resource, method)), method)


class SharedCallRequest:
    """A call as its frame will say it.

    Args:
        resource, method, args, kwargs, where, timeout: as of `SharedPool.call`.

    Raises:
        Exception: whatever a user's value raises that cannot be pickled.
    """

    __slots__ = ("payload", "route", "timeout", "where")

    def __init__(
        self,
        resource: Any,
        method: str,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        where: Any,
        timeout: float | None,
    ) -> None:
        try:
            self.route = _known_route(resource, method)  # a program has but a few different ones
        except TypeError:  # not hashable: no connection's resource, as the pool will say
            self.route = _known_route.__wrapped__(resource, method)
        self.where = b"" if where is None else pickling.dumps(where)
        self.payload = pickling.dumps_call(method, args, kwargs)
        self.timeout = timeout

    def head(self, timeout: float | None) -> bytes:
        """The first part of its frame's body; `timeout`: what is left of it, in seconds."""
        data, where = self.route.data, self.where
        return frames.SHARED_HEAD.pack(_NO_LIMIT if timeout is None else timeout, len(data), len(where)) + data + where


class Loan:
    """A connection that the pool has lent to one line, which is alone with it: calls may go straight to the worker.

    Args:
        path: the worker's socket.
        number, seal: of the loan.
        methods: what the pool would send to this connection.
    """

    __slots__ = ("head", "methods", "path")

    def __init__(self, path: str, number: int, seal: int, methods: frozenset[str]) -> None:
        self.path = path
        self.methods = methods
        self.head = frames.CALL_HEAD.pack(number, 0, seal)


def keep_loan(
    line: ClientConn | AioConn, endpoint: Endpoint, route: Route, body: bytes | memoryview
) -> bytes | memoryview:
    """Note the loan that a `LENT` frame tells; the value that is in the frame as well."""
    number, seal, pid, length = frames.LOAN_HEAD.unpack_from(body)
    end = frames.LOAN_HEAD.size + length
    if len(line.loans) >= MAX_LOANS:
        line.loans.clear()
    methods = frozenset(pickling.loads(body[frames.LOAN_HEAD.size : end]))
    line.loans[route.resource] = Loan(endpoint.worker(pid), number, seal, methods)
    return body[end:]


def take_loan(line: ClientConn | AioConn, work: SharedCallRequest) -> Loan | None:
    """The loan by which a call can go straight to its worker. It is the taker's until he puts it back."""
    route = work.route
    if not line.loans or work.timeout is not None or work.where:
        return None
    loan: Loan | None = line.loans.pop(route.resource, None)
    return loan if loan is not None and route.method in loan.methods else None


Answer = tuple[int, Any]
"""Kind and body of a frame."""


class SharedChannel:
    """The way over the channel; blocking, safe to share between threads.

    Args:
        endpoint: the system's channel, or its directory.
        pool: the pool's name.
    """

    def __init__(self, endpoint: Endpoint | str, pool: str) -> None:
        self.asker = PoolAsker(endpoint, pool)
        self.pool, self.endpoint, self.path = pool, self.asker.endpoint, self.asker.path

    def __repr__(self) -> str:
        return repr(self.asker)

    def ask(self, request: Any, timeout: float | None = 5.0) -> Any:
        """Ask the pool something; as `PoolTransport.ask`."""
        return drive(self.asker.ask(THREADS, request, timeout))

    def call(
        self, resource: Any, method: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], where: Any, timeout: Any
    ) -> Any:
        """Have a method called on one connection and return its result; see `SharedPool.call`."""
        work = SharedCallRequest(resource, method, args, kwargs, where, timeout)
        kind, body = self._lent(work) or self._once(frames.SHARED, work.payload, work, method, timeout)
        if kind == frames.RESULT:
            return client_errors.result(body)
        raise frames.load_error(body)

    def call_all(self, request: CallAll) -> Any:
        """Have a method called on every connection; see `SharedPool.map`."""
        kind, body = self._once(frames.ASK, pickling.dumps(request), None, request.method, request.timeout)
        if kind == frames.REPLY:
            return client_errors.result(body)
        raise frames.load_error(body)

    # -- by the pool ----------------------------------------------------------------------------------------

    def _once(
        self, kind: int, body: bytes, work: SharedCallRequest | None, method: str, timeout: float | None
    ) -> Answer:
        """Send a frame that must not be read twice, and wait for its answer."""
        began = time.perf_counter()
        reach = began + (REACH if timeout is None else timeout)
        deadline = None if timeout is None else reach + client_errors.grace(timeout)
        for pause in pauses():
            if pause:
                drive(self.asker.again(THREADS, pause, began, reach))
            try:
                line = lines.take(self.path, self.endpoint.seconds, reach)
                left = timeout if timeout is None or not pause else max(reach - time.perf_counter(), 0.0)
                return self._exchange(line, kind, body, work, left, deadline)
            except NotDelivered:
                lines.forget(self.path)
            except Gone:
                lines.forget(self.path)
                raise client_errors.pool_ended(self.pool, method) from None
            except TimedOut:
                raise client_errors.shared_timeout(self.pool, method, time.perf_counter() - began) from None
        raise AssertionError

    def _exchange(
        self,
        line: ClientConn,
        kind: int,
        body: bytes,
        work: SharedCallRequest | None,
        left: float | None,
        deadline: float | None,
    ) -> Answer:
        ref = line.new_ref()
        try:
            line.send(kind, ref, body, b"" if work is None else work.head(left), deadline)
            kind, answer = line.receive(ref, deadline)
        except (NotDelivered, Gone):
            raise
        except BaseException:  # timed out or interrupted: nobody waits for it any more
            line.cancel(ref)
            raise
        if kind == frames.LENT:
            assert work is not None
            kind, answer = frames.RESULT, keep_loan(line, self.endpoint, work.route, answer)
        lines.give(line)
        return kind, answer

    # -- straight to the worker -----------------------------------------------------------------------------

    def _lent(self, work: SharedCallRequest) -> Answer | None:
        """The answer of the worker whose connection is lent to a free line; None: the pool is to be asked."""
        line = lines.take_free(self.path)
        if line is None:
            return None
        loan = take_loan(line, work)
        answer = None
        if loan is not None:
            answer = self._straight(loan, work)
            if answer is not None:
                line.loans[work.route.resource] = loan
        lines.give(line)
        return answer

    def _straight(self, loan: Loan, work: SharedCallRequest) -> Answer | None:
        try:
            worker = lines.take(loan.path, self.endpoint.seconds)
            ref = worker.new_ref()
            worker.send(frames.CALL, ref, work.payload, loan.head)
            answer = worker.receive(ref)
        except NotDelivered:  # it was not read: the pool finds another one
            lines.forget(loan.path)
            return None
        except Gone:
            lines.forget(loan.path)
            raise client_errors.lent_died(self.pool, work.route.method) from None
        lines.give(worker)
        return None if answer[0] == frames.NOT_STARTED else answer


class SharedMessages(PoolMessages):
    """The way by Thespian's messages."""

    def ask(self, request: Any, timeout: float | None = 5.0) -> Any:
        """Ask the pool something; as `PoolTransport.ask`."""
        return self.ask_now(request, timeout)

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
        patience = None if timeout is None else timeout + client_errors.grace(timeout)
        answer = None
        try:
            answer = self.mail.ask(address, request, patience, lambda: self._ended(request.method))
        finally:
            if answer is None:  # timed out or interrupted: nobody waits for it any more
                self.mail.tell(address, CancelCall(self.pool, ref=request.ref, caller=request.caller))
        if answer is None:
            raise client_errors.shared_timeout(self.pool, request.method, time.monotonic() - began)
        return answer.unwrap()

    def _ended(self, method: str) -> BaseException | None:
        return client_errors.pool_ended(self.pool, method) if self._moved() else None


SharedTransport = SharedChannel | SharedMessages
