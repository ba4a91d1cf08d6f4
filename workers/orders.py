"""What a pool can order of a worker: one function for each order, run in the worker's process.

What an order is answered with goes back by `WorkerActor.tell`. One that finds the connection gone raises `Unavailable`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Protocol

from actorpool import process
from actorpool._protocol import orders, reports
from actorpool.errors import PermanentError
from actorpool.serialization.pickling import Pickled
from actorpool.thespian_adapter.shell import log
from actorpool.transport.server import ServerConn
from actorpool.workers.base import RetryAfter
from actorpool.workers.sticky import Host, StickyUse
from actorpool.workers.worker_session import Unavailable, WorkerSession


class Ordered(Host, Protocol):
    """The actor that is ordered. Attributes as of `WorkerActor`."""

    interrupted: bool
    observed: bool
    fired: int
    ordered: orders.RunFor | None
    sticky: StickyUse | None
    pool: ServerConn | None

    def attempt(self, run: Callable[[], Any], timeout: float | None = None) -> tuple[Any, BaseException | None]:
        """Run user code; its value or what it raised."""

    def breakable(self) -> None:
        """In `attempt`: an interrupt breaks in from now on."""

    def note_loss(self, error: BaseException) -> None:
        """Tell the pool of a lost connection."""

    def opened(self, session: WorkerSession, took: float) -> Any:
        """The report that the worker is connected."""

    def count_call(self) -> None:
        """A call of no sticky lease is over: count it."""

    def scrubbed(self, error: BaseException) -> Pickled:
        """An error of connecting, packed without secrets."""

    def reply(self, ref: Any, value: Any, error: BaseException | None) -> bytes:
        """An answer as bytes."""

    def after_call(self, error: BaseException | None, lease: int, last: bool) -> None:
        """At the end of a lease become pristine."""


def open_(actor: Ordered, session: WorkerSession, _order: orders.Open) -> None:
    """Connect."""
    began = time.monotonic()

    def run() -> Any:
        actor.breakable()
        session.open(began)
        return actor.opened(session, time.monotonic() - began)

    opened, error = actor.attempt(run)
    if error is None:
        actor.tell(opened)
        return
    if actor.fired:
        took = time.monotonic() - began
        error = TimeoutError(f"open() interrupted after {took:.1f} s: let its driver time out or raise backoff_max")
    session.lose(error)
    permanent, retry = isinstance(error, PermanentError), error.seconds if isinstance(error, RetryAfter) else None
    actor.tell(reports.OpenFailed(actor.id, actor.scrubbed(error), permanent, retry))


def check(actor: Ordered, session: WorkerSession, _order: orders.Check) -> None:
    """Check the idle connection."""
    if not session.connected:
        raise Unavailable(session.lost or ConnectionError("not connected"))
    session.check(time.monotonic())
    actor.tell(reports.Checked(actor.id))


def close(_actor: Ordered, session: WorkerSession, _order: orders.Close) -> None:
    """Disconnect until the next call."""
    session.rest()


def end(_actor: Ordered, session: WorkerSession, order: orders.End) -> None:
    """A lease was checked in by message."""
    if order.keep:
        session.park(order.lease)
    else:
        session.end(order.lease)


def recall(actor: Ordered, session: WorkerSession, order: orders.Recall) -> None:
    """End a sticky lease."""
    if actor.sticky is not None:
        actor.sticky.recall(session, order.lease, order.first)


def revoke(actor: Ordered, session: WorkerSession, order: orders.Revoke) -> None:
    """A lease is taken back."""
    actor.interrupted = False
    if actor.sticky is not None:
        actor.sticky.revoked(order.lease)
    if order.keep:
        session.park(order.lease)
    else:
        session.revoke(order.lease)
    actor.tell(reports.Revoked(actor.id, order.lease))


def broadcast(actor: Ordered, session: WorkerSession, order: orders.Broadcast) -> None:
    """Call a method for its effect."""
    method = getattr(session.worker, order.method, None)
    if method is not None and session.connected:
        try:
            method()
        except BaseException as error:  # user code, as in `attempt`
            process.end_copy(error)
            log.warning("worker %s: %s failed: %s", actor.id, order.method, error)
            actor.note_loss(error)


def observe(actor: Ordered, _session: WorkerSession, order: orders.Observe) -> None:
    """Tell every call from now on."""
    actor.observed = order.on


def gather(actor: Ordered, session: WorkerSession, order: orders.Gather) -> None:
    """Tell what a method returns."""
    method = getattr(session.worker, order.method, None)
    value = Pickled.of(None)
    if method is not None:
        try:
            value = Pickled.of(method())
        except BaseException as error:  # no caller's own call: what cannot be told is None
            process.end_copy(error)
            log.debug("worker %s: %s failed: %s", actor.id, order.method, error)
            actor.note_loss(error)
    actor.tell(reports.Gathered(actor.id, order.ref, value))


def run_for(actor: Ordered, session: WorkerSession, order: orders.RunFor) -> None:
    """A call of the message way. By channel the kernel says whether an order was read; else the pool is asked."""
    if actor.pool is not None:
        _run(actor, session, order)
    else:
        actor.ordered = order
        actor.tell(reports.Running(actor.id, order.lease))


def begin(actor: Ordered, session: WorkerSession, order: orders.Begin) -> None:
    """The pool knows of the call now."""
    ordered, actor.ordered = actor.ordered, None
    if ordered is not None and ordered.lease == order.lease:
        _run(actor, session, ordered)


def _run(actor: Ordered, session: WorkerSession, order: orders.RunFor) -> None:
    def run() -> Any:
        what = order.fn.open(), order.args.open(), order.kwargs.open()
        actor.breakable()
        session.admit(order.lease, order.check_first, time.monotonic(), order.turn)
        return session.run(*what)

    value, error = actor.attempt(run)
    if isinstance(error, Unavailable):
        actor.tell(reports.NotRun(actor.id, order.lease))
        raise error
    actor.count_call()
    actor.tell(reports.Answered(actor.id, order.lease, order.ref, actor.reply(order.ref, value, error)))
    actor.after_call(error, order.lease, True)
    actor.tell(reports.Ran(actor.id, order.lease))


ORDERS: dict[type, Callable[[Ordered, WorkerSession, Any], None]] = {
    orders.Open: open_,
    orders.Check: check,
    orders.Close: close,
    orders.End: end,
    orders.Recall: recall,
    orders.Revoke: revoke,
    orders.Broadcast: broadcast,
    orders.Observe: observe,
    orders.Gather: gather,
    orders.RunFor: run_for,
    orders.Begin: begin,
}
