"""Keyed leases of a `LocalPool`: workers that are kept, with what they hold, until their key is asked for again."""

from __future__ import annotations

import os
import time
from collections import OrderedDict
from collections.abc import Hashable

from actorpool.client._at_fork import condition, renewed
from actorpool.errors import CheckoutTimeout, PoolFull
from actorpool.status import SessionInfo
from actorpool.workers.worker_session import WorkerSession

REMEMBERED = 1000
"""How many keys of which the state is gone are remembered, with the reason."""


class LocalState:
    """What there is of one key.

    Attributes:
        session: the worker; None until the first lease has connected one.
        lost: why what there was before is gone.
        ending: it ends when it is given back.
        empty: nothing has run yet under any of its leases.
        fresh: whether its last lease met nothing.
    """

    def __init__(self, key: Hashable, number: int, lost: str | None) -> None:
        self.key = key
        self.number = number
        self.lost = lost
        self.session: WorkerSession | None = None
        self.since = self.parked_at = time.monotonic()
        self.busy = True
        self.ending = False
        self.empty = False
        self.fresh = True
        self.leases = 1


class LocalSessions:
    """All keys of one `LocalPool`. Thread-safe.

    Args:
        pool: the pool's name, for errors.
        most: so many workers are kept; beyond that, the one parked longest ends.
        idle: seconds after which one that is parked ends, when the pool is next used.
    """

    def __init__(self, pool: str, most: int, idle: float) -> None:
        self._pool = pool
        self._most = most
        self._idle = idle
        self._by_key: OrderedDict[Hashable, LocalState] = OrderedDict()  # the one parked longest first
        self._lost: OrderedDict[Hashable, str] = OrderedDict()
        self._changed = renewed(self, "_changed", condition)
        self._numbers = 0

    def take(self, key: Hashable, timeout: float, block: bool) -> LocalState:
        """The state of a key for one lease, new if there is none; waits for the lease that has it.

        Raises:
            PoolFull, CheckoutTimeout: another lease has it.
        """
        with self._changed:
            self._expire()
            if not self._changed.wait_for(lambda: not self._is_busy(key), timeout if block else 0.0):
                text = f"pool {self._pool!r}: another lease of the key {key!r} is out"
                if not block:
                    raise PoolFull(f"{text}; wait for it with block=True", pool=self._pool)
                raise CheckoutTimeout(f"{text}; waited {timeout:.2f} s for it", pool=self._pool, waited=timeout)
            state = self._by_key.get(key)
            if state is None:
                self._numbers += 1
                state = self._by_key[key] = LocalState(key, self._numbers, self._lost.pop(key, None))
            else:
                state.busy = True
                state.fresh, state.empty = state.empty, False
                if not state.fresh:
                    state.lost = None
                state.leases += 1
            return state

    def _is_busy(self, key: Hashable) -> bool:
        state = self._by_key.get(key)
        return state is not None and state.busy

    def park(self, state: LocalState, empty: bool = False, told: bool = False) -> bool:
        """A lease is over; False: its worker is not kept, and the caller is to close it.

        Args:
            empty: nothing has run under it: if it was fresh, so is the next one of its key.
            told: the caller knows why what there was before is gone; else the next one will be told.
        """
        with self._changed:
            if self._by_key.get(state.key) is not state:  # the pool was closed
                return False
            state.busy, state.parked_at = False, time.monotonic()
            self._by_key.move_to_end(state.key)
            self._changed.notify_all()
            if empty and state.fresh:
                state.empty = True
                if told:
                    state.lost = None
            if state.ending or state.session is None or not state.session.connected:
                self._forget(state, None if state.ending else "reconnected")
                return False
            self._expire()
            while sum(not other.busy for other in self._by_key.values()) > self._most:
                self._end(next(other for other in self._by_key.values() if not other.busy), "evicted")
            return True

    def end(self, key: Hashable) -> bool:
        """End what there is of a key, at once or when its lease is given back."""
        with self._changed:
            state = self._by_key.get(key)
            if state is None:
                return False
            if state.busy:
                state.ending = True
            else:
                self._end(state, None)
            return True

    def infos(self) -> list[SessionInfo]:
        """One line for each key."""
        now, pid = time.monotonic(), os.getpid()
        with self._changed:
            self._expire()
            return [
                SessionInfo(it.key, it.number, pid, it.busy, it.leases, now - it.since,
                            0.0 if it.busy else now - it.parked_at)
                for it in self._by_key.values()
            ]  # fmt: skip

    def close(self) -> None:
        """End all; leases that are out end by themselves."""
        with self._changed:
            states = list(self._by_key.values())
            self._by_key.clear()
            self._changed.notify_all()
        for state in states:
            if not state.busy and state.session is not None:
                state.session.close()

    def leave_to_parent(self) -> list[WorkerSession]:
        """In a forked child: forget all; what is parked is the parent's and has to be kept open."""
        states, self._by_key = list(self._by_key.values()), OrderedDict()
        return [state.session for state in states if state.session is not None]

    def _expire(self) -> None:
        limit = time.monotonic() - self._idle
        for state in [it for it in self._by_key.values() if not it.busy and it.parked_at < limit]:
            self._end(state, "expired")

    def _end(self, state: LocalState, why: str | None) -> None:
        self._forget(state, why)
        if state.session is not None:
            state.session.close()

    def _forget(self, state: LocalState, why: str | None) -> None:
        del self._by_key[state.key]
        lost = state.lost if state.empty else why
        if why is not None and lost is not None:
            self._lost[state.key] = lost
            if len(self._lost) > REMEMBERED:
                self._lost.popitem(last=False)
