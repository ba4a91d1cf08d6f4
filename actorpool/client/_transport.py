"""The way from a handle to its pool, whatever it is made of: the interface, and what does not depend on the way."""

from __future__ import annotations

import copy
import itertools
import os
import time
import traceback
from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterator
from typing import Any

from actorpool._protocol import requests
from actorpool._protocol.requests import HandleFacts
from actorpool.client import client_errors
from actorpool.client._blocking import THREADS, drive
from actorpool.client._calls import Attempt, CallRequest, LeaseHandle, NotStarted, Recalled
from actorpool.client._driver import Driver
from actorpool.messages import Err, Ok

_OWN_CODE = os.path.dirname(__file__)
_PAUSES = (0.0, 0.0, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032)
_LONGEST_PAUSE = 0.05


def pauses() -> Iterator[float]:
    """Seconds to wait before each attempt: longer and longer, bounded.

    None before the first, and none before the second: the first may have met a free connection to a predecessor.
    """
    return itertools.chain(_PAUSES, itertools.repeat(_LONGEST_PAUSE))


def stack_of_caller() -> str:
    """Where a checkout is made, without our own frames; kept with the lease for leak reports."""
    stack = traceback.extract_stack()
    while len(stack) > 1 and stack[-1].filename.startswith(_OWN_CODE):
        stack.pop()
    return "".join(traceback.format_list(stack))


class PoolTransport(ABC):
    """The way to one pool, for any thread and any event loop; a coroutine waits as its `driver` does."""

    pool: str
    """The pool's name."""
    where: Any
    """What tells this pool from one of the same name elsewhere."""
    expected: Any = None
    """The process of the pool whose settings the handle goes by; another one is `Replaced`. None: whatever is there."""
    sandbox: str | None = None
    """The sandbox in which a turn is asked for; `sandboxes.OUTSIDE` is a worker of one's own; None: as the pool
    knows.
    """
    sticky_path: str | None = None
    """Where threads find the sticky leases of the pool (see `client._sticky`); None: this way has none."""

    def inside(self, sandbox: str) -> PoolTransport:
        """The way to the same pool for callers of a sandbox, or (`OUTSIDE`) to open one."""
        transport = copy.copy(self)
        transport.sandbox = sandbox
        transport.sticky_path = None
        return transport

    # -- leases -------------------------------------------------------------------------------------------

    @abstractmethod
    async def checkout(
        self, driver: Driver, timeout: float, block: bool = True, stack: str | None = None, key: Hashable = None
    ) -> LeaseHandle:
        """Get a lease. If it is interrupted or cancelled, no worker is left out.

        Args:
            timeout: longest wait in seconds, a restart of the pool included; 0 takes an idle worker or fails.
            block: False fails at once when the pool is full.
            stack: where the checkout was made, for leak reports.
            key: of a keyed lease; None: of any worker. In a sandbox, where there is one worker, it counts for nothing.

        Raises:
            ActorPoolError: the pool's own refusal, or why the pool cannot be reached.
            Replaced: see `expected`.
        """

    @abstractmethod
    def checkin(self, lease: LeaseHandle, driver: Driver = THREADS) -> bool:
        """Give a lease back. Never waits, so nothing can come between.

        Returns:
            Whether there was anything to give back: not for a lease that is over, or another process's.
        """

    async def lease_for_call(self, driver: Driver, timeout: float, stack: str | None = None) -> LeaseHandle:
        """Get a lease for one call, which `end_call` ends; as `checkout` otherwise."""
        return await self.checkout(driver, timeout, True, stack)

    def end_call(self, driver: Driver, lease: LeaseHandle) -> None:
        """The one call is over, or could not be made."""
        self.checkin(lease, driver)

    async def another(
        self, driver: Driver, deadline: float, pause: float, error: BaseException, key: Hashable = None
    ) -> LeaseHandle:
        """A lease in place of one whose worker did not start the call; raises `error` once time is up."""
        return await self.checkout(driver, await _left(driver, deadline, pause, error), key=key)

    # -- calls --------------------------------------------------------------------------------------------

    @abstractmethod
    async def perform(
        self, driver: Driver, lease: LeaseHandle, work: CallRequest, last: bool = False, attempt: Attempt | None = None
    ) -> Any:
        """Run work on the lease's worker and return its answer, for `value`.

        Args:
            last: the lease ends with this call, or this use of it; `end_call` then only tells the pool.
            attempt: it was sent already.

        Raises:
            Recalled: it was not run, and the lease, a sticky one, is over.
            NotStarted: it was not run; the lease may be over (`lease.open`), or is still to be checked in.
            CallTimeout, WorkerDied, LeaseExpired: the lease is over.
        """

    @abstractmethod
    def value(self, answer: Any, driver: Driver = THREADS) -> Any:
        """The value in an answer; raises what the work raised, as the driver may raise it.

        No coroutine could raise it: a `StopIteration` of the worker's code would be its own end.
        """

    def call_now(self, lease: LeaseHandle, work: CallRequest) -> Any:
        """The value of `perform`, for a thread."""
        return self.value(drive(self.perform(THREADS, lease, work)))

    async def run(
        self,
        driver: Driver,
        work: CallRequest,
        timeout: float,
        stack: str | None = None,
        attempt: Attempt | None = None,
    ) -> Any:
        """Checkout, call and checkin in one; returns the answer. What is not started goes to another worker in time."""
        deadline = timeout + (time.perf_counter() if attempt is None else attempt.began)
        _ = work.payload  # what cannot be sent fails before a worker is asked for
        lease = await self.lease_for_call(driver, timeout, stack) if attempt is None else attempt.lease
        error: BaseException | None
        for pause in pauses():
            try:
                answer = await self.perform(driver, lease, work, True, attempt)
            except Recalled:
                error = None
            except NotStarted as refusal:
                error = refusal.error
            else:
                break
            finally:
                self.end_call(driver, lease)  # before the answer is opened: the next waiter need not wait for that
            attempt = None
            lease = await self.lease_for_call(driver, await _left(driver, deadline, pause, error), stack)
        return answer

    # -- questions ----------------------------------------------------------------------------------------

    @abstractmethod
    async def ask(self, driver: Driver, request: Any, timeout: float | None = 5.0) -> Any:
        """Ask the pool something; the answer's value, or its error raised."""

    async def facts(self, driver: Driver, timeout: float) -> HandleFacts:
        """What a handle has to know of the pool's settings before it can check out a worker within `timeout` seconds.

        From then on that process of the pool is `expected`. Raises as `checkout`.
        """
        patience = timeout + client_errors.grace(timeout)
        return await self.ask(driver, requests.Facts(), patience)  # type: ignore[no-any-return]


async def _left(driver: Driver, deadline: float, pause: float, error: BaseException | None) -> float:
    """Pause; how many seconds are left after that. Raises `error`, if there is one, once time is up."""
    now = time.perf_counter()
    if now >= deadline and error is not None:
        raise error
    if pause:
        await driver.pause(max(min(pause, deadline - now), 0.0))
    return max(deadline - time.perf_counter(), 0.0)


def opened(answer: Ok | Err, driver: Driver) -> Any:
    """The value of a message; raises its error, as the driver may raise it."""
    if isinstance(answer, Err):
        raise driver.error(answer.error)
    return answer.value


class InThreadTransport(PoolTransport):
    """A way whose steps block the thread that takes them; a task has each of them done in a thread of its loop.

    What a cancelled task leaves running is ended where it comes back: a lease that comes too late is given back.
    """

    @abstractmethod
    def checkout_now(self, timeout: float, block: bool, stack: str | None, key: Hashable) -> LeaseHandle:
        """`checkout` in this thread."""

    @abstractmethod
    def perform_now(self, lease: LeaseHandle, work: CallRequest) -> Ok | Err:
        """`perform` in this thread."""

    @abstractmethod
    def ask_now(self, request: Any, timeout: float | None = 5.0) -> Any:
        """`ask` in this thread."""

    @abstractmethod
    def abandon(self, lease: LeaseHandle) -> None:
        """The lease is over now, though a call of it may run."""

    async def checkout(
        self, driver: Driver, timeout: float, block: bool = True, stack: str | None = None, key: Hashable = None
    ) -> LeaseHandle:
        return await driver.in_thread(self.checkout_now, timeout, block, stack, key)

    async def perform(
        self, driver: Driver, lease: LeaseHandle, work: CallRequest, last: bool = False, attempt: Attempt | None = None
    ) -> Any:
        return await driver.in_thread(self.perform_now, lease, work, holder=True, undo=lambda: self.abandon(lease))

    async def run(
        self,
        driver: Driver,
        work: CallRequest,
        timeout: float,
        stack: str | None = None,
        attempt: Attempt | None = None,
    ) -> Any:
        return await driver.in_thread(self.run_now, work, timeout, stack)

    def run_now(self, work: CallRequest, timeout: float, stack: str | None) -> Ok | Err:
        """`run` in this thread, with all its steps."""
        return drive(super().run(THREADS, work, timeout, stack))  # type: ignore[no-any-return]

    def value(self, answer: Ok | Err, driver: Driver = THREADS) -> Any:
        return opened(answer, driver)

    async def ask(self, driver: Driver, request: Any, timeout: float | None = 5.0) -> Any:
        return await driver.in_thread(self.ask_now, request, timeout)
