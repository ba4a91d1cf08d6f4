"""What the protocol of the client waits for, and what differs between threads and tasks.

The protocol is written once, as coroutines (`_channel`, `_transport`, `_handle`): when the pool is asked, when a call
is taken to another worker, what the pool is told when a caller gives up. They wait only by methods of a `Driver`. Those
of a thread (`_blocking`) block and never suspend, so one step carries a whole coroutine out; those of a task
(`_asyncio`) await.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Protocol, TypeVar

from actorpool.client._calls import LeaseHandle

T = TypeVar("T")

Answer = tuple[int, Any]
"""Kind and body of a frame."""
Read = Callable[[Any, int, Any], T]
"""What makes something of an answer: gets the connection, the kind and the body."""


class Conn(Protocol):
    """A connection to a socket of the channel."""

    @property
    def pid(self) -> int:
        """The process that serves it."""

    def hang_up(self) -> None:
        """End it, from any thread."""


class Queue(Protocol):
    """A queue for a turn; see `sandboxes.Gate`."""

    def ticket(self) -> Future[None]:
        """A place in it, which is done once its turn has come."""

    def give_up(self, ticket: Future[None]) -> bool:
        """Wait no longer; whether the ticket's turn has come all the same."""

    def leave(self) -> None:
        """End a turn."""


def plain(_conn: Any, kind: int, body: Any) -> Answer:
    """An answer as it came."""
    return kind, body


class Driver(ABC):
    """How a thread, or a task, waits. All deadlines are in seconds of `time.perf_counter()`; None waits for ever."""

    @abstractmethod
    async def pause(self, seconds: float) -> None:
        """Wait for some seconds."""

    @abstractmethod
    async def connect(self, path: str, spin: float, deadline: float | None) -> Conn:
        """A connection for one request.

        Raises:
            NotDelivered, TimedOut, OSError: as `ClientConn`.
        """

    @abstractmethod
    def free(self, path: str) -> Any:
        """A connection that there is already; None if there is none."""

    @abstractmethod
    def release(self, conn: Any) -> None:
        """No request was made by that connection."""

    @abstractmethod
    async def request(
        self, conn: Any, kind: int, body: bytes, deadline: float | None, read: Read[T], lead: bytes = b"",
        cancels: bool = False,
    ) -> T:  # fmt: skip
        """Send a request and return what `read` makes of its answer, which nothing can interrupt unnoticed.

        Args:
            conn: as `connect` has returned it; it is not to be used again.
            kind, lead, body: the frame; its body is `lead` and `body`.
            deadline: of the whole.
            read: makes something of the answer.
            cancels: if it is interrupted, the other side is told that the answer is no longer wanted.

        Raises:
            NotDelivered, Gone, TimedOut: see `transport.client`.
        """

    @abstractmethod
    async def call(
        self, lease: LeaseHandle, path: str, spin: float, head: bytes, payload: bytes, deadline: float | None
    ) -> Answer:
        """Send a call to the lease's worker and return its answer.

        Args:
            path: the worker's socket.
            head, payload: the body of the frame.
            deadline: of the whole.

        Raises:
            NotDelivered, Gone, TimedOut: see `transport.client`.
        """

    @abstractmethod
    def tell(self, path: str, spin: float, pid: int, kind: int, ref: int, body: bytes = b"") -> bool:
        """Send a frame that is not answered to that very process, without waiting; whether it has left."""

    @abstractmethod
    def sticky_path(self, path: str) -> str:
        """Where the sticky leases of a pool are kept, which the caller may use."""

    @abstractmethod
    async def wait_sticky(self, path: str, seconds: float) -> LeaseHandle | None:
        """Wait for a sticky lease that others of this process use."""

    @abstractmethod
    async def wait_turn(self, queue: Queue, seconds: float) -> bool:
        """Queue for a turn; False when that does not come in time."""

    @abstractmethod
    async def in_thread(
        self, function: Callable[..., T], *args: Any, holder: bool = False, undo: Callable[[], object] | None = None
    ) -> T:
        """Call a function that blocks its thread.

        Args:
            holder: the caller has a lease: waiters may have all threads of the other kind.
            undo: called if the caller is cancelled, while the function goes on.
        """

    @abstractmethod
    def error(self, error: BaseException) -> BaseException:
        """An exception of a worker or a pool, as it may be raised here."""
