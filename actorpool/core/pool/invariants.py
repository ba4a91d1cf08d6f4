"""What must hold in a pool after every step, between its parts. For tests: it looks at everything."""

from __future__ import annotations

from actorpool.config import PoolConfig
from actorpool.core.pool.connector import NEVER, Connector
from actorpool.core.pool.leases import Leases
from actorpool.core.pool.pool_state import PoolState
from actorpool.core.pool.queue import WaitingQueue
from actorpool.core.pool.recycle import Recycling
from actorpool.core.pool.sandbox import Sandboxes
from actorpool.core.pool.sessions import Sessions
from actorpool.core.pool.sticky import StickyLeases
from actorpool.core.workers import LEASED, OPENING, PARKED, Workers


def check(
    config: PoolConfig,
    life: PoolState,
    workers: Workers,
    connector: Connector,
    queue: WaitingQueue,
    leases: Leases,
    sticky: StickyLeases,
    sessions: Sessions,
    sandboxes: Sandboxes,
    recycling: Recycling,
    surplus: int,
    incoming: int,
) -> None:
    """Raise AssertionError if an invariant of the parts, or between them, is broken."""
    workers.check()
    leases.check()
    sticky.check(list(leases))
    sessions.check(workers)
    sandboxes.check(leases.by_id)
    recycling.check(workers)
    assert len(leases) == workers.count(LEASED), "leases and leased workers differ"
    recalled = [lease for lease in sticky.by_id.values() if lease.sticky and lease.sticky.recalled]
    wanting = queue.wanting(sessions.is_busy)
    assert not wanting or len(recalled) == len(sticky.by_id), "a request waits, and a sticky lease is not recalled"
    assert not (life.serving and workers.idle and wanting), "a request waits while a worker is idle"
    waiting = {waiter.key for waiter in queue if waiter.key is not None} if life.serving and not wanting else set()
    assert not any(session.key in waiting for session in sessions.parked.values()), "it waits for a parked worker"
    assert not life.ending or not len(queue), "a request waits for a pool that ends"
    if not life.ending:
        _check_supply(config, life, workers, connector, wanting, surplus, incoming)


def _check_supply(
    config: PoolConfig,
    life: PoolState,
    workers: Workers,
    connector: Connector,
    wanting: int,
    surplus: int,
    incoming: int,
) -> None:
    """There are enough workers, or there soon will be."""
    trying = workers.count(OPENING) or any(worker.timer is not None for worker in workers.down.values())
    given_up = connector.permanently_failed
    assert surplus >= 0, "a base worker is missing"
    assert given_up or not workers.down or trying, "some are down, and none will try again"
    assert given_up or connector.down_cause is None or trying, "an outage that no worker looks into"
    connector.check(workers.get(connector.probe_id))
    for worker in workers.idle.values():
        limits = [config.overflow_ttl] if surplus > 0 else []
        limits += [config.idle_timeout] if config.idle_timeout and worker.connected_at else []
        when = worker.idle_since + min(limits, default=NEVER)
        assert not limits or (worker.timer is not None and worker.timer <= when), "idle, and not looked at in time"
    if life.serving and connector.down_cause is None and not workers.down:
        enough = surplus >= life.max_overflow or wanting <= incoming
        assert enough, "a request waits, and no worker is started"
        assert not workers.by_state[PARKED] or wanting <= incoming, "a request waits, and a parked worker is kept"
