"""A worker and its connection inside the process that hosts it: when it is opened, checked, reset, fenced.

No Thespian, no sockets, no pool: `WorkerActor` drives it, whichever way a call came.
"""

from __future__ import annotations

from typing import Any

from actorpool.errors import LeaseExpired, MethodNotFound
from actorpool.workers.base import Worker, methods_of


class Interrupted(KeyboardInterrupt):
    """Raised by the signal handler in a running call that is to end; psycopg and others clean up as for Ctrl-C."""


class Unavailable(Exception):
    """There is no healthy connection; the call was not started. The cause is `error`."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


class Session:
    """One `Worker` instance through its life.

    Lease ids grow, so `fence` (the lowest id that is still good) is all it takes to refuse a lease that is over.

    Args:
        worker: the instance.
        check_after: seconds of idleness after which the connection is checked before a call; None is never.
    """

    def __init__(self, worker: Worker, check_after: float | None) -> None:
        self.worker = worker
        self.methods = {name: getattr(worker, name) for name in methods_of(type(worker))}
        self.check_after = check_after
        self.connected = False
        self.lost: Exception | None = None
        self.lease = 0
        self.fence = 0
        self.dirty = False
        self.used = 0.0
        self._resets = type(worker).reset is not Worker.reset

    # -- the connection -----------------------------------------------------------------------------------

    def open(self, now: float) -> None:
        """Connect anew; raises what the worker's `open` raises."""
        self.close()
        self.worker.open()
        self.connected, self.lost, self.used = True, None, now

    def close(self) -> None:
        """Disconnect, whatever it takes."""
        if self.connected:
            self.connected = self.dirty = False
            try:
                self.worker.close()
            except Exception as error:  # a broken connection may not even close properly
                self.close_error = error

    close_error: Exception | None = None

    def lose(self, error: Exception) -> None:
        """The connection is gone: close what is left of it and remember why."""
        self.close()
        self.lost = error

    def check(self, now: float) -> None:
        """Raise `Unavailable` unless the connection is healthy; an unhealthy one is lost."""
        try:
            self.worker.check()
        except Exception as error:
            self.lose(error)
            raise Unavailable(error) from error
        self.used = now

    # -- leases ---------------------------------------------------------------------------------------------

    def admit(self, lease: int, check_first: bool, now: float) -> None:
        """Let a call of this lease in.

        Raises:
            LeaseExpired: the lease is over.
            Unavailable: there is no healthy connection; nothing was run.
        """
        if lease < self.fence:
            raise LeaseExpired(f"lease {lease} is over: checked in, or taken back (by max_lease, a drain or a timeout)")
        if lease == self.lease and lease:
            if not self.connected:
                raise Unavailable(self.lost or ConnectionError("the connection was lost earlier in this lease"))
            return
        if self.dirty:
            self.reset()  # the end of the lease before this one has not arrived yet
        self.lease = self.fence = lease
        self._ensure_healthy(check_first, now)

    def _ensure_healthy(self, check_first: bool, now: float) -> None:
        if not self.connected:
            if self.lost is not None:
                raise Unavailable(self.lost)
            try:
                self.open(now)
            except Exception as error:
                self.lose(error)
                raise Unavailable(error) from error
        elif (
            check_first
            or (self.check_after is not None and now - self.used > self.check_after)
            or self.worker.needs_check()
        ):
            self.check(now)

    def run(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any] | None) -> Any:
        """Call a method by name, or a function with the connection.

        Raises:
            MethodNotFound: no `@method` of that name.
            BaseException: whatever the user's code raises.
        """
        self.dirty = True
        if isinstance(target, str):
            method = self.methods.get(target)
            if method is None:
                raise MethodNotFound(
                    f"{type(self.worker).__name__} has no method {target!r} marked with @method; "
                    f"it has {', '.join(self.methods) or 'none'}"
                )
            return method(*args, **(kwargs or {}))
        return target(self.worker.connection, *args, **(kwargs or {}))

    def end(self, lease: int) -> None:
        """The lease is over: refuse its late calls, and be pristine for the next.

        Raises:
            Unavailable: the reset failed; the connection is lost.
        """
        if lease < self.fence:
            return
        if lease:  # 0 is no lease but a worker without a pool, which goes on
            self.fence = lease + 1
        if self.dirty:
            self.reset()

    def reset(self) -> None:
        """Back to pristine; raises `Unavailable` when that fails."""
        self.dirty = False
        if not self._resets or not self.connected:
            return
        try:
            self.worker.reset()
        except Exception as error:
            self.lose(error)
            raise Unavailable(error) from error
