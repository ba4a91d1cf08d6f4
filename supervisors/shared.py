"""The shared pool's actor: a thin shell around `Dispatcher`. Messages and frames in, effects out; it decides nothing.

Callers send their calls here, and here alone; arguments and results pass through unopened.
"""

from __future__ import annotations

import gc
import random
import select
import time
from collections.abc import Callable
from typing import Any

from actorpool import portable, protocol, sharing
from actorpool.actor import Shell, log
from actorpool.channel import paths, wire
from actorpool.channel.lane import Lane, Peer
from actorpool.config import SharedPoolConfig
from actorpool.core.backoff import Backoff
from actorpool.core.dispatch import Dispatcher
from actorpool.errors import PoolNotFound, PoolStopped
from actorpool.messages import Checkout, Err, Event, Request, WithConnection
from actorpool.portable import Parcel
from actorpool.sharing import Sealed
from actorpool.status import Sample
from actorpool.supervisors.callers import Asker, ChannelAsker, ChannelCaller, Holder, MessageAsker, MessageCaller
from actorpool.supervisors.clientele import Clientele
from actorpool.supervisors.crew import Crew, Hand
from actorpool.supervisors.pool_verbs import LATER_ANSWER
from actorpool.supervisors.shared_callers import ChannelCall, MessageCall
from actorpool.supervisors.shared_effects import EFFECTS
from actorpool.supervisors.shared_verbs import VERBS, status
from actorpool.supervisors.supervised import Supervised
from actorpool.telemetry import Hub, Samples
from actorpool.workers.shared import SharedWorkerActor

_OUTCOME = wire.OUTCOME.size
_HEAD = wire.SHARED_HEAD.size
_NO_LIMIT = float("inf")


class SharedPoolActor(Supervised, Shell):
    """Owns the connections of one shared pool, one worker process each. Started by a supervisor with `init`."""

    def init(
        self,
        name: str,
        config: SharedPoolConfig,
        directory: str | None = None,
        spin: float = 0.0,
        max_message: int = wire.MAX_MESSAGE,
        sinks: tuple[Any, ...] = (),
        subscriptions: tuple[tuple[str, Any], ...] = (),
        metrics_interval: float = 10.0,
        kept: Parcel | None = None,
    ) -> Any:
        """Serve; without a connection, unless a former life of this pool left some to be revived.

        Args:
            name: the pool's name.
            config: its settings.
            directory: where its socket and its workers' are; None: messages only.
            spin: seconds to look again before blocking on the channel.
            max_message: bytes a frame may have.
            sinks: settings of the telemetry sinks, opened here.
            subscriptions: (pattern, address) pairs of who gets events as messages.
            metrics_interval: seconds between two samples.
            kept: what `remember` has last told the supervisor.
        """
        self.name, self.config = name, config
        self.directory = directory if self.can_watch else None
        self.spin, self.max_message, self._interval = spin, max_message, metrics_interval
        self.hub = Hub(sinks, name, here=not self.is_process)
        for pattern, address in subscriptions:
            self.hub.subscribe(pattern, address)
        self.samples = Samples()
        self.began = now = time.monotonic()
        self._armed: float | None = None
        self._lane: Lane | None = None
        if self.directory is not None:
            path = paths.pool(self.directory, name)
            self._lane = Lane(path, self, outside=self.messages, spin=spin, max_message=max_message)
        self._clientele = Clientele(self._lane, self._holder_gone)
        self.crew = Crew(self, self._lane, self.directory, self._worker_gone, SharedWorkerActor)
        backoff = Backoff(config.backoff_min, config.backoff_max)
        epoch = time.time() - now
        self.core = Dispatcher(name, random.random, backoff=backoff, kill_after=config.kill_after, epoch=epoch)
        self.observe()
        if self.is_process:
            gc.collect()
            gc.freeze()  # what is loaded so far stays shared with every worker
        self.set_timer(self._interval, "sample")
        log.info("Started shared pool: %s", name)
        self.emit("pool.started", {}, {"shared": True})
        self._known, self._changed = b"", False
        if kept is not None:
            self.carry_out(self.core.restore(now, *kept.open()))

    # -- incoming: the channel --------------------------------------------------------------------------------

    def watched(self) -> list[int]:
        """The one descriptor behind which all connections and death watches are."""
        lane = getattr(self, "_lane", None)
        return [lane.descriptor] if lane is not None else []

    def on_watch(self) -> None:
        """Something arrived on the channel, or a watched process died."""
        assert self._lane is not None
        self._lane.serve()
        self._arm()

    def on_frame(self, peer: Peer, kind: int, ref: int, body: bytes | memoryview) -> None:
        """One frame of a client or a worker."""
        if kind == wire.PERFORMED:
            flags, cooldown = wire.OUTCOME.unpack_from(body)
            reply = Sealed(body[_OUTCOME:], bool(flags & wire.FAILED))
            self._performed(peer.state.id, ref, reply, flags, cooldown)
        elif kind == wire.SHARED:
            self._call(peer, ref, body)
        elif kind == wire.CONTROL:
            self._on_worker(portable.loads(body))
        elif kind == wire.CANCEL:
            self.carry_out(self.core.cancel(time.monotonic(), ChannelCall(peer, ref)))
        elif kind == wire.ASK:
            self._ask(portable.loads(body), ChannelAsker(peer, ref))
        elif isinstance(peer.state, Hand):
            self._on_worker_frame(peer.state.id, kind, ref, body)
        elif kind == wire.CHECKOUT:
            peer.send(wire.ERROR, ref, wire.dump_error(self._not_leased()))

    def _call(self, peer: Peer, ref: int, body: bytes | memoryview) -> None:
        timeout, routing, filtering = wire.SHARED_HEAD.unpack_from(body)
        call = ChannelCall(peer, ref)
        start = _HEAD + routing
        end = start + filtering
        try:
            resource, method = portable.loads(body[_HEAD:start])
            where = portable.loads(body[start:end]) if filtering else None
        except Exception as error:  # a user's value that cannot be rebuilt here
            call.answer(error)
            return
        self.carry_out(
            self.core.call(
                time.monotonic(),
                call,
                peer.state or self._welcome(peer),
                resource,
                method,
                body[end:],
                where=where,
                timeout=None if timeout == _NO_LIMIT else timeout,
            )
        )

    def _on_worker_frame(self, worker: int, kind: int, number: int, body: bytes | memoryview) -> None:
        if kind == wire.NOT_STARTED:
            error = _as_exception(wire.load_error(body))
            self.carry_out(self.core.not_run(time.monotonic(), worker, number, error))
        elif kind == wire.ERROR:  # the answer was too long for a frame
            self._performed(worker, number, Sealed(body, True), wire.FAILED, 0.0)

    def on_gone(self, peer: Peer) -> None:
        """A client closed its end: its waiting calls are removed. (A worker's end is told by its death.)"""
        if isinstance(peer.state, ChannelCaller):
            self._holder_gone(peer.state)
            self._clientele.remove(peer.state)

    def _welcome(self, peer: Peer) -> ChannelCaller:
        holder = peer.state = ChannelCaller(peer)
        self._clientele.add(holder)
        return holder

    # -- incoming: Thespian messages ----------------------------------------------------------------------------

    def on_message(self, message: Any, sender: Any) -> None:
        """Anything that is no system message."""
        if not hasattr(self, "core"):
            return
        if isinstance(message, protocol.Routed):
            message, sender = message.request, message.asker
        if type(message) is sharing.SharedCall:
            self._call_message(message, MessageCall(self, sender, message.ref))
        elif isinstance(message, sharing.CancelCall):
            self.carry_out(self.core.cancel(time.monotonic(), MessageCall(self, sender, message.ref)))
        elif type(message) in VERBS:
            self._ask(message, MessageAsker(self, sender, message.ref))
        elif isinstance(message, (WithConnection, Checkout)):
            self.send(sender, Err(self._not_leased(), message.ref))
        elif not self._on_worker(message):
            text = f"shared pool {self.name!r} does not understand {type(message).__name__}"
            log.warning("%s", text)
            self.send(sender, Err(TypeError(text), getattr(message, "ref", None)))
        self._arm()

    def _call_message(self, request: sharing.SharedCall, call: MessageCall) -> None:
        try:
            resource, where = request.opened("resource"), request.opened("where")
        except Exception as error:  # a user's value that cannot be rebuilt here
            call.answer(error)
            return
        holder = MessageCaller(request.caller, call.address)
        self._clientele.add(holder)
        now = time.monotonic()
        method, payload, timeout = request.method, request.payload, request.timeout
        self.carry_out(self.core.call(now, call, holder, resource, method, payload, where=where, timeout=timeout))

    def _ask(self, request: Request, asker: Asker) -> None:
        """Answer a request of either way."""
        verb = VERBS.get(type(request))
        if verb is None:
            asker.answer(self._not_leased())  # it was taken for a pool of the other kind
            return
        try:
            self._changed = True
            answer = verb(self, request, asker)
        except Exception as error:  # a user's value that cannot be rebuilt here
            answer = error
        if answer is not LATER_ANSWER:
            asker.answer(answer)

    def _not_leased(self) -> PoolNotFound:
        text = f"{self.name!r} is a shared pool, which lends nothing: call it through system.shared_pool({self.name!r})"
        return PoolNotFound(text, pool=self.name)

    # -- incoming: workers, deaths, time --------------------------------------------------------------------------

    def _performed(self, worker: int, number: int, reply: Sealed, flags: int, cooldown: float) -> None:
        self.carry_out(
            self.core.done(
                time.monotonic(),
                worker,
                number,
                reply,
                failed=reply.failed,
                cooldown=cooldown,
                close=bool(flags & wire.CLOSE),
            )
        )

    def _on_worker(self, message: Any) -> bool:
        """A worker's report, whichever way it came; False for anything else."""
        handler = _REPORTS.get(type(message))
        if handler is None:
            return False
        self._changed = True
        handler(self, message)
        return True

    def _worker_started(self, message: protocol.Started) -> None:
        self.crew.attach(message.worker_id, message.pid)
        self.carry_out(self.core.worker_started(time.monotonic(), message.worker_id, message.pid))

    def _start_failed(self, message: protocol.StartFailed) -> None:
        error = _as_exception(wire.load_error(message.error.data))
        self.carry_out(self.core.start_failed(time.monotonic(), message.worker_id, error))

    def _opened(self, message: sharing.Opened) -> None:
        now, worker = time.monotonic(), message.worker_id
        try:
            resource = message.resource.open()
        except Exception as error:  # a user's value that cannot be rebuilt here
            self.carry_out(self.core.open_failed(now, worker, error, True))
        else:
            self.carry_out(self.core.opened(now, worker, message.took, resource, message.methods))

    def _open_failed(self, message: protocol.OpenFailed) -> None:
        error = _as_exception(wire.load_error(message.error.data))
        now, worker = time.monotonic(), message.worker_id
        self.carry_out(self.core.open_failed(now, worker, error, message.permanent, message.retry_after))

    def _lost(self, message: protocol.Lost) -> None:
        error = _as_exception(wire.load_error(message.error.data))
        self.carry_out(self.core.lost(time.monotonic(), message.worker_id, error))

    def _performed_message(self, message: sharing.Performed) -> None:
        reply = Sealed(message.data, bool(message.flags & wire.FAILED))
        self._performed(message.worker_id, message.number, reply, message.flags, message.cooldown)

    def _not_performed(self, message: sharing.NotPerformed) -> None:
        error = _as_exception(wire.load_error(message.error))
        self.carry_out(self.core.not_run(time.monotonic(), message.worker_id, message.number, error))

    def _worker_gone(self, id: int) -> None:
        try:
            hand = self.crew.hand(id)
        except KeyError:
            return  # told before
        _drain(hand.peer)
        begun = not self.crew.unread(id)
        self.crew.forget(id)
        self._changed = True
        self.carry_out(self.core.died(time.monotonic(), id, f"pid {hand.pid}", begun=begun))
        self._arm()

    def on_child_exit(self, address: Any) -> None:
        """Thespian tells the death of a worker (the pidfd has often told it before)."""
        id = self.crew.id_of(address)
        if id is not None:
            self._worker_gone(id)

    def _holder_gone(self, holder: Holder) -> None:
        self.carry_out(self.core.caller_down(time.monotonic(), holder))

    def on_timer(self, payload: Any) -> None:
        """A moment of the core, a sample, or a look at callers that cannot be watched."""
        if payload == "sample":
            self._sample()
        else:
            self._armed = None
            self._clientele.poll(time.monotonic())
            self.carry_out(self.core.tick(time.monotonic()))
        self._arm()

    def _arm(self) -> None:
        """Ask Thespian for a timer, unless one that is early enough is on its way."""
        if self._changed:
            self._keep()
        moments = [self.core.deadline(), self._clientele.deadline()]
        deadline = min((moment for moment in moments if moment is not None), default=None)
        if deadline is not None and (self._armed is None or deadline < self._armed):
            self._armed = deadline
            self.set_timer(deadline - time.monotonic(), "tick")

    def _sample(self) -> None:
        now = status(self)
        self.samples.add(Sample(time.time(), now.monitors, now.waiting, now.total, 0.0, 0.0))
        self.emit("pool.sample", {"leases": now.monitors, "waiting": now.waiting, "total": now.total}, {})
        self.hub.flush(time.time())
        self.set_timer(self._interval, "sample")

    # -- outgoing ---------------------------------------------------------------------------------------------------

    def carry_out(self, decided: list[Any]) -> None:
        """Do what the core decided, in order."""
        for effect in decided:
            EFFECTS[type(effect)](self, effect)

    def _keep(self) -> None:
        """Have a successor bring back the connections that are revived, should this process be killed."""
        self._changed = False
        known = Parcel.of(self.core.kept())
        if known.data != self._known:
            self._known = known.data
            self.remember(kept=known)

    def emit(self, name: str, measurements: dict[str, Any], metadata: dict[str, Any]) -> None:
        """Tell an event to whoever listens."""
        if self.hub.wants(name):
            for address, event in self.hub.emit(Event(name, self.name, time.time(), measurements, metadata)):
                self.send(address, event)

    def observe(self) -> None:
        """Have the core speak of every call only while somebody listens."""
        self.core.observed = self.hub.wants("call.done")

    # -- the end ------------------------------------------------------------------------------------------------------

    def on_exit(self) -> None:
        """Refuse whose calls wait, end every worker process. Blocks at most `kill_after` seconds."""
        if not hasattr(self, "core"):
            return
        for ref in list(self.core.calls):
            if isinstance(ref, (ChannelCall, MessageCall)):
                ref.answer(PoolStopped(f"shared pool {self.name!r} ended meanwhile", pool=self.name))
        self.crew.end_all(self.config.kill_after)
        self.hub.close()
        self._clientele.close()
        if self._lane is not None:
            self._lane.close()


def _drain(peer: Peer | None) -> None:
    """Take in what a dead worker has sent before it died."""
    if peer is None or not peer.open:
        return
    poll = select.poll()
    poll.register(peer.fd, select.POLLIN)
    while peer.open and poll.poll(0):
        if not peer.receive():
            return


def _as_exception(error: BaseException) -> Exception:
    return error if isinstance(error, Exception) else RuntimeError(repr(error))


_REPORTS: dict[type, Callable[[SharedPoolActor, Any], None]] = {
    protocol.Started: SharedPoolActor._worker_started,
    protocol.StartFailed: SharedPoolActor._start_failed,
    protocol.OpenFailed: SharedPoolActor._open_failed,
    protocol.Lost: SharedPoolActor._lost,
    sharing.Opened: SharedPoolActor._opened,
    sharing.Performed: SharedPoolActor._performed_message,
    sharing.NotPerformed: SharedPoolActor._not_performed,
}
