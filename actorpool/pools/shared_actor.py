"""The shared pool's actor: a thin shell around `SharedPoolCore`. Messages and frames in, effects out; no decisions.

Callers send their calls here, and here alone; arguments and results pass through unopened.
"""

from __future__ import annotations

import random
import time
from typing import Any

from actorpool import process
from actorpool._protocol import shared
from actorpool.config import SharedPoolConfig
from actorpool.core.machine import Backoff
from actorpool.core.shared.connections import look_unbounded
from actorpool.core.shared.core import SharedPoolCore
from actorpool.core.workers import STOPPING
from actorpool.errors import PoolNotFound, PoolStopped
from actorpool.messages import Checkout, WithConnection
from actorpool.pools.base import BasePoolActor
from actorpool.pools.holders import Asker, MessageCaller
from actorpool.pools.shared_callers import ChannelCall, MessageCall
from actorpool.pools.shared_effects import EFFECTS
from actorpool.pools.shared_reports import FRAMES, REPORTS
from actorpool.pools.shared_verbs import VERBS, status
from actorpool.pools.telemetry import Telemetry
from actorpool.pools.verbs import VERBS as POOL_VERBS
from actorpool.pools.worker_handles import WorkerHandle
from actorpool.serialization import pickling
from actorpool.serialization.pickling import Pickled
from actorpool.status import Sample
from actorpool.supervisors.limited import limited
from actorpool.supervisors.post import Post
from actorpool.thespian_adapter.shell import log
from actorpool.transport import bodies, frames
from actorpool.transport.server import ServerConn
from actorpool.workers.shared import SharedWorkerActor

_OF_OTHER_POOLS = frozenset({*POOL_VERBS, WithConnection, Checkout}) - VERBS.keys()
"""What is asked of pools that lend workers."""


class SharedPoolActor(BasePoolActor):
    """Owns the connections of one shared pool, one worker process each. Started by a supervisor with `init`."""

    effects = EFFECTS
    kind = SharedWorkerActor
    title = "shared pool"
    verbs = VERBS
    reports = REPORTS
    others = frozenset({shared.SharedCall, shared.CancelCall})
    config: SharedPoolConfig
    core: SharedPoolCore
    telemetry: Telemetry

    def _begin(self, kept: Pickled | None, _prepared: None, listeners: tuple[Any, Any, float]) -> Any:
        """Without a connection, unless a former life of this pool has left some to be revived."""
        config = self.config
        self.telemetry = Telemetry(self, Post(self), *listeners)
        self.began = now = time.monotonic()
        backoff = Backoff(config.backoff_min, config.backoff_max)
        epoch = time.time() - time.monotonic()  # some time has passed since `now`
        self.core = SharedPoolCore(
            self.name, random.random, backoff=backoff, penalties=config.series, kill_after=config.kill_after,
            epoch=epoch, look=limited if self.is_process else look_unbounded,
        )  # fmt: skip
        self.observe()
        self._share_memory()
        self.telemetry.await_sample()
        log.info("Started shared pool: %s", self.name)
        self.telemetry.event("pool.started", {}, {"shared": True})
        self._known, self._changed = b"", False
        self.refused: dict[int, int] = {}
        """By worker that has closed its end: the first call that was to be sent to it after that."""
        if kept is not None:
            self.carry_out(self.core.restore(now, *kept.open()))

    # -- incoming: the channel --------------------------------------------------------------------------------

    def on_frame(self, peer: ServerConn, kind: int, ref: int, body: bytes | memoryview) -> None:
        """One frame of a client or a worker."""
        hand = peer.state
        if type(hand) is WorkerHandle:
            if kind == frames.CONTROL:
                self._on_report(pickling.loads(body))
            elif kind in FRAMES:
                FRAMES[kind](self, hand.id, ref, body)
        elif kind == frames.SHARED:
            self._call(peer, ref, body)
        elif kind == frames.CANCEL:
            self.carry_out(self.core.cancel(time.monotonic(), ChannelCall(peer, ref)))
        elif kind == frames.ASK:
            self._on_ask(peer, ref, body)
        elif kind == frames.CHECKOUT:
            peer.send(frames.ERROR, ref, frames.dump_error(self._not_leased()))
        elif kind not in (frames.CHECKIN, frames.ABANDON):  # of a lease that a pool of this name had granted before
            self._on_order(peer, kind, body)

    def _call(self, peer: ServerConn, ref: int, body: bytes | memoryview) -> None:
        call = ChannelCall(peer, ref)
        try:
            asked = bodies.shared_call(body)
            shared.check_call(asked.method, asked.where, asked.timeout)
        except frames.BadFrame:
            raise
        except BaseException as error:  # a user's value that cannot be rebuilt here may raise anything
            call.answer(error)
            return
        holder = peer.state or self._welcome(peer)
        if holder is None:
            return
        now, what = time.monotonic(), (asked.resource, asked.method, asked.payload)
        self.carry_out(self.core.call(now, call, holder, *what, where=asked.where, timeout=asked.timeout, direct=True))

    # -- incoming: messages -------------------------------------------------------------------------------------

    def _refusal(self, message: Any, sender: Any) -> Exception | None:
        """As every pool; a caller that takes it for one of the other kind is told so."""
        if type(message) in _OF_OTHER_POOLS:
            return self._not_leased()
        return super()._refusal(message, sender)

    def _unpacked(self, message: Any) -> Exception | None:
        if isinstance(message, shared.SharedRequest):
            try:
                message.unpack()
            except BaseException as error:  # a user's value that cannot be rebuilt here may raise anything
                return error if isinstance(error, Exception) else ValueError(f"what it holds raised {error!r}")
        return None

    def _other(self, message: Any, sender: Any) -> None:
        """A message that is no question with one answer."""
        call = MessageCall(self, sender, message.ref, message.caller)
        if isinstance(message, shared.CancelCall):
            self.carry_out(self.core.cancel(time.monotonic(), call))
            return
        holder = MessageCaller(message.caller, None, None)  # of all calls of that process
        if self._holders.add(holder):
            now, where, timeout = time.monotonic(), message.where, message.timeout
            wanted = (message.resource, message.method, message.payload)
            self.carry_out(self.core.call(now, call, holder, *wanted, where=where, timeout=timeout))

    def _ask(self, request: Any, asker: Asker) -> None:
        self._catch_up()
        self._changed = True
        super()._ask(request, asker)

    def _catch_up(self) -> None:
        """Hear what workers have said of connections that are lent: the asker may know it already."""
        for connection, _loan in self.core.loans.out():
            assert connection.worker is not None
            self.worker_handles.drain(connection.worker.id)

    def _not_leased(self) -> PoolNotFound:
        text = f"{self.name!r} is a shared pool, which lends nothing: call it through system.shared_pool({self.name!r})"
        return PoolNotFound(text, pool=self.name)

    # -- incoming: workers, deaths, time --------------------------------------------------------------------------

    def _on_report(self, message: Any) -> None:
        self._changed = True
        super()._on_report(message)

    def _worker_gone(self, id: int, status: int | None = None) -> None:
        try:
            hand = self.worker_handles.hand(id)
        except KeyError:
            return  # told before
        self.worker_handles.drain(id)
        status = process.exit_status(hand.pid) if status is None else status
        reason = f"{self.ending(status)} (pid {hand.pid})"
        begun, refused = not self.worker_handles.unread(id), self.refused.pop(id, None)
        self.worker_handles.forget(id)
        in_order = self.core.workers.get(id, STOPPING) is not None and not status
        decided = self.core.died(time.monotonic(), id, reason, begun=begun, refused=refused)
        decided = self._start_first(decided)
        self.worker_handles.clear(hand)
        self._note_end(hand, self.ending(status), in_order)
        self._changed = True
        self.carry_out(decided)
        self._arm()

    def on_timer(self, payload: Any) -> None:
        """A moment of the core, a sample, or a look at callers that cannot be watched."""
        if payload == "sample":
            self._sample()
        elif callable(payload):
            payload()
        else:
            self._armed = None
            self._holders.poll(time.monotonic())
            self.carry_out(self.core.tick(time.monotonic()))
        self._arm()

    def deadline(self) -> float | None:
        """When something of the pool is due."""
        if self._changed:
            return 0.0
        moments = [self.core.deadline(), self._holders.deadline()]
        return min((moment for moment in moments if moment is not None), default=None)

    def _arm(self) -> None:
        """As every pool; what has changed is told to the supervisor first."""
        if self._changed:
            self._keep()
        super()._arm()

    def _sample(self) -> None:
        now = status(self)
        self.telemetry.add(Sample(time.time(), now.monitors, now.waiting, now.total, 0.0, 0.0))

    # -- outgoing ---------------------------------------------------------------------------------------------------

    def _keep(self) -> None:
        """Have a successor bring back the connections that are revived, should this process be killed."""
        self._changed = False
        known = Pickled.of(self.core.kept())
        if known.data != self._known:
            self._known = known.data
            self.remember_also(kept=known)

    def observe(self, asker: Asker | None = None) -> None:
        """Have the core speak of every call only while there are listeners; `asker` hears when none goes past it."""
        self.carry_out(self.core.observe(time.monotonic(), self.telemetry.hub.wants("call.done"), asker))

    # -- the end ------------------------------------------------------------------------------------------------------

    def on_exit(self) -> None:
        """Refuse all waiting calls, end every worker process. Blocks at most `kill_after` seconds."""
        if not hasattr(self, "core"):
            return
        self.telemetry.post.deliver()
        for ref in list(self.core.calls.by_ref):
            if isinstance(ref, (ChannelCall, MessageCall)):
                ref.answer(PoolStopped(f"shared pool {self.name!r} ended meanwhile", pool=self.name))
        self._end_serving(self.config.kill_after)
        self.telemetry.close()
