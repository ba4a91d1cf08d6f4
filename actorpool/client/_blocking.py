"""The way to a pool over the channel: blocking, safe to share between threads, with nothing to inherit in a fork.

A link is a path. Connections are the free lines of `transport.line`; each request takes one and gives it back when
nothing is under way on it any more.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable
from contextlib import suppress
from typing import Any, NoReturn

from actorpool import process
from actorpool._protocol import requests
from actorpool._protocol.requests import HandleFacts
from actorpool.client import _sticky, client_errors
from actorpool.client._calls import CallRequest, LeaseHandle, NotStarted, Recalled, Replaced
from actorpool.client._transport import PoolTransport, pauses
from actorpool.serialization import pickling
from actorpool.transport import client as lines
from actorpool.transport import frames
from actorpool.transport.bodies import pack_checkout, pack_key
from actorpool.transport.client import ClientConn, Gone, NotDelivered, TimedOut
from actorpool.transport.paths import Endpoint

_DELIVERY_FAILED = (NotDelivered, Gone)
PATIENCE = 2e-3
"""Seconds that a thread waits for what its own process has, before it joins the pool's queue."""


def call_head(hold: LeaseHandle, work: CallRequest, last: bool) -> bytes:
    """What goes before the pickle in a `CALL` frame."""
    flags = work.flags
    if last:
        flags |= frames.STICKY if hold.stands else frames.LAST
    if hold.check_first and not hold.used:
        flags |= frames.CHECK_FIRST
    if hold.turn:
        flags |= frames.TURN
    if hold.keyed:
        flags |= frames.KEYED if hold.fresh else frames.KEYED | frames.CONTINUED
    return frames.CALL_HEAD.pack(hold.lease, flags, hold.seal)


def granted(body: bytes | memoryview, give_back: Callable[[LeaseHandle], bool], line: Any) -> LeaseHandle:
    """The lease of a `GRANT` frame, got by that connection."""
    lease, worker, pid, flags, seal = frames.GRANT_BODY.unpack_from(body)
    lost = str(body[frames.GRANT_BODY.size :], "utf-8") or None
    return LeaseHandle(lease, worker, pid, give_back, line, line.pid, flags, seal, lost)


class UseLocal(Exception):
    """All workers that could be had stay with this process."""


class _Asker:
    """Asks whoever serves a socket of the channel.

    Args:
        endpoint: the system's channel, or its directory.
    """

    path: str

    def __init__(self, endpoint: Endpoint | str) -> None:
        self.endpoint = endpoint if isinstance(endpoint, Endpoint) else Endpoint(endpoint)

    def ask(self, request: Any, timeout: float | None = 5.0) -> Any:
        """Send a request message and return the answer's value.

        Args:
            request: a message of `actorpool._protocol.requests` or `actorpool.messages`.
            timeout: seconds; None waits for ever. A restart of the other side within them goes unseen.

        Raises:
            SystemDown, PoolNotFound, PoolDown: nobody is there to answer.
            Exception: the error that is the answer.
        """
        began = time.perf_counter()
        try:
            return self._asked(request, timeout)[0]
        except TimedOut:
            raise self._down("has not answered", time.perf_counter() - began) from None

    def _asked(self, request: Any, timeout: float | None, patience: float = 0.0) -> tuple[Any, int]:
        """The answer's value, and the process that gave it.

        Args:
            timeout: seconds to find somebody who serves; None waits for ever.
            patience: seconds beyond them to wait for the answer.

        Raises:
            TimedOut: somebody serves, and does not answer.
            Exception: as `ask` otherwise.
        """
        began = time.perf_counter()
        reach = None if timeout is None else began + timeout
        deadline = None if reach is None else reach + patience
        body = pickling.dumps(request)
        for pause in pauses():
            try:
                line = self._line(pause, began, reach)
                ref = line.new_ref()
                line.send(frames.ASK, ref, body, deadline=deadline)
                kind, answer = line.receive(ref, deadline)
            except _DELIVERY_FAILED:
                lines.forget(self.path)
                continue
            lines.give(line)
            if kind == frames.REPLY:
                return client_errors.result(answer), line.pid
            raise frames.load_error(answer)
        raise AssertionError

    def _line(self, pause: float, began: float, deadline: float | None) -> ClientConn:
        """A line; with a pause, after a failure: find out first whether waiting makes sense.

        Raises:
            NotDelivered: nobody is there yet.
            ActorPoolError: nobody will be, or time is up.
        """
        if pause:
            final = self._absent(None if deadline is None else deadline - time.perf_counter())
            if final is not None:
                raise final
            now = time.perf_counter()
            if deadline is not None and now >= deadline:
                raise self._down("is not serving", now - began)
            time.sleep(pause if deadline is None else min(pause, deadline - now))
        return lines.take(self.path, self.endpoint.seconds, deadline)

    def _absent(self, left: float | None) -> BaseException | None:
        """Why nobody will serve the socket again; None while somebody may."""
        raise NotImplementedError

    def _down(self, what: str, waited: float) -> BaseException:
        """The error when time was up first."""
        raise NotImplementedError


class ManagerAsker(_Asker):
    """The way to the manager of a system."""

    def __init__(self, endpoint: Endpoint | str) -> None:
        super().__init__(endpoint)
        self.path = self.endpoint.manager

    def _absent(self, left: float | None) -> BaseException | None:
        return client_errors.system_down(self.endpoint)

    def _down(self, what: str, waited: float) -> BaseException:
        return client_errors.manager_down(self.endpoint, what, waited)


class PoolAsker(_Asker):
    """The way to one pool of whatever kind.

    Args:
        endpoint: the system's channel, or its directory.
        pool: the pool's name.
    """

    def __init__(self, endpoint: Endpoint | str, pool: str) -> None:
        super().__init__(endpoint)
        self.pool = pool
        self.path = self.where = self.endpoint.pool(pool)

    def __repr__(self) -> str:
        return f"<channel {self.path}>"

    def _absent(self, left: float | None) -> BaseException | None:
        return client_errors.absent(self.endpoint, self.pool, left)

    def _down(self, what: str, waited: float) -> BaseException:
        return client_errors.pool_down(self.pool, what, waited)


class BlockingTransport(PoolAsker, PoolTransport):
    """The way to one pool that lends workers."""

    def facts(self, timeout: float) -> HandleFacts:
        """What a handle has to know of the pool's settings; see `PoolTransport.facts`."""
        began = time.perf_counter()
        try:
            facts, self.expected = self._asked(requests.Facts(), timeout, client_errors.grace(timeout))
        except TimedOut:
            raise client_errors.checkout_timeout(self.pool, time.perf_counter() - began) from None
        return facts  # type: ignore[no-any-return]

    # -- leases -------------------------------------------------------------------------------------------

    def checkout(
        self, timeout: float, block: bool = True, stack: str | None = None, key: Hashable = None
    ) -> LeaseHandle:
        """Get a lease; see `PoolTransport.checkout`."""
        _sticky.give_all(self.path)  # it may be what is asked for
        return self._checkout(timeout, block, stack, False, pack_key(key))

    def hire(self, timeout: float, stack: str | None = None) -> LeaseHandle:
        """Get a lease for one call, if possible one that stays with this process; see `PoolTransport.hire`."""
        if self.sandbox is not None:
            return self._checkout(timeout, True, stack)
        return _sticky.take(self.path) or self._share(timeout, stack)

    def _share(self, timeout: float, stack: str | None) -> LeaseHandle:
        """Ask the pool; while it has nothing but what this process has, wait a moment for that, and ask again."""
        deadline = time.perf_counter() + timeout
        if not _sticky.is_all(self.path):
            try:
                hired = self._checkout(timeout, True, stack, True)
            except UseLocal:
                _sticky.note_all(self.path)
            else:
                if hired.stands:
                    _sticky.use(self.path, hired)
                return hired
        hold = _sticky.wait(self.path, min(timeout, PATIENCE))
        return hold or self._checkout(max(deadline - time.perf_counter(), 0.0), True, stack)

    def finish(self, hold: LeaseHandle) -> None:
        """The one call is over, or could not be made; see `PoolTransport.finish`."""
        if hold.rested:
            _sticky.keep(self.path, hold)
        else:
            if hold.stands:
                _sticky.drop(self.path, hold)
            self.checkin(hold)

    def _checkout(
        self, timeout: float, block: bool, stack: str | None, sticky: bool = False, key: bytes = b""
    ) -> LeaseHandle:
        began = time.perf_counter()
        deadline = began + timeout
        for pause in pauses():
            try:
                line = self._line(pause, began, deadline)
                if self.expected is not None and line.pid != self.expected:
                    lines.give(line)
                    raise Replaced
                left = max(deadline - time.perf_counter(), 0.0) if pause else timeout
                body = pack_checkout(left, block, stack, self.sandbox, sticky, key)
                return self._ask_lease(line, body, deadline + client_errors.grace(timeout))
            except _DELIVERY_FAILED:
                lines.forget(self.path)
            except TimedOut:
                raise client_errors.checkout_timeout(self.pool, time.perf_counter() - began) from None
        raise AssertionError

    def _ask_lease(self, line: ClientConn, body: bytes, deadline: float) -> LeaseHandle:
        ref = line.new_ref()
        hold = None
        try:
            line.send(frames.CHECKOUT, ref, body, b"", deadline)
            kind, answer = line.receive(ref, deadline)
            if kind == frames.GRANT:
                hold = granted(answer, self.checkin, line)
        except _DELIVERY_FAILED:
            raise
        except BaseException:  # whatever ended the wait, the pool must know: a grant without a hold would be nobody's
            line.cancel(ref)
            raise
        lines.give(line)
        if hold is None:
            raise UseLocal if kind == frames.USE_LOCAL else frames.load_error(answer)
        return hold

    def checkin(self, hold: LeaseHandle) -> bool:
        """Give a lease back; see `PoolTransport.checkin`."""
        if not hold.ours:
            return False
        hold.give_lines()
        if hold.used:
            worker, seal = self.endpoint.worker(hold.worker_pid), frames.END_BODY.pack(hold.seal)
            self._tell(worker, hold.worker_pid, frames.PARK if hold.keyed else frames.END, hold.lease, seal)
        told = self.tell(hold, frames.CHECKIN)
        line = hold.line
        if told and isinstance(line, ClientConn):
            hold.line = None  # first: interrupted in between, it must not be given twice
            lines.give(line)
        hold.end()
        return told

    def abandon(self, hold: LeaseHandle) -> None:
        """Have the pool take the worker back from what it does for this lease."""
        if hold.ours:
            self.tell(hold, frames.ABANDON)
            hold.end()

    def tell(self, hold: LeaseHandle, kind: int) -> bool:
        """Tell the pool something about a lease, without waiting; False when it is not there any more."""
        body = hold.leaves if kind == frames.CHECKIN else b""
        told = self._tell(self.path, hold.pool_pid, kind, hold.lease, body)
        if not told and hold.home is not None:  # a pool that is there and takes nothing is hung up on: it says the same
            hold.home.hang_up()
        return told

    def _tell(self, path: str, pid: int, kind: int, ref: int, body: bytes = b"") -> bool:
        """Send a frame that is not answered to that very process, without waiting; whether it has left.

        If the process is gone, so is all that it knew. If it does not read, a new line has room for a frame.
        """
        for _ in range(2):
            with suppress(NotDelivered, TimedOut):
                line = lines.take(path, self.endpoint.seconds, time.perf_counter())
                told = line.pid == pid and line.tell(kind, ref, body)
                if told or line.pid != pid:
                    lines.give(line)
                    return told
            lines.forget(path)  # a line that was free may be to a predecessor, or have no room: once more, by a new one
        return False

    # -- calls --------------------------------------------------------------------------------------------

    def run(self, work: CallRequest, timeout: float, stack: str | None = None) -> Any:
        """See `PoolTransport.run`. The use of a lease that stays with this process, in as few steps as can be."""
        _ = work.payload  # what cannot be sent fails before a worker is taken
        hold = _sticky.take(self.path) if self.sandbox is None else None
        if hold is None:
            return super().run(work, timeout, stack)
        began = time.perf_counter()
        try:
            kind, body = self.perform(hold, work, True)
        except (Recalled, NotStarted) as refusal:
            left = max(began + timeout - time.perf_counter(), 0.0)
            if not left and isinstance(refusal, NotStarted):
                raise refusal.error from None
        else:
            left = -1.0
        finally:
            if hold.rested:
                _sticky.keep(self.path, hold)
            else:
                self.finish(hold)
        if left >= 0:
            return super().run(work, left, stack)
        if kind == frames.RESULT:
            try:
                return pickling.loads(body)
            except Exception:  # told in words
                return client_errors.result(body)
        raise frames.load_error(body)

    def perform(self, hold: LeaseHandle, work: CallRequest, last: bool = False) -> tuple[int, bytes | memoryview]:
        """Run work on the lease's worker; see `PoolTransport.perform`."""
        payload = work.payload  # first: what cannot be sent costs no lease
        head = call_head(hold, work, last)
        deadline = None if work.timeout is None else time.perf_counter() + work.timeout
        try:
            answer = self._exchange(hold, head, payload, deadline)
        except NotDelivered:
            if process.alive(hold.worker_pid):
                self.abandon(hold)  # it lives and does not serve: the pool is to look after it
            hold.end()  # of a dead one the pool knows by itself
            raise client_errors.not_started(hold, client_errors.worker_gone(self.pool, hold, work)) from None
        except Gone:
            self._lost(hold)
            raise client_errors.worker_died(self.pool, hold, work) from None
        except TimedOut:
            self.abandon(hold)
            raise client_errors.call_timeout(self.pool, work) from None
        except BaseException:  # interrupted: nobody waits for the answer any more
            self.abandon(hold)
            raise
        if answer[0] == frames.NOT_STARTED:
            if hold.stands:
                _sticky.disband(self.path)
            client_errors.refuse(self.pool, hold, answer[1])
        hold.used = not last
        if hold.stands and answer[0] == frames.RESULT:  # an error may be one of a call that never began
            hold.rested = time.perf_counter()
        return answer

    def _lost(self, hold: LeaseHandle) -> None:
        """The worker has ended in a call. Of a sticky lease the pool is told: its worker may only have hung up."""
        if hold.stands:
            self.checkin(hold)
        hold.end()

    def _was_recalled(self, hold: LeaseHandle) -> NoReturn:
        """The worker has hung up on a sticky lease: it was called back, or has died. The pool knows, or will."""
        hold.end()
        _sticky.disband(self.path)  # where one was recalled, the others were
        raise Recalled

    def value(self, answer: tuple[int, bytes | memoryview]) -> Any:
        """The value in an answer; see `PoolTransport.value`."""
        kind, body = answer
        if kind == frames.RESULT:
            return client_errors.result(body)
        raise frames.load_error(body)

    def _exchange(
        self, hold: LeaseHandle, head: bytes, payload: bytes, deadline: float | None
    ) -> tuple[int, bytes | memoryview]:
        """Send the call and wait for its answer. A line that is interrupted is closed, so no stale answer can come."""
        free = None
        line: ClientConn | None = hold.line
        if line is None:
            try:
                line = hold.lines.pop()
            except IndexError:  # the first call, or all are in use by other threads
                pass
        if line is None:
            path = self.endpoint.worker(hold.worker_pid)
            free = lines.take_free(path)
            line = free or ClientConn(path, spin=self.endpoint.seconds, deadline=deadline)
        while True:
            try:
                answer = line.exchange(frames.CALL, head, payload, deadline)
            except NotDelivered:
                line.close()
                lines.forget(line.path)
                if line is hold.line:
                    self._was_recalled(hold)
                if line is free:  # perhaps to a predecessor of the same pid: by a new one
                    line = ClientConn(line.path, spin=self.endpoint.seconds, deadline=deadline)
                    continue
                raise
            except BaseException:
                line.close()
                hold.line = None
                raise
            if hold.stands:
                hold.line = line
            elif hold.open:
                hold.lines.append(line)
            else:  # it ended meanwhile
                lines.give(line)
            return answer
