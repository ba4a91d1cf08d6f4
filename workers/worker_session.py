"""A worker and its connection inside the process that hosts it: when it is opened, checked, reset, fenced.

No Thespian, no sockets, no pool: `WorkerActor` drives it, whichever way a call came.
"""

from __future__ import annotations

import functools
import logging
import signal
from typing import Any, NoReturn

from actorpool import _offspring, limits, process
from actorpool.errors import CallTimeout, LeaseExpired, MethodNotFound
from actorpool.serialization import tracing
from actorpool.transport.usage_counters import UsageCounters
from actorpool.workers.base import Worker, methods_of

log = logging.getLogger("actorpool")

BEGIN_SANDBOX = "begin_sandbox"
"""The call that turns a lease into a sandbox; answered by the session, where the worker can do such a thing."""


class Interrupted(KeyboardInterrupt):
    """Raised by the signal handler in a running call that is to end; psycopg and others clean up as for Ctrl-C."""


class Unavailable(Exception):
    """There is no healthy connection; the call was not started. The cause is `error`."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


def verdict_on(error: BaseException, fired: int, timeout: float | None) -> Exception:
    """What the caller of an interrupted call is told, whose driver may call that an error of its own.

    Args:
        error: what came out of the call; sqlite3 says "interrupted".
        fired: the signal that broke into it.
        timeout: seconds that it had.
    """
    verdict: Exception
    if fired == signal.SIGALRM:
        limit = f"longer than {timeout:g} s" if timeout else "into an alarm that it had set itself"
        verdict = CallTimeout(f"the call ran {limit} and was interrupted")
    else:
        verdict = LeaseExpired(
            "the call was interrupted, because its worker was taken back (by a drain, stop_pool, max_lease or a call "
            "timeout); it may have taken effect"
        )
    verdict.__cause__ = error
    return verdict


class WorkerSession:
    """One `Worker` instance through its life.

    Lease ids grow, so `fence` (the lowest id that is still good) is all it takes to refuse a lease that is over.

    In a sandbox, opened under one lease, others come and go as its turns: what a turn leaves behind is undone up to
    where it began, and everything when the first lease ends. Once it has ended, no turn is let in any more.

    Args:
        worker: the instance.
        check_after: seconds of idleness after which the connection is checked before a call; None is never.
        own_process: nothing else runs in this process.

    Attributes:
        counters: where it is told what runs, if that can be told.
        lasting: the processes that run since it was opened, and belong to no call.
    """

    def __init__(
        self,
        worker: Worker,
        check_after: float | None,
        own_process: bool = False,
        counters: UsageCounters | None = None,
    ) -> None:
        self.worker = worker
        self.methods = {name: getattr(worker, name) for name in methods_of(type(worker))}
        self.check_after = check_after
        self.own_process = own_process
        self.lasting: dict[int, float] = {}
        self.counters = counters
        self.connected = False
        self.lost: Exception | None = None
        self.reopened = False  # connected at its own will, which its pool is still to hear of
        self.lease = 0
        self.fence = 0
        self.sandbox: int | None = None  # the lease under which one was opened
        self.dirty = False
        self.keyed = False  # what is left is that of a key
        self.used = 0.0
        self._resets = type(worker).reset is not Worker.reset

    # -- the connection -----------------------------------------------------------------------------------

    def open(self, now: float) -> None:
        """Connect anew; raises what the worker's `open` raises."""
        self.close()
        self.worker.open()
        process.end_copy()
        self.connected, self.lost, self.used = True, None, now
        if self.own_process:
            self.lasting = _offspring.births()

    def end_started(self, moment: float) -> None:
        """End the processes that were started since, monotonic seconds: an interrupted call leaves nothing running."""
        if self.own_process:
            _offspring.end_since(moment, self.lasting)

    def rest(self) -> None:
        """Disconnect until the next call. Not under a lease: its first call may have overtaken this order."""
        if self.lease and self.lease == self.fence:
            self.reopened = self.connected
        else:
            self.close()

    def close(self) -> None:
        """Disconnect, whatever it takes."""
        if self.connected:
            self.connected = self.dirty = False
            try:
                self.worker.close()
            except KeyboardInterrupt:
                raise
            except BaseException as error:  # a broken connection may not even close properly
                process.end_copy(error)
            process.end_copy()

    def lose(self, error: BaseException) -> None:
        """The connection is gone: close what is left of it and remember why."""
        self.close()
        self.lost = error if isinstance(error, Exception) else ConnectionError(repr(error))

    def is_loss(self, error: BaseException) -> bool:
        """Whether what a call raised means that the connection is gone; also if its worker fails to tell."""
        try:
            lost = bool(self.worker.is_disconnect(error))
        except BaseException as problem:  # a user's hook may raise anything, SystemExit included
            process.end_copy(problem)
            name = type(self.worker).__name__
            log.warning("%s.is_disconnect raised %r: the connection counts as lost", name, problem)
            return True
        process.end_copy()
        return lost

    def _failed(self, error: BaseException) -> NoReturn:
        """A hook of the user's raised, which may be anything: the connection is lost.

        So it is if an interrupt broke into the hook: the state of the connection is then unknown.
        """
        process.end_copy(error)
        self.lose(error)
        if isinstance(error, KeyboardInterrupt):  # an interrupt; without a process of its own, Ctrl-C
            raise error
        raise Unavailable(self.lost or ConnectionError(repr(error))) from error

    def check(self, now: float) -> None:
        """Raise `Unavailable` unless the connection is healthy; an unhealthy one is lost."""
        try:
            self.worker.check()
        except BaseException as error:
            self._failed(error)
        process.end_copy()
        self.used = now

    # -- leases ---------------------------------------------------------------------------------------------

    def admit(
        self,
        lease: int,
        check_first: bool,
        now: float,
        turn: bool = False,
        sticky: bool = False,
        keyed: bool = False,
        continued: bool = False,
    ) -> None:
        """Let a call of this lease in.

        Args:
            lease: its id.
            check_first: check the connection before.
            now: monotonic seconds.
            turn: it is a turn in a sandbox.
            sticky: the caller keeps the lease, and each call under it is admitted like the first.
            keyed: what it leaves is kept for the next lease of its key.
            continued: it is that next lease.

        Raises:
            LeaseExpired: the lease is over.
            Unavailable: there is no healthy connection; nothing was run.
        """
        if lease < self.fence or (turn and self.sandbox is None):
            raise LeaseExpired(f"lease {lease} is over: checked in, or taken back (by max_lease, a drain or a timeout)")
        if lease == self.lease and lease and not sticky:
            if not self.connected:
                raise Unavailable(self.lost or ConnectionError("the connection was lost earlier in this lease"))
            return
        if self.dirty and not (continued and self.keyed):
            self.reset()  # the end of the lease before this one has not arrived yet
        if continued and not self.connected:
            raise Unavailable(self.lost or ConnectionError("the connection is gone, and with it the state of the key"))
        if turn and not self.connected:
            raise Unavailable(self.lost or ConnectionError("the sandbox's connection is gone, and all that was in it"))
        if self.sandbox is not None and not turn:
            self._leave_sandbox()
        self.lease = self.fence = lease
        self.keyed = keyed
        if not turn:
            self._ensure_healthy(check_first, now)

    def _ensure_healthy(self, check_first: bool, now: float) -> None:
        if not self.connected:
            if self.lost is not None:
                raise Unavailable(self.lost)
            try:
                self.open(now)
            except BaseException as error:
                self._failed(error)
            self.reopened = True
        elif (
            check_first or (self.check_after is not None and now - self.used > self.check_after) or self._needs_check()
        ):
            self.check(now)

    def _needs_check(self) -> bool:
        try:
            return self.worker.needs_check()
        except BaseException as error:  # a user's hook may raise anything: then the check is to tell
            process.end_copy(error)
            log.warning("%s.needs_check raised %r", type(self.worker).__name__, error)
            return True

    def run(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any] | None) -> Any:
        """Call a method by name, or a function with the connection.

        Raises:
            MethodNotFound: no `@method` of that name.
            BaseException: whatever the user's code raises.
        """
        if kwargs and tracing.SPAN in kwargs:
            kwargs = dict(kwargs)
            with tracing.within(kwargs.pop(tracing.SPAN)):
                return self.run(target, args, kwargs)
        self.dirty = True
        counters = self.counters
        if counters is not None:
            counters.runs(target)
        try:
            if self.sandbox is not None:
                worker: Any = self.worker
                return worker.in_sandbox(functools.partial(self._call, target, args, kwargs))
            return self._call(target, args, kwargs)
        except MemoryError as error:
            limits.explain(error)
            raise
        finally:
            if counters is not None:
                counters.rests()

    def _call(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any] | None) -> Any:
        if isinstance(target, str):
            method = self.methods.get(target) or self._other_method(target)
            return method(*args, **(kwargs or {}))
        return target(self.worker.connection, *args, **(kwargs or {}))

    def _other_method(self, name: str) -> Any:
        if name == BEGIN_SANDBOX and hasattr(self.worker, name):
            return self._begin_sandbox
        method = self.worker.find_method(name)
        if method is None:
            raise MethodNotFound(
                f"{type(self.worker).__name__} has no method {name!r} marked with @method; "
                f"it has {', '.join(self.methods) or 'none'}"
            )
        return method

    def pause(self) -> None:
        """A use of a sticky lease is over: be pristine for the next; raises `Unavailable` as `end`."""
        self.lease = 0  # until the next use nothing runs under it, and the connection may be closed
        if self.dirty:
            self.reset()

    def end(self, lease: int) -> None:
        """The lease is over: refuse its late calls, and be pristine for the next.

        Raises:
            Unavailable: the reset failed; the connection is lost.
        """
        if lease == self.sandbox:
            self._leave_sandbox()
        elif lease < self.fence:
            return
        if lease:  # 0 is no lease but a worker without a pool, which goes on
            self.fence = max(self.fence, lease + 1)
        if self.dirty:
            self.reset()

    def park(self, lease: int) -> None:
        """The keyed lease is over: refuse its late calls, and keep what it leaves for the next of its key."""
        self.fence = max(self.fence, lease + 1)

    def revoke(self, lease: int) -> None:
        """The lease was taken back: refuse its late calls, and be pristine, whether it is known that it ran anything.

        Raises:
            Unavailable: as `end`.
        """
        self.fence = max(self.fence, lease + 1)
        if lease == self.sandbox:
            self._leave_sandbox()
        else:
            self.reset()

    def reset(self) -> None:
        """Back to pristine, or to where this turn of a sandbox began; raises `Unavailable` when that fails."""
        self.dirty = False
        if not self._resets or not self.connected:
            return
        worker: Any = self.worker
        try:
            if self.sandbox is None:
                worker.reset()
            else:
                worker.end_turn()
        except BaseException as error:
            self._failed(error)
        if process.is_copy:
            process.end_copy()

    # -- sandboxes ----------------------------------------------------------------------------------------

    def _begin_sandbox(self) -> None:
        worker: Any = self.worker
        worker.begin_sandbox()
        self.sandbox = self.lease

    def _leave_sandbox(self) -> None:
        """Undo all that was done in it, and be pristine; raises `Unavailable` when that fails."""
        self.sandbox = None
        if self.connected:
            worker: Any = self.worker
            try:
                worker.end_sandbox()
            except BaseException as error:
                self._failed(error)
            process.end_copy()
        self.reset()
