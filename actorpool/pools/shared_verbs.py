"""What a shared pool can be asked: one function for each request, run in the pool's process.

Each returns the answer, or `LATER_ANSWER` when an `Answer` effect brings it. The asker is the request's ref in the
core, so the answer finds its way whichever way the question came. What a user gave may raise anything when it is
opened: that is the answer then.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from actorpool._protocol import requests, shared
from actorpool.core.shared.records import LIVE
from actorpool.messages import GetPoolStatus
from actorpool.pools import outlines, verbs
from actorpool.pools.base import LATER_ANSWER
from actorpool.pools.holders import Asker
from actorpool.pools.shell import SharedPoolShell
from actorpool.serialization.pickling import Pickled
from actorpool.status import PoolStatus, WorkerInfo


def add(pool: SharedPoolShell, request: shared.AddConnection, asker: Asker) -> Any:
    """Answered by the id once the connection is open, or by why it cannot be."""
    spec = (Pickled.of(request.worker), Pickled.of(request.worker_args))
    resource, extra = request.opened("resource"), request.opened("extra")
    ttl, revive, timeout = request.ttl, request.revive, request.timeout
    effects = pool.core.add(
        time.monotonic(), asker, spec, resource=resource, extra=extra, ttl=ttl, revive=revive, timeout=timeout,
        penalties=request.penalties,
    )  # fmt: skip
    pool.carry_out(effects)
    return LATER_ANSWER


def call_all(pool: SharedPoolShell, request: shared.CallAll, asker: Asker) -> Any:
    """Answered by what each live connection of the resource answers."""
    resource, method, payload = request.opened("resource"), request.method, request.payload
    now, timeout = time.monotonic(), request.timeout
    pool.carry_out(pool.core.map(now, asker, request.caller, resource, method, payload, timeout=timeout))
    return LATER_ANSWER


def get(pool: SharedPoolShell, request: shared.GetConnection, asker: Asker) -> Any:
    """`ConnInfo`."""
    pool.carry_out(pool.core.info(time.monotonic(), asker, request.id))
    return LATER_ANSWER


def set_extra(pool: SharedPoolShell, request: shared.SetExtra, asker: Asker) -> Any:
    """The `extra` before."""
    pool.carry_out(pool.core.extra(time.monotonic(), asker, request.id, request.opened("value")))
    return LATER_ANSWER


def update(pool: SharedPoolShell, request: shared.UpdateConnections, asker: Asker) -> Any:
    """How many connections were changed."""
    resource, where, settings = (request.opened(name) for name in ("resource", "where", "settings"))
    pool.carry_out(pool.core.update(time.monotonic(), asker, resource, where, settings))
    return LATER_ANSWER


def pop(pool: SharedPoolShell, request: shared.PopConnection, asker: Asker) -> Any:
    """`ConnInfo`, once its queued calls are done."""
    pool.carry_out(pool.core.pop(time.monotonic(), asker, request.id))
    return LATER_ANSWER


def pop_all(pool: SharedPoolShell, request: shared.PopConnections, asker: Asker) -> Any:
    """`[ConnInfo]`, once their queued calls are done."""
    resource, where = request.opened("resource"), request.opened("where")
    pool.carry_out(pool.core.pop_all(time.monotonic(), asker, resource, where))
    return LATER_ANSWER


def is_empty(pool: SharedPoolShell, request: shared.IsEmpty, asker: Asker) -> Any:
    """Whether no live connection to the resource exists."""
    pool.carry_out(pool.core.is_empty(time.monotonic(), asker, request.opened("resource")))
    return LATER_ANSWER


def resources(pool: SharedPoolShell, _request: Any, asker: Asker) -> Any:
    """The resources that have a live connection."""
    pool.carry_out(pool.core.resources(time.monotonic(), asker))
    return LATER_ANSWER


def listen(pool: SharedPoolShell, request: requests.Listen, asker: Asker) -> Any:
    """Send events to these subscribers and no others; answered once that includes whatever is called from now on."""
    pool.telemetry.listen(request.subscriptions)
    pool.observe(asker)
    return LATER_ANSWER


def status(pool: SharedPoolShell, _request: Any = None, _asker: Any = None) -> PoolStatus:
    """The figures that a shared pool has in common with others: connections are its workers, running calls its leases.

    `degraded`: no connection is open; `full`: all of them are busy.
    """
    core = pool.core
    known = core.connections.by_id.values()
    live = [one for one in known if one.state is LIVE]
    idle = [one for one in live if one.running is None]
    state = "degraded" if known and not live else "full" if live and not idle else "ready"
    return PoolStatus(
        name=pool.name,
        state="draining" if core.lifecycle.stopping else state,
        size=len(known),
        overflow=0,
        workers=len(idle),
        waiting=sum(len(one.queue) for one in known),
        monitors=sum(one.running is not None for one in known),
        total=len(core.workers),
        restarts=sum(one.restarts for one in known),
        since=time.monotonic() - pool.began,
    )


def workers(pool: SharedPoolShell, _request: Any, _asker: Asker) -> list[WorkerInfo]:
    """One line for each connection, under its own id."""
    now, core = time.monotonic(), pool.core
    lines = zip(core.connections.by_id.values(), core.infos(now), strict=True)
    return [
        WorkerInfo(
            info.id,
            info.pid,
            connection.shown,
            sum(stats.count for stats in info.stats.values()),
            connection.restarts,
            info.connected_at,
            False,
        )
        for connection, info in lines
    ]


def stack(pool: SharedPoolShell, request: requests.GetStack, asker: Asker) -> Any:
    """Answered by the stack of the process of that connection."""
    connection = pool.core.connections.by_id.get(request.worker_id)
    worker = connection.worker if connection is not None else None
    pool.stacks.ask(request.worker_id if worker is None else worker.id, asker)
    return LATER_ANSWER


def outline(pool: SharedPoolShell, request: Any, asker: Asker) -> Any:
    """`Outline`."""
    return outlines.outline(pool.worker_handles, pool.ends, workers(pool, request, asker))


VERBS: dict[type, Callable[[SharedPoolShell, Any, Asker], Any]] = {
    shared.AddConnection: add,
    shared.CallAll: call_all,
    shared.GetConnection: get,
    shared.SetExtra: set_extra,
    shared.UpdateConnections: update,
    shared.PopConnection: pop,
    shared.PopConnections: pop_all,
    shared.IsEmpty: is_empty,
    shared.ListResources: resources,
    GetPoolStatus: status,
    requests.Status: status,
    requests.Workers: workers,
    requests.GetOutline: outline,
    requests.GetStack: stack,
    requests.Metrics: verbs.metrics,
    requests.GetSettings: verbs.settings,
    requests.Dropped: verbs.dropped,
    requests.Retire: verbs.retire,
    requests.Listen: listen,
}
