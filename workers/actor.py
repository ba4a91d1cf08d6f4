"""The actor that hosts a `Worker`: one process, one instance, one call at a time.

It serves its own unix socket (the channel) and Thespian messages; both end in `_answer`. Everything about the
connection and the leases is decided by `WorkerSession`.
"""

from __future__ import annotations

import functools
import os
import signal
import time
from collections.abc import Callable
from typing import Any

from actorpool import _scrubbing, process
from actorpool._arriving import problems_of, ref_of
from actorpool._protocol import orders, reports
from actorpool.config import load_worker
from actorpool.errors import InvalidConfig, LeaseExpired, WorkerUnavailable
from actorpool.messages import Call, Err, Ok
from actorpool.serialization import pickling
from actorpool.serialization.pickling import Pickled
from actorpool.thespian_adapter.shell import Shell
from actorpool.transport import frames, inherited, paths, seals, usage_counters
from actorpool.transport.frames import EXPIRED, unavailable
from actorpool.transport.server import ChannelServer, ServerConn
from actorpool.workers.orders import ORDERS
from actorpool.workers.sticky import StickyUse
from actorpool.workers.worker_session import Interrupted, Unavailable, WorkerSession, verdict_on

INTERRUPT = signal.SIGUSR2
"""The signal by which a pool interrupts a running call; Thespian leaves it free."""

CHECK_AFTER = 0.5
"""Seconds of idleness after which a worker that belongs to no pool checks its connection before a call."""

LONG = 1e-3
"""Seconds; during a call that is longer, orders of the pool may have come."""


class WorkerActor(Shell):
    """Hosts one worker. All of it runs in the worker's own process.

    Attributes:
        session: the worker and its connection.
        pool: the pool's end of the channel.
        fired: the signal that broke into the last call; 0 is none.
        interrupted: the pool has interrupted what is under way, and its message about it is on its way.
        observed: tell the pool of every call.
        ordered: a call that the pool is still to hear of.
        sticky: its sticky leases; None where there can be none.
        counters: where calls are counted, in memory that the pool reads; None where the pool cannot.
    """

    orders_first = True
    """Whether what the pool has ordered goes before calls that are there at the same time."""
    session: WorkerSession | None = None
    sticky: StickyUse | None = None
    counters: usage_counters.UsageCounters | None = None
    _init: orders.Init | None = None
    _server: ChannelServer | None = None
    pool: ServerConn | None = None
    _running = interrupted = _alarmed = False
    fired = 0
    _is_granted: Callable[[int, int], bool] = staticmethod(seals.anything)
    """Whether the pool has granted a lease of this very worker, by its seal; without a pool none is asked for."""
    _unborn: Exception | None = None
    ordered: orders.RunFor | None = None
    observed = False
    _began = 0.0

    def host_worker(self, worker: Any, worker_args: dict[str, Any] | None = None) -> None:
        """Without a pool: create the worker, which connects at its first call. Raises what its class raises."""
        self.session = WorkerSession(load_worker(worker)(**(worker_args or {})), CHECK_AFTER, self.is_process)

    # -- messages of the pool and of embedding actors -------------------------------------------------------

    def on_process(self) -> None:
        """Take over the interrupt signal from Thespian."""
        signal.signal(INTERRUPT, self._on_interrupt)
        signal.signal(signal.SIGALRM, self._on_interrupt)
        process.prefer_for_oom()
        process.tell_faults()

    def on_message(self, message: Any, sender: Any) -> None:
        """Whatever is no system message; what is none of ours is answered by an error."""
        if type(message) is Call:
            problems = problems_of(message)
            if problems:
                self.send(sender, Err(InvalidConfig("Call", problems), ref_of(message)))
            else:
                self._on_call(message, sender)
        elif isinstance(message, (Ok, Err)):
            return  # an answer without a question: to answer it would be the first of a storm
        elif type(message) is orders.Init and self._init is None:
            self._start(message, sender)
        elif sender != self.parent or not self._on_control(message):
            self.send(sender, Err(TypeError(f"a worker does not understand {type(message).__name__}"),
                                  ref_of(message)))  # fmt: skip

    def _start(self, init: orders.Init, sender: Any) -> None:
        self._init, self.observed = init, init.observed
        if init.key is not None:
            self._is_granted = seals.Granted(init.key)
        self.parent = init.parent or sender
        try:
            if init.limits is not None and self.is_process:
                init.limits.apply()
            if init.directory is not None and self.can_watch:  # first: what user code forks closes its copies
                self._server = self._serve(init.directory, init)
                self.counters = usage_counters.inherited(init.slot)
                self.sticky = StickyUse(self, self.counters) if self.counters is not None else None
            _scrubbing.hide_arguments(arguments := init.worker_args.open())
            worker = load_worker(init.worker)(**arguments)
            self.session = WorkerSession(worker, init.check_on_checkout, self.is_process, self.counters)
            process.end_copy()
        except BaseException as raised:  # user code, as in `attempt`
            process.end_copy(raised)
            error = raised if isinstance(raised, Exception) else RuntimeError(f"the worker's start raised {raised!r}")
            if init.pool is None:  # an embedding actor waits for answers only: each call gets this one
                self._unborn = error
                return
            self.tell(reports.StartFailed(init.worker_id, self.scrubbed(error)))
            self.exit_with("start failed")
            return
        if init.pool is not None:
            self.tell(reports.Started(init.worker_id, os.getpid(), self.sticky is not None))

    def _serve(self, directory: str, init: orders.Init) -> ChannelServer:
        """Open the worker's socket. The pool is there already, if it has forked this process itself."""
        path = paths.worker(directory, os.getpid())
        server = ChannelServer(path, self, outside=self.messages, spin=init.spin, max_message=init.max_message)
        if (control := inherited.take()) is not None:
            self.pool = server.adopt(control, os.getppid())
            if self.orders_first:
                server.first = self.pool.fd
        return server

    def _on_control(self, message: Any) -> bool:
        """An order of the pool, whichever way it came; False for anything else."""
        handler = ORDERS.get(type(message))
        if handler is None or self.session is None:
            return False
        try:
            handler(self, self.session, message)
        except Unavailable as gone:
            self.tell_lost(gone.error)
        return True

    def _on_call(self, call: Call, sender: Any) -> None:
        """A call from an actor: under its grant, or without one to a worker that belongs to no pool."""
        session = self.session
        if self._unborn is not None:
            self.send(sender, pickling.loads(self.reply(call.ref, None, self._unborn)))
            return
        if session is None or (call.grant is None and self._init is not None and self._init.pool is not None):
            text = "this worker belongs to a pool: check it out, and send the call with your grant"
            self.send(sender, Err(LeaseExpired(text), call.ref))
            return
        grant = call.grant
        lease, turn = (grant.lease, grant.turn) if grant is not None else (0, False)
        keyed, continued = (grant.keyed, not grant.fresh) if grant is not None else (False, False)
        if call.grant is not None and not self._is_granted(lease, call.grant.seal):
            self.send(sender, Err(LeaseExpired(f"lease {lease} is none of this worker's: send each call to the worker "
                                               "of its own grant"), call.ref))  # fmt: skip
            return
        if lease:
            self.tell(reports.Running(self.id, lease, sender, call.ref))

        def run() -> Any:
            parts: tuple[Any, ...] = (call.method, call.args, call.kwargs)
            target, args, kwargs = (part.open() if isinstance(part, Pickled) else part for part in parts)
            self.breakable()
            session.admit(lease, False, time.monotonic(), turn, False, keyed, continued)
            return session.run(target, args, kwargs)

        value, error = self.attempt(run, call.timeout)
        if isinstance(error, Unavailable):
            session.lost = None  # the next call tries to connect again
            cause = error.error
            error = WorkerUnavailable(f"the worker is not connected ({cause!r})", cause=cause) if lease else cause
        reply = self.reply(call.ref, value, error)
        if lease:
            self.count_call()
            self.tell(reports.Answered(self.id, lease, call.ref, reply))
        else:
            self.send(sender, pickling.loads(reply))
        self.after_call(error, lease, lease == 0)

    def reply(self, ref: Any, value: Any, error: BaseException | None) -> bytes:
        if error is None:
            try:
                return self.fitting(pickling.dumps(Ok(value, ref)))
            except BaseException as problem:  # user code: a `__reduce__`
                error = pickling.unsendable(problem, pickling.UNSENDABLE_RESULT)
        return pickling.dumps(Err(frames.load_error(self.packed(error)), ref))

    def scrubbed(self, error: BaseException) -> Pickled:
        """An error of connecting, packed without secrets; a copy of it, for a caller may have the error itself."""
        return Pickled(self.packed(_scrubbing.scrub_error(frames.load_error(self.packed(error)))))

    def packed(self, error: BaseException) -> bytes:
        return frames.dump_error(error, self._init.pool if self._init is not None else None)

    # -- the channel ----------------------------------------------------------------------------------------

    def on_watch(self) -> None:
        """Something arrived on the channel."""
        if self._server is not None:
            self._server.serve()

    def watched(self) -> list[int]:
        """The one descriptor behind which all connections are."""
        return [self._server.descriptor] if self._server is not None else []

    def on_frame(self, peer: ServerConn, kind: int, ref: int, body: bytes | memoryview) -> None:
        """A frame of a client or of the pool."""
        if kind == frames.CALL:
            self._on_call_frame(peer, ref, body)
        elif kind == frames.END or kind == frames.PARK:
            if len(body) == frames.END_BODY.size and self._is_granted(ref, *frames.END_BODY.unpack(body)):
                self._end(ref, kind == frames.PARK)
        elif kind == frames.CONTROL and peer is self.pool:
            self._on_control(pickling.loads(body))

    def on_gone(self, peer: ServerConn) -> None:
        """A client closed its end; its lease is the pool's business."""
        if self.sticky is not None:
            self.sticky.gone(peer)

    def _on_call_frame(self, peer: ServerConn, ref: int, body: bytes | memoryview) -> None:
        session = self.session
        if session is None or len(body) < frames.CALL_HEAD.size:
            peer.send(frames.ERROR, ref, self.packed(ValueError("a call without a head")))
            return
        lease, flags, seal = frames.CALL_HEAD.unpack_from(body)
        if self.interrupted or not self._is_granted(lease, seal):  # taken back (the pool's message is right behind)
            peer.send(frames.NOT_STARTED, ref, EXPIRED)
            return
        sticky = self.sticky if flags & frames.STICKY else None
        began = time.monotonic()
        try:
            session.admit(
                lease, bool(flags & frames.CHECK_FIRST), began, bool(flags & frames.TURN), sticky is not None,
                bool(flags & frames.KEYED), bool(flags & frames.CONTINUED),
            )  # fmt: skip
        except LeaseExpired:
            peer.send(frames.NOT_STARTED, ref, EXPIRED)
            return
        except Unavailable as gone:
            peer.send(frames.NOT_STARTED, ref, unavailable(gone.error))
            self.tell_lost(gone.error)
            return
        if sticky is not None:
            sticky.begin(peer, lease, began)
        value, error = self.attempt(functools.partial(self._run_frame, session, body))
        del body  # a long argument is not kept while its result is on the way
        kind, answer = frames.RESULT, b""
        if error is None:
            try:
                answer = pickling.dumps(value)
            except BaseException as problem:  # the result does not pickle, and its `__reduce__` may raise anything
                error = pickling.unsendable(problem, pickling.UNSENDABLE_RESULT)
        if error is not None:
            kind, answer = frames.ERROR, self.packed(error)
        if sticky is not None:
            sticky.answers(len(answer))
        else:
            self.count_call()
        peer.send(kind, ref, answer)
        del value, answer
        self.after_call(error, lease, bool(flags & frames.LAST))
        if sticky is not None:
            sticky.answered(peer)
        if session.used - began > LONG and self.pool is not None and self.pool.open:
            self.pool.receive()  # what was ordered meanwhile goes before the next call, which may be reported first

    def _run_frame(self, session: WorkerSession, body: bytes | memoryview) -> Any:
        target, args, kwargs = pickling.loads_sent(memoryview(body)[frames.CALL_HEAD.size :])
        self.breakable()
        return session.run(target, args, kwargs)

    def _end(self, lease: int, keep: bool = False) -> None:
        assert self.session is not None
        try:
            (self.session.park if keep else self.session.end)(lease)
        except Unavailable as gone:
            self.tell_lost(gone.error)

    # -- running user code ------------------------------------------------------------------------------------

    def attempt(self, run: Callable[[], Any], timeout: float | None = None) -> tuple[Any, BaseException | None]:
        """Run user code; its value or what it raised. Nothing is ever raised out of it.

        Interrupts wait until `run` calls `breakable`: what rebuilds arguments may import modules, and one that is
        broken into would stay half loaded.
        """
        self._began = time.monotonic()
        self.fired, self._alarmed = 0, False
        try:
            try:
                if timeout and self.is_process:
                    signal.setitimer(signal.ITIMER_REAL, timeout)
                value = run()
            finally:
                self._running = False
                if timeout and self.is_process:
                    signal.setitimer(signal.ITIMER_REAL, 0)
            if process.is_copy:
                process.end_copy()
            return value, None
        except BaseException as error:  # user code may raise anything, SystemExit included: it is the caller's
            process.end_copy(error)
            if self.fired and self.session is not None:
                self.session.end_started(self._began)
            self.note_loss(error)
            return None, verdict_on(error, self.fired, timeout) if self.fired else error

    def breakable(self) -> None:
        """In `attempt`: an interrupt breaks in from now on, and at once if one has come meanwhile.

        The asker of what is about to run may have been told by now that it was interrupted.
        """
        self._running = True
        if self.interrupted or self._alarmed:
            self._break_in(INTERRUPT if self.interrupted else signal.SIGALRM)

    def opened(self, _session: WorkerSession, took: float) -> Any:
        """The report that the worker is connected, after `took` seconds; what it raises is an error of connecting."""
        return reports.Opened(self.id, took)

    def note_loss(self, error: BaseException) -> None:
        """Tell the pool of a lost connection before the caller hears of it: then its next call is a checked one."""
        session = self.session
        if session is not None and session.connected and session.is_loss(error):
            session.lose(error)
            self.tell_lost(session.lost)

    def count_call(self) -> None:
        """A call of no sticky lease is over: count it before it is answered, so that its caller finds it counted."""
        if self.counters is not None:
            self.counters.end_other(time.monotonic() - self._began)

    def after_call(self, error: BaseException | None, lease: int, last: bool) -> None:
        """At the end of a lease become pristine. After the answer, so that no caller waits for it."""
        session = self.session
        assert session is not None
        now = time.monotonic()
        if self.counters is not None:
            self.counters.measure()
        if self.observed:
            self.tell(reports.Called(self.id, lease, now - self._began, error is not None))
        session.used = now
        if session.reopened and self._init is not None and self._init.pool is not None:
            session.reopened = False
            self.tell(reports.Reopened(self.id))
        if last:
            self._end(lease)

    def _on_interrupt(self, number: int, _frame: Any) -> None:
        if self._running:
            self._break_in(number)
        elif number == INTERRUPT:
            self.interrupted = True
        else:
            self._alarmed = True

    def _break_in(self, number: int) -> None:
        self._running, self.fired = False, number
        if self.session is not None:
            self.session.end_started(self._began)  # now, or the call might go on waiting for it
        raise Interrupted(number)

    # -- telling the pool ---------------------------------------------------------------------------------------

    @property
    def id(self) -> int:
        return self._init.worker_id if self._init is not None else 0

    def tell(self, message: Any) -> None:
        if process.is_copy:  # forked by a hook: the pool must not be told twice
            process.end_copy()
        if self.pool is not None and self.pool.open:
            self.pool.send(frames.CONTROL, 0, pickling.dumps(message))
        elif self.parent is not None:
            self.send(self.parent, message)

    def tell_lost(self, error: Exception | None) -> None:
        if self._init is not None and self._init.pool is not None:
            self.tell(reports.Lost(self.id, self.scrubbed(error or ConnectionError("the connection was lost"))))
        elif self.session is not None:
            self.session.lost = None  # without a pool to order it, the next call connects again

    def on_exit(self) -> None:
        """Disconnect before the process ends."""
        if self.session is not None:
            self.session.close()
        if self._server is not None:
            self._server.close()
