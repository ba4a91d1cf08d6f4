"""The actor that hosts a worker of a shared pool: no leases; every call comes from the pool, one at a time.

The pool sends the next call once this one is answered. What a caller needs to know of the connection (a pause, its
end) goes with the answer or before it, so nothing is begun that ought not to be.
"""

from __future__ import annotations

import functools
import time
from typing import Any

from actorpool import portable, protocol, sharing
from actorpool.channel import wire
from actorpool.channel.lane import Peer
from actorpool.errors import PermanentError
from actorpool.portable import Parcel
from actorpool.workers.actor import WorkerActor
from actorpool.workers.base import Reply, RetryAfter
from actorpool.workers.session import Session, Unavailable


class SharedWorkerActor(WorkerActor):
    """Hosts one connection that many callers share. All of it runs in the worker's own process."""

    def on_frame(self, peer: Peer, kind: int, ref: int, body: bytes | memoryview) -> None:
        """A call, or an order of the pool."""
        if kind == wire.PERFORM:
            self._perform(peer, ref, body)
        else:
            super().on_frame(peer, kind, ref, body)

    def _on_control(self, message: Any) -> bool:
        if isinstance(message, protocol.Open) and self.session is not None:
            self._connect(self.session)
        elif isinstance(message, sharing.Perform) and self.session is not None:
            self._perform_message(message)
        else:
            return super()._on_control(message)
        return True

    def _connect(self, session: Session) -> None:
        began = time.monotonic()
        try:
            session.open(began)
            resource = _packed_resource(session)
        except Exception as error:
            session.lose(error)
            retry_after = error.seconds if isinstance(error, RetryAfter) else None
            packed = Parcel(self._packed(error))
            self._tell(protocol.OpenFailed(self._id, packed, isinstance(error, PermanentError), retry_after))
        else:
            took = time.monotonic() - began
            self._tell(sharing.Opened(self._id, took, resource, tuple(session.methods)))

    # -- calls ----------------------------------------------------------------------------------------------

    def _perform(self, peer: Peer, number: int, body: bytes | memoryview) -> None:
        session = self.session
        assert session is not None
        if not session.connected:
            peer.send(wire.NOT_STARTED, number, self._packed(_why_not(session)))
            return
        flags, cooldown, data = self._outcome(session, body)
        peer.send(wire.PERFORMED, number, data, wire.OUTCOME.pack(flags, cooldown))
        if flags & wire.CLOSE:
            session.close()

    def _perform_message(self, message: sharing.Perform) -> None:
        session = self.session
        assert session is not None
        if not session.connected:
            packed = self._packed(_why_not(session))
            self._tell(sharing.NotPerformed(self._id, message.number, packed))
            return
        flags, cooldown, data = self._outcome(session, message.work)
        self._tell(sharing.Performed(self._id, message.number, flags, cooldown, data))
        if flags & wire.CLOSE:
            session.close()

    def _outcome(self, session: Session, body: bytes | memoryview) -> tuple[int, float, bytes]:
        """Run a call: the flags, the cooldown and the packed value (or exception) of its answer."""
        value, error = self._try(functools.partial(_run, session, body))
        del body  # a long argument is not kept while its result is on the way
        if self._fired:
            self._put_in_order(session)
        flags, cooldown = 0, 0.0
        if isinstance(value, Reply):
            flags, cooldown, value = wire.CLOSE if value.close else 0, value.cooldown, value.value
        if error is None:
            try:
                return flags, cooldown, portable.dumps(value)
            except Exception as problem:  # the result does not pickle
                error = problem
        return flags | wire.FAILED, cooldown, self._packed(error)

    def _put_in_order(self, session: Session) -> None:
        """A call was broken into, perhaps in the middle of a conversation: the worker's `reset` cleans up after it."""
        try:
            session.reset()
        except Unavailable as gone:
            self._tell_lost(gone.error)


def _run(session: Session, body: bytes | memoryview) -> Any:
    method, args, kwargs = portable.loads(body)
    if isinstance(args, Parcel):  # the call came as a message
        args, kwargs = args.open(), kwargs.open()
    return session.run(method, args, kwargs)


def _why_not(session: Session) -> Exception:
    return session.lost or ConnectionError("the connection was closed")


def _packed_resource(session: Session) -> Parcel:
    try:
        return Parcel.of(session.worker.resource)
    except Exception as error:  # whatever a user's value raises when it is pickled
        name = type(session.worker).__name__
        text = f"the resource of {name} does not pickle ({type(error).__name__}: {error}): use a plain value"
        raise PermanentError(text) from error
