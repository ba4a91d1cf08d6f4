"""Keyed leases: which workers hold the state of which key, in use or *parked* until the key is asked for again.

A session begins when a keyed checkout is granted a worker, and ends with its worker, by `end_session`, after
`session_idle` unused, or when another caller needs the worker: then the one parked longest is *evicted*. An evicted
worker is reset before any other caller has it. A parked worker counts as idle.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable

from actorpool.core.pool.sticky_lease import UsageCounter
from actorpool.core.workers import NO_LEASE, PARKED, Worker, Workers
from actorpool.status import SessionInfo

REMEMBERED = 50_000
"""How many keys of which the session ended are remembered, with the reason, for their next caller."""


class Session:
    """The state of one key, in one worker.

    Attributes:
        since: when it began, monotonic seconds.
        parked_at: since when it is not in use; None while it is.
        lease: the id of its last lease.
        ending: why it ends when it is given back; None: it is parked then.
        leases: how many leases it had.
        lost: why the one before it ended, which its first caller is told.
        calls: how many its worker had begun before; None: it does not count them.
        empty: nothing has run yet under any of its leases, so the worker holds nothing of the key.
        fresh: whether its last lease was granted as one that meets nothing.
    """

    __slots__ = ("calls", "empty", "ending", "fresh", "key", "lease", "leases", "lost", "parked_at", "since", "worker")

    def __init__(self, key: Hashable, worker: Worker, now: float, lost: str | None, calls: int | None) -> None:
        self.key = key
        self.worker = worker
        self.since = now
        self.parked_at: float | None = None
        self.ending: str | None = None
        self.lease = NO_LEASE
        self.leases = 0
        self.lost = lost
        self.calls = calls
        self.empty = False
        self.fresh = True


class Sessions:
    """Sessions by key; the parked ones in the order in which they are evicted.

    Args:
        counter: where a worker counts its calls, by its id; None: it does not.
    """

    def __init__(self, counter: Callable[[int], UsageCounter | None]) -> None:
        self._counter = counter
        self.by_key: dict[Hashable, Session] = {}
        self.parked: OrderedDict[int, Session] = OrderedDict()  # by worker id, the one parked longest first
        self.evicting: set[int] = set()  # workers that are reset because another caller needs them
        self.surplus: set[int] = set()  # workers that are reset because there are more than `size`
        self._lost: OrderedDict[Hashable, str] = OrderedDict()

    def is_busy(self, key: Hashable) -> bool:
        """Whether a caller must wait for this key: another one has its session."""
        session = None if key is None else self.by_key.get(key)
        return session is not None and session.parked_at is None

    def of_worker(self, worker: Worker) -> Session | None:
        """The session that a worker holds."""
        return None if worker.key is None else self.by_key.get(worker.key)

    def begin(self, key: Hashable, worker: Worker, now: float) -> Session:
        """A worker is granted for a key without a session."""
        session = self.by_key[key] = Session(key, worker, now, self._lost.pop(key, None), self._calls(worker))
        worker.key = key
        return session

    def not_begun(self, worker: Worker, told: bool) -> None:
        """Nothing has run under the lease that ends: if it was fresh, so is the next one.

        Args:
            worker: the worker of the lease.
            told: its caller knows why the session before ended; else the next one will be told.
        """
        session = self.of_worker(worker)
        if session is not None and session.fresh:
            session.empty = True
            if told:
                session.lost = None

    def end_unused(self, worker: Worker, told: bool) -> None:
        """End a session under which nothing has run, if the worker has counted no call since the grant."""
        session = self.of_worker(worker)
        if session is not None and session.calls is not None and session.calls == self._calls(worker):
            self.not_begun(worker, told)
            self.end_empty(worker)

    def end_empty(self, worker: Worker) -> None:
        """End a session under which nothing has run."""
        session = self.of_worker(worker)
        if session is not None and session.empty:
            self.end(worker, "empty")

    def _calls(self, worker: Worker) -> int | None:
        counter = self._counter(worker.id)
        return None if counter is None else counter.calls()

    def resume(self, session: Session) -> None:
        """A parked session is granted."""
        del self.parked[session.worker.id]
        session.parked_at = None
        session.fresh, session.empty = session.empty, False
        if session.fresh:
            session.calls = self._calls(session.worker)

    def park(self, session: Session, now: float) -> None:
        """A session is not in use any more."""
        session.parked_at = now
        self.parked[session.worker.id] = session

    def end(self, worker: Worker, why: str) -> None:
        """The worker does not hold the state of its key any more; nothing if it holds none."""
        session = self.of_worker(worker)
        worker.key = None
        if session is None:
            return
        del self.by_key[session.key]
        self.parked.pop(worker.id, None)
        lost = session.lost if session.empty else why
        if lost is not None and "ended" not in (session.ending, why):  # `end_session` is no loss
            self._lost[session.key] = lost
            if len(self._lost) > REMEMBERED:
                self._lost.popitem(last=False)

    def was_reset(self, id: int) -> None:
        """A worker holds nothing any more, or is gone."""
        self.evicting.discard(id)
        self.surplus.discard(id)

    def infos(self, pids: dict[int, int | None], now: float) -> list[SessionInfo]:
        """All sessions; `pids` is the shell's knowledge."""
        return [
            SessionInfo(
                key=session.key,
                worker_id=session.worker.id,
                pid=pids.get(session.worker.id),
                busy=session.parked_at is None,
                calls=session.leases,
                age=now - session.since,
                idle=0.0 if session.parked_at is None else now - session.parked_at,
            )
            for session in self.by_key.values()
        ]

    def check(self, workers: Workers) -> None:
        """Raise AssertionError if an invariant is broken. For tests."""
        assert set(self.parked) == set(workers.by_state[PARKED]), "parked sessions and parked workers differ"
        holding = {worker.key: worker for worker in workers if worker.key is not None}
        assert len(holding) == sum(worker.key is not None for worker in workers), "a key is in two workers"
        assert {key: session.worker for key, session in self.by_key.items()} == holding, "a session without a worker"
        for session in self.by_key.values():
            assert (session.parked_at is None) != (session.worker.id in self.parked), "parked, and in use"
