"""The pool: every decision about it, without clock, process or Thespian. Start reading here.

The shell (the pool's actor) calls one method for each thing that happens and carries the returned effects out; it asks
`deadline()` when to call `tick()`. Identities of holders and refs of requests are opaque; worker and lease ids are
numbers that only grow, so a late answer about an old one falls through.

The parts (`workers connector queue leases sticky sessions sandboxes recycling stats life`) have their own state and do
not know each other. Mediators say what happens among them in which order; each knows only those below it:

- `leasing`: which caller gets which worker. It uses
- `recalls` (sticky leases), `ending` (how leases end), `waiting` (who may wait, and for how long),
- `returning` (what becomes of a worker that came back), and below all of them
- `lifecycle`: worker processes and connections, so that there are enough.

`PoolCore` is above them and has the steps of callers, workers and time; those of operators are in `operations`, those
about sandboxes in `sandbox_requests`.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from typing import Any

from actorpool.config import PoolConfig
from actorpool.core.effects import Answer, Keep, Ready, Stopped
from actorpool.core.machine import StateMachine, TimerQueue, step
from actorpool.core.pool import invariants
from actorpool.core.pool.connector import Connector
from actorpool.core.pool.ending import Ending
from actorpool.core.pool.figures import Figures
from actorpool.core.pool.leases import Leases
from actorpool.core.pool.leasing import Leasing
from actorpool.core.pool.operations import Operations
from actorpool.core.pool.pool_state import PoolState
from actorpool.core.pool.queue import WaitingQueue
from actorpool.core.pool.recalls import Recalls
from actorpool.core.pool.recycle import Recycling
from actorpool.core.pool.refusals import Refusals
from actorpool.core.pool.returning import Returning
from actorpool.core.pool.sandbox import Sandboxes
from actorpool.core.pool.sandbox_requests import SandboxRequests
from actorpool.core.pool.sessions import Sessions
from actorpool.core.pool.stats import Stats
from actorpool.core.pool.sticky import StickyLeases
from actorpool.core.pool.sticky_lease import UsageCounter
from actorpool.core.pool.waiting import Waiting
from actorpool.core.pool.worker_lifecycle import WorkerLifecycle
from actorpool.core.processes import Processes
from actorpool.core.workers import (
    CHECKING,
    DOWN,
    IDLE,
    LEASED,
    NO_LEASE,
    OPENING,
    PARKED,
    REVOKING,
    STARTING,
    STOPPING,
    Workers,
)


class PoolCore(StateMachine):
    """A pool. All times are monotonic seconds; every public method but the figures returns effects.

    Args:
        name: the pool's name, for texts.
        config: the settings.
        size: how many workers are kept; not `config.size`, since the shell resolves "auto".
        now: monotonic seconds.
        random: a source of numbers in [0, 1), for jitter.
        first_id: the first worker id; ids grow from there and are never used twice.
        kept: the last `Keep` of a predecessor that crashed; it counts instead of `size` and of the settings.
        counter: where a worker counts what it does, by its id; None where no lease of it can be sticky.
    """

    def __init__(
        self,
        name: str,
        config: PoolConfig,
        size: int,
        now: float,
        random: Callable[[], float],
        first_id: int = 1,
        kept: Keep | None = None,
        counter: Callable[[int], UsageCounter | None] = lambda _worker: None,
    ) -> None:
        super().__init__()
        self.name = name
        self.config = config
        self.timers = timers = TimerQueue()
        self.life = life = PoolState(kept or Keep(size, config.max_overflow, suspended=False, draining=False))
        self.workers = workers = Workers(first_id)
        self.connector = connector = Connector(config, random)
        self.queue = queue = WaitingQueue(config.queue_target, config.queue_interval)
        self.leases = leases = Leases()
        self.sticky = sticky = StickyLeases(config)
        self.sessions = sessions = Sessions(counter)
        self.sandboxes = sandboxes = Sandboxes(leases.new_id, self._do)
        self.recycling = recycling = Recycling()
        self.stats = stats = Stats(now)
        self.figures = figures = Figures(
            name, life, workers, connector, queue, leases, sticky, sessions, sandboxes, stats
        )
        self.refusals = refusals = Refusals(config, life, workers, connector, leases, figures)
        processes = Processes(workers, config.kill_after, timers, self.effects)
        self.lifecycle = WorkerLifecycle(
            config, life, processes, connector, recycling, sessions, stats, figures, refusals, timers, self.effects,
            on_trip=lambda now: self.leasing.recalls.recall_all(now),
        )  # fmt: skip
        returning = Returning(config, self.lifecycle, timers, self.effects)
        waiting = Waiting(config, self.lifecycle, queue, sandboxes, self.effects)
        ending = Ending(config, self.lifecycle, leases, sticky, sandboxes, self.effects)
        recalls = Recalls(ending, waiting, counter, self.effects)
        self.leasing = leasing = Leasing(config, returning, waiting, ending, recalls, self.effects)
        self.operations = operations = Operations(config.autoscale, now, leasing, self.effects)
        self.resize, self.sampled, self.recycle = operations.resize, operations.sampled, operations.recycle
        self.suspend, self.resume, self.drain = operations.suspend, operations.resume, operations.drain
        self.stop = operations.stop
        requests = SandboxRequests(leasing, self.effects)
        self.enclose, self.allow, self.release = requests.enclose, requests.allow, requests.release
        self.sandbox_of = sandboxes.key_of
        self.lease, self.knows = ending.lease, leasing.knows
        self.status, self.state = figures.status, figures.state
        self.worker_infos, self.lease_infos = figures.worker_infos, figures.lease_infos
        self.parked, self.leases_of = figures.parked, figures.leases_of

    # -- callers -------------------------------------------------------------------------------------------

    # The two steps that callers wait for take their effects themselves: `step` would be one more frame for each.

    def checkout(
        self,
        now: float,
        ref: Any,
        holder: Hashable,
        timeout: float | None = None,
        block: bool = True,
        stack: str | None = None,
        sandbox: str | None = None,
        sticky: bool = False,
        key: Hashable = None,
    ) -> list[Any]:
        """Ask for a worker: `Granted`, `Refused` or `UseLocal`, now or later.

        Args:
            now: monotonic seconds.
            ref: names this request among the holder's; the same one again while it waits is dropped.
            holder: gets the lease; `caller_down(holder)` reclaims it.
            timeout: longest wait in seconds (None: the config's).
            block: False refuses at once when the pool is full.
            stack: where the caller asked, for leak reports.
            sandbox: the sandbox that a turn is asked for in; None: the one that the caller is a guest of, if any.
            sticky: the worker may stay with the holder after its first use (see `sticky`).
            key: the worker that holds the state of this key is meant (see `sessions`).
        """
        self.leasing.checkout(now, ref, holder, timeout, block, stack, sandbox, sticky, key)
        return self.effects.take()

    def checkin(self, now: float, id: int, empty: bool = False, told: bool = False) -> list[Any]:
        """The holder gives the lease back. A lease that is over (taken back meanwhile) is nothing.

        Args:
            empty: nothing has run under it: what begins with it holds nothing of its key.
            told: the caller knows why what there was of the key before is gone.
        """
        self.leasing.checkin(now, id, empty, told)
        self.leasing.serve_keys(now)
        self.operations.check_drained()
        return self.effects.take()

    @step
    def cancel(self, now: float, ref: Any, holder: Hashable) -> None:
        """The caller waits no longer. If the grant crossed its cancel, the lease ends."""
        self.leasing.cancel(now, ref, holder)
        self.leasing.serve_keys(now)
        self.operations.check_drained()

    @step
    def caller_down(self, now: float, holder: Hashable) -> None:
        """The holder is gone: its waiters are forgotten, its leases reclaimed."""
        self.leasing.caller_down(now, holder)
        self.leasing.serve_keys(now)
        self.operations.check_drained()

    @step
    def abandon(self, now: float, id: int) -> None:
        """A call of this lease timed out or was cancelled: its worker is suspect until it was reset."""
        self.leasing.ending.overran(id, None, now)
        self.leasing.serve_keys(now)

    @step
    def limit(self, now: float, id: int, seconds: float) -> None:
        """Bound what runs under this lease: after `seconds` it is abandoned (for calls that no client times)."""
        self.leasing.ending.limit(now, id, seconds)

    @step
    def observe(self, now: float, observed: bool) -> None:
        """A listener wants (or none wants any more) to hear of each checkout and checkin."""
        self.leasing.recalls.observed = observed
        if observed:
            self.leasing.recalls.recall_all(now)

    @step
    def revoked(self, now: float, id: int, lease: int) -> None:
        """The worker is pristine again after its lease was revoked."""
        self.leasing.revoked(now, id, lease)
        self.leasing.serve_keys(now)
        self.operations.check_drained()

    @step
    def recalled(self, now: float, id: int, lease: int) -> None:
        """The worker is back from its caller. A lease that has ended meanwhile is nothing."""
        self.leasing.recalled(now, id, lease)
        self.leasing.serve_keys(now)
        self.operations.check_drained()

    @step
    def end_session(self, now: float, ref: Any, key: Hashable) -> None:
        """End the session of a key, at once or when its lease is given back. `Answer(ref)`: whether there is one."""
        self._do(Answer(ref, self.leasing.end_session(key, now)))

    # -- workers -------------------------------------------------------------------------------------------

    @step
    def worker_started(self, now: float, id: int) -> None:
        """The worker's process is up and its `__init__` has run."""
        worker = self.lifecycle.processes.started(id)
        if worker is not None:
            self.lifecycle.open(worker, now)

    @step
    def start_failed(self, now: float, id: int, error: Exception) -> None:
        """The worker's `__init__` raised, and its process ends.

        When the pool starts, its settings are wrong, and a second try would be the same. Later, with settings that
        were right before, its death is a crash like any other.
        """
        if not self.life.started:
            self.operations.fail(error)

    @step
    def died(self, now: float, id: int, reason: str = "killed") -> None:
        """The worker's process is gone, whatever the reason. A second notice of the same death is nothing."""
        worker = self.workers.get(id)
        if worker is None:
            return
        if worker.lease is not None:
            self.leasing.worker_died(self.leases.by_id[worker.lease], now)
        self.lifecycle.processes.died(id, reason)
        if worker.state is not STOPPING:
            self.lifecycle.left(worker, now)
            if self.lifecycle.intensity.add(now):
                self.lifecycle.replace(worker, now)
            else:
                self.operations.fail(self.refusals.too_many_crashes(reason))
        self.leasing.returning.next(now)
        self.leasing.serve_keys(now)
        self.operations.check_drained()
        self._check_started()
        if self.life.stopping and not len(self.workers):
            self._do(Stopped())

    @step
    def opened(self, now: float, id: int, took: float = 0.0) -> None:
        """The worker is connected."""
        worker = self.workers.get(id, OPENING)
        if worker is None:
            return
        self.lifecycle.processes.opened(worker, took)
        self.leasing.connected(worker, now)
        self.lifecycle.connected(worker, now)
        if worker.revoked_lease is None:
            self.leasing.available(worker, now)
        else:
            self.workers.move(worker, REVOKING)
            self.lifecycle.await_reset(worker, NO_LEASE, now)
        self.lifecycle.refill(now)
        self.leasing.returning.next(now)
        self.leasing.serve_keys(now)
        self._check_started()

    @step
    def reopened(self, now: float, id: int) -> None:
        """A worker that was disconnected for being idle has connected again by itself, to answer a call."""
        worker = self.workers.get(id, IDLE, CHECKING, LEASED, PARKED, REVOKING)
        if worker is not None and worker.connected_at is None:
            self.lifecycle.processes.tell(worker, "worker.connected")
            self.leasing.connected(worker, now)
            self.lifecycle.watch_idle(worker)

    @step
    def open_failed(
        self, now: float, id: int, error: Exception, permanent: bool = False, retry_after: float | None = None
    ) -> None:
        """The worker could not connect. Never a crash: tried again later, except after a `PermanentError`."""
        worker = self.workers.get(id, OPENING)
        if worker is None:
            return
        self.lifecycle.count_failure(worker, error, now)
        self.connector.failed(error, permanent)
        if permanent and not self.life.started:
            self.operations.fail(error)
            return
        useless = self.lifecycle.surplus > 0 and (permanent or self.workers.down or not self.figures.wanted)
        self.workers.move(worker, DOWN)
        if useless:
            self.lifecycle.stop(worker, now)
        self.lifecycle.plan_reconnect(now, retry_after)
        if permanent:
            self._give_up(now)
        self._check_started()

    def _give_up(self, now: float) -> None:
        """No worker will be able to connect: say so to callers that wait for nothing else, and end a recycle."""
        if self.workers.all_down:
            self.leasing.waiting.turn_away(lambda waiter: self.refusals.unavailable(now - waiter.since))
        # What still has a connection had better keep it.
        self.leasing.returning.end(now, self.refusals.unavailable(0.0))

    @step
    def lost(self, now: float, id: int, error: Exception) -> None:
        """The worker's connection is gone; its process is fine. The others are checked before their next use."""
        worker = self.workers.get(id, IDLE, CHECKING, LEASED, PARKED, REVOKING)
        if worker is None or (worker.broken and worker.state is LEASED):  # known already: the next use has met it too
            return
        self.lifecycle.resource_failed(worker, error, now)
        self.connector.lost_cause = error
        for other in self.workers:
            other.suspect = True
        worker.broken = True
        self.leasing.recalls.recall_all(now)
        if worker.state is not LEASED:  # a leased worker stays leased: its holder has the error
            self.leasing.available(worker, now)
            self.leasing.serve_keys(now)
            self.operations.check_drained()
        self.lifecycle.check_some(now)

    @step
    def checked(self, now: float, id: int) -> None:
        """The idle connection is healthy."""
        worker = self.workers.get(id, CHECKING)
        if worker is not None:
            worker.suspect = False
            self.lifecycle.resource_works(now)
            self.leasing.available(worker, now)
            if worker.state is IDLE:
                self.workers.idle.move_to_end(id, last=False)  # it was not used: it keeps its turn
            self.lifecycle.check_some(now)

    # -- the beginning ---------------------------------------------------------------------------------

    @step
    def start(self, now: float) -> None:
        """Start the base workers. `Ready` (or `Fail`) follows, at the latest after `checkout_timeout`."""
        if not self.life.serving:
            self.queue.suspend()
        if self.config.health_interval is not None:
            self.timers.at(now + self.config.health_interval, (self.lifecycle.check_health, None, None))
        self.timers.at(now + self.config.checkout_timeout, (self._start_over, None, None))
        self.lifecycle.refill(now)
        self._check_started()

    def _check_started(self) -> None:
        if not (self.life.started or self.life.ending or self.workers.count(STARTING, OPENING)):
            self.life.started = True
            self._do(Ready(degraded=self.connector.down_cause is not None))

    def _start_over(self, _key: None, _since: None, now: float) -> None:
        if not self.life.started and not self.life.ending:
            self.life.started = True
            self._do(Ready(degraded=True))

    # -- time, and what there is ---------------------------------------------------------------------------

    def deadline(self) -> float | None:
        """When `tick` is to be called next; None: not before something else happens."""
        moments: Iterable[float | None] = (
            self.timers.next(),
            self.leases.timers.next(),
            self.queue.next_deadline(),
            self.sandboxes.next_deadline() if self.sandboxes.by_key else None,
        )
        return min((moment for moment in moments if moment is not None), default=None)

    @step
    def tick(self, now: float) -> None:
        """Do what is due. A timer whose worker or lease is no longer as it was falls through."""
        self.leasing.waiting.expire(now)
        for act, key, since in self.leases.timers.due(now) + self.timers.due(now):
            act(key, since, now)
        self.leasing.serve_keys(now)

    def check(self) -> None:
        """Raise AssertionError if an invariant is broken. For tests: it looks at everything."""
        invariants.check(
            self.config, self.life, self.workers, self.connector, self.queue, self.leases, self.sticky, self.sessions,
            self.sandboxes, self.recycling, self.lifecycle.surplus, self.figures.incoming,
        )  # fmt: skip
