"""What an `Executor` has its workers do: run batches of functions, in a process that an initializer has prepared.

A batch is one call of the channel. Its functions are numbered, and their numbers are in a FIFO, the *queue*, from
which the worker takes one before it begins the function. A read of a FIFO is atomic, so the executor can take back
what has not begun, at any moment and without asking, and what a dead worker has left there was never begun. What a
function came to goes into a second FIFO, the *results*, before the next one begins: it survives the worker.
"""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Callable, Iterable
from typing import Any

from actorpool import process
from actorpool.config import load_worker
from actorpool.errors import PermanentError
from actorpool.serialization import pickling, tracing
from actorpool.serialization.exceptions import dump_error
from actorpool.workers.base import Worker
from actorpool.workers.worker_session import Interrupted

HEAD = struct.Struct("!BBH")
"""Before each result: the number of its function, whether it failed, how many bytes follow."""
LONGEST = 4096 - HEAD.size
"""Bytes of a result that goes through the FIFO; up to 4096 bytes are written as a whole or not at all."""
QUEUE, RESULTS = ".queue", ".results"
"""The names of the FIFOs, after the path that both have in common."""

Outcome = tuple[int, bool, bytes]
"""The number of a function, whether it failed, and its pickled value or exception."""


class InitializerFailed(PermanentError):
    """The initializer of an executor raised; the cause is its exception."""


class ExecutorWorker(Worker):
    """A worker of the user's class in a process that was initialized once.

    Args:
        worker, worker_args: the class and its arguments; None is a plain `Worker`.
        initializer: called once in the process, when the worker first connects; None: nothing is.
        initargs: its arguments.
    """

    def __init__(
        self,
        worker: Any = None,
        worker_args: dict[str, Any] | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
    ) -> None:
        self._inner = Worker() if worker is None else load_worker(worker)(**(worker_args or {}))
        self._initialize: tuple[Callable[..., object], tuple[Any, ...]] | None = None
        if initializer is not None:
            self._initialize = (initializer, initargs)
        self.check = self._inner.check  # type: ignore[method-assign]
        self.needs_check = self._inner.needs_check  # type: ignore[method-assign]
        self.close = self._inner.close  # type: ignore[method-assign]
        self.is_disconnect = self._inner.is_disconnect  # type: ignore[method-assign]

    def open(self) -> None:
        """Connect the worker and, the first time, initialize the process."""
        self._inner.open()
        if self._initialize is None:
            return
        initializer, initargs = self._initialize
        try:
            initializer(*initargs)
        except Interrupted:
            raise
        except BaseException as error:
            process.end_copy(error)
            raise InitializerFailed(f"the initializer of an executor raised {error!r}", cause=error) from error
        self._initialize = None

    def reset(self) -> None:
        """Reset the worker."""
        self._inner.reset()


def run_batch(connection: Any, path: str, calls: list[bytes]) -> tuple[float, Outcome | None]:
    """Run the functions of a batch that are numbered in its queue, until the queue is empty.

    Args:
        connection: the worker's, which functions of an executor do not get.
        path: what the names of the FIFOs begin with.
        calls: each a pickle of `(function, args, kwargs)`.

    Returns:
        The seconds it took, and the outcome that did not fit into the FIFO of results: the batch ends with that one.
    """
    began = time.perf_counter()
    queue = os.open(path + QUEUE, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    results = os.open(path + RESULTS, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    last = None
    try:
        while last is None:
            try:
                taken = os.read(queue, 1)
            except BlockingIOError:  # empty
                break
            if not taken:  # the executor's process has ended
                break
            last = _put(results, (taken[0], *outcome_of(calls[taken[0]])))
    finally:
        os.close(queue)
        os.close(results)
    return time.perf_counter() - began, last


def _put(results: int, outcome: Outcome) -> Outcome | None:
    """Write an outcome to the FIFO; the outcome itself if it is too long for that."""
    number, failed, data = outcome
    if len(data) > LONGEST:
        return outcome
    try:
        os.write(results, HEAD.pack(number, failed, len(data)) + data)
    except BlockingIOError:  # full
        return outcome
    return None


def outcome_of(call: bytes) -> tuple[bool, bytes]:
    """Run one function: whether it failed, and its pickled value or exception."""
    try:
        function, args, kwargs = pickling.loads(call)
        value = tracing.run(function, args, kwargs)
        process.end_copy()
        try:
            return False, pickling.dumps(value)
        except Exception as problem:
            raise pickling.unsendable(problem, pickling.UNSENDABLE_RESULT) from None
    except Interrupted:  # the pool takes the worker back from the whole batch
        raise
    except BaseException as error:
        process.end_copy(error)
        return True, dump_error(error)


def run_chunk(function: Callable[..., Any], columns: Iterable[Iterable[Any]]) -> list[Any]:
    """A chunk of an executor's `map`: the function's values, one for each row of the columns."""
    return list(map(function, *columns))


def run_chunk_with(connection: Any, function: Callable[..., Any], columns: Iterable[Iterable[Any]]) -> list[Any]:
    """A chunk of a pool's `map`: as `run_chunk`, and the function gets the connection first."""
    return [function(connection, *row) for row in zip(*columns, strict=False)]
