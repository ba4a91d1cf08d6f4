"""What a pool knows of its resource: whether workers can connect to it, why not, and when it is tried next.

Failing to connect never counts as a crash. It is retried for as long as it takes, by one worker (the *probe*) on behalf
of all that are down, with backoff; when it succeeds, the others follow, spread out. An `open()` that hangs is
interrupted: it is a failure like any other, but one that no caller would be told of.
"""

from __future__ import annotations

from collections.abc import Callable

from actorpool.config import PoolConfig
from actorpool.core.machine import Backoff, Retry
from actorpool.core.pool.breaker import Circuit
from actorpool.core.workers import DOWN, NO_WORKER, OPENING, Worker

NEVER = float("inf")
CHECKED_AT_ONCE = 4
"""Of so many unused workers one may be away for a check at a time."""
SPREAD = 0.01
"""Seconds between two reconnects once one has succeeded: at most 100 attempts a second, whatever the pool's size."""


class Connector:
    """The state of the resource, and the times that connections have.

    Args:
        config: the pool's settings.
        random: a source of numbers in [0, 1), for jitter.
    """

    def __init__(self, config: PoolConfig, random: Callable[[], float]) -> None:
        self.config = config
        self.random = random
        self.circuit = Circuit(config.breaker)
        self.down_cause: Exception | None = None  # why the last attempt to connect failed; None: no outage is known
        self.lost_cause: Exception | None = None  # why the last connection was lost, until one works again
        self.tripped_by: Exception | None = None  # the failure that opened the circuit last
        self.permanently_failed = False  # the last failure was a `PermanentError`: it is not tried again
        self.probe_id = NO_WORKER
        self._retry = Retry(Backoff(config.backoff_min, config.backoff_max))

    @property
    def last_error(self) -> Exception | None:
        """What keeps workers from having connections; None while nothing is known to."""
        return self.down_cause or self.lost_cause

    # -- the resource -------------------------------------------------------------------------------------

    def works(self) -> bool:
        """A worker has connected. Whether that ended an outage."""
        self.lost_cause = None
        if self.down_cause is None:
            return False
        self.down_cause, self.probe_id = None, NO_WORKER
        self.permanently_failed = False
        self._retry.reset()
        return True

    def spread(self, number: int) -> float:
        """Seconds until the `number`-th of those that are down reconnects, once the resource is back."""
        return (number + self.random()) * SPREAD

    def failed(self, error: Exception, permanent: bool) -> None:
        """A worker could not connect."""
        self.down_cause, self.permanently_failed = error, permanent

    def probe(self, current: Worker | None, first_down: Worker | None) -> Worker | None:
        """The worker that tries on behalf of all that are down; None: none has to.

        Args:
            current: the worker that had `probe_id`, if it is still there.
            first_down: the one that takes its place.
        """
        if self.permanently_failed or self.down_cause is None:
            self.probe_id = NO_WORKER
            return None
        probe = current or first_down
        if probe is None:
            self.probe_id, self.down_cause = NO_WORKER, None  # none is down: whichever connects next will find out
            return None
        self.probe_id = probe.id
        return probe

    def delay(self) -> float:
        """Seconds before the next attempt."""
        return self._retry.next(self.random())

    # -- the times of a connection ------------------------------------------------------------------------

    @property
    def open_limit(self) -> float:
        """Seconds that an `open()` may take: no caller waits any more, and the next attempt would be overdue."""
        return max(self.config.checkout_timeout, self.config.backoff_max)

    @property
    def check_limit(self) -> float:
        """Seconds that a check may take: as long as a caller would wait for it, no less than any other order."""
        return max(self.config.checkout_timeout, self.config.kill_after)

    def checks_now(self, idle: int, checking: int) -> int:
        """How many more checks may begin: three of four idle workers are left to callers."""
        return max((idle + checking) // CHECKED_AT_ONCE, 1) - checking

    def expiry(self, now: float) -> float | None:
        """When a connection that was opened now is to be replaced; None: never."""
        lifetime = self.config.max_lifetime
        return None if lifetime is None else now + lifetime * (1 - self.config.lifetime_jitter * self.random())

    def idle_limit(self, worker: Worker, surplus: bool) -> float:
        """Seconds that a worker may be idle before it is stopped (`surplus`: above `size`) or disconnected."""
        timeout = NEVER if self.config.idle_timeout is None else self.config.idle_timeout
        if surplus:
            return min(self.config.overflow_ttl, timeout)
        return timeout if worker.connected_at is not None else NEVER

    def hung(self) -> TimeoutError:
        """An `open()` did not return even after it was interrupted."""
        self.lost_cause = error = TimeoutError(
            f"open() had not returned after {self.open_limit:g} s, nor {self.config.kill_after:g} s after it was "
            "interrupted, and its process was killed: give its driver a timeout for connecting"
        )
        return error

    def check(self, probe: Worker | None) -> None:
        """Raise AssertionError if an invariant is broken. For tests."""
        assert (self.probe_id == NO_WORKER) == (probe is None), "the probe is gone"
        assert probe is None or (self.down_cause and probe.state in (DOWN, OPENING)), "a probe without an outage"
