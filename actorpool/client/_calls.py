"""What a caller wants done, and what it holds meanwhile: plain records that both ways in and both styles share."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from sys import modules
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
        functions.check_plain(what)
        self.what = what
        self.args = args
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
    functions.check_callable(fn)
    return CallRequest(fn, args, kwargs, timeout)


class LeaseHandle:
    """A lease as its holder sees it. Dropping it without a word gives the worker back.

    Attributes:
        lease: the lease's id within its pool.
        worker_id, worker_pid: the worker.
        seal: what proves to the worker that the lease is one of its own.
        check_first: the worker was idle for long; passed on with the first call.
        home: keeps the connection open by which the lease was got: its end would be the lease's end.
        pool_pid: the pool's process; a restarted pool counts leases anew, and must not hear of this one.
        used: something has run under the lease.
        open: neither given back nor lost.
        turn: it is a turn in a sandbox; no other worker can take its place.
        promised: the name of the pool whose lease a user has it as; he is told when it is dropped.
        stands: it may be kept and used again (see `client._sticky`).
        keyed: what it leaves in its worker is kept for the next of its key.
        fresh: the worker holds nothing of a former lease; `lost`: why what there was of its key is gone, if known.
        rested: when its last use ended, `time.perf_counter()`; 0.0 while it is in use.
        line: the line to the worker by which a sticky lease was used; the worker closes it when the lease is recalled.
        lines: of another lease: lines to the worker that its calls have left, for the next ones.
    """

    __slots__ = (
        "__weakref__", "_give_back", "check_first", "fresh", "generation", "home", "keyed", "lease", "line", "lines",
        "lost", "open", "pool_pid", "promised", "rested", "seal", "stands", "turn", "used", "worker_id", "worker_pid",
    )  # fmt: skip

    def __init__(
        self,
        lease: int,
        worker_id: int,
        worker_pid: int,
        give_back: Callable[[LeaseHandle], bool],
        home: Any = None,
        pool_pid: int = 0,
        flags: int = 0,
        seal: int = 0,
        lost: str | None = None,
    ) -> None:
        self.open = False  # until all is there that giving back needs
        self.lease = lease
        self.worker_id = worker_id
        self.worker_pid = worker_pid
        self.seal = seal
        self.check_first = bool(flags & frames.CHECK_FIRST)
        self.turn = bool(flags & frames.TURN)
        self.stands = bool(flags & frames.STICKY)
        self.keyed = bool(flags & frames.KEYED)
        self.fresh = not flags & frames.CONTINUED
        self.lost = lost
        self.home = home
        self.pool_pid = pool_pid
        self.generation = client.generation
        self.used = False
        self.promised = ""
        self.rested = 0.0
        self.line: Any = None
        self.lines: list[client.ClientConn] = []
        self._give_back = give_back
        self.open = True

    def give_back(self) -> bool:
        """Tell the pool that it is over; whether there was anything to tell."""
        return self._give_back(self)

    def give_lines(self) -> None:
        """Leave the lines of its calls to others."""
        while self.lines and self.generation == client.generation:
            client.give(self.lines.pop())

    def end(self) -> None:
        """It is over, and everybody who has to know has been told: only now, lest an interruption lose the worker."""
        self.open = False
        self.give_lines()
        line, self.line = self.line, None
        if line is not None:
            line.hang_up()
        self.home = None

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
        if self.promised and given_back:
            text = f"lease {self.lease} of pool {self.promised!r} was dropped while open, and is checked in now"
            warnings.warn(f"{text}: use `with pool.checkout() as lease:`", ResourceWarning, source=self, stacklevel=2)


class Recalled(Exception):
    """The worker has left a sticky lease before the call: nothing was run, and the pool is to say what comes next."""


class Replaced(Exception):
    """The pool is another process than the one whose settings the caller goes by. Nothing was asked of it yet."""


class NotStarted(Exception):
    """The call was not run, and another worker may take it. `error` is for the user if none does."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(str(error))
        self.error = error
