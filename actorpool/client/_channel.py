"""The protocol of the channel, from the client's side: written once, and carried out by either driver.

A transport is an address. It has no connection of its own, so it can be shared, pickled and inherited by a fork.
"""

from __future__ import annotations

import time
from collections.abc import Hashable
from typing import Any

from actorpool import process
from actorpool._protocol import requests
from actorpool._protocol.requests import HandleFacts
from actorpool.client import _sticky, client_errors
from actorpool.client._blocking import THREADS, drive
from actorpool.client._calls import Attempt, CallRequest, LeaseHandle, Recalled, Replaced, UseLocal
from actorpool.client._driver import Answer, Driver, plain
from actorpool.client._transport import PoolTransport, pauses
from actorpool.messages import ListPools
from actorpool.serialization import pickling
from actorpool.transport import client, frames
from actorpool.transport.bodies import pack_checkout, pack_key
from actorpool.transport.client import ClientConn, Gone, NotDelivered, TimedOut
from actorpool.transport.paths import Endpoint

_DELIVERY_FAILED = (NotDelivered, Gone)


class Asker:
    """Asks the process that serves a socket of the channel.

    Args:
        endpoint: the system's channel, or its directory.
    """

    path: str

    def __init__(self, endpoint: Endpoint | str) -> None:
        self.endpoint = endpoint if isinstance(endpoint, Endpoint) else Endpoint(endpoint)

    async def ask(self, driver: Driver, request: Any, timeout: float | None = 5.0) -> Any:
        """Send a request message and return the answer's value.

        Args:
            request: a message of `actorpool._protocol.requests` or `actorpool.messages`.
            timeout: seconds; None waits for ever. A restart of the other side within them goes unseen.

        Raises:
            SystemDown, PoolNotFound, PoolDown: no process is there to answer.
            Exception: the error that is the answer.
        """
        began = time.perf_counter()
        try:
            return (await self.asked(driver, request, timeout))[0]
        except TimedOut:
            raise self._down("has not answered", time.perf_counter() - began) from None

    async def asked(
        self, driver: Driver, request: Any, timeout: float | None, patience: float = 0.0
    ) -> tuple[Any, int]:
        """The answer's value, and the process that gave it.

        Args:
            timeout: seconds to find a process that serves; None waits for ever.
            patience: seconds beyond them to wait for the answer.

        Raises:
            TimedOut: a process serves, and does not answer.
            Exception: as `ask` otherwise.
        """
        began = time.perf_counter()
        reach = None if timeout is None else began + timeout
        deadline = None if reach is None else reach + patience
        body = pickling.dumps(request)
        for pause in pauses():
            if pause:
                await self.again(driver, pause, began, reach)
            try:
                conn = await driver.connect(self.path, self.endpoint.seconds, reach)
                kind, answer = await driver.request(conn, frames.ASK, body, deadline, plain)
            except _DELIVERY_FAILED:
                continue
            if kind == frames.REPLY:
                return client_errors.result(answer), conn.pid
            raise driver.error(frames.load_error(answer))
        raise AssertionError

    async def again(self, driver: Driver, pause: float, began: float, deadline: float | None) -> None:
        """Pause after a failure; find out first whether that makes sense.

        Raises:
            ActorPoolError: no process will serve, or time is up.
        """
        final = await self._absent(driver, None if deadline is None else deadline - time.perf_counter())
        if final is not None:
            raise final
        now = time.perf_counter()
        if deadline is not None and now >= deadline:
            raise self._down("is not serving", now - began)
        await driver.pause(pause if deadline is None else min(pause, deadline - now))

    async def _absent(self, driver: Driver, left: float | None) -> BaseException | None:
        """Why no process will serve the socket again; None while one may."""
        raise NotImplementedError

    def _down(self, what: str, waited: float) -> BaseException:
        """The error when time was up first."""
        raise NotImplementedError


class ManagerAsker(Asker):
    """The way to the manager of a system."""

    def __init__(self, endpoint: Endpoint | str) -> None:
        super().__init__(endpoint)
        self.path = self.endpoint.manager

    async def _absent(self, driver: Driver, left: float | None) -> BaseException | None:
        return client_errors.system_down(self.endpoint)

    def _down(self, what: str, waited: float) -> BaseException:
        return client_errors.manager_down(self.endpoint, what, waited)


class PoolAsker(Asker):
    """The way to one pool of whatever kind.

    Args:
        endpoint: the system's channel, or its directory.
        pool: the pool's name.
    """

    def __init__(self, endpoint: Endpoint | str, pool: str) -> None:
        super().__init__(endpoint)
        self.pool = pool
        self.path = self.endpoint.pool(pool)

    def __repr__(self) -> str:
        return f"<channel {self.path}>"

    async def _absent(self, driver: Driver, left: float | None) -> BaseException | None:
        """Asks the manager."""
        down = client_errors.system_down(self.endpoint)
        if down is not None:
            return down
        deadline = time.perf_counter() + client_errors.manager_patience(left)
        try:
            manager = await driver.connect(self.endpoint.manager, self.endpoint.seconds, deadline)
            body = pickling.dumps(ListPools())
            kind, answer = await driver.request(manager, frames.ASK, body, deadline, plain)
        except (NotDelivered, Gone, TimedOut):  # being restarted; so are its pools
            client.forget(self.endpoint.manager)
            return None
        return None if kind != frames.REPLY else client_errors.not_found(self.pool, pickling.loads(answer))

    def _down(self, what: str, waited: float) -> BaseException:
        return client_errors.pool_down(self.pool, what, waited)


class ChannelTransport(PoolAsker, PoolTransport):
    """The way to one pool that lends workers."""

    def __init__(self, endpoint: Endpoint | str, pool: str) -> None:
        super().__init__(endpoint, pool)
        self.where = self.sticky_path = self.path

    async def facts(self, driver: Driver, timeout: float) -> HandleFacts:
        began = time.perf_counter()
        try:
            facts, self.expected = await self.asked(driver, requests.Facts(), timeout, client_errors.grace(timeout))
        except TimedOut:
            raise client_errors.checkout_timeout(self.pool, time.perf_counter() - began) from None
        return facts  # type: ignore[no-any-return]

    # -- leases -------------------------------------------------------------------------------------------

    async def checkout(
        self, driver: Driver, timeout: float, block: bool = True, stack: str | None = None, key: Hashable = None
    ) -> LeaseHandle:
        _sticky.give_all(driver.sticky_path(self.path))  # it may be what is asked for
        return await self._checkout(driver, timeout, block, stack, False, pack_key(key))

    async def lease_for_call(self, driver: Driver, timeout: float, stack: str | None = None) -> LeaseHandle:
        """If possible a sticky one; while the pool has nothing but what this process has, wait a moment for that."""
        if self.sandbox is not None:
            return await self._checkout(driver, timeout, True, stack)
        deadline = time.perf_counter() + timeout
        path = driver.sticky_path(self.path)
        lease = _sticky.take(path)
        if lease is not None:
            return lease
        if not _sticky.is_all(path):
            try:
                lease = await self._checkout(driver, timeout, True, stack, True)
            except UseLocal:
                _sticky.note_all(path)
            else:
                if lease.sticky:
                    _sticky.use(path, lease)
                return lease
        lease = await driver.wait_sticky(path, timeout)
        return lease or await self._checkout(driver, max(deadline - time.perf_counter(), 0.0), True, stack)

    def end_call(self, driver: Driver, lease: LeaseHandle) -> None:
        path = driver.sticky_path(self.path)
        if lease.idle_since:
            _sticky.keep(path, lease)
        else:
            if lease.sticky:
                _sticky.drop(path, lease)
            self.checkin(lease, driver)

    async def _checkout(
        self, driver: Driver, timeout: float, block: bool, stack: str | None, sticky: bool = False, key: bytes = b""
    ) -> LeaseHandle:
        began = time.perf_counter()
        deadline = began + timeout
        patience = deadline + client_errors.grace(timeout)
        for pause in pauses():
            if pause:
                await self.again(driver, pause, began, deadline)
            try:
                conn = await driver.connect(self.path, self.endpoint.seconds, deadline)
                if self.expected is not None and conn.pid != self.expected:
                    driver.release(conn)
                    raise Replaced
                left = max(deadline - time.perf_counter(), 0.0) if pause else timeout
                body = pack_checkout(left, block, stack, self.sandbox, sticky, key)
                lease = await driver.request(conn, frames.CHECKOUT, body, patience, self._granted, cancels=True)
            except _DELIVERY_FAILED:
                continue
            except TimedOut:
                raise client_errors.checkout_timeout(self.pool, time.perf_counter() - began) from None
            if isinstance(lease, LeaseHandle):
                return lease
            raise lease
        raise AssertionError

    def _granted(self, conn: Any, kind: int, body: bytes | memoryview) -> LeaseHandle | BaseException:
        """The lease that an answer grants, or why there is none."""
        if kind != frames.GRANT:
            return UseLocal() if kind == frames.USE_LOCAL else frames.load_error(body)
        lease, worker, pid, flags, seal = frames.GRANT_BODY.unpack_from(body)
        lost = str(body[frames.GRANT_BODY.size :], "utf-8") or None
        return LeaseHandle(lease, worker, pid, self.checkin, conn, conn.pid, flags, seal, lost)

    def checkin(self, lease: LeaseHandle, driver: Driver = THREADS) -> bool:
        if not lease.ours:
            return False
        lease.give_conns()
        if lease.used:
            path, seal = self.endpoint.worker(lease.worker_pid), frames.END_BODY.pack(lease.seal)
            kind = frames.PARK if lease.keyed else frames.END
            driver.tell(path, self.endpoint.seconds, lease.worker_pid, kind, lease.id, seal)
        told = self._tell(lease, frames.CHECKIN, driver)
        if told and isinstance(lease.conn, ClientConn):
            conn, lease.conn = lease.conn, None  # first: interrupted in between, it must not be given twice
            client.give(conn)
        lease.end()
        return told

    def abandon(self, lease: LeaseHandle, driver: Driver = THREADS) -> None:
        if lease.ours:
            self._tell(lease, frames.ABANDON, driver)
            lease.end()

    def _tell(self, lease: LeaseHandle, kind: int, driver: Driver) -> bool:
        """Tell the pool something about a lease, without waiting; False when it is not there any more."""
        body = lease.leaves if kind == frames.CHECKIN else b""
        told = driver.tell(self.path, self.endpoint.seconds, lease.pool_pid, kind, lease.id, body)
        if not told and lease.pool_conn is not None:  # to a pool that takes nothing, hanging up says the same
            lease.pool_conn.hang_up()
        return told

    # -- calls --------------------------------------------------------------------------------------------

    async def perform(
        self, driver: Driver, lease: LeaseHandle, work: CallRequest, last: bool = False, attempt: Attempt | None = None
    ) -> Answer:
        known = lease.conn is not None
        payload = work.payload  # first: what cannot be sent costs no lease
        try:
            if attempt is not None:
                answer = attempt.answer()
            else:
                head, path = lease.head(work, last), self.endpoint.worker(lease.worker_pid)
                deadline = None if work.timeout is None else time.perf_counter() + work.timeout
                answer = await driver.call(lease, path, self.endpoint.seconds, head, payload, deadline)
        except (NotDelivered, Gone, TimedOut) as problem:
            raise self._unanswered(driver, lease, work, problem, known) from None
        except BaseException:  # interrupted: the answer is no longer wanted
            self.abandon(lease, driver)
            raise
        if answer[0] == frames.NOT_STARTED:
            if lease.sticky:
                _sticky.disband(driver.sticky_path(self.path))
            client_errors.refuse(self.pool, lease, answer[1])
        lease.used = not last
        if lease.sticky and answer[0] == frames.RESULT:  # an error may be one of a call that never began
            lease.idle_since = time.perf_counter()
        return answer

    def _unanswered(
        self, driver: Driver, lease: LeaseHandle, work: CallRequest, problem: Exception, known: bool
    ) -> BaseException:
        """The error of a call that has got no answer. Its lease is over; the pool is told what it may not know.

        Args:
            problem: what the channel says: `NotDelivered`, `Gone` or `TimedOut`.
            known: the worker knew the lease, a sticky one, by the connection.
        """
        if isinstance(problem, NotDelivered):
            if known:  # the worker has hung up, because the lease is recalled, or has died: the pool knows, or will
                lease.end()
                _sticky.disband(driver.sticky_path(self.path))  # where one was recalled, the others were
                return Recalled()
            if process.alive(lease.worker_pid):
                self.abandon(lease, driver)  # it lives and does not serve: the pool is to look after it
            lease.end()  # of a dead one the pool knows by itself
            return client_errors.not_started(lease, client_errors.worker_gone(self.pool, lease, work))
        lease.hang_up()
        if isinstance(problem, Gone):
            if lease.sticky:
                self.checkin(lease, driver)  # its worker may only have hung up
            lease.end()
            return client_errors.worker_died(self.pool, lease, work)
        self.abandon(lease, driver)
        return client_errors.call_timeout(self.pool, work)

    def value(self, answer: Answer, driver: Driver = THREADS) -> Any:
        kind, body = answer
        if kind == frames.RESULT:
            return client_errors.result(body)
        raise driver.error(frames.load_error(body))

    def call_now(self, lease: LeaseHandle, work: CallRequest) -> Any:
        """By a connection that a former call has left, it is done in as few steps as can be."""
        payload = work.payload
        try:
            conn = lease.conns.pop()
        except IndexError:
            return super().call_now(lease, work)
        deadline = None if work.timeout is None else time.perf_counter() + work.timeout
        try:
            answer = conn.exchange(frames.CALL, lease.head(work, False), payload, deadline)
        except BaseException as problem:
            conn.close()
            return drive(self.perform(THREADS, lease, work, attempt=Attempt(lease, problem)))
        if lease.open:
            lease.conns.append(conn)
        else:  # it ended meanwhile
            client.give(conn)
        if answer[0] != frames.RESULT:
            return self.value(drive(self.perform(THREADS, lease, work, attempt=Attempt(lease, answer))))
        lease.used = True
        try:
            return pickling.loads(answer[1])
        except Exception:  # told in words
            return client_errors.result(answer[1])
