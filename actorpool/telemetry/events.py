"""The events: every name that is ever emitted, and what it measures. Patterns over these names."""

from __future__ import annotations

import re
from collections.abc import Callable
from fnmatch import translate
from typing import NamedTuple

EVENTS: dict[str, str] = {
    "pool.started": "a pool serves; size, max_overflow",
    "pool.stopped": "a pool has ended",
    "pool.checkout": "a worker was handed out; wait_ms",
    "pool.checkin": "a lease came back; hold_ms",
    "pool.timeout": "a caller waited in vain; timeout (seconds)",
    "pool.overflow": "a worker above size was started; overflow",
    "pool.shed": "CoDel or max_waiting refused a caller; waiting, wait_ms",
    "pool.reclaimed": "a lease was taken from a caller that died or held it too long; age (seconds)",
    "pool.leak": "a lease is older than leak_threshold; age (seconds)",
    "pool.leak_returned": "a lease that was told as a leak came back after all; age (seconds)",
    "pool.resized": "the configured size changed; size, max_overflow",
    "pool.sample": "every metrics_interval; leases, waiting, total, wait_ms_p50, wait_ms_p99, sessions",
    "worker.started": "a worker process runs",
    "worker.connected": "a worker opened its connection; ms",
    "worker.connect_error": "a worker could not open its connection, or lost it",
    "worker.restarted": "a dead worker was replaced",
    "worker.died": "a worker process ended without being told to",
    "call.done": "a call returned or raised; ms",
    "call.timeout": "a call ran longer than its timeout; ms",
    "breaker.opened": "the circuit breaker refuses checkouts from now on",
    "breaker.closed": "the circuit breaker lets checkouts through again",
    "supervisor.restarted": "a supervisor restarted a child",
    "supervisor.gave_up": "a supervisor or a pool exceeded its restart intensity",
    "host.up": "a host takes part in the cluster; told, as the next three, by each node that has a share of a pool",
    "host.down": "a host of the cluster was lost",
    "host.left": "a host has left the cluster in order",
    "pool.share": "a pool was divided anew among the hosts of a cluster; hosts, size",
}

FREQUENT = frozenset({"pool.checkout", "pool.checkin", "call.done"})
"""The events of every single call: sinks may gather them before they send."""

NOT_KEPT = FREQUENT | {"pool.sample"}
"""The events that are in no history: those of each call, and the one that tells nothing but figures."""


class Counted(NamedTuple):
    """How often one of the frequent events happened within an interval, for sinks that count.

    Attributes:
        name: the event's name.
        times: how often, exactly.
        slowest_ms: what it measured at most.
        some_ms: what it measured some of the other times.
    """

    name: str
    times: int
    slowest_ms: float
    some_ms: list[float]


STATES = frozenset({"pool.started", "pool.resized", "pool.sample"})
"""The events with measurements of a state, rather than of how long something took."""


def matcher(pattern: str) -> Callable[[str], object]:
    """A function that is true for the event names which the glob `pattern` covers (`*` covers dots too)."""
    return re.compile(translate(pattern)).match
