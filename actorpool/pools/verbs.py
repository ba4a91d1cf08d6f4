"""What a pool can be asked: one function for each request, run in the pool's process.

Each returns the answer, or `LATER_ANSWER` when an `Answer` effect will bring it. The asker is the request's ref in the
core, so the answer finds its way whichever way the question came.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from typing import Any

from actorpool import process
from actorpool._protocol import orders, requests, sandboxes
from actorpool._scrubbing import settings_as_text
from actorpool.core.pool.durations import BOUNDS
from actorpool.messages import GetPoolStatus
from actorpool.pools import outlines
from actorpool.pools.base import LATER_ANSWER
from actorpool.pools.holders import Asker
from actorpool.pools.shell import BasePoolShell, PoolShell
from actorpool.status import LeaseInfo


def facts(pool: PoolShell, _request: Any, _asker: Asker) -> Any:
    """`HandleFacts`."""
    config = pool.config
    return requests.HandleFacts(config.checkout_timeout, config.call_timeout, config.leak_threshold is not None)


def status(pool: PoolShell, _request: Any, _asker: Asker) -> Any:
    """`PoolStatus`."""
    return pool.core.status(time.monotonic())


def workers(pool: PoolShell, _request: Any, _asker: Asker) -> Any:
    """`list[WorkerInfo]`."""
    return pool.core.worker_infos(pool.worker_handles.pids, time.monotonic(), time.time())


def outline(pool: PoolShell, request: Any, asker: Asker) -> Any:
    """`Outline`."""
    config, intensity = pool.config, pool.core.lifecycle.intensity
    return outlines.outline(
        pool.worker_handles,
        pool.ends,
        workers(pool, request, asker),
        restarts_used=intensity.count(time.monotonic()),
        restarts_limit=config.max_restarts,
        restarts_period=config.restart_period,
    )


def leases(pool: PoolShell, _request: Any, _asker: Asker) -> Any:
    """`list[LeaseInfo]`."""
    infos = pool.core.lease_infos(time.monotonic())
    programs = {pid: process.program(pid) for pid in {info.caller_pid for info in infos if _is_here(info)}}
    return [
        dataclasses.replace(
            info,
            program=programs.get(info.caller_pid, "") if _is_here(info) else "",
            function=slot.running() if (slot := pool.pages.slot(info.worker_id)) is not None else None,
        )
        for info in infos
    ]


def _is_here(info: LeaseInfo) -> bool:
    return info.caller_pid > 0 and info.caller_host == process.HOST


def stack(pool: PoolShell, request: requests.GetStack, asker: Asker) -> Any:
    """Answered by the worker's stack."""
    pool.stacks.ask(request.worker_id, asker)
    return LATER_ANSWER


def sessions(pool: PoolShell, _request: Any, _asker: Asker) -> Any:
    """`list[SessionInfo]`."""
    return pool.core.sessions.infos(pool.worker_handles.pids, time.monotonic())


def end_session(pool: PoolShell, request: requests.EndSession, asker: Asker) -> Any:
    """Whether there is one: it ends at once, or when its lease is given back."""
    pool.carry_out(pool.core.end_session(time.monotonic(), asker, request.key))
    return LATER_ANSWER


def metrics(pool: BasePoolShell, _request: Any, _asker: Asker) -> Any:
    """`PoolMetrics`."""
    return pool.telemetry.samples.metrics()


def histograms(pool: PoolShell, _request: Any, _asker: Asker) -> Any:
    """`(waits, holds)`, each a `Histogram`."""
    pool.core.figures.settle()
    kinds = pool.core.stats.waits, pool.core.stats.holds
    return tuple(requests.Histogram(BOUNDS, tuple(kind.buckets), kind.sum) for kind in kinds)


def settings(pool: BasePoolShell, _request: Any, _asker: Asker) -> Any:
    """`dict[str, str]`."""
    return settings_as_text(pool.config)


def dropped(pool: BasePoolShell, _request: Any, _asker: Asker) -> Any:
    """`dict[str, int]`."""
    return pool.telemetry.dropped()


def resize(pool: PoolShell, request: requests.Resize, asker: Asker) -> Any:
    """Change the size in place; answered when that outlives this process."""
    pool.carry_out(pool.core.resize(time.monotonic(), request.size, request.max_overflow))
    return _once_sent(pool, asker)


def suspend(pool: PoolShell, _request: Any, asker: Asker) -> Any:
    """Grant no lease until `resume`; answered when that outlives this process."""
    pool.carry_out(pool.core.suspend(time.monotonic()))
    return _once_sent(pool, asker)


def resume(pool: PoolShell, _request: Any, asker: Asker) -> Any:
    """Serve again; answered when that outlives this process."""
    pool.carry_out(pool.core.resume(time.monotonic()))
    return _once_sent(pool, asker)


def _once_sent(pool: PoolShell, asker: Asker) -> Any:
    """Answer when the supervisor has been told what to keep: with the answer, the asker may kill this process."""
    pool.once_sent(lambda: asker.answer(None))
    return LATER_ANSWER


def drain(pool: PoolShell, request: requests.Drain, asker: Asker) -> Any:
    """Answered when every lease is back."""
    pool.carry_out(pool.core.drain(time.monotonic(), asker, request.timeout))
    return LATER_ANSWER


def recycle(pool: PoolShell, request: requests.Recycle, asker: Asker) -> Any:
    """Answered when every connection (or process) is a new one."""
    pool.carry_out(pool.core.recycle(time.monotonic(), asker, request.timeout, request.restart))
    return LATER_ANSWER


def retire(pool: BasePoolShell, request: requests.Retire, asker: Asker) -> Any:
    """Answered when the pool has stopped."""
    pool.carry_out(pool.core.stop(time.monotonic(), asker, request.timeout))
    return LATER_ANSWER


def clear_cache(pool: PoolShell, _request: Any, _asker: Asker) -> None:
    """Every worker clears its cache, those in use before their next call."""
    for hand in pool.worker_handles:
        pool.worker_handles.tell(hand.id, orders.Broadcast("clear_cache"))


def gather_stats(pool: PoolShell, request: requests.GatherStats, asker: Asker) -> Any:
    """Answered when every worker has told its `stats()`, or time is up."""
    pool.worker_queries.begin("stats", request.timeout, asker, time.monotonic())
    return LATER_ANSWER


def open_sandbox(pool: PoolShell, request: sandboxes.OpenSandbox, _asker: Asker) -> Any:
    """A lease is a sandbox from now on."""
    return pool.core.enclose(request.key, request.lease, request.caller)


def allow(pool: PoolShell, request: sandboxes.Allow, asker: Asker) -> Any:
    """Another process may come into a sandbox."""
    pool.carry_out(pool.core.allow(time.monotonic(), asker, request.key, request.process))
    return LATER_ANSWER


def close_sandbox(pool: PoolShell, request: sandboxes.CloseSandbox, asker: Asker) -> Any:
    """Answered when everything that was done in the sandbox is rolled back."""
    pool.carry_out(pool.core.release(time.monotonic(), asker, request.key))
    return LATER_ANSWER


def listen(pool: PoolShell, request: requests.Listen, _asker: Asker) -> None:
    """Send events to these subscribers and no others from now on."""
    pool.telemetry.listen(request.subscriptions)


VERBS: dict[type, Callable[[PoolShell, Any, Asker], Any]] = {
    requests.Facts: facts,
    requests.Status: status,
    GetPoolStatus: status,
    requests.Workers: workers,
    requests.Leases: leases,
    requests.GetStack: stack,
    requests.GetOutline: outline,
    requests.Metrics: metrics,
    requests.Sessions: sessions,
    requests.EndSession: end_session,
    requests.Histograms: histograms,
    requests.GetSettings: settings,
    requests.Dropped: dropped,
    requests.Resize: resize,
    requests.Suspend: suspend,
    requests.Resume: resume,
    requests.Drain: drain,
    requests.Recycle: recycle,
    requests.Retire: retire,
    requests.ClearCache: clear_cache,
    requests.GatherStats: gather_stats,
    sandboxes.OpenSandbox: open_sandbox,
    sandboxes.Allow: allow,
    sandboxes.CloseSandbox: close_sandbox,
    requests.Listen: listen,
}
