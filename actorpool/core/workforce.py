"""Worker processes and their connections: starting, connecting, losing, replacing, ending them.

Two things are kept apart: a *crash* is the death of a process and counts against the restart intensity; failing to
*connect* never does: it is retried with backoff for as long as it takes.
"""

from __future__ import annotations

from actorpool.core.decider import decides
from actorpool.core.effects import Check, Close, Fail, Kill, Open, Ready, Start, Stop, Stopped
from actorpool.core.fleet import CHECKING, DOWN, IDLE, LEASED, OPENING, STARTING, STOPPING, Worker
from actorpool.core.ledger import Ledger
from actorpool.errors import RestartIntensityExceeded

SPREAD = 0.01
"""Seconds between two reconnects once one has succeeded: at most 100 attempts a second, whatever the pool's size."""


class Workforce(Ledger):
    """The layer that hires and dismisses."""

    _probing: int | None = None
    """The worker that tries to reconnect on behalf of all that are down."""
    _recycled: int | None = None
    """The one worker that is being replaced by `recycle` just now."""

    # -- starting -----------------------------------------------------------------------------------------

    @property
    def _surplus(self) -> int:
        """How many workers there are above `size`, not counting those that have a replacement already."""
        return self.fleet.staying - len(self._replaced) - self.size

    def _start(self, now: float, restarts: int = 0, replaces: int | None = None) -> Worker:
        if replaces is not None:
            self._replaced.add(replaces)
        worker = Worker(next(self._worker_ids), self._surplus >= 0, restarts)
        worker.replaces = replaces
        worker.idle_since = worker.seen = now
        self.fleet.add(worker)
        self._do(Start(worker.id))
        return worker

    def _fill(self, now: float, restarts: int = 0) -> None:
        """Start what is missing: base workers always, overflow workers for waiters nobody comes back for."""
        if self.stopping or self.failed:
            return
        while self._surplus < 0:
            self._start(now, restarts)
        # While some are down, hiring beside those who reconnect one by one would be the storm that this avoids.
        if not self.serving or self.down_cause is not None or self.fleet.places[DOWN]:
            return
        room = self.max_overflow - self._surplus
        wanted = len(self.queue) - self.fleet.incoming
        for _ in range(min(room, wanted)):
            worker = self._start(now)
            self._emit("pool.overflow", metadata={"worker": worker.id}, overflow=self.overflow)

    @decides
    def worker_started(self, now: float, id: int) -> None:
        """The worker's process is up and its `__init__` has run."""
        worker = self.fleet.workers.get(id)
        if worker is not None and worker.state is STARTING:
            self._emit("worker.started", metadata={"worker": id})
            self._open(worker, now)

    @decides
    def start_failed(self, now: float, id: int, error: Exception) -> None:
        """The worker's `__init__` raised: its settings are wrong, and a second try would be the same."""
        if self.failed is None and not self.stopping:
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        self.failed = error
        self._do(Fail(error))

    def _check_started(self) -> None:
        if self.started or self.failed or self.fleet.count(STARTING, OPENING):
            return
        self.started = True
        self._do(Ready(degraded=self.down_cause is not None))

    # -- connecting ---------------------------------------------------------------------------------------

    def _open(self, worker: Worker, now: float) -> None:
        if worker.state is not OPENING:
            self.fleet.move(worker, OPENING)
        worker.broken = worker.suspect = False
        worker.connected_at = worker.expires = None
        self._do(Open(worker.id))

    @decides
    def opened(self, now: float, id: int, took: float = 0.0) -> None:
        """The worker is connected."""
        worker = self.fleet.workers.get(id)
        if worker is None or worker.state is not OPENING:
            return
        worker.connected_at = now
        if self.config.max_lifetime is not None:
            worker.expires = now + self.config.max_lifetime * (1 - self.config.lifetime_jitter * self.random())
            self.agenda.at(worker.expires, (self._lifetime_over, id, worker.connected_at))
        self._emit("worker.connected", metadata={"worker": id}, ms=took * 1e3)
        self._connection_works(now)
        if worker.recycle == "reopen":
            worker.recycle = None
        self._available(worker, now)
        self._recycled_by(worker, now)
        self._fill(now)  # for those who have queued while nobody was hired
        self._check_started()

    def _connection_works(self, now: float) -> None:
        self._circuit_success(now)
        self.loss = None
        if self.down_cause is None:
            return
        self.down_cause = self._probing = None
        self.hopeless = False
        self.retry.reset()
        # The resource is back: the others follow, spread out so that it is not knocked over again.
        for number, worker in enumerate(self.fleet.places[DOWN].values()):
            self.agenda.at(now + (number + self.random()) * SPREAD, (self._reconnect, worker.id, None))

    @decides
    def open_failed(
        self, now: float, id: int, error: Exception, permanent: bool = False, retry_after: float | None = None
    ) -> None:
        """The worker could not connect. Never a crash: tried again later, except after a `PermanentError`."""
        worker = self.fleet.workers.get(id)
        if worker is None or worker.state is not OPENING:
            return
        self.connect_errors += 1
        self._emit("worker.connect_error", metadata={"worker": id, "error": type(error).__name__})
        self._circuit_failure(now)
        self.down_cause = error
        if permanent:
            self.hopeless = True
            if not self.started:
                self._fail(error)
                return
        if self._surplus > 0 and worker.replaces is None:
            self._stop(worker, now)  # an overflow worker that cannot connect helps nobody
        else:
            self.fleet.move(worker, DOWN)
            self._plan_reconnect(worker, now, retry_after)
        self._fail_hopeless_waiters(now)
        self._check_started()

    def _plan_reconnect(self, worker: Worker, now: float, retry_after: float | None) -> None:
        """One worker at a time tries for all; the others wait for its success (see `_connection_works`)."""
        if self.hopeless:
            return
        if retry_after is None and self._probing is not None and self._probing != worker.id:
            return
        self._probing = worker.id
        delay = self.retry.next(self.random()) if retry_after is None else retry_after
        self.agenda.at(now + delay, (self._reconnect, worker.id, None))

    def _reconnect(self, id: int, _since: None, now: float) -> None:
        worker = self.fleet.workers.get(id)
        if worker is not None and worker.state is DOWN and not self.stopping:
            self._open(worker, now)

    def _elect_probe(self, now: float) -> None:
        """The worker that tried for all is gone: another takes over."""
        self._probing = None
        for worker in self.fleet.places[DOWN].values():
            self._plan_reconnect(worker, now, None)
            return

    @decides
    def lost(self, now: float, id: int, error: Exception) -> None:
        """The worker's connection is gone; its process is fine. Its siblings are checked before their next use."""
        worker = self.fleet.workers.get(id)
        if worker is None or worker.state in (STARTING, OPENING, DOWN, STOPPING):
            return
        self._emit("worker.connect_error", metadata={"worker": id, "error": type(error).__name__})
        self._circuit_failure(now)
        self.loss = error
        for sibling in self.fleet:
            sibling.suspect = True
        if worker.state is LEASED:
            worker.broken = True  # it stays with its holder, who has the error; reconnected when it comes back
        else:
            self._open(worker, now)
            self._check_drained()  # it may have been on its way back from a lease

    @decides
    def checked(self, now: float, id: int) -> None:
        """The idle connection is healthy."""
        worker = self.fleet.workers.get(id)
        if worker is not None and worker.state is CHECKING:
            worker.suspect = False
            self._circuit_success(now)
            self._available(worker, now)

    # -- ending -------------------------------------------------------------------------------------------

    @decides
    def died(self, now: float, id: int, reason: str = "killed") -> None:
        """The worker's process is gone, whatever the reason. A second notice of the same death is nothing."""
        worker = self.fleet.workers.get(id)
        if worker is None:
            return
        expected = worker.state is STOPPING or worker.stop_by_us
        if worker.lease is not None:
            self._end_lease(worker.lease, now, died=True)
        self.fleet.remove(worker)
        self._replaced -= {worker.id, worker.replaces}
        if worker.replaces is not None:
            self._recycled = None  # its predecessor goes on, and gets another replacement in its turn
        if not expected:
            self._emit("worker.died", metadata={"worker": id, "reason": reason})
        if worker.state is not STOPPING:
            self._replace(worker, now, counts=not expected)
        if worker.id == self._probing:
            self._elect_probe(now)
        self._recycle_next(now)
        self._check_drained()
        if self.stopping and not len(self.fleet):
            self._do(Stopped())

    def _replace(self, worker: Worker, now: float, counts: bool) -> None:
        if self.stopping or self.failed:
            return
        self.restarts += 1
        if counts and not self.intensity.add(now):
            limit, period = self.config.max_restarts, self.config.restart_period
            self._fail(
                RestartIntensityExceeded(
                    f"pool {self.name!r}: more than {limit} worker crashes within {period:g} s; "
                    "find out why workers die (node.log has their reasons) or raise max_restarts",
                    pool=self.name,
                )
            )
            return
        before = self.fleet.staying
        self._fill(now, worker.restarts + 1)
        if self.fleet.staying > before:
            self._emit("worker.restarted", metadata={"worker": worker.id})

    def _stop(self, worker: Worker, now: float, interrupt: bool = False) -> None:
        self.fleet.move(worker, STOPPING)
        self._replaced.discard(worker.id)
        self._do(Stop(worker.id, interrupt))
        self.agenda.at(now + self.config.kill_after, (self._kill_if_there, worker.id, None))
        if worker.id == self._probing:
            self._elect_probe(now)

    def _kill_if_there(self, id: int, _since: float | None, now: float) -> None:
        worker = self.fleet.workers.get(id)
        if worker is not None:
            worker.stop_by_us = True
            self._do(Kill(id))

    # -- an idle worker -----------------------------------------------------------------------------------

    def _available(self, worker: Worker, now: float) -> None:
        """The worker came back, connected and pristine: the one place that says what becomes of it."""
        if self.stopping or worker.recycle == "retire":
            self._stop(worker, now)
        elif worker.broken:
            self._open(worker, now)
        elif worker.recycle and self._recycle_turn(worker):
            self._recycle_now(worker, now)
        elif worker.expires is not None and now >= worker.expires and worker.recycle is None:
            self._renew(worker, now)
        elif self._surplus > 0 and self._is_too_much():
            self._stop(worker, now)
        else:
            self._rest(worker, now)
            self._serve(now)

    def _is_too_much(self) -> bool:
        """Whether a worker above `size` goes: always when a resize left more than allowed, else when nobody waits."""
        return self._surplus > self.max_overflow or (self.config.overflow_ttl <= 0 and not self._is_wanted())

    def _is_wanted(self) -> bool:
        return self.serving and len(self.queue) > 0

    def _rest(self, worker: Worker, now: float) -> None:
        self.fleet.move(worker, IDLE)
        worker.idle_since = worker.seen = now
        if self._surplus > 0 and not self._is_wanted():
            self.agenda.at(now + self.config.overflow_ttl, (self._unneeded, worker.id, now))
        if self.config.idle_timeout is not None:
            self.agenda.at(now + self.config.idle_timeout, (self._idle_too_long, worker.id, now))

    def _renew(self, worker: Worker, now: float) -> None:
        """Replace the process of a worker at the end of its lifetime."""
        restarts = worker.restarts
        self._stop(worker, now)
        self._fill(now, restarts)

    def _lifetime_over(self, id: int, connected_at: float, now: float) -> None:
        worker = self.fleet.workers.get(id)
        if worker is not None and worker.state is IDLE and worker.connected_at == connected_at:
            self._renew(worker, now)

    def _unneeded(self, id: int, since: float, now: float) -> None:
        worker = self.fleet.workers.get(id)
        if worker is not None and worker.state is IDLE and worker.idle_since == since and self._surplus > 0:
            self._stop(worker, now)

    def _idle_too_long(self, id: int, since: float, now: float) -> None:
        worker = self.fleet.workers.get(id)
        if worker is None or worker.state is not IDLE or worker.idle_since != since:
            return
        if self._surplus > 0:
            self._stop(worker, now)
        else:
            worker.connected_at = worker.expires = None
            self._do(Close(worker.id))

    def _check_health(self, _key: None, _since: None, now: float) -> None:
        """Check every worker that nobody has heard of for `health_interval`."""
        interval = self.config.health_interval
        assert interval is not None
        for worker in list(self.fleet.idle.values()):
            if worker.seen <= now - interval and worker.connected_at is not None:
                self.fleet.move(worker, CHECKING)
                self._do(Check(worker.id))
                self.agenda.at(now + self.config.checkout_timeout, (self._deaf, worker.id, now))
                worker.seen = now
        self.agenda.at(now + interval, (self._check_health, None, None))

    def _deaf(self, id: int, since: float, now: float) -> None:
        worker = self.fleet.workers.get(id)
        if worker is not None and worker.state is CHECKING and worker.seen == since:
            self._kill_if_there(id, None, now)

    # -- what the layers above decide -----------------------------------------------------------------------

    def _serve(self, now: float) -> None:
        raise NotImplementedError

    def _end_lease(self, id: int, now: float, died: bool = False) -> None:
        raise NotImplementedError

    def _fail_hopeless_waiters(self, now: float) -> None:
        raise NotImplementedError

    def _recycle_turn(self, worker: Worker) -> bool:
        raise NotImplementedError

    def _recycle_now(self, worker: Worker, now: float) -> None:
        raise NotImplementedError

    def _recycle_next(self, now: float) -> None:
        raise NotImplementedError

    def _recycled_by(self, worker: Worker, now: float) -> None:
        raise NotImplementedError

    def _check_drained(self) -> None:
        raise NotImplementedError

    def _circuit_success(self, now: float) -> None:
        if self.circuit.success(now):
            self._emit("breaker.closed")

    def _circuit_failure(self, now: float) -> None:
        if self.circuit.failure(now):
            self._emit("breaker.opened")
