"""The errors a client itself finds, in words; and why a socket is not served. Decided here only."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

from actorpool.client._calls import CallRequest, LeaseHandle, NotStarted, Recalled
from actorpool.errors import (
    CallTimeout,
    CheckoutTimeout,
    LeaseExpired,
    PoolDown,
    PoolNotFound,
    RemoteError,
    SystemDown,
    WorkerDied,
    WorkerUnavailable,
)
from actorpool.node import runtime
from actorpool.serialization import pickling
from actorpool.transport import client, frames
from actorpool.transport.paths import Endpoint

T = TypeVar("T")

LEAST_PATIENCE, MANAGER_PATIENCE = 0.1, 1.0
"""Seconds the manager has to say whether a pool exists, within what the caller has; it never waits for anything."""


def grace(timeout: float) -> float:
    """How much longer than the pool a caller waits, so that its verdict wins: 20 %, at least 0.5 s, at most 2 s."""
    return min(max(0.2 * timeout, 0.5), 2.0)


def checkout_timeout(pool: str, waited: float) -> CheckoutTimeout:
    """The pool itself did not answer a checkout."""
    text = f"pool {pool!r} did not answer within {waited:.2f} s, the checkout timeout included: its process hangs"
    return CheckoutTimeout(text, pool=pool, waited=waited)


def call_timeout(pool: str, work: CallRequest) -> CallTimeout:
    """A call ran too long."""
    return CallTimeout(
        f"pool {pool!r}: {work.name} ran longer than its call timeout of {work.timeout} s and is interrupted; "
        "its worker is reset or replaced. Make the call shorter, or raise call_timeout",
        pool=pool,
        waited=work.timeout,
    )


def worker_died(pool: str, lease: LeaseHandle, work: CallRequest) -> WorkerDied:
    """The worker's process ended while it had the call."""
    return WorkerDied(
        f"pool {pool!r}: worker {lease.worker_id} (pid {lease.worker_pid}) died during {work.name}, which may or may "
        "not have taken effect; it is not run again by itself",
        pool=pool,
        worker_id=lease.worker_id,
        worker_pid=lease.worker_pid,
    )


def pool_ended(pool: str, method: str) -> WorkerDied:
    """A shared pool's own process ended while it had the call."""
    text = f"shared pool {pool!r} was restarted while it had {method!r}, which may or may not have taken effect"
    return WorkerDied(f"{text}; it is not run again by itself", pool=pool)


def lent_died(pool: str, method: str) -> WorkerDied:
    """The process of a shared connection ended while it had a call that came straight from here."""
    text = f"shared pool {pool!r}: the process of the connection died while it ran {method!r}"
    return WorkerDied(f"{text}; the call may have taken effect and was not repeated", pool=pool)


def shared_timeout(pool: str, method: str, waited: float) -> CallTimeout:
    """A shared pool itself did not answer in time."""
    text = f"shared pool {pool!r} has not answered {method!r} within {waited:.2f} s: its process hangs"
    return CallTimeout(text, pool=pool, waited=waited)


def worker_gone(pool: str, lease: LeaseHandle, work: CallRequest) -> WorkerDied:
    """The worker's process ended before it had the call."""
    return WorkerDied(
        f"pool {pool!r}: worker {lease.worker_id} (pid {lease.worker_pid}) has died; {work.name} was not started",
        pool=pool,
        worker_id=lease.worker_id,
        worker_pid=lease.worker_pid,
        started=False,
    )


def expired(pool: str, lease: LeaseHandle) -> LeaseExpired:
    """A lease is used after its end."""
    if lease.generation != client.generation:
        text = "belongs to the process that forked this one; check out a lease here"
    else:
        text = "is over: checked in, taken back (max_lease, a drain, a timeout), or its worker or pool was replaced"
    return LeaseExpired(f"pool {pool!r}: lease {lease.id} {text}", pool=pool)


def unavailable(pool: str, cause: BaseException | None) -> WorkerUnavailable:
    """A worker has no connection."""
    reason = f"{type(cause).__name__}: {cause}" if cause is not None else "no reason is known"
    return WorkerUnavailable(f"pool {pool!r}: the worker is not connected ({reason})", pool=pool, cause=cause)


def not_started(lease: LeaseHandle, error: BaseException) -> BaseException:
    """What to raise for a call that was not run: another worker may take it, unless its place is in a sandbox."""
    return error if lease.turn else NotStarted(error)


def refuse(pool: str, lease: LeaseHandle, body: bytes | memoryview) -> NoReturn:
    """Raise what a worker says with `NOT_STARTED`: `LeaseExpired`, or `NotStarted` for want of a connection."""
    word, packed = pickling.loads(body)
    if word == "expired":
        lease.end()
        raise Recalled if lease.sticky else expired(pool, lease)
    raise not_started(lease, unavailable(pool, None if packed is None else frames.load_error(packed)))


def result(body: bytes | memoryview) -> Any:
    """A value that a worker or a pool sent; one that cannot be rebuilt here is an error of that call only."""
    try:
        return pickling.loads(body)
    except Exception as error:  # importing or rebuilding a user's class may fail in any way
        text = f"the result cannot be rebuilt in this process: {type(error).__name__}: {error}"
        raise RemoteError(text, type_name=type(error).__name__, cause=error) from error


# -- errors that mean something else to an event loop ---------------------------------------------------------------


def for_a_loop(error: BaseException) -> BaseException:
    """An exception of a worker, as a task may raise it.

    An exit, a Ctrl-C or a cancellation of the worker's code is none of the task's: it would end the loop, or count as a
    cancellation of the task. So it becomes the cause of a `RemoteError`, as does `StopIteration`, which futures refuse.
    """
    if isinstance(error, Exception) and not isinstance(error, StopIteration):
        return error
    name = type(error).__name__
    text = f"{name} in the worker: {error}; not raised as it is, for it would end or cancel more than this call"
    remote = getattr(error, "remote_traceback", None)
    return RemoteError(text, type_name=name, cause=error, remote_traceback=remote)


def in_thread(function: Callable[..., T], *args: Any) -> T:
    """Call it for an event loop, in a thread of the loop's; raises as `for_a_loop`."""
    try:
        return function(*args)
    except BaseException as error:
        told = for_a_loop(error)
        if told is error:
            raise
    raise told


# -- a socket that is not served ----------------------------------------------------------------------------------


def system_down(endpoint: Endpoint) -> SystemDown | None:
    """The error of a node that has ended; None while it runs."""
    if runtime.serves(endpoint.directory):
        return None
    return SystemDown(f"the node in {endpoint.directory} has ended: start a new one, or connect to another")


def manager_patience(left: float | None) -> float:
    """Seconds for the manager to say whether a pool exists.

    Args:
        left: seconds the caller has; None is no limit.
    """
    return MANAGER_PATIENCE if left is None else min(max(left, LEAST_PATIENCE), MANAGER_PATIENCE)


def not_found(pool: str, known: list[str]) -> PoolNotFound | None:
    """The error of a pool that the manager does not know; None if it does."""
    if pool in known:
        return None
    names = ", ".join(known) or "none"
    return PoolNotFound(f"no pool named {pool!r} is running (running: {names}): start it first", pool=pool)


def pool_down(pool: str, what: str, waited: float) -> PoolDown:
    """A pool that exists did not serve for as long as the caller had time; `what`: how that showed."""
    return PoolDown(
        f"pool {pool!r} {what} for {waited:.2f} s: it is busy, being restarted, or it gave up (the node's log says "
        "why); try again, or stop it and start it anew",
        pool=pool,
        waited=waited,
    )


def manager_down(endpoint: Endpoint, what: str, waited: float) -> PoolDown:
    """The same of the manager itself."""
    text = f"the manager of the system in {endpoint.directory} {what} for {waited:.2f} s: it is being restarted"
    return PoolDown(f"{text}; try again", waited=waited)
