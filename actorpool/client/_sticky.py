"""The sticky leases of this process: kept between two one-shot calls, until the pool wants the worker back.

Threads share them: one that finds none free may wait for one, first come, first served. As with free connections, each
step is a single operation of a list or a deque, so threads need no lock around them, and may be interrupted anywhere.

A process that uses a whole processor gains nothing by having several workers at once: its threads only take the
interpreter from each other. So they hand one lease on as long as that is quick, and leave the others idle.

The process is not told when a lease is recalled. The worker refuses its next use, and the pool is asked.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from typing import Any

from actorpool.client._calls import CallRequest, LeaseHandle
from actorpool.transport import frames

FRESH = 0.5
"""Seconds; one that was idle for longer has probably been recalled: asking the pool first is quicker."""
ALL_FOR = 0.01
"""Seconds for which the pool's word counts that there is nothing but what this process has."""

PATIENCE = 2e-3
"""Seconds that a thread waits for a lease of its own process, before it joins the pool's queue."""
QUICK = 1e-3
"""Seconds that a thread waits for a lease that others use, while there are idle ones."""
BUSY, WINDOW = 0.8, 0.01
"""A process that uses more than this share of a processor is busy; judged anew after so many seconds."""


class _Load:
    """How busy this process is with itself."""

    __slots__ = ("_busy", "_since", "_spent")

    def __init__(self) -> None:
        self._since = self._spent = 0.0
        self._busy = False

    def is_busy(self, now: float) -> bool:
        """Whether it was, when last judged."""
        elapsed = now - self._since
        if elapsed > WINDOW:
            spent = time.process_time()
            self._busy = spent - self._spent > BUSY * elapsed
            self._since, self._spent = now, spent
        return self._busy


_load = _Load()


class _Waiter:
    """A thread that waits for one."""

    __slots__ = ("lease", "since", "woken")

    def __init__(self) -> None:
        self.since = time.perf_counter()
        self.woken = threading.Lock()
        self.woken.acquire()
        self.lease: LeaseHandle | None = None

    def wake(self, lease: LeaseHandle | None) -> None:
        """Its wait is over; None: there is nothing to wait for any more."""
        self.lease = lease
        self.woken.release()


class _PoolLeases:
    """What this process has of one pool: idle leases, those in use (by `id`), and the threads that wait for one."""

    __slots__ = ("all_until", "idle", "in_use", "waiters")

    def __init__(self) -> None:
        self.idle: list[LeaseHandle] = []
        self.in_use: set[int] = set()
        self.waiters: deque[_Waiter] = deque()
        self.all_until = 0.0

    def take(self) -> LeaseHandle | None:
        """The one that was used last."""
        try:
            return self.idle.pop()
        except IndexError:
            return None

    def first(self) -> _Waiter | None:
        """The thread that waits longest, taken out of the queue."""
        try:
            return self.waiters.popleft()
        except IndexError:
            return None

    def has_enough(self, now: float) -> bool:
        """Whether a waiter is better off with what others use than with one more: see above."""
        try:
            waited = now - self.waiters[0].since
        except IndexError:
            return False
        return bool(self.in_use) and waited < QUICK and _load.is_busy(now)

    def leave(self, waiter: _Waiter) -> bool:
        """Leave the queue; False: another thread has taken the waiter out of it, and is about to wake it."""
        try:
            self.waiters.remove(waiter)
        except ValueError:
            return False
        return True


_pools: dict[str, _PoolLeases] = {}


def _of(path: str) -> _PoolLeases:
    pool = _pools.get(path)
    if pool is None:
        _clear_out()
        pool = _pools.setdefault(path, _PoolLeases())
    return pool


def _clear_out() -> None:
    """Give back idle leases of pools that are not used any more, and may not even exist: they have descriptors."""
    for path, pool in list(_pools.items()):
        newest = max((lease.idle_since for lease in list(pool.idle)), default=0.0)
        if not pool.waiters and time.perf_counter() - newest > FRESH:
            _pools.pop(path, None)
            _give_back(pool)


def _give_back(pool: _PoolLeases) -> None:
    while (lease := pool.take()) is not None:
        lease.give_back()


def take(path: str) -> LeaseHandle | None:
    """A sticky lease of the pool with that socket, for one use; None if there is none, or others wait for one."""
    pool = _pools.get(path)
    if pool is None or pool.waiters or not pool.idle:
        return None
    try:
        lease = pool.idle.pop()
    except IndexError:  # another thread has just taken it
        return None
    if time.perf_counter() - lease.idle_since > FRESH:
        lease.give_back()
        give_all(path)  # this one was the last to be used
        return None
    lease.idle_since = 0.0
    pool.in_use.add(id(lease))
    return lease


def call(path: str, lease: LeaseHandle, work: CallRequest, payload: bytes) -> tuple[int, Any] | BaseException:
    """Use a sticky lease, which `take` has returned, for one call, in as few steps as can be.

    Returns:
        The answer; if it is a result, the lease is kept. Or what was raised instead.
    """
    deadline = None if work.timeout is None else time.perf_counter() + work.timeout
    answer: tuple[int, Any]
    try:
        answer = lease.conn.exchange(frames.CALL, lease.head(work, True), payload, deadline)
    except BaseException as problem:
        return problem
    if answer[0] == frames.RESULT:
        lease.idle_since = time.perf_counter()
        keep(path, lease)
    return answer


def use(path: str, lease: LeaseHandle) -> None:
    """A use begins."""
    lease.idle_since = 0.0
    _of(path).in_use.add(id(lease))


def drop(path: str, lease: LeaseHandle) -> None:
    """A use is over, and with it the lease."""
    _of(path).in_use.discard(id(lease))


def keep(path: str, lease: LeaseHandle) -> None:
    """A use is over: the lease goes to the thread that waits longest, or it is kept."""
    pool = _pools.get(path) or _of(path)
    pool.in_use.discard(id(lease))
    if pool.waiters and not pool.has_enough(lease.idle_since) and (waiter := pool.first()) is not None:
        use(path, lease)
        waiter.wake(lease)
        return
    pool.idle.append(lease)
    if pool.waiters and not pool.in_use:  # a thread has begun to wait meanwhile
        again = pool.take()
        if again is not None:
            keep(path, again)


def wait(path: str, seconds: float) -> LeaseHandle | None:
    """Wait for a sticky lease; None if there was none in time."""
    pool, waiter = _of(path), _Waiter()
    pool.waiters.append(waiter)
    lease = None if pool.in_use else pool.take()  # one may have been kept meanwhile
    for patience in (min(QUICK, seconds), seconds - QUICK):
        if lease is None and patience > 0:
            if waiter.woken.acquire(timeout=patience):
                return waiter.lease
            lease = pool.take()  # those in use are slow to come back
    if not pool.leave(waiter):
        waiter.woken.acquire(timeout=FRESH)  # the thread that was about to wake it may have been interrupted
        if lease is None:
            return waiter.lease
        if waiter.lease is not None:
            waiter.lease.idle_since = time.perf_counter()
            keep(path, waiter.lease)
    if lease is not None:
        use(path, lease)
    return lease


def note_all(path: str) -> None:
    """The pool says that this process has all there is."""
    _of(path).all_until = time.perf_counter() + ALL_FOR


def is_all(path: str) -> bool:
    """Whether the pool has said so a moment ago."""
    pool = _pools.get(path)
    return pool is not None and time.perf_counter() < pool.all_until


def give_all(path: str) -> None:
    """Give back to the pool what is kept of it."""
    pool = _pools.get(path)
    if pool is not None:
        _give_back(pool)


def disband(path: str) -> None:
    """The pool has recalled its workers: give the others back, and have each thread that waits ask the pool."""
    pool = _of(path)
    pool.all_until = 0.0
    pool.in_use.clear()  # also those that an interrupt has left in there
    give_all(path)
    while (waiter := pool.first()) is not None:
        waiter.wake(None)


def forget(prefix: str) -> None:
    """Drop what is kept of pools whose path begins so: their system has ended."""
    for path in [path for path in list(_pools) if path.startswith(prefix)]:
        pool = _pools.pop(path)
        while (lease := pool.take()) is not None:
            lease.end()


os.register_at_fork(after_in_child=_pools.clear)  # they are the parent's; `LeaseHandle` knows that
