"""What a caller wants done, and what it holds meanwhile: plain records that all routes and both styles share."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from sys import modules
from types import FunctionType
from typing import Any

from actorpool.serialization import functions, pickling, tracing
from actorpool.transport import client, frames


class CallRequest:
    """One call: a method's name or a function that gets the connection, and its arguments.

    Args:
        what: the method's name, or the function.
        args, kwargs: the arguments.
        timeout: longest run in seconds; None is no limit.
    """

    __slots__ = ("_payload", "args", "flags", "kwargs", "timeout", "what")

    def __init__(
        self, what: str | Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any], timeout: float | None
    ) -> None:
        if what.__class__ is FunctionType and what.__code__.co_flags & functions.ASYNCHRONOUS:
            functions.check_plain(what)  # raises
        self.what = what
        self.args = args
        # As `tracing.carried`, without its frame.
        self.kwargs = tracing.with_span(kwargs) if "opentelemetry.trace" in modules else kwargs
        self.timeout = timeout
        self.flags = 0 if what.__class__ is str else frames.FUNCTION  # of its `CALL` frame
        self._payload: bytes | None = None

    @property
    def payload(self) -> bytes:
        """The call as bytes; made once, however many workers it meets before one takes it.

        Raises:
            MessageTooBig: before anything was asked for.
            Exception: whatever the arguments raise that cannot be pickled.
        """
        if self._payload is None:
            try:
                self._payload = pickling.dumps_call(self.what, self.args, self.kwargs)
            except Exception as problem:
                text = (
                    f"{self.name} or what it is given cannot be sent to a worker: pass plain values, and keep "
                    "functions and classes in a module that workers can import"
                )
                raise pickling.unsendable(problem, text) from None
            if len(self._payload) + frames.CALL_HEAD.size > frames.LONGEST:
                raise frames.too_big(len(self._payload), frames.LONGEST, "the arguments")
        return self._payload

    @property
    def name(self) -> str:
        """How to name it in an error."""
        return self.what if isinstance(self.what, str) else getattr(self.what, "__qualname__", repr(self.what))


def function_call(
    fn: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any], timeout: float | None
) -> CallRequest:
    """A call of a function.

    Raises:
        TypeError: it is none, but perhaps the name of a method.
    """
    if fn.__class__ is not FunctionType:
        functions.check_callable(fn)
    return CallRequest(fn, args, kwargs, timeout)


class LeaseHandle:
    """A lease as its holder sees it. Dropping it without a word gives the worker back.

    Attributes:
        id: the lease's number within its pool.
        worker_id, worker_pid: the worker.
        seal: what proves to the worker that the lease is one of its own.
        check_first: the worker was idle for long; passed on with the first call.
        pool_conn: the connection by which the lease was got, kept open: its end would be the lease's end.
        pool_pid: the pool's process; a restarted pool counts leases anew, and must not hear of this one.
        used: something has run under the lease.
        open: neither given back nor lost.
        turn: it is a turn in a sandbox; no other worker can take its place.
        warns_of: the name of the pool, if a user has the lease: a warning tells when it is dropped while open.
        sticky: it may be kept and used again (see `client._sticky`).
        keyed: what it leaves in its worker is kept for the next of its key.
        fresh: the worker holds nothing of a former lease; `lost`: why what there was of its key is gone, if known.
        idle_since: of a sticky lease: when its last use ended, `time.perf_counter()`; 0.0 while it is in use.
        conn: the connection to the worker by which a sticky lease was used; the worker closes it to recall the lease.
        conns: of another lease: connections to the worker that its calls have left, for the next ones.
    """

    __slots__ = (
        "__weakref__", "_give_back", "check_first", "conn", "conns", "fresh", "generation", "id", "idle_since",
        "keyed", "lost", "open", "pool_conn", "pool_pid", "seal", "sticky", "turn", "used", "warns_of", "worker_id",
        "worker_pid",
    )  # fmt: skip

    def __init__(
        self,
        id: int,
        worker_id: int,
        worker_pid: int,
        give_back: Callable[[LeaseHandle], bool],
        pool_conn: Any = None,
        pool_pid: int = 0,
        flags: int = 0,
        seal: int = 0,
        lost: str | None = None,
    ) -> None:
        self.open = False  # until all is there that giving back needs
        self.id = id
        self.worker_id = worker_id
        self.worker_pid = worker_pid
        self.seal = seal
        self.check_first = bool(flags & frames.CHECK_FIRST)
        self.turn = bool(flags & frames.TURN)
        self.sticky = bool(flags & frames.STICKY)
        self.keyed = bool(flags & frames.KEYED)
        self.fresh = not flags & frames.CONTINUED
        self.lost = lost
        self.pool_conn = pool_conn
        self.pool_pid = pool_pid
        self.generation = client.generation
        self.used = False
        self.warns_of = ""
        self.idle_since = 0.0
        self.conn: Any = None
        self.conns: list[client.ClientConn] = []
        self._give_back = give_back
        self.open = True

    def head(self, work: CallRequest, last: bool) -> bytes:
        """What goes before the pickle in the `CALL` frame; `last`: the lease, or this use of it, ends with the call."""
        flags = work.flags
        if last:
            flags |= frames.STICKY if self.sticky else frames.LAST
        if self.check_first and not self.used:
            flags |= frames.CHECK_FIRST
        if self.turn:
            flags |= frames.TURN
        if self.keyed:
            flags |= frames.KEYED if self.fresh else frames.KEYED | frames.CONTINUED
        return frames.CALL_HEAD.pack(self.id, flags, self.seal)

    def give_back(self) -> bool:
        """Tell the pool that it is over; whether there was anything to tell."""
        return self._give_back(self)

    def give_conns(self) -> None:
        """Leave the connections of its calls to others."""
        while self.conns and self.generation == client.generation:
            client.give(self.conns.pop())

    def hang_up(self) -> None:
        """End the connection of its uses."""
        conn, self.conn = self.conn, None
        if conn is not None:
            conn.hang_up()

    def end(self) -> None:
        """It is over. The pool has been told first, so that an interruption in between cannot lose the worker."""
        self.open = False
        if self.conns:
            self.give_conns()
        if self.conn is not None:
            self.hang_up()
        self.pool_conn = None

    @property
    def leaves(self) -> bytes:
        """What its `CHECKIN` says of the state of its key."""
        if self.used or not self.keyed or not self.fresh:
            return b""
        return frames.EMPTY if self.lost else frames.EMPTY_AND_TOLD

    @property
    def ours(self) -> bool:
        """Whether it can be used: open, and got by this very process (a forked copy is its parent's)."""
        return self.open and self.generation == client.generation

    def __del__(self) -> None:
        if not getattr(self, "open", False) or self.generation != client.generation:
            return
        try:
            given_back = self._give_back(self)
        except Exception:  # the interpreter may be going down; the end of the process ends the lease
            given_back = self.open = False
        if self.warns_of and given_back:
            text = f"lease {self.id} of pool {self.warns_of!r} was dropped while open, and is checked in now"
            warnings.warn(f"{text}: use `with pool.checkout() as lease:`", ResourceWarning, source=self, stacklevel=2)


class Attempt:
    """A call that was sent by hand, in few steps, and came to something else than a result: the protocol goes on.

    Args:
        lease: its lease.
        outcome: the answer, or what was raised instead.
        began: when it was made, `time.perf_counter()`.
    """

    __slots__ = ("_outcome", "began", "lease")

    def __init__(self, lease: LeaseHandle, outcome: tuple[int, Any] | BaseException, began: float = 0.0) -> None:
        self.lease = lease
        self.began = began
        self._outcome = outcome

    def answer(self) -> tuple[int, Any]:
        """The answer; raises what was raised instead."""
        if isinstance(self._outcome, BaseException):
            raise self._outcome
        return self._outcome


class Recalled(Exception):
    """The worker has left a sticky lease before the call: nothing was run, and the pool is to say what comes next."""


class Replaced(Exception):
    """The pool is another process than the one whose settings the caller goes by. Nothing was asked of it yet."""


class NotStarted(Exception):
    """The call was not run, and another worker may take it. `error` is for the user if none does."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(str(error))
        self.error = error


class UseLocal(Exception):
    """All workers that could be had are leased to this process, and sticky."""
