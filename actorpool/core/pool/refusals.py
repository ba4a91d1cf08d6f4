"""Why a caller gets no worker, in words: what happened, the numbers, and what to do."""

from __future__ import annotations

from collections.abc import Hashable
from reprlib import repr as short

from actorpool.config import PoolConfig
from actorpool.core.pool.connector import Connector
from actorpool.core.pool.figures import Figures
from actorpool.core.pool.leases import Leases
from actorpool.core.pool.pool_state import PoolState
from actorpool.core.pool.sandbox import Sandbox
from actorpool.core.workers import Workers
from actorpool.errors import (
    ActorPoolError,
    CallTimeout,
    CheckoutTimeout,
    CircuitOpen,
    LeaseExpired,
    PoolDown,
    PoolFull,
    PoolStopped,
    QueueShed,
    RestartIntensityExceeded,
    TooManyWaiting,
    WorkerUnavailable,
)
from actorpool.serialization.exceptions import name_of


class Refusals:
    """Makes the errors of a pool; decides nothing."""

    def __init__(
        self,
        config: PoolConfig,
        life: PoolState,
        workers: Workers,
        connector: Connector,
        leases: Leases,
        figures: Figures,
    ) -> None:
        self.name = figures.name
        self._config = config
        self._life = life
        self._workers = workers
        self._connector = connector
        self._leases = leases
        self._figures = figures

    # -- no caller is let in ----------------------------------------------------------------------------------

    def over(self) -> Exception:
        """The pool has stopped or failed."""
        failed = self._life.failed
        if failed is None:
            return PoolStopped(f"pool {self.name!r} was stopped", pool=self.name)
        text = f"pool {self.name!r} has failed ({failed!r}); its supervisor starts it again, or gives it up"
        return PoolDown(text, pool=self.name, cause=failed)

    def circuit_open(self, now: float) -> Exception:
        """The circuit breaker is open."""
        connector = self._connector
        cause = connector.last_error or connector.tripped_by  # a connection may work before the circuit is closed
        return CircuitOpen(
            f"pool {self.name!r}: the circuit breaker is open after repeated connection failures "
            f"(last: {cause!r}); next try in {connector.circuit.retry_in(now):.1f} s",
            pool=self.name,
            cause=cause,
        )

    def unavailable(self, waited: float) -> Exception:
        """No worker can connect."""
        cause = self._connector.last_error or ConnectionError("no reason is known")
        return WorkerUnavailable(
            f"pool {self.name!r}: no worker can connect ({name_of(cause)}: {cause})"
            + ("; it will not be tried again by itself: correct the cause, then recycle() the pool"
               if self._connector.permanently_failed else f"; waited {waited:.2f} s, and reconnecting goes on with "
               "backoff: bring the resource back, or correct worker_args"),
            pool=self.name,
            waited=waited,
            cause=cause,
        )  # fmt: skip

    # -- a caller may not wait, or has waited in vain -----------------------------------------------------------

    def full(self, now: float) -> Exception:
        """No worker is free, and the caller does not wait."""
        if self.cut_off:
            return self.unavailable(0.0)
        advice = self._advice("wait for a worker with block=True, or raise size or max_overflow")
        return PoolFull(
            f"pool {self.name!r} is {self._figures.state(now)} ({self._figures.situation(now)}); "
            + advice.removeprefix(f"the pool is {self._figures.state(now)}: "),
            pool=self.name,
            waited=0.0,
            status=self._figures.status(now),
        )

    def key_in_use(self, key: Hashable, now: float) -> Exception:
        """Another caller has the worker of this key, and this one does not wait."""
        return PoolFull(
            f"pool {self.name!r}: the worker of key {short(key)} is in use ({self._figures.situation(now)}); "
            "wait for it with block=True, or end the lease that has it",
            pool=self.name,
            waited=0.0,
            status=self._figures.status(now),
        )

    def too_late(self, waited: float, now: float, key: Hashable = None) -> Exception:
        """No worker came in time; `key`: the caller waited for another one that has the worker of this key."""
        if self.cut_off:
            return self.unavailable(waited)
        if key is not None:
            return CheckoutTimeout(
                f"pool {self.name!r}: the worker of key {short(key)} was in use for all of {waited:.2f} s "
                f"({self._figures.situation(now)}); end the lease that has it, or wait longer for it",
                pool=self.name,
                waited=waited,
                status=self._figures.status(now),
            )
        return CheckoutTimeout(
            f"pool {self.name!r}: no worker within {waited:.2f} s ({self._figures.situation(now)}); "
            + self._advice("look for a leak or slow calls first, then raise size, max_overflow or checkout_timeout"),
            pool=self.name,
            waited=waited,
            status=self._figures.status(now),
        )

    def too_many(self, waiting: int, now: float) -> Exception:
        """As many wait already as may."""
        return TooManyWaiting(
            f"pool {self.name!r}: {waiting} callers are waiting, max_waiting is {self._config.max_waiting} "
            f"({self._figures.situation(now)}); " + self._advice("slow the callers down, or raise max_waiting or size"),
            pool=self.name,
            waited=0.0,
            status=self._figures.status(now),
        )

    def shed(self, waited: float, delay: float, now: float) -> Exception:
        """CoDel has shed the caller; `delay` is the shortest wait of the interval, seconds."""
        if self.cut_off:
            return self.unavailable(waited)
        target = self._config.queue_target or 0.0
        return QueueShed(
            f"pool {self.name!r}: shed after {waited * 1e3:.0f} ms in the queue; over the last queue_interval every "
            f"wait was above {delay * 1e3:.0f} ms, queue_target is {target * 1e3:.0f} ms "
            f"({self._figures.situation(now)}). Raise size, make the calls shorter, spread the load, or raise "
            "queue_target",
            pool=self.name,
            waited=waited,
            status=self._figures.status(now),
        )

    @property
    def cut_off(self) -> bool:
        """Whether no worker has a connection, for a known cause: callers must hear of that, not of the queue."""
        return self._connector.last_error is not None and self._workers.all_disconnected

    @property
    def barren(self) -> bool:
        """Whether there is no worker and none may be started, until the pool is resized: to wait for one is vain."""
        return not (self._life.size or self._life.max_overflow or len(self._workers) or self._config.autoscale)

    def _advice(self, usual: str) -> str:
        """What to do about a refusal; the usual does not help where the pool does not serve, or nothing is open."""
        if not self._life.serving:
            why = "draining" if self._life.kept.draining else "suspended"
            return f"the pool is {why}: resume() lets it serve again"
        if self.barren:
            return "no worker may be started: resize() the pool, or give it a size or max_overflow above 0"
        if not len(self._leases) and self._workers.incoming:
            return "its workers are still being started, opened or reset: find out what takes so long"
        return usual

    # -- sandboxes ------------------------------------------------------------------------------------------

    def no_such_lease(self, id: int) -> Exception:
        """A sandbox was to be opened on a lease that is over."""
        return LeaseExpired(f"pool {self.name!r}: lease {id} is over, no sandbox was opened on it", pool=self.name)

    def sandbox_over(self) -> Exception:
        """The sandbox is over."""
        text = f"pool {self.name!r}: the sandbox is over: it was left, or its owner or its worker has died"
        return LeaseExpired(text, pool=self.name)

    def in_another_sandbox(self) -> Exception:
        """A process cannot be in two sandboxes."""
        return ValueError(f"pool {self.name!r}: that process is in another sandbox; end that one first")

    def not_let_in(self) -> Exception:
        """The caller's process may not come into the sandbox."""
        return LeaseExpired(
            f"pool {self.name!r}: the sandbox belongs to another process; let this one in with box.allow(pid), "
            "or use a handle of the pool that was made outside of the sandbox",
            pool=self.name,
        )

    def sandbox_busy(self, now: float) -> Exception:
        """The one worker of the sandbox is in use, and the caller does not wait."""
        text = f"pool {self.name!r}: the sandbox has one worker, and it is in use; wait for it with block=True"
        return PoolFull(text, pool=self.name, status=self._figures.status(now))

    def no_turn_in_time(self, sandbox: Sandbox, waited: float, now: float) -> Exception:
        """The caller had no turn in time."""
        turn = sandbox.turn
        held = "" if turn is None else f"held for {now - turn.since:.1f} s by pid {getattr(turn.holder, 'pid', '?')}, "
        return CheckoutTimeout(
            f"pool {self.name!r}: no turn in the sandbox within {waited:.2f} s ({held}{len(sandbox.queue)} waiting): "
            "in a sandbox all callers share one worker, so end the lease or transaction that is open, or call by it",
            pool=self.name,
            waited=waited,
            status=self._figures.status(now),
        )

    # -- operators and supervisors ------------------------------------------------------------------------------

    def drain_ended(self) -> Exception:
        """A drain was ended by `resume`."""
        text = f"pool {self.name!r}: resume() ended the drain while {len(self._leases)} lease(s) were out"
        return ActorPoolError(text, pool=self.name)

    def recycle_late(self, left: int) -> Exception:
        """Not all workers were replaced in time."""
        text = (
            f"pool {self.name!r}: recycle() ran out of time, {left} worker(s) are not yet replaced; "
            "they still will be, as they come back"
        )
        return CallTimeout(text, pool=self.name)

    def too_many_crashes(self, reason: str) -> Exception:
        """More workers crashed than `max_restarts`; `reason` is why the last one did."""
        limit, period = self._config.max_restarts, self._config.restart_period
        return RestartIntensityExceeded(
            f"pool {self.name!r}: more than {limit} worker crashes within {period:g} s, the last: {reason}; "
            "find out why workers die (node.log says how each ended) or raise max_restarts",
            pool=self.name,
        )
