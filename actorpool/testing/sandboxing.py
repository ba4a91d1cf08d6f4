"""`sandbox`: everything inside is one transaction on one worker, and is rolled back at the end.

The owner leases a worker, has it begin a sandbox, and tells the pool, which from then on grants turns at that worker
to callers that may enter. So the pool's own rules hold for the sandbox too: turns are first come, first served; one is
taken back when its holder dies or its call times out; and the death of the owner ends the sandbox.
"""

from __future__ import annotations

import secrets
from types import TracebackType
from typing import Any

from actorpool._protocol import sandboxes as turns
from actorpool._protocol.sandboxes import OUTSIDE
from actorpool.client import client_errors, sandboxes
from actorpool.client.aio import AsyncLease, AsyncPool
from actorpool.client.lease import Lease
from actorpool.client.pool import Pool
from actorpool.errors import ActorPoolError, MethodNotFound, PoolNotFound, SystemDown
from actorpool.process import HOST, Caller, start_time
from actorpool.workers.worker_session import BEGIN_SANDBOX

KILL_TIME = 5.0
"""Seconds beyond the usual in which a pool interrupts, resets or kills a worker, with `kill_after` as it mostly is."""


def sandbox(pool: Pool | AsyncPool, *, shared: bool = False, timeout: float | None = None) -> Opening:
    """Keep what is done with a pool from the database: one transaction on one worker, rolled back at the end.

    `with sandbox(pool) as box:` or `async with sandbox(pool) as box:`. Inside, calls through `pool` itself go to the
    sandbox as well, when they are made in the same context: this thread, this task, and tasks that it creates.

    Transactions inside are savepoints, and statements outside of them stand for themselves, so code under test runs
    unchanged. All callers share the one worker and take turns: a lease or a transaction keeps the others waiting, but
    calls in its own block go along on it. Sandboxes do not see each other.

    Args:
        pool: a handle of a pool of SQL workers; `LocalPool`s as well.
        shared: calls by all threads of this process, and by all handles of the pool, go to the sandbox.
        timeout: longest wait for a worker in seconds; None is the pool's.

    Raises:
        MethodNotFound: the pool's worker knows no transactions.
        RuntimeError: `shared`, and another shared sandbox of that pool is open.
        As `Pool.checkout`.
    """
    return Opening(pool, shared, timeout)


class Sandbox(Pool):
    """The verbs of `Pool`, for callers inside a sandbox; from any thread, and picklable for processes that may come in.

    After the end of the sandbox, calls raise `LeaseExpired`.
    """

    def allow(self, pid: int) -> None:
        """Let another process in: all its calls through handles of this pool go to the sandbox, until that is over.

        Its death ends nothing but its own turn.

        Args:
            pid: a process of this host that uses the pool by itself, with a handle that it inherited or was sent.

        Raises:
            ProcessLookupError: there is no such process.
            ValueError: it is in another sandbox of this pool.
            LeaseExpired: the sandbox is over.
        """
        started = start_time(pid)
        if started is None:
            raise ProcessLookupError(f"no process {pid} runs that could be let into the sandbox of {self.name!r}")
        self._ask(turns.Allow(self._key, Caller(HOST, pid, started)))

    @property
    def _key(self) -> str:
        """What the pool knows the sandbox by."""
        assert self._transport.sandbox
        return self._transport.sandbox

    def __repr__(self) -> str:
        return f"<sandbox in {super().__repr__()}>"


class AsyncSandbox(AsyncPool):
    """`Sandbox` with the verbs as coroutines."""

    _pool: Sandbox

    def __init__(self, box: Sandbox) -> None:
        super().__init__(box)

    @property
    def aio(self) -> AsyncSandbox:
        """Itself."""
        return self

    def allow(self, pid: int) -> None:
        """As `Sandbox.allow`; it asks the pool one quick question."""
        self._pool.allow(pid)


class Opening:
    """What `sandbox()` returns: to be entered once, by `with` or by `async with`."""

    def __init__(self, pool: Pool | AsyncPool, shared: bool, timeout: float | None) -> None:
        handle = pool._pool if isinstance(pool, AsyncPool) else pool
        if not isinstance(handle, Pool):
            raise TypeError(f"sandbox() takes a handle of a pool, not {handle!r}")
        self._outside = Pool(handle._transport.inside(OUTSIDE), handle.name, handle._known)
        self._shared = shared
        self._timeout = timeout
        self._lease: Lease | AsyncLease | None = None
        self._box: Sandbox | None = None

    def _make_box(self) -> Sandbox:
        link = self._outside._transport.inside(secrets.token_hex(8))
        return Sandbox(link, self._outside.name, self._outside._known)

    def _unfit(self) -> MethodNotFound:
        return MethodNotFound(
            f"pool {self._outside.name!r}: its worker knows no transactions, so there is no sandbox for it; sandbox() "
            "is for SQL workers: PostgresWorker, SqliteWorker, DbapiWorker, SqlAlchemyWorker, or your own SqlWorker",
            pool=self._outside.name,
        )

    def _enter_context(self, box: Sandbox) -> None:
        sandboxes.enter(box._transport, self._shared)
        self._box = box

    def _leave_context(self) -> Sandbox:
        box, self._box = self._box, None
        if box is None:
            raise RuntimeError("this sandbox is not open")
        sandboxes.leave(box._transport)
        return box

    def _once(self) -> None:
        if self._lease is not None:
            raise RuntimeError("a sandbox is entered once; call sandbox() again for another one")

    # -- with ---------------------------------------------------------------------------------------------

    def __enter__(self) -> Sandbox:
        self._once()
        self._lease = lease = self._outside.checkout(timeout=self._timeout)
        try:
            lease.call(BEGIN_SANDBOX)
            box = self._make_box()
            self._outside._ask(turns.OpenSandbox(box._key, lease.id))
            self._enter_context(box)
        except MethodNotFound:
            lease.checkin()
            raise self._unfit() from None
        except BaseException:
            lease.checkin()
            raise
        return box

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        box = self._leave_context()
        assert isinstance(self._lease, Lease)
        if self._lease.closed:  # a forked child has come out of the block: the sandbox is its parent's
            return
        try:
            box._ask(turns.CloseSandbox(box._key), client_errors.grace(KILL_TIME) + KILL_TIME)
        except ActorPoolError as problem:
            _judge(problem, error)
        finally:
            self._lease.checkin()  # ends it, too, if the pool was not asked

    # -- async with -----------------------------------------------------------------------------------------

    async def __aenter__(self) -> AsyncSandbox:
        self._once()
        outside = self._outside.aio
        self._lease = lease = await outside.checkout(timeout=self._timeout)
        try:
            await lease.call(BEGIN_SANDBOX)
            box = self._make_box()
            await outside._ask(turns.OpenSandbox(box._key, lease.id))
            self._enter_context(box)
        except MethodNotFound:
            await lease.checkin()
            raise self._unfit() from None
        except BaseException:
            await lease.checkin()
            raise
        return AsyncSandbox(box)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        box = self._leave_context()
        assert isinstance(self._lease, AsyncLease)
        if self._lease.closed:
            return
        try:
            request: Any = turns.CloseSandbox(box._key)
            await self._outside.aio._ask(request, client_errors.grace(KILL_TIME) + KILL_TIME)
        except ActorPoolError as problem:
            _judge(problem, error)
        finally:
            await self._lease.checkin()


def _judge(problem: ActorPoolError, error: BaseException | None) -> None:
    """A pool that is gone has rolled back; and what was raised inside says more than what goes wrong at the end."""
    if error is None and not isinstance(problem, (PoolNotFound, SystemDown)):
        raise problem
