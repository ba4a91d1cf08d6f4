"""The connections of the workers: opening, losing, checking, resting them.

Failing to connect never counts as a crash. It is retried for as long as it takes, by one worker on behalf of all that
are down, with backoff; when it succeeds, the others follow, spread out. An `open()` that hangs is interrupted: it is a
failure like any other, but one that nobody would be told of.
"""

from __future__ import annotations

from actorpool.core.effects import Check, Close, Open, Revoke
from actorpool.core.machine import step
from actorpool.core.pool.ledger import Lease
from actorpool.core.pool.workers import (
    CHECKING,
    DOWN,
    IDLE,
    LEASED,
    NO_LEASE,
    NOBODY,
    OPENING,
    REVOKING,
    STARTING,
    STOPPING,
    Worker,
)
from actorpool.core.pool.workforce import Workforce
from actorpool.serialization.exceptions import name_of

NEVER = float("inf")
AT_ONCE = 4
"""Of so many unused workers one may be away for a check at a time."""
SPREAD = 0.01
"""Seconds between two reconnects once one has succeeded: at most 100 attempts a second, whatever the pool's size."""


class Connector(Workforce):
    """The layer that keeps workers connected."""

    # -- connecting ---------------------------------------------------------------------------------------

    def _open(self, worker: Worker, now: float) -> None:
        if self.ending:
            self._stop(worker, now)
            return
        self.fleet.move(worker, OPENING)
        worker.broken = worker.suspect = False
        worker.connected_at = worker.expires = worker.timer = worker.awaits = None
        worker.seen = now
        self._do(Open(worker.id))
        self.timers.at(now + self._open_limit, (self._hangs, worker.id, now))

    @property
    def _open_limit(self) -> float:
        """Seconds that an `open()` may take: no caller waits any more, and the next attempt would be overdue."""
        return max(self.config.checkout_timeout, self.config.backoff_max)

    def _hangs(self, id: int, since: float, now: float) -> None:
        """Interrupt an `open()`; the worker says what came of it and then that no interrupt is on its way any more."""
        worker = self.fleet.workers.get(id)
        if worker is None or worker.state is not OPENING or worker.seen != since:
            return
        self._do(Revoke(id, NO_LEASE))
        self._await_reset(worker, NO_LEASE, now)

    def _await_reset(self, worker: Worker, lease: int, now: float) -> None:
        worker.awaits, worker.seen = lease, now
        self.timers.at(now + self.config.kill_after, (self._deaf, worker.id, now))

    @step
    def opened(self, now: float, id: int, took: float = 0.0) -> None:
        """The worker is connected."""
        worker = self.fleet.workers.get(id)
        if worker is None or worker.state is not OPENING:
            return
        self._emit("worker.connected", metadata={"worker": id}, ms=took * 1e3)
        self._connected(worker, now)
        self._connection_works(now)
        if not self._by_restart:
            self._to_recycle.discard(id)  # its connection is a new one
        if worker.awaits is None:
            self._available(worker, now)
        else:
            self.fleet.move(worker, REVOKING)
            self._await_reset(worker, NO_LEASE, now)
        self._fill(now)
        self._recycle_next(now)
        self._check_started()

    @step
    def reopened(self, now: float, id: int) -> None:
        """A worker that was disconnected for being idle has connected again, at its own will, to answer a call."""
        worker = self.fleet.workers.get(id)
        if worker is None or worker.connected_at is not None or worker.state in (STARTING, OPENING, DOWN, STOPPING):
            return
        self._emit("worker.connected", metadata={"worker": id})
        self._connected(worker, now)
        if worker.state is IDLE:
            self._watch_idle(worker)

    def _connected(self, worker: Worker, now: float) -> None:
        worker.connected_at = now
        if self.config.max_lifetime is not None:
            worker.expires = now + self.config.max_lifetime * (1 - self.config.lifetime_jitter * self.random())
            self.timers.at(worker.expires, (self._lifetime_over, worker.id, now))

    def _connection_works(self, now: float) -> None:
        self._circuit_success(now)
        self.loss = None
        if self.down_cause is None:
            return
        self.down_cause, self._probe_id = None, NOBODY
        self.permanently_failed = False
        self.retry.reset()
        # The resource is back: the others follow, spread out so that it is not knocked over again.
        for number, worker in enumerate(self.fleet.places[DOWN].values()):
            self._retry_at(worker, now + (number + self.random()) * SPREAD)

    @step
    def open_failed(
        self, now: float, id: int, error: Exception, permanent: bool = False, retry_after: float | None = None
    ) -> None:
        """The worker could not connect. Never a crash: tried again later, except after a `PermanentError`."""
        worker = self.fleet.workers.get(id)
        if worker is None or worker.state is not OPENING:
            return
        self._count_failure(worker, error, now)
        self.down_cause, self.permanently_failed = error, permanent
        if permanent and not self.started:
            self._fail(error)
            return
        useless = self._surplus > 0 and (permanent or self.fleet.places[DOWN] or not self._is_wanted())
        self.fleet.move(worker, DOWN)
        if useless:
            self._stop(worker, now)
        self._plan_reconnect(now, retry_after)
        if permanent:
            self._give_up(now)
        self._check_started()

    def _count_failure(self, worker: Worker, error: Exception, now: float) -> None:
        self.connect_errors += 1
        self._emit("worker.connect_error", metadata={"worker": worker.id, "error": name_of(error)})
        self._circuit_failure(now, error)

    def _plan_reconnect(self, now: float, retry_after: float | None = None) -> None:
        """See to it that one worker tries for all that are down; the others wait for its success."""
        if self.permanently_failed or self.down_cause is None:
            self._probe_id = NOBODY
            return
        probe = self.fleet.workers.get(self._probe_id)
        if probe is None:
            probe = next(iter(self.fleet.places[DOWN].values()), None)
        if probe is None:
            self._probe_id, self.down_cause = NOBODY, None  # nobody is down: whoever connects next will find out
            return
        self._probe_id = probe.id
        if probe.state is DOWN and probe.timer is None:
            self._retry_at(probe, now + (self.retry.next(self.random()) if retry_after is None else retry_after))

    def _retry_at(self, worker: Worker, when: float) -> None:
        worker.timer = when
        self.timers.at(when, (self._reconnect, worker.id, when))

    def _reconnect(self, id: int, when: float, now: float) -> None:
        worker = self.fleet.workers.get(id)
        if worker is None or worker.state is not DOWN or worker.timer != when:
            return
        worker.timer = None
        if self.permanently_failed:
            return
        if self._surplus > 0 and not self._is_wanted():
            self._stop(worker, now)
        else:
            self._open(worker, now)
            self._fill(now)  # nobody was hired as long as somebody was down

    def _left(self, worker: Worker, now: float) -> None:
        """Let go of what depended on this worker, which has died or is to end."""
        self._to_recycle.discard(worker.id)
        if not self._to_recycle:
            self._recycle_surge = 0
        if worker.id == self._probe_id:
            self._probe_id = NOBODY
            self._plan_reconnect(now)

    @step
    def lost(self, now: float, id: int, error: Exception) -> None:
        """The worker's connection is gone; its process is fine. Its siblings are checked before their next use."""
        worker = self.fleet.workers.get(id)
        if worker is None or worker.state in (STARTING, OPENING, DOWN, STOPPING):
            return
        if worker.broken and worker.state is LEASED:  # known already: the next use has met it too
            return
        self._emit("worker.connect_error", metadata={"worker": id, "error": name_of(error)})
        self._circuit_failure(now, error)
        self.loss = error
        for sibling in self.fleet:
            sibling.suspect = True
        worker.broken = True
        self._recall_all(now)
        if worker.state is not LEASED:  # a lease stays with its holder, who has the error; reconnected when it is back
            self._available(worker, now)
            self._check_drained()
        self._check_some(now)

    @step
    def checked(self, now: float, id: int) -> None:
        """The idle connection is healthy."""
        worker = self.fleet.workers.get(id)
        if worker is not None and worker.state is CHECKING:
            worker.suspect = False
            self._circuit_success(now)
            self._available(worker, now)
            if worker.state is IDLE:
                self.fleet.idle.move_to_end(id, last=False)  # it was not used: it keeps its turn
            self._check_some(now)

    def _circuit_success(self, now: float) -> None:
        if self.circuit.success(now):
            self._emit("breaker.closed")

    def _circuit_failure(self, now: float, error: Exception) -> None:
        if self.circuit.failure(now):
            self._recall_all(now)
            self.tripped_by = error
            self._emit("breaker.opened")

    # -- coming back --------------------------------------------------------------------------------------

    def _available(self, worker: Worker, now: float, since: float | None = None) -> None:
        """The worker came back: the one place that says what becomes of it. `since`: nobody has used it since then."""
        surplus = self._surplus
        if self.ending or (surplus > 0 and self._is_too_much(surplus)):
            self._stop(worker, now)
        elif self._to_recycle and self._recycled(worker, now):
            return
        elif worker.broken:
            self._open(worker, now)
        elif worker.expires is not None and now >= worker.expires:
            self._renew(worker, now)
        else:
            if worker.state is not CHECKING:  # to be checked is no use
                worker.idle_since = now if since is None else since
            worker.seen = now if since is None else since
            self.fleet.move(worker, IDLE)
            self._serve(now)
            if worker.state is IDLE and (surplus > 0 or self.config.idle_timeout is not None):
                self._watch_idle(worker)

    def _is_too_much(self, surplus: int) -> bool:
        """Whether a worker above `size` goes: always when a resize left more than allowed, else when nobody waits."""
        return surplus > self.max_overflow or (self.config.overflow_ttl <= 0 and not self._is_wanted())

    def _is_wanted(self) -> bool:
        return self.serving and len(self.queue) > 0

    def _renew(self, worker: Worker, now: float) -> None:
        """Replace the process of a worker at the end of its lifetime."""
        self._stop(worker, now)
        self._fill(now, worker.restarts)

    def _lifetime_over(self, id: int, connected_at: float, now: float) -> None:
        worker = self.fleet.workers.get(id)
        if worker is None or worker.connected_at != connected_at:
            return
        if worker.state is IDLE:
            self._renew(worker, now)
        elif worker.lease in self.standing:
            self._recall(self.leases[worker.lease], now)

    # -- idle for long --------------------------------------------------------------------------------------

    def _patience(self, worker: Worker) -> float:
        """Seconds that a worker may be idle before it is stopped (above `size`) or disconnected."""
        timeout = NEVER if self.config.idle_timeout is None else self.config.idle_timeout
        if self._surplus > 0:
            return min(self.config.overflow_ttl, timeout)
        return timeout if worker.connected_at is not None else NEVER

    def _watch_idle(self, worker: Worker) -> None:
        """Look at an idle worker when its time may be up; one reminder at a time, however often it comes and goes."""
        when = worker.idle_since + self._patience(worker)
        if when < NEVER and (worker.timer is None or when < worker.timer):
            worker.timer = when
            self.timers.at(when, (self._idle_long, worker.id, when))

    def _idle_long(self, id: int, when: float, now: float) -> None:
        worker = self.fleet.workers.get(id)
        if worker is None or worker.timer != when:
            return
        worker.timer = None
        if worker.state is not IDLE:
            return
        if worker.idle_since + self._patience(worker) > now:
            self._watch_idle(worker)
        elif self._surplus > 0:
            self._stop(worker, now)
        else:
            worker.connected_at = worker.expires = None
            self._do(Close(worker.id))

    def _check_health(self, _key: None, _since: None, now: float) -> None:
        """Check every worker that nobody has heard of for `health_interval`, a few at a time."""
        interval = self.config.health_interval
        if interval is None or self.ending:
            return
        self._check_some(now)
        self.timers.at(now + interval, (self._check_health, None, None))

    def _check_some(self, now: float) -> None:
        """Begin the checks that are due, but leave three of four idle workers to callers; the rest follow these."""
        interval, idle, checking = self.config.health_interval, self.fleet.idle, self.fleet.count(CHECKING)
        if interval is None or self.ending:
            return
        due = [one for one in idle.values() if one.seen <= now - interval and one.connected_at is not None]
        # As long as a caller would wait for it, but no less than any other order is given.
        patience = max(self.config.checkout_timeout, self.config.kill_after)
        room = max((len(idle) + checking) // AT_ONCE, 1) - checking
        for worker in due[: max(room, 0)]:
            self.fleet.move(worker, CHECKING)
            worker.seen = now
            self._do(Check(worker.id))
            self.timers.at(now + patience, (self._deaf, worker.id, now))

    def _deaf(self, id: int, since: float, now: float) -> None:
        """Kill a worker that has not answered in time."""
        worker = self.fleet.workers.get(id)
        if worker is None or worker.seen != since:
            return
        if worker.state is OPENING and worker.awaits is not None:
            self.loss = TimeoutError(
                f"open() had not returned after {self._open_limit:g} s, nor {self.config.kill_after:g} s after it was "
                "interrupted, and its process was killed: give its driver a timeout for connecting"
            )
            self._count_failure(worker, self.loss, now)
            self._kill(worker, now)
        elif worker.state in (CHECKING, REVOKING):
            self._kill(worker, now)

    # -- what the layers above decide -----------------------------------------------------------------------

    def _recall(self, lease: Lease, now: float) -> None:
        raise NotImplementedError

    def _recall_all(self, now: float) -> None:
        raise NotImplementedError

    def _serve(self, now: float) -> None:
        raise NotImplementedError

    def _give_up(self, now: float) -> None:
        raise NotImplementedError

    def _recycled(self, worker: Worker, now: float) -> bool:
        raise NotImplementedError
