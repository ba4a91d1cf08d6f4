"""The actor that hosts a worker of a shared pool: every call comes from the pool, one at a time, or under a loan.

What the pool needs to know of the connection (a pause, its end) goes with the answer or before it, so nothing is begun
that ought not to be. And what was sent ahead is not begun before the last answer has left this process: should it die,
the call that it ran is the first one without an answer.

A loan lets one client send its calls here itself, until it is called back; its number is higher than that of any call
before, and what has come from the pool since then ends it.
"""

from __future__ import annotations

import functools
import time
from typing import Any, NamedTuple

from actorpool._protocol import orders, shared
from actorpool.core.shared.records import Meter
from actorpool.errors import PermanentError
from actorpool.serialization import pickling
from actorpool.serialization.pickling import Pickled
from actorpool.transport import frames
from actorpool.transport.server import ServerConn
from actorpool.workers.actor import LONG, WorkerActor
from actorpool.workers.base import Reply
from actorpool.workers.worker_session import Unavailable, WorkerSession


class Outcome(NamedTuple):
    """What came of a call: the packed value, or the packed exception."""

    failed: bool
    data: bytes
    took: float
    cooldown: float
    close: bool

    @property
    def head(self) -> bytes:
        """The part of its frame that is for the pool."""
        return frames.OUTCOME.pack(frames.FAILED * self.failed | frames.CLOSE * self.close, self.cooldown, self.took)


class SharedWorkerActor(WorkerActor):
    """Hosts one connection that many callers share. All of it runs in the worker's own process."""

    orders_first = False  # they would turn away a lent call that came before them
    _fence = 0
    _loan = 0
    _method = ""
    _refusing = False
    """What was sent ahead goes back, until something is sent at once."""
    _meters: dict[str, Meter]
    _last_call: float | None = None
    _begun = False
    """Whether the call at hand has begun: before that, an interrupt sends it back."""

    def on_frame(self, peer: ServerConn, kind: int, ref: int, body: bytes | memoryview) -> None:
        """A call of the pool's or of a client's, or an order of the pool."""
        if kind == frames.CALL:
            self._perform_lent(peer, ref, body)
        elif kind == frames.PERFORM and peer is self.pool:
            self._refusing = self._refusing or peer.unsent
            peer.send(*self._performed(ref, body))
        else:
            super().on_frame(peer, kind, ref, body)

    def _on_control(self, message: Any) -> bool:
        session = self.session
        if isinstance(message, shared.Perform) and session is not None:
            kind, number, data, *head = self._performed(message.number, message.body)
            self.tell(shared.Told(self.id, kind, number, b"".join((*head, data))))
        elif isinstance(message, shared.Interrupt):
            self.interrupted = False
        elif isinstance(message, orders.Recall):
            self._fence = max(self._fence, message.lease + 1)
            self._give_back(message.lease)
        else:
            return super()._on_control(message)
        return True

    def opened(self, session: WorkerSession, took: float) -> Any:
        """As `WorkerActor.opened`, with what the pool has to know of the connection."""
        return shared.Opened(self.id, took, _packed_resource(session), tuple(session.methods))

    # -- calls ----------------------------------------------------------------------------------------------

    def _performed(self, number: int, body: bytes | memoryview) -> tuple[Any, ...]:
        """Run a call for the pool: the frame of its answer."""
        session = self.session
        assert session is not None
        self._fence = max(self._fence, number)  # a call that has moved here may be older than a loan that is over
        self._refusing = self._refusing and body[:1] == frames.AHEAD
        if self._refusing or self.interrupted:  # its caller may have been told; the pool knows whether it still waits
            return frames.NOT_STARTED, number, b""
        if not session.connected:
            why = session.lost or ConnectionError("the connection was closed")
            return frames.NOT_STARTED, number, self.packed(why)
        outcome = self._run(session, memoryview(body)[1:])
        if self.fired and not self._begun:
            return frames.NOT_STARTED, number, b""
        self._refusing = outcome.cooldown > 0
        if outcome.close:
            session.close()
        return frames.PERFORMED, number, outcome.data, outcome.head

    def _run(self, session: WorkerSession, body: bytes | memoryview) -> Outcome:
        self._method, self._begun = "", False
        began = time.monotonic()
        value, error = self.attempt(functools.partial(self._call, session, body))
        took = time.monotonic() - began
        del body  # a long argument is not kept while its result is on the way
        if self.fired and self._begun:
            self._put_in_order(session)
        cooldown, close = 0.0, False
        if isinstance(value, Reply):
            value, cooldown, close = value.value, value.cooldown, value.close
        if error is None:
            try:
                return Outcome(False, self.fitting(pickling.dumps(value)), took, cooldown, close)
            except BaseException as problem:  # the result does not pickle, and its `__reduce__` may raise anything
                error = problem
        return Outcome(True, self.packed(error), took, cooldown, close)

    def _call(self, session: WorkerSession, body: bytes | memoryview) -> Any:
        method, args, kwargs = pickling.loads_sent(body)
        if isinstance(args, Pickled):  # the call came as a message
            args, kwargs = args.open(), kwargs.open()
        if method in session.methods:
            self._method = method
        self.breakable()
        self._begun = True
        return session.run(method, args, kwargs)

    def _put_in_order(self, session: WorkerSession) -> None:
        """A call was broken into, perhaps in the middle of a conversation: the worker's `reset` cleans up after it."""
        try:
            session.reset()
        except Unavailable as gone:
            self.tell_lost(gone.error)

    # -- loans ----------------------------------------------------------------------------------------------

    def _perform_lent(self, peer: ServerConn, ref: int, body: bytes | memoryview) -> None:
        """Run a call that a client has sent itself, if its loan is still good."""
        if len(body) < frames.CALL_HEAD.size:
            peer.send(frames.ERROR, ref, self.packed(ValueError("a call without a head")))
            return
        loan, _flags, seal = frames.CALL_HEAD.unpack_from(body)
        session = self.session
        good = not self.interrupted and loan >= self._fence and self._is_granted(loan, seal)
        if session is None or not good or not session.connected:
            peer.send(frames.NOT_STARTED, ref, frames.EXPIRED)
            return
        if loan != self._loan:
            self._loan = self._fence = loan
            self._meters, self._last_call = {}, None
        outcome = self._run(session, memoryview(body)[frames.CALL_HEAD.size :])
        del body
        self._last_call = time.monotonic()
        self._measure(outcome.took, outcome.failed)
        if outcome.cooldown or outcome.close or not session.connected:  # the pool knows before the caller does
            self._fence = loan + 1
            self._give_back(loan, outcome.cooldown, outcome.close)
        elif outcome.took > LONG and self.pool is not None and self.pool.open:
            self.pool.receive()  # it may have been called back meanwhile, which holds for the next call
        peer.send(frames.ERROR if outcome.failed else frames.RESULT, ref, outcome.data)
        if outcome.close:
            session.close()

    def _measure(self, took: float, failed: bool) -> None:
        meter = self._meters.get(self._method)
        if meter is None:
            if not self._method:  # it got no further than its arguments
                return
            meter = self._meters[self._method] = Meter()
        meter.add(took, failed)

    def _give_back(self, loan: int, cooldown: float = 0.0, close: bool = False) -> None:
        """Tell the pool what was done in a loan, which is over; once."""
        done, last_call = {}, None
        if loan == self._loan:
            done = {name: (meter.count, meter.mean, meter.errors) for name, meter in self._meters.items()}
            self._loan, last_call = 0, self._last_call
        self.tell(shared.Returned(self.id, loan, done, last_call, cooldown, close))


def _packed_resource(session: WorkerSession) -> Pickled:
    try:
        return Pickled.of(session.worker.resource)
    except BaseException as error:  # whatever a user's value raises when it is pickled
        name = type(session.worker).__name__
        text = f"the resource of {name} does not pickle ({type(error).__name__}: {error}): use a plain value"
        raise PermanentError(text) from error
