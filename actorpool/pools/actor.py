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

from actorpool import _scrubbing, process
from actorpool._protocol import orders, reports, requests, sandboxes
from actorpool.config import PoolConfig, load_worker
from actorpool.core.effects import Emit, Granted, Keep, Refused
from actorpool.core.pool.core import PoolCore
from actorpool.core.pool.sticky import process_of
from actorpool.core.workers import STOPPING
from actorpool.errors import PoolStopped
from actorpool.messages import Checkin, Checkout, WithConnection
from actorpool.pools.base import BasePoolActor
from actorpool.pools.effects import EFFECTS
from actorpool.pools.holders import Calls, MessageCaller, RunCaller
from actorpool.pools.preloading import preload
from actorpool.pools.telemetry import PoolTelemetry
from actorpool.pools.verbs import VERBS
from actorpool.pools.worker_handles import WorkerHandle
from actorpool.pools.worker_queries import WorkerQueries
from actorpool.serialization import pickling
from actorpool.serialization.exceptions import opaque_error
from actorpool.serialization.pickling import Pickled, PrePickled
from actorpool.supervisors.post import Post
from actorpool.supervisors.supervised import LATER
from actorpool.thespian_adapter.shell import FAREWELL, log
from actorpool.transport import bodies, frames, usage_counters
from actorpool.transport.server import ServerConn

LOOK = 0.001
"""Seconds between two looks at messages that are on their way."""


class PoolActor(BasePoolActor):
    """Owns the workers of one pool. Started by a supervisor with `init`; counts as started once `Ready`."""

    effects = EFFECTS
    verbs = VERBS
    others = frozenset(
        {WithConnection, Checkout, requests.CheckoutKeyed, sandboxes.CheckoutIn, Checkin, requests.Cancel,
         requests.Abandon}
    )  # fmt: skip
    config: PoolConfig
    core: PoolCore
    telemetry: PoolTelemetry

    def _prepare(self, kept: Keep | None) -> tuple[int, bool]:
        """The size, and whether workers know secrets. What is loaded before the first fork all workers share."""
        config = self.config
        preload(self.name, config.preload)
        worker = load_worker(config.worker)
        arguments = config.worker_args.open() if isinstance(config.worker_args, Pickled) else config.worker_args
        secretive = _scrubbing.hide_arguments(arguments)
        size = kept.size if kept is not None else config.size
        if isinstance(size, str):
            size = worker.auto_size(**arguments)  # type: ignore[attr-defined]
        return size, secretive

    def _begin(self, kept: Keep | None, prepared: tuple[int, bool], listeners: tuple[Any, Any, float]) -> Any:
        size, self.worker_handles.secretive = prepared
        self.telemetry = PoolTelemetry(self, Post(self), *listeners)
        self._calls = Calls(self)
        self.pages = usage_counters.found()
        self.worker_queries = WorkerQueries(self.worker_handles)
        self.core = PoolCore(
            self.name, self.config, size, time.monotonic(), random.random, kept=kept, counter=self.pages.slot
        )
        if kept is not None:  # a supervisor that was restarted itself has it as an argument only
            self.remember_also(kept=kept)
        self.telemetry.begin()
        self._share_memory()
        self.carry_out(self.core.start(time.monotonic()))
        return LATER

    # -- incoming: the channel --------------------------------------------------------------------------------

    def on_frame(self, peer: ServerConn, kind: int, ref: int, body: bytes | memoryview) -> None:
        """One frame of a client or a worker."""
        core, holder = self.core, peer.state
        if type(holder) is WorkerHandle:
            if kind == frames.CONTROL:
                self._on_report(pickling.loads(body))
        elif kind == frames.CHECKOUT:
            try:
                wanted = bodies.checkout(body)
            except TypeError as problem:
                peer.send(frames.ERROR, ref, frames.dump_error(problem))
                return
            holder = holder or self._welcome(peer)
            if holder is not None:
                self._checkout(ref, holder, *wanted)
        elif kind == frames.CHECKIN:
            if self._has(peer, ref):
                told = body == frames.EMPTY_AND_TOLD
                self.carry_out(core.checkin(time.monotonic(), ref, told or body == frames.EMPTY, told))
        elif kind == frames.CANCEL:
            self.carry_out(core.cancel(time.monotonic(), ref, holder))
        elif kind == frames.ABANDON:
            if self._has(peer, ref):
                self.carry_out(core.abandon(time.monotonic(), ref))
        elif kind == frames.ASK:
            self._on_ask(peer, ref, body)
        else:
            self._on_order(peer, kind, body)

    def _checkout(self, ref: int, holder: Any, *wanted: Any) -> None:
        """Ask the core for a worker. One that is parked under a key may have died without its death being told yet."""
        parked = None if wanted[-1] is None else self.core.parked(wanted[-1])
        if parked is not None and (pid := self.worker_handles.pid(parked)) is not None and not process.alive(pid):
            self._worker_gone(parked)
        self.carry_out(self.core.checkout(time.monotonic(), ref, holder, *wanted))

    def _has(self, peer: ServerConn, id: int) -> bool:
        """Whether the process at the other end has that lease; it may have got it by another connection."""
        lease = self.core.lease(id)
        if lease is None or lease.holder is peer.state:
            return lease is not None
        holder = peer.state or self._welcome(peer)
        return holder is not None and process_of(lease.holder) == holder.caller

    # -- incoming: messages ---------------------------------------------------------------------------------------

    def _other(self, message: Any, sender: Any) -> None:
        """A message that is no question with one answer."""
        now = time.monotonic()
        if isinstance(message, WithConnection):
            self._with_connection(message, sender)
        elif isinstance(message, Checkout):
            holder = MessageCaller(message.caller, sender, message.ref)
            if self._watches(holder):
                sandbox, key = getattr(message, "sandbox", None), getattr(message, "key", None)
                wanted = message.timeout, message.block, None, sandbox, False, key
                self._checkout(message.ref, holder, *wanted)
        elif isinstance(message, Checkin):
            self._checkin(message)
        elif isinstance(message, requests.Cancel):
            holder = MessageCaller(message.caller, sender, message.ref)
            self.carry_out(self.core.cancel(now, message.ref, holder))
            self.done(holder)
        elif isinstance(message, requests.Abandon):
            lease = self.core.lease(message.lease)
            if lease is not None and process_of(lease.holder) == message.caller:
                self.carry_out(self.core.abandon(now, message.lease))

    def _watches(self, holder: MessageCaller | RunCaller) -> bool:
        """Whether the holder's process is alive. What a dead one asked for before is not begun."""
        if self._holders.add(holder):
            return True
        log.debug("pool %s: pid %s has died before its request was handled", self.name, holder.pid)
        return False

    def _with_connection(self, request: WithConnection, sender: Any) -> None:
        now = time.monotonic()
        holder = RunCaller(request, sender, now + request.timeout, self.core.sandbox_of(request.caller))
        if self._watches(holder):
            self.carry_out(self.core.checkout(now, request.ref, holder, request.timeout, sandbox=holder.sandbox))

    def _checkin(self, message: Checkin) -> None:
        lease = self.core.lease(message.grant.lease)
        hand = self.worker_handles.find(lease.worker.id) if lease is not None else None
        if lease is not None and hand is not None and hand.seal(lease.id) == message.grant.seal:
            self.worker_handles.tell(hand.id, orders.End(lease.id, keep=lease.keyed))
            empty = isinstance(lease.holder, MessageCaller) and not lease.holder.has_called
            self.carry_out(self.core.checkin(time.monotonic(), lease.id, empty, message.grant.lost is None))
            self.done(lease.holder)

    # -- incoming: workers, deaths, time --------------------------------------------------------------------------

    def _worker_started(self, message: reports.Started) -> None:
        self.worker_handles.is_up(message.worker_id, message.pid)
        if message.counts:
            self.pages.counts(message.worker_id)
        self.telemetry.worker_started(message.worker_id)
        self.carry_out(self.core.worker_started(time.monotonic(), message.worker_id))

    def _start_failed(self, message: reports.StartFailed) -> None:
        error = opaque_error(message.error, self.is_process)
        self.carry_out(self.core.start_failed(time.monotonic(), message.worker_id, error))

    def _opened(self, message: reports.Opened) -> None:
        self.worker_handles.settled(message.worker_id)
        self.carry_out(self.core.opened(time.monotonic(), message.worker_id, message.took))

    def _reopened(self, message: reports.Reopened) -> None:
        self.carry_out(self.core.reopened(time.monotonic(), message.worker_id))

    def _open_failed(self, message: reports.OpenFailed) -> None:
        error = opaque_error(message.error, self.is_process)
        fails_start = message.permanent and not self.core.life.started
        level = logging.DEBUG if fails_start else logging.WARNING
        log.log(level, "pool %s: worker %s cannot connect: %r", self.name, message.worker_id, error)
        self.carry_out(
            self.core.open_failed(time.monotonic(), message.worker_id, error, message.permanent, message.retry_after)
        )

    def _lost(self, message: reports.Lost) -> None:
        error = opaque_error(message.error, self.is_process)
        log.warning("pool %s: worker %s lost its connection: %s", self.name, message.worker_id, error)
        self.carry_out(self.core.lost(time.monotonic(), message.worker_id, error))

    def _checked(self, message: reports.Checked) -> None:
        self.carry_out(self.core.checked(time.monotonic(), message.worker_id))

    def _recalled(self, message: reports.Recalled) -> None:
        self.carry_out(self.core.recalled(time.monotonic(), message.worker_id, message.lease))

    def _revoked(self, message: reports.Revoked) -> None:
        self.carry_out(self.core.revoked(time.monotonic(), message.worker_id, message.lease))

    def _running(self, message: reports.Running) -> None:
        lease = self.core.lease(message.lease)
        if message.asker is not None:
            self._calls.begin(message)
            if lease is not None and isinstance(lease.holder, MessageCaller):
                lease.holder.has_called = True
        elif lease is not None and isinstance(lease.holder, RunCaller):
            lease.holder.running = True
            self.worker_handles.tell(message.worker_id, orders.Begin(message.lease))

    def _answered(self, message: reports.Answered) -> None:
        reply = PrePickled(message.reply) if self.is_process else pickling.loads(message.reply)
        lease = self.core.lease(message.lease)
        if lease is not None and isinstance(lease.holder, RunCaller):
            lease.holder.answered(self, reply)
        else:
            self._calls.answered(message, reply)

    def _ran(self, message: reports.Ran) -> None:
        lease = self.core.lease(message.lease)
        self.carry_out(self.core.checkin(time.monotonic(), message.lease))
        if lease is not None:
            self.done(lease.holder)

    def _not_run(self, message: reports.NotRun) -> None:
        lease = self.core.lease(message.lease)
        self.carry_out(self.core.checkin(time.monotonic(), message.lease))
        if lease is not None and isinstance(lease.holder, RunCaller):
            self.again(lease.holder)

    def _called(self, message: reports.Called) -> None:
        self.telemetry.called(message)

    def _worker_gone(self, id: int, status: int | None = None) -> None:
        if id not in self.core.workers:
            return
        self.worker_handles.drain(id)
        status = process.exit_status(self.worker_handles.pid(id)) if status is None else status
        reason = self.ending(status)
        in_order = self.core.workers.by_id[id].state is STOPPING and not status
        for lease in self.core.leases_of(id):
            if isinstance(lease.holder, RunCaller) and self.directory is not None:
                lease.holder.running = not self.worker_handles.unread(id)
        decided = self.core.died(time.monotonic(), id, reason)
        hand, restarted = self.worker_handles.forget(id), any(map(_is_restart, decided))
        decided = self._start_first(decided)
        if hand is not None:
            self.worker_handles.clear(hand)
            self._note_end(hand, reason, in_order, restarted)
        self._calls.died(id)
        self.worker_queries.gone(id)
        self.carry_out(decided)
        self.pages.give(id)
        self._arm()

    def on_timer(self, payload: Any) -> None:
        """A moment of the core, a sample, or a look at callers that cannot be watched."""
        if payload == "sample":
            self.telemetry.sample()
        elif callable(payload):
            payload()
        else:
            self._armed = None
            self.telemetry.expire(time.monotonic())
            self._holders.poll(time.monotonic())
            self.worker_queries.expire(time.monotonic())
            self.carry_out(self.core.tick(time.monotonic()))
        self._arm()

    def deadline(self) -> float | None:
        """When something of the pool is due."""
        timed = (self.core, self.worker_queries, self._holders, self.telemetry)
        return min((moment for part in timed if (moment := part.deadline()) is not None), default=None)

    # -- outgoing ---------------------------------------------------------------------------------------------------

    def run(self, holder: RunCaller, grant: Granted) -> None:
        """Send a call of the message way to its worker."""
        request = holder.request
        packed = (Pickled.of(request.fn), Pickled.of(request.args), Pickled.of(request.kwargs))
        order = orders.RunFor(grant.lease, request.ref, *packed, grant.check_first, grant.turn)
        self.worker_handles.call(grant.worker, order)
        if self.config.call_timeout is not None:
            self.carry_out(self.core.limit(time.monotonic(), grant.lease, self.config.call_timeout))

    def once_sent(self, then: Callable[[], None], within: float = FAREWELL) -> None:
        """Call `then` when the messages sent so far have arrived, or after `within` seconds: some may never."""
        if within > 0 and self.messages is not None and self.messages.pending():
            self.set_timer(LOOK, lambda: self.once_sent(then, within - LOOK))
        else:
            then()

    def done(self, holder: Any) -> None:
        """A holder of the message way has given something back, or got nothing: it is forgotten if that was all."""
        if not self.core.knows(holder):
            self._holders.remove(holder)

    def again(self, holder: RunCaller) -> None:
        """Take a call that was not started to another worker, within what is left of its time."""
        if holder.sandbox is not None:
            holder.lost_sandbox(self)
            return
        now = time.monotonic()
        self.carry_out(self.core.checkout(now, holder.request.ref, holder, max(holder.deadline - now, 0.001)))

    # -- the end ------------------------------------------------------------------------------------------------------

    def on_exit(self) -> None:
        """Refuse all waiters, end every worker process, leave nothing behind. Blocks at most `kill_after` seconds."""
        if not hasattr(self, "core"):
            return
        self.telemetry.post.deliver()
        for waiter in self.core.queue.clear():
            error = PoolStopped(f"pool {self.name!r} ended while you waited", pool=self.name)
            waiter.caller.refused(self, Refused(waiter.ref[1], waiter.caller, error))  # type: ignore[attr-defined]
        self._end_serving(self.config.kill_after)
        self.telemetry.close()


def _is_restart(effect: Any) -> bool:
    return isinstance(effect, Emit) and effect.name == "worker.restarted"


PoolActor.reports = {
    reports.Started: PoolActor._worker_started,
    reports.StartFailed: PoolActor._start_failed,
    reports.Opened: PoolActor._opened,
    reports.Reopened: PoolActor._reopened,
    reports.OpenFailed: PoolActor._open_failed,
    reports.Lost: PoolActor._lost,
    reports.Checked: PoolActor._checked,
    reports.Recalled: PoolActor._recalled,
    reports.Revoked: PoolActor._revoked,
    reports.Running: PoolActor._running,
    reports.Answered: PoolActor._answered,
    reports.Ran: PoolActor._ran,
    reports.NotRun: PoolActor._not_run,
    reports.Called: PoolActor._called,
    reports.Gathered: lambda pool, message: pool.worker_queries.arrived(message),
}
