"""`Executor`: a `concurrent.futures.Executor` whose workers may die, each at the cost of the one call it ran.

Calls that are quick go to a worker in batches (`workers.executing`), because a message costs more than they do. What a
worker has not begun can be taken back from a batch at any moment: it is when a future of it is cancelled, when the
batch takes long and there is nothing else to do, and when the worker dies.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import shutil
import tempfile
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from concurrent import futures
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from actorpool.client._batches import LARGEST, Batch, ExecutorFuture, Slot, named
from actorpool.client.futures import FOREVER, Dispatcher, LoopThread, check_interpreter
from actorpool.client.mapping import Results, mapped
from actorpool.client.start import start
from actorpool.config import PoolConfig
from actorpool.errors import ActorPoolError, InvalidConfig, MessageTooBig
from actorpool.workers.executing import InitializerFailed, run_batch, run_chunk

if TYPE_CHECKING:
    from actorpool.client.aio import AsyncLease
    from actorpool.client.pool import Pool
    from actorpool.client.system import System

LOGGER = logging.getLogger("concurrent.futures")
"""Where the standard library's executors say that an initializer failed."""
BATCH_BYTES = 1 << 15
"""Bytes of a batch's calls; one that is larger goes alone."""
BATCH_SECONDS = 2e-3
"""How long a batch should take."""
PATIENCE = 0.01
"""Seconds until what a batch has not begun is taken back, if nothing else is waiting."""
NO_LIMIT = 1 << 31
"""Restarts within a period: an executor does not end because its functions kill workers."""


class Engine(Dispatcher):
    """What works for an executor, and does not keep it alive.

    Args:
        workers: processes.
        config: of the pool.
        system: where the pool is started; None: in a node of its own.
    """

    def __init__(self, workers: int, config: PoolConfig, system: System | None) -> None:
        super().__init__(LoopThread("actorpool-executor", self._end), workers, workers)
        self.config = config
        self.broken: BaseException | None = None
        self.shut = self._ticking = False
        self.lock = threading.RLock()
        self._given = system
        self._system: System | None = None
        self._owner = 0
        self._pool: Pool | None = None
        self._name = f"executor_{secrets.token_hex(4)}"
        self._directory: str | None = None
        self._slots: list[Slot] = []
        self._batches: set[Batch] = set()
        self._each = BATCH_SECONDS
        self._batching = config.call_timeout is None and config.max_lease is None
        engines.add(self)

    # -- from any thread ------------------------------------------------------------------------------------

    def submit(self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> ExecutorFuture:
        """Queue a call.

        Raises:
            BrokenExecutor: the initializer failed.
            RuntimeError: after `shutdown`.
        """
        call = ExecutorFuture(fn, args, kwargs)
        check_interpreter()
        with self.lock:
            if self.broken is not None:
                raise broken(self.broken)
            if self.shut:
                raise RuntimeError("cannot schedule new futures after shutdown")
            self.put(call)
        return call

    def close(self, cancel: bool = False) -> None:
        """Take nothing new, and end when the rest is done."""
        with self.lock:
            self.shut = True
        if cancel:
            for batch in list(self._batches):
                batch.take_back()
            free = self.most - (self.turns - self.asked)  # workers that are about to take the first of them
            for call in list(self.waiting)[free:]:
                call.cancel()
        if self.loop.running:
            with suppress(RuntimeError):  # it has ended already
                self.wake()

    def finish(self) -> None:
        """As at the end of the executor."""
        self.close()
        self.loop.join()

    def leave_to_parent(self) -> None:
        """In a forked child: what was submitted is the parent's, and so are the pool and the node."""
        self.loop = LoopThread("actorpool-executor", self._end)
        self.waiting.clear()
        self.turns = self.asked = 0
        self._woken = self._ticking = False
        self.lock = threading.RLock()
        self._slots = []  # their descriptors are shared with the parent, and stay open
        for batch in self._batches:
            batch.disown()
        self._batches = set()
        self._directory = None

    # -- in the thread --------------------------------------------------------------------------------------

    def on_idle(self) -> None:
        if self.shut:
            self.loop.stop()

    def _start(self) -> Pool:
        """The pool, started when it is first needed."""
        with self.lock:
            if self._pool is None:
                self._owner = os.getpid()
                self._system = self._given or start()
                self._pool = self._system.start_pool(self._name, self.config)
            assert self._system is not None
            if self._system.directory is None:
                self.most = 1  # a system inside this process does one thing at a time
            if self._directory is None:  # without one of the node's, whose files end with it
                self._directory = self._system.directory or tempfile.mkdtemp(prefix="actorpool-")
            return self._pool

    def _end(self) -> None:
        """After the last call: remove what was made for it. The pool is the process's that started it."""
        for slot in self._slots:
            slot.close()
        if self._system is None or self._owner != os.getpid():
            return
        if self._directory is not None and self._system.directory is None:
            shutil.rmtree(self._directory, ignore_errors=True)
        try:
            if self._given is None:
                self._system.shutdown()
            elif self._pool is not None:
                self._system.stop_pool(self._name)
        except ActorPoolError:  # it has ended already
            pass

    async def ask_lease(self) -> AsyncLease:
        # The first start blocks the loop, which has nothing else to do then; another thread may be had no longer at the
        # end of the interpreter.
        pool = self._pool if self._directory is not None else None
        return await (pool or self._start()).aio.checkout(timeout=FOREVER)

    def refused(self, error: BaseException) -> None:
        cause = initializer_failure(error)
        if cause is None:
            super().refused(error)
            return
        with self.lock:
            known, self.broken = self.broken, cause
        if known is None:
            LOGGER.critical("Exception in initializer:", exc_info=cause)
        while (call := self.next()) is not None:
            call.set_exception(broken(cause))

    async def turn(self, lease: AsyncLease) -> None:
        slot = self._slots.pop() if self._slots else self._new_slot()
        while self.waiting and not lease.closed:
            batch = Batch(slot, self._give_back, asyncio.get_running_loop().time())
            payloads = batch.fill(self._calls(batch))
            if not payloads:
                break
            try:
                await self._run(lease, batch, payloads)
            except _SlotLost:
                slot.close()
                return
        self._slots.append(slot)

    async def _run(self, lease: AsyncLease, batch: Batch, payloads: list[bytes]) -> None:
        self._batches.add(batch)
        self._tick()
        try:
            seconds, last = await lease.run(run_batch, batch.slot.path, payloads)
        except BaseException as error:
            not_begun = batch.end()
            for call in batch.calls.values():
                call.batch = None
                call.set_exception(named(error, call))
            self._give_back(not_begun)
            if isinstance(error, MessageTooBig) and not_begun:  # it cannot be sent, also not the next time
                if len(payloads) == 1:
                    self.refused(error)
                self._batching = False
            raise _SlotLost from error  # the worker may still be at it
        finally:
            self._batches.discard(batch)
        self._give_back(batch.end(last))
        self._each = (self._each + seconds / len(payloads)) / 2

    def _calls(self, batch: Batch) -> Iterator[ExecutorFuture]:
        """Calls for a batch: one, or several if they are quick and there are more of them than workers."""
        most = 1
        if self._batching:
            quick = int(BATCH_SECONDS / max(self._each, 1e-9))
            most = min(LARGEST, quick, max(len(self.waiting) // self.most, quick // 8))
        size = 0
        for number in range(max(most, 1)):
            call = self._next_packed(batch)
            if call is None:
                return
            size += len(call.payload)
            if number and size > BATCH_BYTES:
                call.batch = None
                call.wait_again()
                self._give_back([call])
                return
            yield call

    def _next_packed(self, batch: Batch) -> ExecutorFuture | None:
        """The next call that can be sent."""
        while True:
            call: ExecutorFuture | None = self.next()
            if call is None:
                return None
            try:
                call.pack()
            except BaseException as error:
                call.set_exception(error)
            else:
                call.batch = batch
                return call

    def _give_back(self, calls: list[ExecutorFuture]) -> None:
        if calls:
            self.waiting.extendleft(reversed(calls))
            self.wake()

    def _tick(self) -> None:
        """While several calls are with one worker: see now and then whether one holds up the others."""
        if not self._ticking and self._batches:
            self._ticking = True
            asyncio.get_running_loop().call_later(PATIENCE, self._ticked)

    def _ticked(self) -> None:
        self._ticking = False
        if not self.waiting:
            late = asyncio.get_running_loop().time() - PATIENCE
            for batch in list(self._batches):
                if batch.since < late:
                    batch.take_back()
        self._tick()

    def _new_slot(self) -> Slot:
        assert self._directory is not None
        return Slot(os.path.join(self._directory, f"batch-{os.getpid()}-{secrets.token_hex(4)}"))


class _SlotLost(Exception):
    """A batch ended in an error: a worker may still read and write its FIFOs."""


engines: weakref.WeakSet[Engine] = weakref.WeakSet()


def _after_fork() -> None:
    for engine in list(engines):
        engine.leave_to_parent()


os.register_at_fork(after_in_child=_after_fork)


def initializer_failure(error: BaseException | None) -> InitializerFailed | None:
    """The failure of an initializer behind an error."""
    while error is not None and not isinstance(error, InitializerFailed):
        error = getattr(error, "cause", None) or error.__cause__
    return error


def broken(cause: BaseException) -> futures.BrokenExecutor:
    """The error of an executor whose initializer failed."""
    error = futures.BrokenExecutor("the initializer of this executor failed, so that no function can be run")
    error.__cause__ = cause
    return error


class Executor(futures.Executor):
    """An executor of the standard library's kind on supervised workers; functions run in their processes.

    A worker that dies fails the one future whose function it ran, with `WorkerDied`, and is replaced. A future can be
    cancelled until its function begins. The pool starts at the first `submit`. Functions, arguments and results travel
    as those of `Pool.run`: lambdas, and what is defined in `__main__`, go by value.

    Args:
        max_workers: processes; None is `os.cpu_count()`.
        worker: the `Worker` class that lives in each process; functions do not get its connection.
        worker_args: its arguments.
        initializer: called once in each process, before the first function.
        initargs: its arguments.
        system: where the pool is started; None: in a node of its own, which ends with the executor.
        **fields: of `PoolConfig`: `call_timeout` bounds each function, `limits` each process. There is no limit of
            restarts unless `max_restarts` is given.

    Raises:
        ValueError: `max_workers` is below 1.
        TypeError: `initializer` is not callable.
        InvalidConfig: a bad field.
    """

    def __init__(
        self,
        max_workers: int | None = None,
        *,
        worker: Any = None,
        worker_args: dict[str, Any] | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        system: System | None = None,
        **fields: Any,
    ) -> None:
        if max_workers is None:
            max_workers = os.cpu_count() or 1
        if isinstance(max_workers, bool) or not isinstance(max_workers, int):
            raise TypeError(f"max_workers must be a whole number of at least 1, or None, not {max_workers!r}")
        if max_workers < 1:
            raise ValueError("max_workers must be greater than 0")
        if initializer is not None and not callable(initializer):
            raise TypeError("initializer must be a callable")
        if fields.keys() & {"size", "max_overflow"}:
            raise InvalidConfig("Executor", {"size": "an executor has max_workers processes: give max_workers"})
        if worker is not None:
            PoolConfig(worker=worker, worker_args=worker_args or {})  # refuses what is wrong with these
        args = {"worker": worker, "worker_args": worker_args, "initializer": initializer, "initargs": tuple(initargs)}
        config = PoolConfig(
            worker="actorpool.workers.executing:ExecutorWorker",
            worker_args={name: value for name, value in args.items() if value},
            size=max_workers,
            max_overflow=0,
            **{"max_restarts": NO_LIMIT, **fields},
        )
        self._engine = Engine(max_workers, config, system)
        self._finalizer = weakref.finalize(self, self._engine.close)
        self._finalizer.atexit = False

    @property
    def _broken(self) -> bool:
        return self._engine.broken is not None

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> futures.Future[Any]:
        """Have `fn(*args, **kwargs)` run in a worker; see `concurrent.futures.Executor.submit`.

        Raises:
            RuntimeError: after `shutdown`, or at the end of the interpreter.
            BrokenExecutor: the initializer failed.
        """
        return self._engine.submit(fn, args, kwargs)

    def map(
        self, fn: Callable[..., Any], *iterables: Iterable[Any], timeout: float | None = None, chunksize: int = 1
    ) -> Results:
        """`fn` of each row of the iterables, in order; see `concurrent.futures.Executor.map`.

        Args:
            timeout: seconds from now until the last result has to be there (`TimeoutError`); None is no limit.
            chunksize: rows that are one call: a worker that dies, or an exception, costs that many.
        """
        return mapped(self.submit, run_chunk, fn, iterables, timeout, chunksize)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take nothing new, let what was submitted finish, and end the pool, as the standard library's executors do.

        Args:
            wait: return when all that is done.
            cancel_futures: cancel what has not begun.
        """
        self._engine.close(cancel_futures)
        if wait:
            self._engine.loop.join()
