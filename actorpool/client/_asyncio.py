"""The way to a pool over the channel for asyncio: the same promises as `channel_link`, kept under cancellation.

Whatever ends an await (a timeout, a cancellation), the other side is told in the same step of the event loop: a
checkout is cancelled, a call abandoned. Telling is only a send, so it needs no await that could be cancelled in turn.
"""

from __future__ import annotations

import asyncio
import functools
import time
import weakref
from collections.abc import Hashable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NoReturn

from actorpool import process
from actorpool._protocol import requests
from actorpool._protocol.requests import HandleFacts
from actorpool.client import _sticky, client_errors
from actorpool.client._blocking import BlockingTransport, PoolAsker, UseLocal, call_head, granted
from actorpool.client._calls import CallRequest, LeaseHandle, NotStarted, Recalled, Replaced
from actorpool.client._transport import pauses
from actorpool.serialization import pickling
from actorpool.transport import frames
from actorpool.transport.aio import AioConn, LoopConns, answered, conns_of
from actorpool.transport.bodies import pack_checkout, pack_key
from actorpool.transport.client import Gone, NotDelivered, TimedOut


class AsyncioAsker:
    """The way to one pool of whatever kind, from any number of event loops.

    Args:
        link: the blocking way to the same pool.
    """

    def __init__(self, link: PoolAsker) -> None:
        self.pool = link.pool
        self._endpoint = link.endpoint
        self._path = link.path

    def _here(self) -> LoopConns:
        return conns_of(asyncio.get_running_loop())

    def now(self) -> float:
        """The loop's time."""
        return asyncio.get_running_loop().time()

    # -- reaching the pool --------------------------------------------------------------------------------

    async def _line(self, pause: float, began: float, deadline: float | None) -> AioConn:
        """The line to the pool; with a pause, after a failure: find out first whether waiting makes sense."""
        loop = asyncio.get_running_loop()
        if pause:
            left = None if deadline is None else deadline - loop.time()
            final = await loop.run_in_executor(None, client_errors.absent, self._endpoint, self.pool, left)
            if final is not None:
                raise final
            now = loop.time()
            if deadline is not None and now >= deadline:
                raise client_errors.pool_down(self.pool, "is not serving", now - began)
            await asyncio.sleep(pause if deadline is None else min(pause, deadline - now))
        return await conns_of(loop).line(self._path, deadline)

    async def ask(self, request: Any, timeout: float | None = 5.0) -> Any:
        """Ask the pool something; as `PoolTransport.ask`."""
        began = self.now()
        try:
            return (await self._asked(request, timeout))[0]
        except TimedOut:
            raise client_errors.pool_down(self.pool, "has not answered", self.now() - began) from None

    async def _asked(self, request: Any, timeout: float | None, patience: float = 0.0) -> tuple[Any, int]:
        """The answer's value, and the process that gave it; as `BlockingTransport._asked`."""
        began = self.now()
        reach = None if timeout is None else began + timeout
        body = pickling.dumps(request)
        for pause in pauses():
            try:
                line = await self._line(pause, began, reach)
                ref, future = line.request(frames.ASK, body)
                try:
                    left = None if reach is None else reach + patience - self.now()
                    kind, data = await answered(future, left)
                except BaseException:
                    line.give_up(frames.ASK, ref)
                    raise
            except (NotDelivered, Gone):
                continue
            if kind == frames.REPLY:
                return client_errors.result(data), line.pid
            raise client_errors.for_a_loop(frames.load_error(data))
        raise AssertionError


class AsyncioTransport(AsyncioAsker):
    """The way to one pool that lends workers.

    Args:
        link: the blocking way to the same pool; it gives back what nobody on a loop can.
    """

    def __init__(self, link: BlockingTransport) -> None:
        super().__init__(link)
        self.link = link

    async def facts(self, timeout: float) -> HandleFacts:
        """As `PoolTransport.facts`."""
        began = self.now()
        try:
            facts, self.link.expected = await self._asked(requests.Facts(), timeout, client_errors.grace(timeout))
        except TimedOut:
            raise client_errors.checkout_timeout(self.pool, self.now() - began) from None
        return facts  # type: ignore[no-any-return]

    # -- leases -------------------------------------------------------------------------------------------

    async def checkout(
        self, timeout: float, block: bool = True, stack: str | None = None, key: Hashable = None
    ) -> LeaseHandle:
        """Get a lease; as `PoolTransport.checkout`. A cancellation at any moment leaves no worker out."""
        return await self._checkout(timeout, block, stack, False, pack_key(key))

    async def hire(self, timeout: float, stack: str | None = None) -> LeaseHandle:
        """Get a lease for one call, if possible one that stays with this process; as `PoolTransport.hire`.

        Tasks do not wait for each other here, as threads do: it is no less work for a loop than to ask the pool.
        """
        if self.link.sandbox is not None:
            return await self._checkout(timeout, True, stack)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        hold = _sticky.take(self._kept)
        if hold is not None:
            return hold
        try:
            return await self._checkout(timeout, True, stack, True)
        except UseLocal:
            return await self._checkout(max(deadline - loop.time(), 0.0), True, stack)

    def finish(self, hold: LeaseHandle) -> None:
        """The one call is over, or could not be made."""
        if hold.rested:
            _sticky.keep(self._kept, hold)
        else:
            self.checkin(hold)

    @property
    def _kept(self) -> str:
        """Where the sticky leases of this loop are: a worker knows them by the line that they are used by."""
        return f"{self._path}@{id(asyncio.get_running_loop())}"

    async def _checkout(
        self, timeout: float, block: bool, stack: str | None, sticky: bool = False, key: bytes = b""
    ) -> LeaseHandle:
        loop = asyncio.get_running_loop()
        began = loop.time()
        deadline = began + timeout
        for pause in pauses():
            try:
                line = await self._line(pause, began, deadline)
                if self.link.expected is not None and line.pid != self.link.expected:
                    raise Replaced
                left = max(deadline - loop.time(), 0.0) if pause else timeout
                body = pack_checkout(left, block, stack, self.link.sandbox, sticky, key)
                return await self._ask_lease(line, body, left)
            except (NotDelivered, Gone):
                continue
            except TimedOut:
                raise client_errors.checkout_timeout(self.pool, loop.time() - began) from None
        raise AssertionError

    async def _ask_lease(self, line: AioConn, body: bytes, timeout: float) -> LeaseHandle:
        ref, future = line.request(frames.CHECKOUT, body)
        try:
            kind, answer = await answered(future, timeout + client_errors.grace(timeout))
        except (NotDelivered, Gone):
            raise
        except BaseException:  # timed out or cancelled, perhaps with the grant already here
            line.cancel(frames.CHECKOUT, ref)
            raise
        if kind != frames.GRANT:
            raise UseLocal if kind == frames.USE_LOCAL else frames.load_error(answer)
        return granted(answer, self.link.checkin, line)

    def checkin(self, hold: LeaseHandle) -> None:
        """Give a lease back. Never waits, so nothing can come between."""
        if not hold.ours:
            return
        if hold.used:
            worker = self._here().known(self._endpoint.worker(hold.worker_pid))
            if worker is not None and worker.pid == hold.worker_pid:
                kind = frames.PARK if hold.keyed else frames.END
                worker.tell(kind, hold.lease, frames.END_BODY.pack(hold.seal))
        self._tell_pool(hold, frames.CHECKIN)

    def abandon(self, hold: LeaseHandle) -> None:
        """Have the pool take the worker back from what it does for this lease."""
        if hold.ours:
            self._tell_pool(hold, frames.ABANDON)

    def _tell_pool(self, hold: LeaseHandle, kind: int) -> None:
        line = hold.home
        if line.here():
            line.tell(kind, hold.lease, hold.leaves if kind == frames.CHECKIN else b"")
        elif line.open:  # got in another loop, or before the pool's socket was replaced
            self.link.tell(hold, kind)
        hold.end()

    # -- calls --------------------------------------------------------------------------------------------

    async def perform(self, hold: LeaseHandle, work: CallRequest, last: bool = False) -> tuple[int, Any]:
        """Run work on the lease's worker; as `PoolTransport.perform`. Cancelled, it is interrupted and its lease is
        over.
        """
        payload = work.payload  # first: what cannot be sent costs no lease
        head = call_head(hold, work, last)
        try:
            answer = await self._exchange(hold, head, payload, work.timeout)
        except NotDelivered:
            if process.alive(hold.worker_pid):
                self.abandon(hold)
            hold.end()
            raise client_errors.not_started(hold, client_errors.worker_gone(self.pool, hold, work)) from None
        except Gone:
            self._lost(hold)
            raise client_errors.worker_died(self.pool, hold, work) from None
        except TimedOut:
            self.abandon(hold)
            raise client_errors.call_timeout(self.pool, work) from None
        except BaseException:  # cancelled: nobody waits for the answer any more
            self.abandon(hold)
            raise
        if answer[0] == frames.NOT_STARTED:
            if hold.stands:
                _sticky.disband(self._kept)
            client_errors.refuse(self.pool, hold, answer[1])
        hold.used = not last
        if hold.stands and answer[0] == frames.RESULT:
            hold.rested = time.perf_counter()
        return answer

    def _lost(self, hold: LeaseHandle) -> None:
        """As `BlockingTransport`: the worker has ended in a call."""
        if hold.stands:
            self.checkin(hold)
        hold.end()

    def _was_recalled(self, hold: LeaseHandle) -> NoReturn:
        """As `BlockingTransport`: the worker has hung up on a sticky lease."""
        hold.end()
        _sticky.disband(self._kept)
        raise Recalled

    async def call(self, hold: LeaseHandle, work: CallRequest) -> Any:
        """Run work on the lease's worker and return its result."""
        return self._value(await self.perform(hold, work))

    def _value(self, answer: tuple[int, Any]) -> Any:
        """The value in an answer; raises what the work raised, or (see `client_errors.for_a_loop`) what stands for
        it.
        """
        kind, body = answer
        if kind == frames.RESULT:
            return client_errors.result(body)
        raise client_errors.for_a_loop(frames.load_error(body))

    async def _exchange(self, hold: LeaseHandle, head: bytes, payload: bytes, timeout: float | None) -> tuple[int, Any]:
        path = self._endpoint.worker(hold.worker_pid)
        here = self._here()
        known = hold.line
        deadline = None if timeout is None else self.now() + timeout
        line = known or await (here.own(path, deadline) if hold.stands else here.line(path, deadline))
        if hold.stands:
            hold.line = line  # whatever ends the lease from now on hangs up
        while True:
            if known is not None and not line.here():
                self._was_recalled(hold)
            ref, future = line.request(frames.CALL, payload, head)
            try:
                return await answered(future, timeout)
            except NotDelivered:
                here.drop(line)
                if known is not None:
                    self._was_recalled(hold)
                if ref > 1:  # perhaps to a predecessor of the same pid: once more, by a new line
                    line = await here.line(path, deadline)
                    continue
                raise
            except BaseException:  # timed out or cancelled
                line.give_up(frames.CALL, ref)
                raise

    async def run(self, work: CallRequest, timeout: float, stack: str | None = None) -> Any:
        """Checkout, call and checkin in one; as `PoolTransport.run`."""
        deadline = asyncio.get_running_loop().time() + timeout
        _ = work.payload  # what cannot be sent fails before a worker is asked for
        hold = await self.hire(timeout, stack)
        error: BaseException | None
        for pause in pauses():
            try:
                answer = await self.perform(hold, work, True)
            except Recalled:
                error = None
            except NotStarted as refusal:
                error = refusal.error
            else:
                break
            finally:
                self.finish(hold)
            hold = await self.hire(await self._left(deadline, pause, error), stack)
        return self._value(answer)

    async def another(self, deadline: float, pause: float, error: BaseException, key: Hashable = None) -> LeaseHandle:
        """A lease in place of one whose worker did not start the call; raises `error` once time is up."""
        return await self.checkout(await self._left(deadline, pause, error), key=key)

    async def _left(self, deadline: float, pause: float, error: BaseException | None) -> float:
        """Pause; how many seconds are left after that. Raises `error`, if there is one, once time is up."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        if now >= deadline and error is not None:
            raise error
        if pause:
            await asyncio.sleep(max(min(pause, deadline - now), 0.0))
        return max(deadline - loop.time(), 0.0)


_holders: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, ThreadPoolExecutor] = weakref.WeakKeyDictionary()


class ThreadedTransport:
    """The same for pools that can only be reached by Thespian's messages, which block: each request in a thread.

    What a cancelled task leaves running is ended where it comes back: a lease that nobody waits for is given back.
    """

    def __init__(self, link: Any) -> None:
        self.link = link
        self.pool = link.pool
        self.checkin = link.checkin

    def now(self) -> float:
        """The loop's time."""
        return asyncio.get_running_loop().time()

    async def _in_thread(self, function: Any, *args: Any) -> Any:
        call = functools.partial(client_errors.in_thread, function, *args)
        return await asyncio.get_running_loop().run_in_executor(None, call)

    async def _for_holder(self, function: Any, *args: Any) -> Any:
        """For who holds a lease: those who wait for it may have all threads of the other kind."""
        loop = asyncio.get_running_loop()
        threads = _holders.get(loop)
        if threads is None:
            threads = _holders[loop] = ThreadPoolExecutor(thread_name_prefix="actorpool")
        return await loop.run_in_executor(threads, functools.partial(client_errors.in_thread, function, *args))

    async def ask(self, request: Any, timeout: float | None = 5.0) -> Any:
        """As `PoolTransport.ask`."""
        return await self._in_thread(self.link.ask, request, timeout)

    async def facts(self, timeout: float) -> HandleFacts:
        """As `PoolTransport.facts`."""
        return await self._in_thread(self.link.facts, timeout)  # type: ignore[no-any-return]

    async def checkout(
        self, timeout: float, block: bool = True, stack: str | None = None, key: Hashable = None
    ) -> LeaseHandle:
        """As `PoolTransport.checkout`; a hold that comes too late is dropped, and so given back."""
        return await self._in_thread(self.link.checkout, timeout, block, stack, key)  # type: ignore[no-any-return]

    async def call(self, hold: LeaseHandle, work: CallRequest) -> Any:
        """As `PoolTransport.call`; cancelled, the lease is over."""
        try:
            return await self._for_holder(self.link.call, hold, work)
        except asyncio.CancelledError:
            self.link.abandon(hold)
            raise

    async def run(self, work: CallRequest, timeout: float, stack: str | None = None) -> Any:
        """As `PoolTransport.run`."""
        return await self._in_thread(self.link.run, work, timeout, stack)

    async def another(self, deadline: float, pause: float, error: BaseException, key: Hashable = None) -> LeaseHandle:
        """As `PoolTransport.another`; `deadline` is in the loop's time."""
        left = deadline - asyncio.get_running_loop().time()
        if left <= 0:
            raise error
        if pause:
            await asyncio.sleep(min(pause, left))
        return await self.checkout(max(left - pause, 0.0), key=key)
