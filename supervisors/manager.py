"""The manager: the supervisor of all pools, and the register of their names.

It is a `Supervisor` whose children are pools (and what a user adds with `supervise`), each with an intensity window of
its own. It never runs user code and never waits: a request for a pool is passed on, or kept until the pool is back.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from typing import Any

from actorpool import governing, portable, protocol, sharing
from actorpool.actor import log
from actorpool.channel import paths, spin, wire
from actorpool.channel.lane import Lane, Peer
from actorpool.config import PoolConfig, SharedPoolConfig, check_pool_name
from actorpool.core.backoff import Backoff
from actorpool.core.supervising.children import State
from actorpool.core.supervising.signals import Remembered
from actorpool.errors import ActorPoolError, InvalidConfig, LeaseExpired
from actorpool.failures import name_of
from actorpool.messages import (
    Call,
    Checkin,
    Checkout,
    DeleteChild,
    Err,
    Event,
    GetPoolStatus,
    ListPools,
    Ok,
    Request,
    StartChild,
    StartPool,
    StopPool,
    Subscribe,
    TerminateChild,
    WithConnection,
)
from actorpool.portable import Parcel
from actorpool.supervisors.announcement import Announcement
from actorpool.supervisors.callers import Asker, ChannelAsker, MessageAsker
from actorpool.supervisors.courier import Courier
from actorpool.supervisors.nest import POOL
from actorpool.supervisors.private import private_directory
from actorpool.supervisors.register import Register, cause_of
from actorpool.supervisors.specs import ChildSpec, SupervisorSpec, load_class, pool_child_spec
from actorpool.supervisors.supervisor import Supervisor
from actorpool.supervisors.survey import Survey
from actorpool.telemetry import Hub

POOLS = SupervisorSpec(max_restarts=20, max_seconds=60, backoff=Backoff(0.01, 1.0))
"""Each pool may fail this often before it is left alone, in state "failed"; it stays registered until it is stopped."""
KEEP = 5.0
"""Seconds for which a request without a timeout of its own waits for its pool to be back."""
RELAY_LIFETIME = 60.0
"""Seconds after which the answer to a relayed question is waited for no more."""


class ConnectionManager(Supervisor):
    """Owns the pools. Made by `actorpool.start`, by a supervisor of your own, or by a plain `createActor`."""

    per_child = True
    _lane: Lane | None = None

    def init(  # type: ignore[override]
        self,
        directory: str | None = None,
        options: dict[str, Any] | None = None,
        pools: dict[str, PoolConfig | SharedPoolConfig] | None = None,
        memories: dict[str, Parcel] | None = None,
        others: tuple[ChildSpec, ...] = (),
    ) -> Any:
        """Serve.

        Args:
            directory: where the sockets of the channel are; None makes a private one.
            options: `sinks`, `metrics_interval`, `spin`, `max_message` for the pools; `dead_letters`: whether to take
                what Thespian could not deliver, for which an actor system has one handler.
            pools: the pools of a predecessor that died, started again.
            memories: what those of them that are shared wanted to be told then.
            others: what a predecessor was given to `supervise`.
        """
        self._options = dict(options or {})
        self._own_directory: str | None = None
        self._directory = directory
        self._hub = Hub(self._options.get("sinks", ()), here=not self.is_process)
        self._register = Register(POOLS)
        self._others: dict[Any, ChildSpec] = {}
        self._kept: list[tuple[str, Any, Asker, float]] = []
        self._relayed: dict[Any, tuple[Callable[[Any], None], float]] = {}
        if self.can_watch:
            self._open_lane()
        self._courier = Courier(self, self._lane, self._directory)
        if self._options.get("dead_letters"):
            self.handleDeadLetters()
        if self.is_process:
            self.set_timer(0.0, "prepare")
        outcome = super().init(POOLS)
        for name, config in (pools or {}).items():
            self._restore(name, config, (memories or {}).get(name))
        for spec in others:
            self._supervise(spec, lambda _value: None)
        return outcome

    def _open_lane(self) -> None:
        if self._directory is None:
            self._directory = self._own_directory = private_directory()
        self._lane = Lane(paths.manager(self._directory), self, outside=self.messages, spin=0.0)

    @classmethod
    def child_spec(cls, directory: str | None = None, **options: Any) -> ChildSpec:
        """The manager as a child of a supervisor of your own: permanent, of type supervisor."""
        args = {"directory": directory, "options": options}
        return ChildSpec("manager", cls, args=args, type="supervisor", shutdown="infinity")

    # -- incoming -------------------------------------------------------------------------------------------

    def watched(self) -> list[int]:
        """The channel's one descriptor."""
        return [self._lane.descriptor] if self._lane is not None else []

    def on_watch(self) -> None:
        """Something arrived on the channel."""
        assert self._lane is not None
        self._lane.serve()

    def on_frame(self, peer: Peer, kind: int, ref: int, body: bytes | memoryview) -> None:
        """A request of a client of this host."""
        if kind == wire.ASK:
            self._request(portable.loads(body), ChannelAsker(peer, ref))

    def on_gone(self, peer: Peer) -> None:
        """A client has let go; what it asked for goes on."""

    def on_message(self, message: Any, sender: Any) -> None:
        """A request, a pool's answer, or a child's word about itself."""
        if not hasattr(self, "machine"):
            self.init()  # a plain createActor, without a supervisor above
        super().on_message(message, sender)
        if isinstance(message, Remembered):
            self._remember()
        self._deliver_kept()

    def on_other(self, message: Any, sender: Any) -> None:
        """What is no administration of children."""
        if isinstance(message, (Ok, Err)) and message.ref in self._relayed:
            then, _ = self._relayed.pop(message.ref)
            then(message.value if isinstance(message, Ok) else message.error)
        elif isinstance(message, (Checkin, protocol.Cancel, protocol.Abandon, sharing.CancelCall)):
            self._pass_on(message, sender)
        elif isinstance(message, (WithConnection, Checkout, sharing.SharedRequest)):
            self._route(message.pool, message, MessageAsker(self, sender, message.ref))
        elif isinstance(message, Request):
            self._request(message, MessageAsker(self, sender, message.ref))
        elif not isinstance(message, (Ok, Err)):
            self._not_ours(message, sender)

    def _not_ours(self, message: Any, sender: Any) -> None:
        text = f"the manager does not understand {type(message).__name__}"
        log.warning("%s", text)
        self.send(sender, Err(TypeError(text), getattr(message, "ref", None)))

    def on_undelivered(self, message: Any, why: str) -> None:
        """Answer a call in the place of a worker that had died before it was sent."""
        grant = message.grant if isinstance(message, Call) else None
        if grant is None or grant.asker is None:
            super().on_undelivered(message, why)
            return
        text = f"pool {grant.pool!r}: the worker of lease {grant.lease} has died; the call was not started"
        self.send(grant.asker, Err(LeaseExpired(text, pool=grant.pool), message.ref))

    def _request(self, request: Any, asker: Asker) -> None:
        """Answer a request of either way."""
        verb = _VERBS.get(type(request))
        try:
            if verb is None:
                raise TypeError(f"the manager does not understand {type(request).__name__}")
            verb(self, request, asker)
        except (ActorPoolError, TypeError) as error:
            asker.answer(error)

    # -- requests -------------------------------------------------------------------------------------------

    def _hello(self, _: governing.Hello, asker: Asker) -> None:
        above = os.getppid() if self.is_process and self.parent is not None else None
        asker.answer(governing.Welcome(self.myAddress, os.getpid() if self.is_process else None, above))

    def _start_pool(self, request: StartPool, asker: Asker) -> None:
        name = check_pool_name(request.name)
        if not isinstance(request.config, (PoolConfig, SharedPoolConfig)):
            text = f"must be a PoolConfig or a SharedPoolConfig, not {type(request.config).__name__}"
            raise InvalidConfig("pool", {"config": text})
        self._register.begin(name)

        def then(address: Any, error: Exception | None) -> None:
            self._register.starting.discard(name)
            if error is None:
                self._register.configs[name] = request.config
                self._remember()
                asker.answer(address)
            else:
                cause = cause_of(error, name)
                log.error("Failed to start pool %s: %s: %s", name, name_of(cause), cause)
                asker.answer(cause)

        self.administer(StartChild(self._pool_spec(name, request.config)), then)

    def _pool_spec(self, name: str, config: PoolConfig | SharedPoolConfig, memory: Parcel | None = None) -> ChildSpec:
        args = {
            "directory": self._directory,
            "spin": spin.spin_seconds(self._options.get("spin", True)),
            "max_message": self._options.get("max_message", wire.MAX_MESSAGE),
            "sinks": self._options.get("sinks", ()),
            "subscriptions": tuple(self._hub.subscriptions),
            "metrics_interval": self._options.get("metrics_interval", 10.0),
        }
        if memory is not None:
            args |= memory.open()
        return pool_child_spec(name, config, args=args)

    def _restore(self, name: str, config: PoolConfig | SharedPoolConfig, memory: Parcel | None) -> None:
        """Start a pool of a predecessor; one that does not start is remembered as failed."""
        load_class(POOL)

        def then(_address: Any, error: Exception | None) -> None:
            if error is not None:
                cause = self._register.failed[name] = cause_of(error, name)
                log.error("Failed to start pool %s again: %s: %s", name, name_of(cause), cause)
                del self._register.configs[name]

        self._register.configs[name] = config
        self.administer(StartChild(self._pool_spec(name, config, memory)), then)

    def _stop_pool(self, request: StopPool, asker: Asker) -> None:
        name = request.name
        if self._register.failed.pop(name, None) is not None:
            asker.answer(None)
            return
        config = self._register.retire(name, asker)
        child = self.machine.children.get(name)
        if child is not None and child.state is State.RUNNING:
            self.ask(child.address, governing.Retire(request.timeout), lambda _: self._remove(name, asker))
            self.set_timer(request.timeout + config.kill_after + 1.0, ("remove", name, asker))
        else:
            self._remove(name, asker)

    def _remove(self, name: str, asker: Asker) -> None:
        """End the pool's process and forget the pool; once, whoever says so first, and only for the present stop."""
        if self._register.stopping.get(name) is not asker or self._register.configs.pop(name, None) is None:
            return
        self._remember()

        def forget(_value: Any, _error: Exception | None) -> None:
            self.administer(DeleteChild(name), done)

        def done(_value: Any, _error: Exception | None) -> None:
            del self._register.stopping[name]
            asker.answer(None)

        self.administer(TerminateChild(name), forget)

    def _subscribe(self, request: Subscribe, asker: Asker) -> None:
        if not isinstance(asker, MessageAsker):
            raise TypeError("only an actor can subscribe: events are messages")
        self._hub.subscribe(request.pattern, asker.address)
        pools = [address for name in self._register.configs if (address := self._serving(name)) is not None]
        Announcement(self, asker).begin(request.pattern, asker.address, pools)

    def _serving(self, name: str | None) -> Any:
        child = self.machine.children.get(name)
        return child.address if child is not None and child.state is State.RUNNING else None

    def _supervise_request(self, request: governing.Supervise, asker: Asker) -> None:
        spec = request.spec
        if isinstance(spec, SupervisorSpec):
            spec = ChildSpec(f"supervisor-{len(self._others) + 1}", spec)
        if not isinstance(spec, ChildSpec):
            raise TypeError(f"supervise() takes a SupervisorSpec or a ChildSpec, not {type(request.spec).__name__}")
        self._supervise(spec, asker.answer)

    def _supervise(self, spec: ChildSpec, answer: Callable[[Any], None]) -> None:
        def then(address: Any, error: Exception | None) -> None:
            if error is None:
                self._others[spec.id] = spec
                self._remember()
            answer(address if error is None else error)

        self.administer(StartChild(spec), then)

    def _tree(self, _: governing.Tree, asker: Asker) -> None:
        Survey(self, asker).begin()

    def _status(self, request: GetPoolStatus, asker: Asker) -> None:
        self._route(request.name, request, asker)

    def _remember(self) -> None:
        """Have a successor start the same pools, should this process be killed."""
        children = self.machine.children
        memories = {name: children[name].memory for name in self._register.configs if name in children}
        self.remember(
            pools=dict(self._register.configs),
            memories={name: memory for name, memory in memories.items() if memory is not None},
            others=tuple(self._others.values()),
        )

    # -- finding pools ----------------------------------------------------------------------------------------

    def _route(self, name: str, request: Any, asker: Asker, deadline: float | None = None) -> None:
        """Pass a request on to its pool; while the pool is being restarted, keep it within its timeout."""
        try:
            child = self._register.serving(name, self.machine.children)
        except ActorPoolError as error:
            if deadline is None:
                timeout = getattr(request, "timeout", None)
                deadline = time.monotonic() + (KEEP if timeout is None else timeout)
            if getattr(error, "temporary", False) and time.monotonic() < deadline:
                self._kept.append((name, request, asker, deadline))
                self.set_timer(deadline - time.monotonic(), "kept")
            else:
                asker.answer(error)
        else:
            if isinstance(asker, MessageAsker):
                self._courier.take(name, child.address, governing.Routed(request, asker.address))
            else:
                self.ask(child.address, request, asker.answer)

    def _deliver_kept(self) -> None:
        kept, self._kept = self._kept, []
        for name, request, asker, deadline in kept:
            self._route(name, request, asker, deadline)

    def _pass_on(self, message: Any, sender: Any) -> None:
        """A message without an answer: for a pool that is not there it means nothing any more."""
        name = message.grant.pool if isinstance(message, Checkin) else message.pool
        address = self._serving(name)
        if address is not None:
            self._courier.take(name, address, governing.Routed(message, sender))

    def ask(self, address: Any, request: Request, then: Callable[[Any], None]) -> None:
        """Ask another actor; `then` gets its answer (an error as a value), or is never called."""
        now = time.monotonic()
        self._relayed = {ref: entry for ref, entry in self._relayed.items() if entry[1] > now}
        self._relayed[request.ref] = (then, now + RELAY_LIFETIME)
        self.send(address, request)

    # -- time, events, the end ----------------------------------------------------------------------------------

    def on_timer(self, payload: Any) -> None:
        """A deadline of a kept request, of a pool that stops, of an answer by several; or the supervisor's own."""
        if payload == "kept":
            self._deliver_kept()
        elif payload == "prepare":  # pools are forked from here, and need not load their modules (30 ms) themselves
            load_class(POOL)
        elif isinstance(payload, tuple) and payload[0] == "remove":
            self._remove(payload[1], payload[2])
        elif isinstance(payload, (Survey, Announcement)):
            payload.finish()
        else:
            super().on_timer(payload)
            self._deliver_kept()

    def on_child_exit(self, address: Any) -> None:
        """A pool's process is gone; its restart may already have begun."""
        super().on_child_exit(address)
        self._deliver_kept()

    def emit(self, name: str, measurements: dict[str, Any], metadata: dict[str, Any]) -> None:
        """Pass an event of the supervisor on."""
        pool = metadata.get("child") if metadata.get("child") in self._register.configs else None
        for address, event in self._hub.emit(Event(name, pool, time.time(), measurements, metadata)):
            self.send(address, event)
        if name == "supervisor.restarted" and (address := self._serving(pool)) is not None:
            for pattern, subscriber in self._hub.subscriptions:
                self.send(address, governing.Listen(pattern, subscriber))

    def on_exit(self) -> None:
        """End all pools, side by side with nothing left behind."""
        super().on_exit()
        if self._lane is not None:
            self._lane.close()
        self._hub.close()
        if self._own_directory is not None:
            shutil.rmtree(self._own_directory, ignore_errors=True)


_VERBS: dict[type, Callable[[ConnectionManager, Any, Asker], None]] = {
    governing.Hello: ConnectionManager._hello,
    governing.Tree: ConnectionManager._tree,
    governing.Supervise: ConnectionManager._supervise_request,
    ListPools: lambda manager, _, asker: asker.answer(manager._register.names()),
    sharing.FindPool: lambda manager, request, asker: asker.answer(manager._register.kind(request.name)),
    StartPool: ConnectionManager._start_pool,
    StopPool: ConnectionManager._stop_pool,
    Subscribe: ConnectionManager._subscribe,
    GetPoolStatus: ConnectionManager._status,
}
