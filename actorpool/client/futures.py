"""Futures on workers: one thread with an event loop takes what was submitted to the workers, however much that is.

A worker is got first, and then the next call that still wants one: until then a future can be cancelled, and calls
that wait cost no thread, no connection and no place in the pool's queue but a few.
"""

from __future__ import annotations

import asyncio
import concurrent.futures.thread  # noqa: F401  # first: see the end of `_at_exit`
import contextvars
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import CancelledError, Future
from typing import TYPE_CHECKING, Any

from actorpool.client import sandboxes
from actorpool.errors import CheckoutTimeout, PoolDown, QueueShed, TooManyWaiting
from actorpool.serialization import tracing

if TYPE_CHECKING:
    from actorpool.client.aio import AsyncLease

FOREVER = 1e9
"""Seconds that a future waits for a worker: the longest timeout there is."""
PAUSE = 0.05
"""Seconds before a pool that takes no more waiters is asked again."""
ASKING = 4
"""Places in a pool's queue that all futures of one handle have together."""

Job = Callable[[], Coroutine[Any, Any, None]]


class LoopThread:
    """A thread with an event loop, started at the first job and ended by `stop`.

    Args:
        name: the thread's.
        at_end: called in the thread after its loop has ended.
    """

    def __init__(self, name: str, at_end: Callable[[], None] | None = None) -> None:
        self._name = name
        self._at_end = at_end
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._over: asyncio.Event | None = None

    def start(self) -> None:
        """Start it, if it does not run yet.

        Raises:
            RuntimeError: the interpreter is ending.
        """
        with self._lock:
            if self._thread is not None:
                return
            check_interpreter()
            ready = threading.Event()
            # A daemon, because its end is waited for before the interpreter waits for other threads.
            self._thread = threading.Thread(target=self._main, args=(ready,), name=self._name, daemon=True)
            self._thread.start()
        ready.wait()

    def _main(self, ready: threading.Event) -> None:
        # Not by `asyncio.run`: at its end it has a thread wait for the loop's others, and at the interpreter's end none
        # starts any more (CPython 3.12).
        loop = asyncio.new_event_loop()
        try:
            loop.run_until_complete(self._serve(ready))
        finally:
            loop.close()
        if self._at_end is not None:
            self._at_end()

    async def _serve(self, ready: threading.Event) -> None:
        self._loop = asyncio.get_running_loop()
        self._over = asyncio.Event()
        ready.set()
        await self._over.wait()
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        await self._loop.shutdown_asyncgens()

    def soon(self, function: Callable[[], object]) -> None:
        """Call a function in the thread; from any thread, after `start`.

        In a context of nobody's: what it begins works for all that is queued, not for who has called this.
        """
        assert self._loop is not None
        self._loop.call_soon_threadsafe(function, context=contextvars.Context())

    def task(self, job: Job) -> None:
        """Begin a coroutine; from the thread itself."""
        assert self._loop is not None
        task = self._loop.create_task(job())
        _tasks.add(task)
        task.add_done_callback(_tasks.discard)

    def stop(self) -> None:
        """Let the loop end; from the thread itself."""
        assert self._over is not None
        self._over.set()

    def join(self) -> None:
        """Wait until the thread has ended; nothing in the thread itself."""
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()

    @property
    def running(self) -> bool:
        """Whether it has been started."""
        return self._thread is not None


_tasks: set[asyncio.Task[None]] = set()  # a loop holds its tasks weakly


class Dispatcher:
    """Takes calls to workers: the queue, and the turns that work it off. A subclass says what a turn is.

    Args:
        loop: where its turns run.
        most: turns at once.
        asking: of these, how many may ask for a worker at once.
    """

    def __init__(self, loop: LoopThread, most: int, asking: int) -> None:
        self.loop = loop
        self.most = most
        self.asking = asking
        self.waiting: deque[Any] = deque()
        self.turns = 0
        self.asked = 0
        self._woken = False
        living.add(self)

    def put(self, call: Future[Any]) -> None:
        """Queue a call."""
        self.waiting.append(call)
        self.wake()

    def wake(self) -> None:
        """Have the thread look at the queue; from any thread."""
        if not self._woken:
            self._woken = True
            self.loop.start()
            self.loop.soon(self.look)

    def look(self) -> None:
        """Begin the turns that the queue needs."""
        self._woken = False  # first: what is queued from now on wakes the thread again
        while len(self.waiting) > self.asked < self.asking and self.turns < self.most:
            self.turns += 1
            self.asked += 1
            self.loop.task(self._turn)
        if not self.turns and not self.waiting:
            self.on_idle()

    def on_idle(self) -> None:
        """Nothing is under way and nothing waits."""

    async def _turn(self) -> None:
        try:
            lease = await self.lease()
        finally:
            self.asked -= 1
        try:
            if lease is not None:
                self.look()  # another turn may ask now
                await self.turn(lease)
        except Exception as error:  # what is none of a call's own: the next one has to tell of it
            self.refused(error)
        finally:
            if lease is not None:
                await lease.checkin()
            self.turns -= 1
            self.look()

    async def lease(self) -> AsyncLease | None:
        """A worker. None if there is none: then the next call has got the reason."""
        while self.waiting:
            try:
                return await self.ask_lease()
            except (TooManyWaiting, QueueShed, CheckoutTimeout, PoolDown):  # not now
                await asyncio.sleep(PAUSE)
            except Exception as error:
                self.refused(error)
                return None
        return None

    def refused(self, error: BaseException) -> None:
        """The pool gives no worker: the next call fails with its reason."""
        call = self.next()
        if call is not None:
            call.set_exception(error)

    async def ask_lease(self) -> AsyncLease:
        """Ask the pool for a worker."""
        raise NotImplementedError

    async def turn(self, lease: AsyncLease) -> None:
        """Have the worker do something of the queue."""
        raise NotImplementedError

    def next(self) -> Any:
        """The next call that is not cancelled, which runs from now on; None if there is none."""
        while self.waiting:
            try:
                call = self.waiting.popleft()
            except IndexError:
                break
            if call.set_running_or_notify_cancel():
                return call
        return None

    def finish(self) -> None:
        """Wait until nothing waits or runs, at the end of the interpreter."""
        while self.waiting or self.turns:
            time.sleep(0.01)


living: weakref.WeakSet[Dispatcher] = weakref.WeakSet()
_ending = False


def check_interpreter() -> None:
    """Refuse new work once the interpreter is ending.

    Raises:
        RuntimeError: it is.
    """
    if _ending:
        raise RuntimeError("cannot schedule new futures after interpreter shutdown")


def _at_exit() -> None:
    """What was submitted is finished before the interpreter ends, as the standard library's executors do."""
    global _ending
    _ending = True
    for dispatcher in list(living):
        dispatcher.finish()
    if _pools_loop is not None and _pools_loop.running:
        _pools_loop.soon(_pools_loop.stop)
        _pools_loop.join()


# Before the interpreter waits for threads; what `atexit` calls would come after that. And before the threads of the
# standard library end, which loops use: the last to register is the first to be called.
threading._register_atexit(_at_exit)  # type: ignore[attr-defined]


class Submitted(Future[Any]):
    """The future of a call that a pool was given: `fn(connection, *args, **kwargs)`."""

    def __init__(self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        super().__init__()
        carried = tracing.carried(kwargs)
        self.call: tuple[Callable[..., Any], tuple[Any, ...], Mapping[str, Any]] | None = (fn, args, carried)

    async def run(self, where: Any) -> None:
        """Run it on a lease or a pool, and take what it comes to."""
        assert self.call is not None
        (fn, args, kwargs), self.call = self.call, None  # what it was given is not kept until the result is asked for
        try:
            self.set_result(await where.run(fn, *args, **kwargs))
        except asyncio.CancelledError:
            self.set_exception(CancelledError())
            raise
        except BaseException as error:
            self.set_exception(error)


class PoolDispatcher(Dispatcher):
    """Runs what is submitted to a pool, each call under a lease of its own."""

    def __init__(self, pool: Any) -> None:
        super().__init__(pools_loop(), turns_of(pool), ASKING)
        self.pool = pool
        self.pid = os.getpid()

    def submit(self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Submitted:
        """Queue `fn(connection, *args, **kwargs)`; inside a sandbox, for that."""
        check_interpreter()
        call = Submitted(fn, args, kwargs)
        if sandboxes.route(self.pool._transport) is self.pool._transport:
            self.put(call)
        else:
            context = contextvars.copy_context()
            self.loop.start()
            self.loop.soon(lambda: context.run(self._begin_inside, call))
        return call

    def _begin_inside(self, call: Submitted) -> None:
        self.turns += 1
        self.loop.task(lambda: self._inside(call))

    async def _inside(self, call: Submitted) -> None:
        try:
            async with self.pool.aio.checkout(timeout=FOREVER) as lease:
                if call.set_running_or_notify_cancel():
                    await call.run(lease)
        except Exception as error:
            if call.set_running_or_notify_cancel():
                call.set_exception(error)
        finally:
            self.turns -= 1

    async def ask_lease(self) -> AsyncLease:
        return await self.pool.aio.checkout(timeout=FOREVER)  # type: ignore[no-any-return]

    async def turn(self, lease: AsyncLease) -> None:
        call = self.next()
        if call is not None:
            await call.run(lease)


def turns_of(pool: Any) -> int:
    """How many calls of a pool may be under way at once."""
    node = getattr(pool._transport, "node_client", None)
    inside = node is not None and getattr(node, "directory", None) is None
    return 1 if inside else pool._most_turns  # an actor system inside this process does one thing at a time


_pools_loop: LoopThread | None = None


def pools_loop() -> LoopThread:
    """The thread for what is submitted to pools; one for all of this process."""
    global _pools_loop
    if _pools_loop is None:
        _pools_loop = LoopThread("actorpool-futures")
    return _pools_loop


def _leave_to_parent() -> None:
    """In a forked child: threads, loops and what waits for them are the parent's."""
    global _pools_loop
    _pools_loop = None
    living.clear()


os.register_at_fork(after_in_child=_leave_to_parent)
