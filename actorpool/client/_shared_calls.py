"""The ways to a shared pool: over the channel, and by Thespian's messages.

Questions are asked again when the pool is restarted meanwhile. A call is not: once the pool (or, under a loan, the
worker) may have read it, it may have taken effect.
"""

from __future__ import annotations

import functools
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, NamedTuple

from actorpool._protocol.shared import CallAll, CancelCall, SharedCall
from actorpool.client import client_errors
from actorpool.client._blocking import THREADS, drive
from actorpool.client._channel import PoolAsker
from actorpool.client._driver import Answer, Driver, plain
from actorpool.client._messages import PoolMessages
from actorpool.client._transport import opened, pauses
from actorpool.messages import Err, Ok
from actorpool.serialization import pickling, tracing
from actorpool.transport import client, frames
from actorpool.transport.client import Gone, NotDelivered, TimedOut

MAX_LOANS = 64
"""Loans that a connection keeps; only a program that calls as many resources by turns forgets some."""
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
        self.payload = pickling.dumps_call(method, args, tracing.carried(kwargs))
        self.timeout = timeout

    def head(self, timeout: float | None) -> bytes:
        """The first part of its frame's body; `timeout`: what is left of it, in seconds."""
        data, where = self.route.data, self.where
        return frames.SHARED_HEAD.pack(_NO_LIMIT if timeout is None else timeout, len(data), len(where)) + data + where


class Loan:
    """A connection of the pool, lent to one connection of a client: calls may go straight to its worker.

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


def _take_loan(conn: Any, work: SharedCallRequest) -> Loan | None:
    """The loan by which a call can go straight to its worker. It is the taker's alone until it is put back."""
    route = work.route
    if not conn.loans or work.timeout is not None or work.where:
        return None
    loan: Loan | None = conn.loans.pop(route.resource, None)
    return loan if loan is not None and route.method in loan.methods else None


def _keep_if_run(conn: Any, loan: Loan | None, work: SharedCallRequest, answer: Answer | None) -> Answer | None:
    """Keep the loan by which a call was run; its answer, or None if it was not run."""
    if loan is None or answer is None or answer[0] == frames.NOT_STARTED:
        return None
    conn.loans.setdefault(work.route.resource, loan)
    return answer


class SharedTransport(ABC):
    """The way to one shared pool, for any thread and any event loop; a coroutine waits as its `driver` does."""

    @abstractmethod
    async def call(
        self, driver: Driver, resource: Any, method: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], where: Any,
        timeout: float | None,
    ) -> Any:  # fmt: skip
        """Have a method called on one connection and return the answer, for `value`; see `SharedPool.call`."""

    @abstractmethod
    def call_now(
        self, resource: Any, method: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], where: Any,
        timeout: float | None,
    ) -> Any:  # fmt: skip
        """The value of `call`, for a thread."""

    @abstractmethod
    async def call_all(self, driver: Driver, request: CallAll) -> Any:
        """Have a method called on every connection and return the answer; see `SharedPool.map`."""

    @abstractmethod
    def value(self, answer: Any, driver: Driver = THREADS) -> Any:
        """As `PoolTransport.value`."""

    @abstractmethod
    async def ask(self, driver: Driver, request: Any, timeout: float | None = 5.0) -> Any:
        """As `PoolTransport.ask`."""


class SharedChannel(PoolAsker, SharedTransport):
    """The way over the channel."""

    async def call(
        self, driver: Driver, resource: Any, method: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], where: Any,
        timeout: float | None,
    ) -> Answer:  # fmt: skip
        work = SharedCallRequest(resource, method, args, kwargs, where, timeout)
        answer = await self._lent(driver, work)
        return answer or await self._once(driver, frames.SHARED, work.payload, work, method, timeout)

    async def call_all(self, driver: Driver, request: CallAll) -> Answer:
        return await self._once(driver, frames.ASK, pickling.dumps(request), None, request.method, request.timeout)

    def value(self, answer: Answer, driver: Driver = THREADS) -> Any:
        kind, body = answer
        if kind == frames.ERROR:
            raise driver.error(frames.load_error(body))
        return client_errors.result(body)

    async def _once(
        self,
        driver: Driver,
        kind: int,
        body: bytes,
        work: SharedCallRequest | None,
        method: str,
        timeout: float | None,
    ) -> Answer:
        """Send a frame that must not be read twice, and wait for its answer."""
        began = time.perf_counter()
        reach = began + (REACH if timeout is None else timeout)
        deadline = None if timeout is None else reach + client_errors.grace(timeout)
        for pause in pauses():
            if pause:
                await self.again(driver, pause, began, reach)
            try:
                conn = await driver.connect(self.path, self.endpoint.seconds, reach)
                left = timeout if timeout is None or not pause else max(reach - time.perf_counter(), 0.0)
                lead = b"" if work is None else work.head(left)
                read = plain if work is None else functools.partial(self._keep_loan, work.route)
                return await driver.request(conn, kind, body, deadline, read, lead, cancels=True)
            except NotDelivered:
                continue
            except Gone:
                raise client_errors.pool_ended(self.pool, method) from None
            except TimedOut:
                raise client_errors.shared_timeout(self.pool, method, time.perf_counter() - began) from None
        raise AssertionError

    # -- straight to the worker -----------------------------------------------------------------------------

    def call_now(
        self, resource: Any, method: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], where: Any,
        timeout: float | None,
    ) -> Any:  # fmt: skip
        """By the loan of a free connection, it takes as few steps as can be."""
        work = SharedCallRequest(resource, method, args, kwargs, where, timeout)
        conn = client.take_free(self.path)
        loan = None if conn is None else _take_loan(conn, work)
        answer: Answer | None = None
        if loan is not None:
            try:
                worker = client.take(loan.path, self.endpoint.seconds)
                answer = worker.exchange(frames.CALL, loan.head, work.payload, None)
            except NotDelivered:  # it was not read
                client.forget(loan.path)
            except Gone:
                client.forget(loan.path)
                raise client_errors.lent_died(self.pool, method) from None
            else:
                client.give(worker)
        if conn is not None:
            answer = _keep_if_run(conn, loan, work, answer)
            client.give(conn)
        return self.value(answer or drive(self._once(THREADS, frames.SHARED, work.payload, work, method, timeout)))

    async def _lent(self, driver: Driver, work: SharedCallRequest) -> Answer | None:
        """The answer of the worker whose connection is lent to a free one to the pool; None: the pool is to be asked.

        One call at a time: another one that comes meanwhile goes to the pool, which then calls the connection back.
        """
        conn = driver.free(self.path)
        loan = None if conn is None else _take_loan(conn, work)
        answer: Answer | None = None
        if loan is not None:
            try:
                worker = await driver.connect(loan.path, self.endpoint.seconds, None)
                answer = await driver.request(worker, frames.CALL, work.payload, None, plain, loan.head)
            except NotDelivered:  # it was not read
                pass
            except Gone:
                raise client_errors.lent_died(self.pool, work.route.method) from None
        if conn is not None:
            answer = _keep_if_run(conn, loan, work, answer)
            driver.release(conn)
        return answer

    def _keep_loan(self, route: Route, conn: Any, kind: int, body: Any) -> Answer:
        """Note the loan that a `LENT` frame tells; the value is in the frame as well."""
        if kind != frames.LENT:
            return kind, body
        number, seal, pid, length = frames.LOAN_HEAD.unpack_from(body)
        end = frames.LOAN_HEAD.size + length
        if len(conn.loans) >= MAX_LOANS:
            conn.loans.clear()
        methods = frozenset(pickling.loads(body[frames.LOAN_HEAD.size : end]))
        conn.loans[route.resource] = Loan(self.endpoint.worker(pid), number, seal, methods)
        return frames.RESULT, body[end:]


class SharedMessages(PoolMessages, SharedTransport):
    """The way by Thespian's messages."""

    async def call(
        self, driver: Driver, resource: Any, method: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], where: Any,
        timeout: float | None,
    ) -> Ok | Err:  # fmt: skip
        request = SharedCall(self.pool, resource, method, args, tracing.carried(kwargs), where, timeout)
        return await driver.in_thread(self._once, request)

    def call_now(
        self, resource: Any, method: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], where: Any,
        timeout: float | None,
    ) -> Any:  # fmt: skip
        return self.value(
            self._once(SharedCall(self.pool, resource, method, args, tracing.carried(kwargs), where, timeout))
        )

    async def call_all(self, driver: Driver, request: CallAll) -> Ok | Err:
        return await driver.in_thread(self._once, request)

    def value(self, answer: Ok | Err, driver: Driver = THREADS) -> Any:
        return opened(answer, driver)

    async def ask(self, driver: Driver, request: Any, timeout: float | None = 5.0) -> Any:
        return await driver.in_thread(self.ask_now, request, timeout)

    def _once(self, request: SharedCall) -> Ok | Err:
        """Send a request that must not be handled twice, and wait for its answer."""
        timeout = request.timeout
        began = time.monotonic()
        address = self._pool_address(began + (REACH if timeout is None else timeout))
        patience = None if timeout is None else timeout + client_errors.grace(timeout)
        answer: Ok | Err | None = None
        try:
            answer = self.messages.ask(address, request, patience, lambda: self._ended(request.method))
        finally:
            if answer is None:  # timed out or interrupted: the answer is no longer wanted
                self.messages.tell(address, CancelCall(self.pool, ref=request.ref, caller=request.caller))
        if answer is None:
            raise client_errors.shared_timeout(self.pool, request.method, time.monotonic() - began)
        return answer

    def _ended(self, method: str) -> BaseException | None:
        return client_errors.pool_ended(self.pool, method) if self._moved() else None
