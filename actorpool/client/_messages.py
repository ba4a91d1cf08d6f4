"""The way to a pool by Thespian's messages: for bases that cannot watch a descriptor, other hosts, unit tests.

The same promises as over the channel with one difference: the death of a process is not told at once, so silence is
looked into, and what may have begun counts as begun.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Hashable
from typing import Any

from actorpool import process
from actorpool._protocol import requests, sandboxes
from actorpool._protocol.requests import HandleFacts
from actorpool.client import client_errors
from actorpool.client._blocking import THREADS
from actorpool.client._calls import CallRequest, LeaseHandle, Replaced
from actorpool.client._driver import Driver
from actorpool.client._message_client import HasManager, MessageClient
from actorpool.client._transport import InThreadTransport, pauses
from actorpool.errors import ActorPoolError, CallTimeout, LeaseExpired, PoolDown, WorkerDied
from actorpool.messages import Call, Checkin, Checkout, Err, ListPools, Ok, WhereIs, WithConnection
from actorpool.serialization.pickling import Pickled
from actorpool.transport import frames

MANAGER_PATIENCE = 5.0
"""Seconds for an answer of the manager; it never waits for anything itself."""


class OwnSystem:
    """A system of the user's own: the `ActorSystem`, and the address of a `ConnectionManager` in it."""

    def __init__(self, actor_system: Any, manager: Any) -> None:
        self._system = actor_system
        self._manager = manager

    def actor_system(self) -> Any:
        """The user's `ActorSystem`."""
        return self._system

    def manager(self) -> Any:
        """The manager's address."""
        return self._manager


class PoolMessages:
    """The way to one pool of whatever kind.

    Args:
        node_client: where the system is.
        pool: the pool's name.
    """

    def __init__(self, node_client: HasManager, pool: str) -> None:
        self.node_client = node_client
        self.pool = pool
        self.messages = MessageClient(node_client)
        self._address: Any = None

    def __reduce__(self) -> tuple[Any, ...]:
        return (type(self), (self.node_client, self.pool))

    @property
    def where(self) -> Any:
        """The manager's address and the pool's name."""
        return (str(self.node_client.manager()), self.pool)

    def __repr__(self) -> str:
        return f"<messages to {self.pool}>"

    # -- reaching the pool --------------------------------------------------------------------------------

    def _manager_says(self, request: Any) -> Any:
        answer = self.messages.ask(self.node_client.manager(), request, MANAGER_PATIENCE)
        if answer is None:
            text = f"the manager has not answered within {MANAGER_PATIENCE} s: it is being restarted; try again"
            raise PoolDown(text, pool=self.pool)
        return answer

    def _find(self) -> Any:
        """The pool's present address; None while it is being restarted.

        Raises:
            PoolNotFound: there is no such pool.
        """
        answer = self._manager_says(WhereIs(self.pool))
        if isinstance(answer, Ok):
            return answer.value
        known = self._manager_says(ListPools()).unwrap()
        missing = client_errors.not_found(self.pool, known)
        if missing is not None:
            raise missing
        return None

    def _pool_address(self, deadline: float) -> Any:
        """The pool's address, known or asked for; waits for a restart.

        Raises:
            PoolNotFound, PoolDown: there is none, or not in time.
        """
        began = time.monotonic()
        for pause in pauses():
            if self._address is None:
                self._address = self._find()
            if self._address is not None:
                return self._address
            if time.monotonic() + pause > deadline:
                raise client_errors.pool_down(self.pool, "is not serving", time.monotonic() - began)
            time.sleep(pause)
        raise AssertionError

    def _moved(self) -> bool:
        """Whether the pool is no longer the process it was: what it was asked is lost."""
        known, self._address = self._address, self._find()
        return bool(self._address != known)

    def ask_now(self, request: Any, timeout: float | None = 5.0) -> Any:
        """Ask the pool something; as `PoolTransport.ask`."""
        deadline = time.monotonic() + (3600.0 if timeout is None else timeout)
        while True:
            address = self._pool_address(deadline)
            left = None if timeout is None else deadline - time.monotonic()
            try:
                answer = self.messages.ask(address, request, left, lambda: _Moved() if self._moved() else None)
            except _Moved:
                continue
            if answer is None:
                raise client_errors.pool_down(self.pool, "has not answered", timeout or 0.0)
            return answer.unwrap()


class MessageTransport(PoolMessages, InThreadTransport):
    """The way to one pool that lends workers; in a `sandbox`, see `PoolTransport.sandbox`."""

    def __init__(self, node_client: HasManager, pool: str, sandbox: str | None = None) -> None:
        super().__init__(node_client, pool)
        self.sandbox = sandbox

    def __reduce__(self) -> tuple[Any, ...]:
        return (type(self), (self.node_client, self.pool, self.sandbox))

    async def facts(self, driver: Driver, timeout: float) -> HandleFacts:
        facts = await super().facts(driver, timeout)
        self.expected = self._address
        return facts

    # -- leases -------------------------------------------------------------------------------------------

    def checkout_now(self, timeout: float, block: bool, stack: str | None, key: Hashable) -> LeaseHandle:
        """`stack` does not travel this way."""
        request = Checkout(self.pool, block, timeout)
        if self.sandbox is not None:
            request = sandboxes.CheckoutIn(self.pool, block, timeout, self.sandbox)
        elif key is not None:
            request = requests.CheckoutKeyed(self.pool, block, timeout, key)
        manager = self.node_client.manager()
        answer = lease = None
        try:
            answer = self.messages.ask(manager, request, timeout + client_errors.grace(timeout))
            if isinstance(answer, Ok):
                grant = answer.value
                ids = (grant.lease, grant.worker_id, grant.worker_pid or 0)
                flags = frames.TURN * grant.turn | frames.KEYED * grant.keyed | frames.CONTINUED * (not grant.fresh)
                lease = LeaseHandle(*ids, give_back=self.checkin, pool_conn=grant, flags=flags, lost=grant.lost)
        finally:
            if lease is None and not isinstance(answer, Err):  # timed out or interrupted: a grant would be lost
                self.messages.tell(manager, requests.Cancel(self.pool, ref=request.ref, caller=request.caller))
        if lease is not None:
            self._address = lease.pool_conn.pool_address or self._address
            if self.expected in (None, self._address):
                return lease
            self.checkin(lease)
            raise Replaced
        if self.expected is not None and self._moved() and self._address is not None:
            raise Replaced
        if answer is None:
            self._pool_address(0.0)  # raises what is wrong with the pool itself
            raise client_errors.checkout_timeout(self.pool, timeout)
        raise answer.error

    def checkin(self, lease: LeaseHandle, driver: Driver = THREADS) -> bool:
        if not lease.ours:
            return False
        grant = lease.pool_conn if lease.lost else dataclasses.replace(lease.pool_conn, lost=None)
        self.messages.tell(grant.pool_address or self.node_client.manager(), Checkin(grant))
        lease.end()
        return True

    def abandon(self, lease: LeaseHandle) -> None:
        """Have the pool take the worker back from what it does for this lease."""
        if lease.ours:
            message = requests.Abandon(self.pool, lease.id)
            self.messages.tell(lease.pool_conn.pool_address or self.node_client.manager(), message)
            lease.end()

    # -- calls --------------------------------------------------------------------------------------------

    def perform_now(self, lease: LeaseHandle, work: CallRequest) -> Ok | Err:
        what = work.what if isinstance(work.what, str) else Pickled.of(work.what)
        request = Call(lease.pool_conn, what, Pickled.of(work.args), Pickled.of(dict(work.kwargs)), work.timeout)
        try:
            answer = self.messages.ask(lease.pool_conn.worker, request, work.timeout, lambda: self._lost(lease, work))
        except BaseException:  # interrupted, or the worker is gone: the answer is no longer wanted
            self.abandon(lease)
            raise
        if answer is None:
            self.abandon(lease)
            raise client_errors.call_timeout(self.pool, work)
        lease.used = True
        if isinstance(answer, Err) and isinstance(answer.error, CallTimeout) and work.timeout is not None:
            self.abandon(lease)
            raise client_errors.call_timeout(self.pool, work)
        if isinstance(answer, Err) and isinstance(answer.error, LeaseExpired):
            lease.end()
        return answer  # type: ignore[no-any-return]

    def _lost(self, lease: LeaseHandle, work: CallRequest) -> BaseException | None:
        """Whether the pool has given the lease up: its worker died, or it was taken back."""
        answer = self.messages.ask(lease.pool_conn.pool_address, requests.Leases(), MANAGER_PATIENCE)
        if isinstance(answer, Ok) and any(out.id == lease.id for out in answer.value):
            return None
        if lease.worker_pid and process.alive(lease.worker_pid):
            return client_errors.expired(self.pool, lease)
        return client_errors.worker_died(self.pool, lease, work)

    def run_now(self, work: CallRequest, timeout: float, stack: str | None) -> Ok | Err:
        """Checkout, call and checkin in one message; with a call timeout of its own, in three."""
        if work.timeout is not None or self.sandbox is not None:
            return super().run_now(work, timeout, stack)
        packed = (Pickled.of(work.what), Pickled.of(work.args), Pickled.of(dict(work.kwargs)))
        request = WithConnection(self.pool, *packed, timeout)
        deadline = time.monotonic() + timeout
        self._pool_address(deadline)
        late = deadline + client_errors.grace(timeout)
        return self.messages.ask(  # type: ignore[no-any-return]
            self.node_client.manager(), request, None, lambda: self._never(work, late)
        )

    def _never(self, work: CallRequest, late: float) -> ActorPoolError | None:
        """Why no answer can come any more: the pool was restarted, or (looked at when it is late) hears nothing."""
        if self._moved():
            return WorkerDied(
                f"pool {self.pool!r} was restarted while it had {work.name}, which may or may not have taken effect",
                pool=self.pool,
            )
        if time.monotonic() < late or self.messages.ask(self._address, requests.Status(), MANAGER_PATIENCE) is not None:
            return None
        return PoolDown(
            f"pool {self.pool!r} has not answered for {MANAGER_PATIENCE:g} s, and has had {work.name}, which may or "
            "may not have taken effect; its process hangs or is stopped: stop the pool and start it anew",
            pool=self.pool,
        )


class _Moved(Exception):
    """The pool is another process now; what the former one was asked is asked again."""
