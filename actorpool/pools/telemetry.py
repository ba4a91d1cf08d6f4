"""What a pool tells of itself: events to listeners, and samples of its figures. Run in the pool's process."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any, ClassVar

from actorpool._protocol import orders, reports
from actorpool.messages import Event
from actorpool.pools.counting import Counting
from actorpool.pools.shell import BasePoolShell, PoolShell
from actorpool.status import Sample
from actorpool.supervisors.post import Post
from actorpool.telemetry import Hub, Samples
from actorpool.thespian_adapter.shell import flush_log

FLUSH_EVERY = 1.0
"""Seconds until what sinks have gathered is sent, whether or not more comes."""


class Telemetry:
    """Events and samples of one pool, of either kind.

    Args:
        pool: the pool that is told of.
        post: takes events to subscribers.
        sinks: settings of the telemetry sinks, opened here.
        subscriptions: (pattern, address) pairs of those that get events as messages.
        interval: seconds between two samples.

    Attributes:
        counts: sinks that count are told numbers, and need not hear of every call.
    """

    counts: ClassVar[bool] = False

    def __init__(
        self,
        pool: BasePoolShell,
        post: Post,
        sinks: Iterable[Any],
        subscriptions: Iterable[tuple[str, Any]],
        interval: float,
    ) -> None:
        self._pool = pool
        self._interval = interval
        self.hub = Hub(sinks, pool.name, here=not pool.is_process, keeper=pool.parent, counts=self.counts)
        self.hub.listen(subscriptions)
        self.post = post
        self.samples = Samples()

    def event(self, name: str, measurements: dict[str, Any], metadata: dict[str, Any]) -> None:
        """Tell an event to its listeners."""
        if self.hub.wants(name):
            self.post.add(self.hub.emit(Event(name, self._pool.name, time.time(), measurements, metadata)))

    def listen(self, subscriptions: Iterable[tuple[str, Any]]) -> None:
        """From now on send events to these actors and to no other."""
        self.post.deliver()  # to those of before: the addresses that came are other objects, also for the same actors
        self.hub.listen(subscriptions)
        self.post.forget(self.hub.receivers)

    def await_sample(self) -> None:
        """Have a sample taken after the interval."""
        self._pool.set_timer(self._interval, "sample")

    def add(self, sample: Sample) -> None:
        """A sample was taken."""
        self.samples.add(sample)
        self.event("pool.sample", {"leases": sample.leases, "waiting": sample.waiting, "total": sample.total}, {})
        self.flush(time.monotonic())
        flush_log()
        self.await_sample()

    def flush(self, _now: float) -> None:
        """Send what sinks have gathered."""
        self.hub.flush()

    def dropped(self) -> dict[str, int]:
        """How many events each sink has not taken, by its name."""
        return self.post.with_dropped(self.hub)

    def close(self) -> None:
        """Send what was gathered and let go of the sinks."""
        self.post.deliver()
        self.hub.close()


class PoolTelemetry(Telemetry):
    """Events and samples of one pool that lends workers."""

    counts = True
    _pool: PoolShell

    def __init__(self, pool: PoolShell, *args: Any) -> None:
        super().__init__(pool, *args)
        self._flushed = 0.0
        self._counting: Counting | None = None

    def begin(self) -> None:
        """The pool is there: speak of it from now on."""
        self.observe()
        self.await_sample()
        if self.hub.interval is not None:
            self._counting = Counting(self._pool.core, self._pool.pages)
            self._pool.set_timer(self.hub.interval, self._count)

    def listen(self, subscriptions: Iterable[tuple[str, Any]]) -> None:
        """From now on send events to these actors and to no other."""
        super().listen(subscriptions)
        self.observe()

    def observe(self) -> None:
        """Have the core speak of every checkout, and workers of every call, only while there are listeners."""
        pool = self._pool
        observed = self.hub.wants("pool.checkout") or self.hub.wants("pool.checkin")
        pool.carry_out(pool.core.observe(time.monotonic(), observed))
        for hand in pool.worker_handles:
            self._observe_worker(hand.id)

    def worker_started(self, id: int) -> None:
        """Whether a worker counts its calls where the pool can read them is known once it has started."""
        if self._counting is not None:
            self._observe_worker(id)

    def _observe_worker(self, id: int) -> None:
        """Have a worker tell each of its calls, or none."""
        uncounted = self._counting is not None and self._pool.pages.slot(id) is None
        self._pool.worker_handles.tell(id, orders.Observe(uncounted or self.hub.wants("call.done")))

    def called(self, report: reports.Called) -> None:
        """A worker has told a call."""
        metadata = {"worker": report.worker_id, "lease": report.lease, "failed": report.failed}
        self.event("call.done", {"ms": report.seconds * 1e3}, metadata)
        if self._counting is not None and self._pool.pages.slot(report.worker_id) is None:
            self._counting.called(report.seconds)

    def _count(self) -> None:
        """Tell sinks that count what happened since the last time."""
        if self._counting is not None and self.hub.interval is not None:
            self.hub.count(self._pool.name, self._counting.look())
            self._pool.set_timer(self.hub.interval, self._count)

    def sample(self) -> None:
        """Take a sample, and let the autoscaler judge by the last ones."""
        pool, now = self._pool, time.monotonic()
        status = pool.core.status(now)
        sample = Sample(
            time.time(), status.monitors, status.waiting, status.total, status.wait_ms_p50, status.wait_ms_p99,
            pool.worker_queries.sessions, status.oldest_wait, status.oldest_lease, status.hold_ms_p99, status.parked,
        )  # fmt: skip
        self.add(sample)
        pool.carry_out(pool.core.sampled(now, self.samples.leases()))
        pool.worker_queries.ask_sessions(pool.core.figures.unused, now)

    def deadline(self) -> float | None:
        """When `expire` is to be called next."""
        return self._flushed + FLUSH_EVERY if self.hub.gathered else None

    def expire(self, now: float) -> None:
        """Send what sinks have gathered for long enough."""
        if self.hub.gathered and now >= self._flushed + FLUSH_EVERY:
            self.flush(now)

    def flush(self, now: float) -> None:
        """Send what sinks have gathered."""
        self._flushed = now
        super().flush(now)

    def close(self) -> None:
        """Send what was gathered and let go of the sinks."""
        if self._counting is not None:
            self.hub.count(self._pool.name, self._counting.look())
        super().close()
