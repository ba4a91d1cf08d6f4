"""The pool actor: a thin shell around `PoolCore`. Messages and frames in, effects out; it decides nothing.

Incoming: `on_frame` (channel), `on_message` (Thespian), deaths and timers. Each becomes one call of the core, whose
effects `_carry_out` hands to the methods named after them.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from typing import Any

from actorpool import governing, host, portable, protocol
from actorpool.actor import FAREWELL, log
from actorpool.channel import tally, wire
from actorpool.channel.lane import Peer
from actorpool.config import PoolConfig, load_worker
from actorpool.core.effects import Granted, Keep, Refused
from actorpool.core.pooling.fleet import STOPPING
from actorpool.core.pooling.pool import PoolCore
from actorpool.errors import PoolStopped
from actorpool.failures import foreign
from actorpool.messages import Checkin, Checkout, Err, Request, WithConnection
from actorpool.portable import Letter, Parcel
from actorpool.supervisors.callers import (
    Asker,
    Calls,
    ChannelAsker,
    ChannelCaller,
    MessageAsker,
    MessageCaller,
    RunCaller,
)
from actorpool.supervisors.gatherings import Gatherings
from actorpool.supervisors.pool_effects import EFFECTS
from actorpool.supervisors.pool_verbs import LATER_ANSWER, VERBS
from actorpool.supervisors.serving import Serving
from actorpool.supervisors.supervised import LATER
from actorpool.supervisors.telling import Telling

LOOK = 0.001
"""Seconds between two looks at messages that are on their way."""


class PoolActor(Serving):
    """Owns the workers of one pool. Started by a supervisor with `init`; counts as started once `Ready`."""

    effects = EFFECTS
    core: PoolCore

    def init(
        self,
        name: str,
        config: PoolConfig,
        directory: str | None = None,
        spin: float = 0.0,
        max_message: int = wire.MAX_MESSAGE,
        sinks: tuple[Any, ...] = (),
        subscriptions: tuple[tuple[str, Any], ...] = (),
        metrics_interval: float = 10.0,
        kept: Keep | None = None,
    ) -> Any:
        """Start the pool.

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
        self.config = config
        worker = load_worker(config.worker)  # here, before the first fork: its modules are then shared by all workers
        arguments = config.worker_args.open() if isinstance(config.worker_args, Parcel) else config.worker_args
        size = kept.size if kept is not None else config.size
        if isinstance(size, str):
            size = worker.auto_size(**arguments)  # type: ignore[attr-defined]
        self._begin_serving(name, directory, spin, max_message)
        self.telling = Telling(self, sinks, subscriptions, metrics_interval)
        self._calls = Calls(self)
        self.pages = tally.found()
        self.gatherings = Gatherings(self.crew)
        self.core = PoolCore(name, config, size, time.monotonic(), random.random, kept=kept, tally=self.pages.slot)
        if kept is not None:  # a supervisor that was restarted itself has it as an argument only
            self.remember(kept=kept)
        self.telling.begin()
        self._share_memory()
        self.carry_out(self.core.start(time.monotonic()))
        return LATER

    # -- incoming: the channel --------------------------------------------------------------------------------

    def on_frame(self, peer: Peer, kind: int, ref: int, body: bytes | memoryview) -> None:
        """One frame of a client or a worker."""
        core = self.core
        if kind == wire.CHECKOUT:
            holder = peer.state or self._welcome(peer)
            self.carry_out(core.checkout(time.monotonic(), ref, holder, *portable.loads(body)))
        elif kind == wire.CHECKIN:
            self.carry_out(core.checkin(time.monotonic(), ref))
        elif kind == wire.CONTROL:
            self._on_worker(portable.loads(body))
        elif kind == wire.CANCEL:
            self.carry_out(core.cancel(time.monotonic(), ref, peer.state))
        elif kind == wire.ABANDON:
            self.carry_out(core.abandon(time.monotonic(), ref))
        elif kind == wire.ASK:
            self._ask(portable.loads(body), ChannelAsker(peer, ref))
        elif kind == wire.ROUTED:
            self.on_message(portable.loads(body), None)

    def on_gone(self, peer: Peer) -> None:
        """A client closed its end: its leases and waiters end. (A worker's end is told by its death.)"""
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
        if isinstance(message, governing.Routed):
            message, sender = message.request, message.asker
        if isinstance(message, WithConnection):
            self._with_connection(message, sender)
        elif isinstance(message, Checkout):
            holder = MessageCaller(message.caller, sender)
            self._clientele.add(holder)
            now, sandbox = time.monotonic(), getattr(message, "sandbox", None)
            self.carry_out(self.core.checkout(now, message.ref, holder, message.timeout, message.block, None, sandbox))
        elif isinstance(message, Checkin):
            self._checkin(message)
        elif isinstance(message, protocol.Cancel):
            self.carry_out(self.core.cancel(time.monotonic(), message.ref, MessageCaller(message.caller, sender)))
        elif isinstance(message, protocol.Abandon):
            self.carry_out(self.core.abandon(time.monotonic(), message.lease))
        elif type(message) in VERBS:
            self._ask(message, MessageAsker(self, sender, message.ref))
        elif not self._on_worker(message):
            self._not_ours(message, sender)
        self._arm()

    def _not_ours(self, message: Any, sender: Any) -> None:
        text = f"pool {self.name!r} does not understand {type(message).__name__}"
        log.warning("%s", text)
        self.send(sender, Err(TypeError(text), getattr(message, "ref", None)))

    def _with_connection(self, request: WithConnection, sender: Any) -> None:
        now = time.monotonic()
        holder = RunCaller(request, sender, now + request.timeout, self.core.sandbox_of(request.caller))
        self._clientele.add(holder)
        self.carry_out(self.core.checkout(now, request.ref, holder, request.timeout, sandbox=holder.sandbox))

    def _checkin(self, message: Checkin) -> None:
        lease = message.grant.lease
        if self.core.lease(lease) is not None:
            self.crew.tell(message.grant.worker_id, protocol.End(lease))
            self.carry_out(self.core.checkin(time.monotonic(), lease))

    # -- incoming: workers, deaths, time --------------------------------------------------------------------------

    def _on_worker(self, message: Any) -> bool:
        """A worker's report, whichever way it came; False for anything else."""
        handler = _REPORTS.get(type(message))
        if handler is None:
            return False
        handler(self, message)
        return True

    def _worker_started(self, message: protocol.Started) -> None:
        self.crew.attach(message.worker_id, message.pid)
        if message.counts:
            self.pages.counts(message.worker_id)
        self.carry_out(self.core.worker_started(time.monotonic(), message.worker_id))

    def _start_failed(self, message: protocol.StartFailed) -> None:
        error = foreign(message.error, self.is_process)
        self.carry_out(self.core.start_failed(time.monotonic(), message.worker_id, error))

    def _opened(self, message: protocol.Opened) -> None:
        self.crew.settled(message.worker_id)
        self.carry_out(self.core.opened(time.monotonic(), message.worker_id, message.took))

    def _reopened(self, message: protocol.Reopened) -> None:
        self.carry_out(self.core.reopened(time.monotonic(), message.worker_id))

    def _open_failed(self, message: protocol.OpenFailed) -> None:
        error = foreign(message.error, self.is_process)
        level = logging.WARNING if self.core.started or not message.permanent else logging.DEBUG  # it fails the start
        log.log(level, "pool %s: worker %s cannot connect: %r", self.name, message.worker_id, error)
        self.carry_out(
            self.core.open_failed(time.monotonic(), message.worker_id, error, message.permanent, message.retry_after)
        )

    def _lost(self, message: protocol.Lost) -> None:
        error = foreign(message.error, self.is_process)
        log.warning("pool %s: worker %s lost its connection: %s", self.name, message.worker_id, error)
        self.carry_out(self.core.lost(time.monotonic(), message.worker_id, error))

    def _checked(self, message: protocol.Checked) -> None:
        self.carry_out(self.core.checked(time.monotonic(), message.worker_id))

    def _recalled(self, message: protocol.Recalled) -> None:
        self.carry_out(self.core.recalled(time.monotonic(), message.worker_id, message.lease))

    def _revoked(self, message: protocol.Revoked) -> None:
        self.carry_out(self.core.revoked(time.monotonic(), message.worker_id, message.lease))

    def _running(self, message: protocol.Running) -> None:
        lease = self.core.lease(message.lease)
        if message.asker is not None:
            self._calls.begin(message)
        elif lease is not None and isinstance(lease.holder, RunCaller):
            lease.holder.running = True
            self.crew.tell(message.worker_id, protocol.Begin(message.lease))

    def _answered(self, message: protocol.Answered) -> None:
        reply = Letter(message.reply) if self.is_process else portable.loads(message.reply)
        lease = self.core.lease(message.lease)
        if lease is not None and isinstance(lease.holder, RunCaller):
            lease.holder.answered(self, reply)
        else:
            self._calls.answered(message, reply)

    def _ran(self, message: protocol.Ran) -> None:
        lease = self.core.lease(message.lease)
        self.carry_out(self.core.checkin(time.monotonic(), message.lease))
        if lease is not None:
            self.done(lease.holder)

    def _not_run(self, message: protocol.NotRun) -> None:
        lease = self.core.lease(message.lease)
        self.carry_out(self.core.checkin(time.monotonic(), message.lease))
        if lease is not None and isinstance(lease.holder, RunCaller):
            self.again(lease.holder)

    def _called(self, message: protocol.Called) -> None:
        metadata = {"worker": message.worker_id, "lease": message.lease, "failed": message.failed}
        self.telling.event("call.done", {"ms": message.seconds * 1e3}, metadata)

    def _worker_gone(self, id: int, status: int | None = None) -> None:
        if id not in self.core.fleet:
            return
        status = host.exit_status(self.crew.pid(id)) if status is None else status
        reason = self.ending(status)
        expected = self.core.fleet.workers[id].state is STOPPING
        level = logging.DEBUG if expected else logging.WARNING
        log.log(level, "pool %s: worker %s (pid %s) is gone: %s", self.name, id, self.crew.pid(id), reason)
        for lease in self.core.leases_of(id):
            if isinstance(lease.holder, RunCaller) and self.directory is not None:
                lease.holder.running = not self.crew.unread(id)
        self.crew.forget(id)
        self._calls.died(id)
        self.gatherings.gone(id)
        self.carry_out(self.core.died(time.monotonic(), id, reason))
        self.pages.give(id)
        self._arm()

    def on_timer(self, payload: Any) -> None:
        """A moment of the core, a sample, or a look at callers that cannot be watched."""
        if payload == "sample":
            self.telling.sample()
        elif callable(payload):
            payload()
        else:
            self._armed = None
            self.telling.expire(time.monotonic())
            self._clientele.poll(time.monotonic())
            self.gatherings.expire(time.monotonic())
            self.carry_out(self.core.tick(time.monotonic()))
        self._arm()

    def deadline(self) -> float | None:
        """When something of the pool is due."""
        timed = (self.core, self.gatherings, self._clientele, self.telling)
        return min((moment for part in timed if (moment := part.deadline()) is not None), default=None)

    # -- incoming: administration -----------------------------------------------------------------------------------

    def _ask(self, request: Request, asker: Asker) -> None:
        verb = VERBS.get(type(request))
        if verb is None:
            asker.answer(TypeError(f"pool {self.name!r} does not understand {type(request).__name__}"))
            return
        answer = verb(self, request, asker)
        if answer is not LATER_ANSWER:
            asker.answer(answer)

    # -- outgoing ---------------------------------------------------------------------------------------------------

    def run(self, holder: RunCaller, grant: Granted) -> None:
        """Send a call of the message way to its worker."""
        request = holder.request
        packed = (Parcel.of(request.fn), Parcel.of(request.args), Parcel.of(request.kwargs))
        order = protocol.RunFor(grant.lease, request.ref, *packed, grant.check_first, grant.turn)
        self.crew.call(grant.worker, order)
        if self.config.call_timeout is not None:
            self.carry_out(self.core.limit(time.monotonic(), grant.lease, self.config.call_timeout))

    def once_sent(self, then: Callable[[], None], within: float = FAREWELL) -> None:
        """Call `then` when the messages sent so far have arrived, or after `within` seconds: some may never."""
        if within > 0 and self.messages is not None and self.messages.pending():
            self.set_timer(LOOK, lambda: self.once_sent(then, within - LOOK))
        else:
            then()

    def done(self, holder: Any) -> None:
        """A call of the message way has its answer: its caller is watched no longer for its sake."""
        self._clientele.remove(holder)

    def again(self, holder: RunCaller) -> None:
        """Take a call that was not started to another worker, within what is left of its time."""
        if holder.sandbox is not None:
            holder.lost_sandbox(self)
            return
        now = time.monotonic()
        self.carry_out(self.core.checkout(now, holder.request.ref, holder, max(holder.deadline - now, 0.001)))

    # -- the end ------------------------------------------------------------------------------------------------------

    def on_exit(self) -> None:
        """Refuse who waits, end every worker process, leave nothing behind. Blocks at most `kill_after` seconds."""
        if not hasattr(self, "core"):
            return
        for waiter in self.core.queue.clear():
            error = PoolStopped(f"pool {self.name!r} ended while you waited", pool=self.name)
            waiter.caller.refused(self, Refused(waiter.ref[1], waiter.caller, error))  # type: ignore[attr-defined]
        self._end_serving(self.config.kill_after)
        self.telling.close()


_REPORTS: dict[type, Callable[[PoolActor, Any], None]] = {
    protocol.Started: PoolActor._worker_started,
    protocol.StartFailed: PoolActor._start_failed,
    protocol.Opened: PoolActor._opened,
    protocol.Reopened: PoolActor._reopened,
    protocol.OpenFailed: PoolActor._open_failed,
    protocol.Lost: PoolActor._lost,
    protocol.Checked: PoolActor._checked,
    protocol.Recalled: PoolActor._recalled,
    protocol.Revoked: PoolActor._revoked,
    protocol.Running: PoolActor._running,
    protocol.Answered: PoolActor._answered,
    protocol.Ran: PoolActor._ran,
    protocol.NotRun: PoolActor._not_run,
    protocol.Called: PoolActor._called,
    protocol.Gathered: lambda pool, message: pool.gatherings.arrived(message),
}
