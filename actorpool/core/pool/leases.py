"""The leases in use: the worker, the holder and the deadlines of each."""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Iterator
from typing import Any

from actorpool.core.machine import TimerQueue
from actorpool.core.pool.sticky_lease import StickyLease
from actorpool.core.workers import Worker


class Lease:
    """A worker that a holder has taken out.

    Attributes:
        sandbox: the key of the sandbox that it is, or that it is a turn in.
        sticky: set if the holder keeps the lease between two uses (see `sticky`).
    """

    __slots__ = ("holder", "id", "keyed", "leaked", "ref", "sandbox", "since", "stack", "sticky", "trial", "worker")

    def __init__(self, id: int, worker: Worker, holder: Hashable, ref: Any, since: float, stack: str | None) -> None:
        self.id = id
        self.worker = worker
        self.holder = holder
        self.ref = ref
        self.since = since
        self.stack = stack
        self.keyed = False  # its worker keeps its state for the next lease of the same key
        self.leaked = False
        self.trial = False
        self.sandbox: str | None = None
        self.sticky: StickyLease | None = None

    @property
    def unused(self) -> bool:
        """Whether its holder keeps it without using it now."""
        return self.sticky is not None and self.sticky.unused

    @property
    def used_since(self) -> float:
        """Since when it is in use."""
        return self.since if self.sticky is None else self.sticky.since(self.since)


class Leases:
    """Leases by id and by holder. Ids grow, so a late word about an old one falls through."""

    def __init__(self) -> None:
        self.by_id: dict[int, Lease] = {}
        self.by_holder: dict[Hashable, set[int]] = {}
        self.timers = TimerQueue()
        self._ids = itertools.count(1)

    def new_id(self) -> int:
        """An id that no lease had before."""
        return next(self._ids)

    def grant(self, worker: Worker, holder: Hashable, ref: Any, now: float, stack: str | None) -> Lease:
        """Give a worker to a holder."""
        lease = Lease(next(self._ids), worker, holder, ref, now, stack)
        worker.lease = lease.id
        worker.calls += 1
        self.by_id[lease.id] = lease
        held = self.by_holder.get(holder)
        if held is None:
            held = self.by_holder[holder] = set()
        held.add(lease.id)
        return lease

    def end(self, lease: Lease) -> None:
        """Take a lease out. A holder without leases is forgotten."""
        del self.by_id[lease.id]
        held = self.by_holder[lease.holder]
        held.discard(lease.id)
        if not held:
            del self.by_holder[lease.holder]
        lease.worker.lease = None

    def of_holder(self, holder: Hashable) -> list[Lease]:
        """What a holder has."""
        return [self.by_id[id] for id in self.by_holder.get(holder, ())]

    def of_request(self, holder: Hashable, ref: Any) -> Lease | None:
        """The lease that a checkout was answered with, if it is still out."""
        return next((lease for lease in self.of_holder(holder) if lease.ref == ref), None)

    def oldest_used(self) -> Lease | None:
        """The first granted of those in use."""
        return next((lease for lease in self.by_id.values() if not lease.unused), None)

    def check(self) -> None:
        """Raise AssertionError if an invariant is broken. For tests."""
        for lease in self.by_id.values():
            assert lease.worker.lease == lease.id, "a worker has two leases"
            assert lease.id in self.by_holder[lease.holder], "a lease is not on its holder's list"
        assert sum(map(len, self.by_holder.values())) == len(self.by_id), "a holder's list has a lease that ended"

    def __contains__(self, id: int) -> bool:
        return id in self.by_id

    def __iter__(self) -> Iterator[Lease]:
        return iter(list(self.by_id.values()))

    def __len__(self) -> int:
        return len(self.by_id)
