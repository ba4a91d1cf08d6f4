"""The ways to a shared pool for asyncio: the same promises as in `shared_link`, kept under cancellation."""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Mapping
from typing import Any

from actorpool._protocol.shared import CallAll
from actorpool.client import client_errors
from actorpool.client._asyncio import TASKS
from actorpool.client._shared_blocking import (
    REACH,
    Answer,
    Loan,
    SharedCallRequest,
    SharedChannel,
    SharedMessages,
    keep_loan,
    take_loan,
)
from actorpool.client._transport import pauses
from actorpool.serialization import pickling
from actorpool.transport import frames
from actorpool.transport.aio import AioConn, answered, conns_of
from actorpool.transport.client import Gone, NotDelivered, TimedOut


class AioShared:
    """The way over the channel: any number of calls under way on one connection, told apart by their refs."""

    def __init__(self, link: SharedChannel) -> None:
        self._asker = link.asker
        self.pool, self._endpoint, self._path = link.pool, link.endpoint, link.path

    async def ask(self, request: Any, timeout: float | None = 5.0) -> Any:
        """As `SharedChannel.ask`."""
        return await self._asker.ask(TASKS, request, timeout)

    async def call(
        self, resource: Any, method: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], where: Any, timeout: Any
    ) -> Any:
        """As `SharedChannel.call`."""
        work = SharedCallRequest(resource, method, args, kwargs, where, timeout)
        answer = await self._lent(work) or await self._once(frames.SHARED, work.payload, work, method, timeout)
        if answer[0] == frames.RESULT:
            return client_errors.result(answer[1])
        raise client_errors.for_a_loop(frames.load_error(answer[1]))

    async def call_all(self, request: CallAll) -> Any:
        """As `SharedChannel.call_all`."""
        kind, body = await self._once(frames.ASK, pickling.dumps(request), None, request.method, request.timeout)
        if kind == frames.REPLY:
            return client_errors.result(body)
        raise client_errors.for_a_loop(frames.load_error(body))

    # -- by the pool ----------------------------------------------------------------------------------------

    async def _once(
        self, kind: int, body: bytes, work: SharedCallRequest | None, method: str, timeout: float | None
    ) -> Answer:
        """Send a frame that must not be read twice, and wait for its answer."""
        began = time.perf_counter()
        reach = began + (REACH if timeout is None else timeout)
        for pause in pauses():
            if pause:
                await self._asker.again(TASKS, pause, began, reach)
            try:
                line = await TASKS.connect(self._path, 0.0, reach)
                left = timeout if timeout is None or not pause else max(reach - time.perf_counter(), 0.0)
                return await self._exchange(line, kind, body, work, left)
            except NotDelivered:
                continue
            except Gone:
                raise client_errors.pool_ended(self.pool, method) from None
            except TimedOut:
                raise client_errors.shared_timeout(self.pool, method, time.perf_counter() - began) from None
        raise AssertionError

    async def _exchange(
        self, line: AioConn, kind: int, body: bytes, work: SharedCallRequest | None, left: float | None
    ) -> Answer:
        ref, future = line.request(kind, body, b"" if work is None else work.head(left))
        try:
            answered_by, answer = await answered(future, None if left is None else left + client_errors.grace(left))
        except (NotDelivered, Gone):
            raise
        except BaseException:  # timed out or cancelled: nobody waits for it any more
            line.cancel(kind, ref)
            raise
        if answered_by == frames.LENT:
            assert work is not None
            return frames.RESULT, keep_loan(line, self._endpoint, work.route, answer)
        return answered_by, answer

    # -- straight to the worker -----------------------------------------------------------------------------

    async def _lent(self, work: SharedCallRequest) -> Answer | None:
        """The answer of the worker whose connection is lent to the line; None: the pool is to be asked.

        One call at a time: another one that comes meanwhile goes to the pool, which then calls the connection back.
        """
        line = conns_of(asyncio.get_running_loop()).known(self._path)
        loan = take_loan(line, work) if line is not None else None
        if line is None or loan is None:
            return None
        answer = await self._straight(loan, work)
        if answer is not None:
            line.loans.setdefault(work.route.resource, loan)
        return answer

    async def _straight(self, loan: Loan, work: SharedCallRequest) -> Answer | None:
        here = conns_of(asyncio.get_running_loop())
        try:
            worker = await here.connect(loan.path)
            ref, future = worker.request(frames.CALL, work.payload, loan.head)
            try:
                answer = await future
            except BaseException:
                worker.give_up(frames.CALL, ref)
                raise
        except NotDelivered:  # it was not read: the pool finds another one
            return None
        except Gone:
            raise client_errors.lent_died(self.pool, work.route.method) from None
        return None if answer[0] == frames.NOT_STARTED else answer


class ThreadedShared:
    """The same for pools that can only be reached by Thespian's messages, which block: each request in a thread."""

    def __init__(self, link: SharedMessages) -> None:
        self.link = link

    async def ask(self, request: Any, timeout: float | None = 5.0) -> Any:
        """As `SharedMessages.ask`."""
        return await self._in_thread(self.link.ask, request, timeout)

    async def call(self, *values: Any) -> Any:
        """As `SharedMessages.call`."""
        return await self._in_thread(self.link.call, *values)

    async def call_all(self, request: CallAll) -> Any:
        """As `SharedMessages.call_all`."""
        return await self._in_thread(self.link.call_all, request)

    async def _in_thread(self, function: Any, *values: Any) -> Any:
        call = functools.partial(client_errors.in_thread, function, *values)
        return await asyncio.get_running_loop().run_in_executor(None, call)


def aio_link(link: SharedChannel | SharedMessages) -> AioShared | ThreadedShared:
    """The way for asyncio to the same pool."""
    return AioShared(link) if isinstance(link, SharedChannel) else ThreadedShared(link)
