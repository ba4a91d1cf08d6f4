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
from actorpool.client._calls import CallRequest, LeaseHandle, NotStarted, Recalled

LEARNING = 5.0
"""Seconds to learn the pool's settings in a call that goes by its checkout timeout, which is one of them."""
_OWN_CODE = os.path.dirname(__file__)
_PAUSES = (0.0, 0.0, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032)
_LONGEST_PAUSE = 0.05


def pauses() -> Iterator[float]:
    """Seconds to wait before each attempt: longer and longer, bounded.

    None before the first, and none before the second: the first may have met a free line to a predecessor.
    """
    return itertools.chain(_PAUSES, itertools.repeat(_LONGEST_PAUSE))


def stack_of_caller() -> str:
    """Where a checkout is made, without our own frames; kept with the lease for leak reports."""
    stack = traceback.extract_stack()
    while len(stack) > 1 and stack[-1].filename.startswith(_OWN_CODE):
        stack.pop()
    return "".join(traceback.format_list(stack))


class PoolTransport(ABC):
    """The way to one pool. All methods may be called from any thread."""

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

    def inside(self, sandbox: str) -> PoolTransport:
        """The way to the same pool for callers of a sandbox, or (`OUTSIDE`) for those who want to open one."""
        link = copy.copy(self)
        link.sandbox = sandbox
        return link

    @abstractmethod
    def checkout(
        self, timeout: float, block: bool = True, stack: str | None = None, key: Hashable = None
    ) -> LeaseHandle:
        """Get a lease.

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
    def perform(self, hold: LeaseHandle, work: CallRequest, last: bool = False) -> Any:
        """Run work on the lease's worker and return its answer, for `value`.

        Args:
            last: the lease ends with this call, or this use of it; `finish` then only tells the pool.

        Raises:
            Recalled: it was not run, and the lease, a standing one, is over.
            NotStarted: it was not run; the lease may be over (`hold.open`), or is still to be checked in.
            CallTimeout, WorkerDied, LeaseExpired: the lease is over.
        """

    @abstractmethod
    def value(self, answer: Any) -> Any:
        """The value in an answer of `perform`; raises what the work raised."""

    @abstractmethod
    def checkin(self, hold: LeaseHandle) -> bool:
        """Give a lease back, without waiting.

        Returns:
            Whether there was anything to give back: not for a lease that is over, or another process's.
        """

    def hire(self, timeout: float, stack: str | None = None) -> LeaseHandle:
        """Get a lease for one call, which `finish` ends; as `checkout` otherwise."""
        return self.checkout(timeout, True, stack)

    def finish(self, hold: LeaseHandle) -> None:
        """The one call is over, or could not be made."""
        self.checkin(hold)

    @abstractmethod
    def ask(self, request: Any, timeout: float | None = 5.0) -> Any:
        """Ask the pool something; the answer's value, or its error raised."""

    def facts(self, timeout: float) -> HandleFacts:
        """What a handle has to know of the pool's settings before it can check out a worker within `timeout` seconds.

        From then on that process of the pool is `expected`. Raises as `checkout`.
        """
        return self.ask(requests.Facts(), timeout + client_errors.grace(timeout))  # type: ignore[no-any-return]

    def run(self, work: CallRequest, timeout: float, stack: str | None = None) -> Any:
        """Checkout, call and checkin in one. What was not started is taken to another worker within `timeout`."""
        deadline = time.perf_counter() + timeout
        _ = work.payload  # what cannot be sent fails before a worker is asked for
        hold = self.hire(timeout, stack)
        error: BaseException | None
        for pause in pauses():
            try:
                answer = self.perform(hold, work, True)
            except Recalled:
                error = None
            except NotStarted as refusal:
                error = refusal.error
            else:
                break
            finally:
                self.finish(hold)  # before the answer is opened: the next in line need not wait for that
            hold = self.hire(self._left(deadline, pause, error), stack)
        return self.value(answer)

    def call(self, hold: LeaseHandle, work: CallRequest) -> Any:
        """Run work on the lease's worker and return its result; raises as `perform` and `value`."""
        return self.value(self.perform(hold, work))

    def another(self, deadline: float, pause: float, error: BaseException, key: Hashable = None) -> LeaseHandle:
        """A lease in place of one whose worker did not start the call; raises `error` once time is up."""
        return self.checkout(self._left(deadline, pause, error), key=key)

    def _left(self, deadline: float, pause: float, error: BaseException | None) -> float:
        """Pause; how many seconds are left after that. Raises `error`, if there is one, once time is up."""
        now = time.perf_counter()
        if now >= deadline and error is not None:
            raise error
        if pause:
            time.sleep(max(min(pause, deadline - now), 0.0))
        return max(deadline - time.perf_counter(), 0.0)
