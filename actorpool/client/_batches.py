"""Batches of an executor's calls: what one worker is given at a time, and what can be taken back of it.

See `actorpool.workers.executing` for the worker's side.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent import futures
from concurrent.futures import Future
from contextlib import suppress
from typing import Any

from actorpool.errors import ActorPoolError
from actorpool.serialization import pickling, tracing
from actorpool.serialization.exceptions import load_error
from actorpool.workers.executing import HEAD, QUEUE, RESULTS, Outcome, run_batch

LARGEST = 256
"""Calls of a batch: the number of each is a byte."""
PIPE = 1 << 16
"""Bytes that a FIFO holds."""


class ExecutorFuture(Future[Any]):
    """The future of a call of an executor."""

    def __init__(self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        super().__init__()
        carried = tracing.carried(kwargs)
        self.call: tuple[Callable[..., Any], tuple[Any, ...], Mapping[str, Any]] | None = (fn, args, carried)
        self.name = getattr(fn, "__qualname__", "a function")
        self.payload: bytes = b""
        self.batch: Batch | None = None

    def cancel(self) -> bool:
        """Cancel the call if it has not begun; see `concurrent.futures.Future.cancel`."""
        batch = self.batch
        if batch is not None:
            batch.take_back()
        return super().cancel()

    def pack(self) -> None:
        """Have the call as bytes in `payload`; what it was given is kept no longer than that takes.

        Raises:
            Exception: what cannot be pickled.
        """
        if self.call is not None:
            call, self.call = self.call, None
            self.payload = pickling.dumps_call(*call)

    def wait_again(self) -> None:
        """It has not begun after all."""
        with self._condition:
            self._state = futures._base.PENDING


class Slot:
    """The two FIFOs of a batch, and this process's ends of them."""

    def __init__(self, path: str) -> None:
        self.path = path
        for name in (QUEUE, RESULTS):
            os.mkfifo(path + name, 0o600)
        # Both ways, so that opening does not wait for the other side, and neither side sees an end of file.
        self.queue, self.results = (os.open(path + name, os.O_RDWR | os.O_NONBLOCK) for name in (QUEUE, RESULTS))

    def close(self) -> None:
        """Remove it."""
        for descriptor, name in ((self.queue, QUEUE), (self.results, RESULTS)):
            os.close(descriptor)
            with suppress(FileNotFoundError):  # it went with the node's directory
                os.unlink(self.path + name)


class Batch:
    """Calls that a worker is to run one after the other.

    Attributes:
        calls: those without an outcome that have not been taken back, by number.
        since: when it was made, in the loop's time.
    """

    def __init__(self, slot: Slot, give_back: Callable[[list[ExecutorFuture]], None], since: float) -> None:
        self.slot = slot
        self.calls: dict[int, ExecutorFuture] = {}
        self.since = since
        self.lock = threading.RLock()  # a future may be cancelled by the garbage collector inside any of this
        self._give_back = give_back
        self._over = False

    def fill(self, calls: Iterator[ExecutorFuture]) -> list[bytes]:
        """Take calls, which run as far as others can see from now on; their payloads."""
        payloads: list[bytes] = []
        with self.lock:  # a thread that cancels one of them waits until it can be taken back
            for call in calls:
                self.calls[len(payloads)] = call
                payloads.append(call.payload)
            os.write(self.slot.queue, bytes(range(len(payloads))))
        return payloads

    def take_back(self) -> None:
        """Take back what the worker has not begun, to the queue of the executor."""
        with self.lock:
            if not self._over:
                self._give_back(self._not_begun())

    def _not_begun(self) -> list[ExecutorFuture]:
        try:
            numbers = os.read(self.slot.queue, LARGEST)
        except BlockingIOError:
            return []
        calls = [self.calls.pop(number) for number in numbers]
        for call in calls:
            call.batch = None
            call.wait_again()
        return calls

    def end(self, last: Outcome | None = None) -> list[ExecutorFuture]:
        """It is over: settle what has an outcome; what is left in `calls` was begun and came to nothing.

        Args:
            last: the outcome that is not in the FIFO.

        Returns:
            What was not begun, in order.
        """
        with self.lock:
            self._over = True
            not_begun = self._not_begun()
        for number, failed, data in self._outcomes():
            settle(self.calls.pop(number), failed, data)
        if last is not None:
            number, failed, data = last
            settle(self.calls.pop(number), failed, data)
        return not_begun

    def disown(self) -> None:
        """In a forked child: it is the parent's."""
        self._over = True
        self.lock = threading.RLock()

    def _outcomes(self) -> Iterator[Outcome]:
        data = b""
        while True:
            try:
                data += os.read(self.slot.results, PIPE)
            except BlockingIOError:
                break
        place = 0
        while place < len(data):
            number, failed, length = HEAD.unpack_from(data, place)
            place += HEAD.size + length
            yield number, bool(failed), data[place - length : place]


def settle(call: ExecutorFuture, failed: bool, data: bytes) -> None:
    """Give a future its value or its exception."""
    call.batch, call.payload = None, b""
    try:
        value = load_error(data) if failed else pickling.loads(data)
    except BaseException as error:  # what rebuilding a user's value may raise
        failed, value = True, error
    if failed:
        call.set_exception(value)
    else:
        call.set_result(value)


def named(error: BaseException, call: ExecutorFuture) -> BaseException:
    """An error of ours about a batch, which speaks of the one function that it ended."""
    if isinstance(error, ActorPoolError) and error.args:
        error.args = (str(error).replace(run_batch.__name__, call.name), *error.args[1:])
    return error
