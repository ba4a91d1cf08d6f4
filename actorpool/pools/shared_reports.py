"""What the workers of a shared pool tell it: one function for each report, run in the pool's process."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from actorpool._protocol import reports, shared
from actorpool._protocol.shared import OpaqueResult
from actorpool.pools.shell import SharedPoolShell
from actorpool.transport import frames


def started(pool: SharedPoolShell, report: reports.Started) -> None:
    """The worker's process is up."""
    id, pid = report.worker_id, report.pid
    pool.worker_handles.is_up(id, pid)
    with suppress(KeyError):  # it is dead already
        prompt = pool.worker_handles.hand(id).peer is not None
        pool.carry_out(pool.core.worker_started(time.monotonic(), id, pid, prompt))


def start_failed(pool: SharedPoolShell, report: reports.StartFailed) -> None:
    """The worker's `__init__` raised."""
    pool.carry_out(pool.core.start_failed(time.monotonic(), report.worker_id, _error(report.error.data)))


def opened(pool: SharedPoolShell, report: shared.Opened) -> None:
    """The worker is connected."""
    now, worker = time.monotonic(), report.worker_id
    try:
        resource = report.resource.open()
    except Exception as error:  # a user's value that cannot be rebuilt here
        pool.carry_out(pool.core.open_failed(now, worker, error, True))
    else:
        pool.carry_out(pool.core.opened(now, worker, report.took, resource, report.methods))


def open_failed(pool: SharedPoolShell, report: reports.OpenFailed) -> None:
    """The worker could not connect."""
    now, error = time.monotonic(), _error(report.error.data)
    pool.carry_out(pool.core.open_failed(now, report.worker_id, error, report.permanent, report.retry_after))


def lost(pool: SharedPoolShell, report: reports.Lost) -> None:
    """The worker's connection is gone."""
    pool.carry_out(pool.core.lost(time.monotonic(), report.worker_id, _error(report.error.data)))


def returned(pool: SharedPoolShell, report: shared.Returned) -> None:
    """The worker has ended a loan."""
    now, done, last_call = time.monotonic(), report.done, report.last_call
    pool.carry_out(
        pool.core.returned(
            now, report.worker_id, report.number, done, last_call, cooldown=report.cooldown, close=report.close
        )
    )


def performed(pool: SharedPoolShell, worker: int, number: int, body: bytes | memoryview) -> None:
    """The worker has answered a call."""
    flags, cooldown, took = frames.OUTCOME.unpack_from(body)
    failed, close = bool(flags & frames.FAILED), bool(flags & frames.CLOSE)
    reply = OpaqueResult(body[frames.OUTCOME.size :], failed)
    now = time.monotonic()
    pool.carry_out(pool.core.done(now, worker, number, reply, failed=failed, cooldown=cooldown, close=close, took=took))


def answer_too_long(pool: SharedPoolShell, worker: int, number: int, body: bytes | memoryview) -> None:
    """The worker's answer did not fit into a frame; it sent this error in its place."""
    pool.carry_out(pool.core.done(time.monotonic(), worker, number, OpaqueResult(body, True), failed=True))


def not_started(pool: SharedPoolShell, worker: int, number: int, body: bytes | memoryview) -> None:
    """The worker has not begun a call: for want of a connection, or (without a word) though it has one."""
    error = _error(body) if len(body) else None
    pool.carry_out(pool.core.not_run(time.monotonic(), worker, number, error))


def _error(data: bytes | memoryview) -> Exception:
    error = frames.load_error(data)
    return error if isinstance(error, Exception) else RuntimeError(repr(error))


FRAMES: dict[int, Callable[[SharedPoolShell, int, int, Any], None]] = {
    frames.PERFORMED: performed,
    frames.NOT_STARTED: not_started,
    frames.ERROR: answer_too_long,
}
"""By kind of frame: what is told of the call of a number."""

REPORTS: dict[type, Callable[[SharedPoolShell, Any], None]] = {
    reports.Started: started,
    reports.StartFailed: start_failed,
    reports.OpenFailed: open_failed,
    reports.Lost: lost,
    shared.Opened: opened,
    shared.Returned: returned,
    shared.Told: lambda pool, report: FRAMES[report.kind](pool, report.worker_id, report.number, report.body),
}
