"""The manager: the supervisor of all pools, and the registry of their names.

It is a `Supervisor` whose children are pools (and what a user adds with `supervise`), each with an intensity window of
its own. It never runs user code and never waits: a request for a pool is passed on, or kept until the pool is back.
"""

from __future__ import annotations

import itertools
import os
import shutil
import time
from collections.abc import Callable
from typing import Any

from actorpool._arriving import problems_of, ref_of
from actorpool._protocol import manager, requests, shared
from actorpool.config import PoolConfig, SharedPoolConfig, check_pool_name
from actorpool.core.supervisor.children import State
from actorpool.errors import ActorPoolError, InvalidConfig, LeaseExpired
from actorpool.messages import (
    Call,
    Checkin,
    Checkout,
    DeleteChild,
    Err,
    Event,
    GetPoolStatus,
    Grant,
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
from actorpool.pools.holders import Asker, ChannelAsker, MessageAsker
from actorpool.serialization.exceptions import name_of
from actorpool.serialization.pickling import Pickled
from actorpool.supervisors.child_host import POOL
from actorpool.supervisors.forwarder import Forwarder
from actorpool.supervisors.heritage import Heritage
from actorpool.supervisors.history_keeper import HistoryKeeper
from actorpool.supervisors.post import Post
from actorpool.supervisors.private import private_directory
from actorpool.supervisors.questions import Questions
from actorpool.supervisors.registry import POOLS, Registry, cause_of
from actorpool.supervisors.routing import Routing
from actorpool.supervisors.specs import ChildSpec, SupervisorSpec, load_class, pool_child_spec
from actorpool.supervisors.subscribe_all import SubscribeAll
from actorpool.supervisors.subscribers import Subscriber, Subscribers
from actorpool.supervisors.supervisor import Supervisor
from actorpool.supervisors.tree_builder import TreeBuilder
from actorpool.telemetry import Hub
from actorpool.thespian_adapter.shell import log
from actorpool.transport import bodies, frames, paths, spinwait
from actorpool.transport.server import ChannelServer, ServerConn

LOAD_AFTER = 0.01
"""Seconds; by then the node has been told that all is there."""


class ConnectionManager(Supervisor):
    """Owns the pools. Made by `actorpool.start`, by a supervisor of your own, or by a plain `createActor`."""

    per_child = True
    _server: ChannelServer | None = None

    def init(  # type: ignore[override]
        self,
        directory: str | None = None,
        options: dict[str, Any] | None = None,
        pools: dict[str, PoolConfig | SharedPoolConfig] | None = None,
        memories: dict[str, Pickled] | None = None,
        others: tuple[ChildSpec, ...] = (),
        stopped: tuple[Any, ...] = (),
        subscribers: tuple[Subscriber, ...] = (),
    ) -> Any:
        """Serve.

        Args:
            directory: where the sockets of the channel are; None makes a private one.
            options: `sinks`, `metrics_interval`, `spin`, `max_message` for the pools; `dead_letters`: whether to take
                what Thespian could not deliver, for which an actor system has one handler.
            pools: the pools of a predecessor that died, started again.
            memories: what those of them that are shared wanted to be told then.
            others: what a predecessor was given to `supervise`.
            stopped: the ids of those among all these that did not run: they were terminated, or had done their work.
            subscribers: those that got events as messages.
        """
        self._options = dict(options or {})
        self._own_directory: str | None = None
        self._directory = directory
        self._hub = Hub(self._options.get("sinks", ()), here=not self.is_process)
        self._history = HistoryKeeper(self)
        self.registry = Registry(POOLS)
        self._heritage = Heritage(self)
        self._questions = Questions(self)
        self._post = Post(self)
        if self.can_watch:
            self._open_server()
        self.subscribers = Subscribers(self, self._server)
        self.subscribers.add(subscribers)
        self._hub.listen(self.subscribers.pairs())
        self._forwarder = Forwarder(self, self._server, self._directory)
        self._routing = Routing(self, self._forwarder)
        if self._options.get("dead_letters"):
            self.handleDeadLetters()
        if self.is_process:  # forked from here, pools need not load their modules (30 ms) themselves
            self.set_timer(LOAD_AFTER, lambda: load_class(POOL).load_for_workers())  # type: ignore[attr-defined]
        outcome = super().init(POOLS)
        for name, config in (pools or {}).items():
            self.registry.configs[name] = config
            self._restore(self._pool_spec(name, config, (memories or {}).get(name)), name not in stopped)
        for spec in others:
            self._restore(spec, spec.id not in stopped)
        self._heritage.begin()
        return outcome

    def _open_server(self) -> None:
        if self._directory is None:
            self._directory = self._own_directory = private_directory()
        self._server = ChannelServer(paths.manager(self._directory), self, outside=self.messages, spin=0.0)

    @classmethod
    def child_spec(cls, directory: str | None = None, **options: Any) -> ChildSpec:
        """The manager as a child of a supervisor of your own: permanent, of type supervisor."""
        args = {"directory": directory, "options": options}
        return ChildSpec("manager", cls, args=args, type="supervisor", shutdown="infinity")

    # -- incoming -------------------------------------------------------------------------------------------

    def watched(self) -> list[int]:
        """The channel's one descriptor."""
        return [self._server.descriptor] if self._server is not None else []

    def on_watch(self) -> None:
        """Something arrived on the channel."""
        assert self._server is not None
        self._server.serve()

    def on_frame(self, peer: ServerConn, kind: int, ref: int, body: bytes | memoryview) -> None:
        """A request of a client of this host."""
        if kind == frames.ASK:
            asker = ChannelAsker(peer, ref)
            try:
                request = bodies.request(body)
            except Exception as error:  # it is no pickle, or one of a class that cannot be rebuilt here
                asker.answer(error)
            else:
                self._request(request, asker)

    def on_gone(self, peer: ServerConn) -> None:
        """A client has let go; what it asked for goes on."""

    def on_message(self, message: Any, sender: Any) -> None:
        """A request, a pool's answer, or a child's word about itself."""
        if not hasattr(self, "machine"):
            self.init()  # a plain createActor, without a supervisor above
        super().on_message(message, sender)

    def on_other(self, message: Any, sender: Any) -> None:
        """What is no administration of children."""
        if isinstance(message, (Ok, Err)):
            self._questions.answered(message, ref_of(message), sender)
        elif isinstance(message, _UNANSWERED):
            self._pass_on(message, sender)
        elif not isinstance(message, (Event, requests.Events)) or not self._history.hear(message, sender):
            self._request(message, MessageAsker(self, sender, ref_of(message)))

    def on_undelivered(self, message: Any, why: str) -> None:
        """Answer a call in the place of a worker that had died before it was sent."""
        grant = message.grant if isinstance(message, Call) and not problems_of(message) else None
        if grant is not None and grant.asker is not None:
            text = f"pool {grant.pool!r}: the worker of lease {grant.lease} has died; the call was not started"
            self.send(grant.asker, Err(LeaseExpired(text, pool=grant.pool), message.ref))
        else:
            super().on_undelivered(message, why)

    def _request(self, request: Any, asker: Asker) -> None:
        """Answer a request of either way, once it is what it should be."""
        verb = _VERBS.get(type(request))
        if verb is None and isinstance(request, _ROUTED) and isinstance(asker, MessageAsker):
            verb = ConnectionManager._route
        if verb is None:
            text = f"the manager does not understand {type(request).__name__}"
            log.warning("%s", text)
            asker.answer(TypeError(text))
            return
        if problems := problems_of(request):
            asker.answer(InvalidConfig(type(request).__name__, problems))
        else:
            verb(self, request, asker)

    # -- requests -------------------------------------------------------------------------------------------

    def _hello(self, _: manager.Hello, asker: Asker) -> None:
        above = os.getppid() if self.is_process and self.parent is not None else None
        asker.answer(manager.Welcome(self.myAddress, os.getpid() if self.is_process else None, above))

    def _start_pool(self, request: StartPool, asker: Asker) -> None:
        try:
            name = check_pool_name(request.name)
            self.registry.begin(name)
        except ActorPoolError as error:
            asker.answer(error)
            return

        def then(address: Any, error: Exception | None) -> None:
            self.registry.starting.discard(name)
            if error is None:
                self.registry.configs[name] = request.config
                asker.answer(address)
            else:
                cause = cause_of(error, name)
                log.error("Failed to start pool %s: %s: %s", name, name_of(cause), cause)
                asker.answer(cause)

        self.administer(StartChild(self._pool_spec(name, request.config)), then)

    def _pool_spec(self, name: str, config: PoolConfig | SharedPoolConfig, memory: Pickled | None = None) -> ChildSpec:
        args = {
            "directory": self._directory,
            "spin": spinwait.spin_seconds(self._options.get("spin", True)),
            "max_message": self._options.get("max_message", frames.MAX_MESSAGE),
            "sinks": self._options.get("sinks", ()),
            "metrics_interval": self._options.get("metrics_interval", 10.0),
        }
        return pool_child_spec(name, config, args=args if memory is None else args | memory.open())

    def _more_args(self, spec: Any) -> tuple[Pickled, ...]:
        """A pool begins with the present listeners, however old its spec is."""
        return (Pickled.of({"subscriptions": self.subscribers.pairs()}),) if spec.kind == "pool" else ()

    def _restore(self, spec: ChildSpec, runs: bool) -> None:
        """Take over a child of a predecessor; a pool that does not start is remembered as failed."""
        self._heritage.adopt(spec.id)
        if not runs:
            self.machine.register(spec)
            return
        load_class(POOL)
        pool = spec.id in self.registry

        def then(_address: Any, error: Exception | None) -> None:
            if error is not None:
                cause = cause_of(error, str(spec.id))
                log.error("Failed to start %s %s again: %s: %s", spec.kind, spec.id, name_of(cause), cause)
                if pool:
                    self.registry.failed[str(spec.id)] = cause

        self.administer(StartChild(spec), then)

    def _stop_pool(self, request: StopPool, asker: Asker) -> None:
        name = request.name
        if self.registry.failed.pop(name, None) is not None:
            asker.answer(None)
            return
        try:
            config = self.registry.retire(name, asker)
        except ActorPoolError as error:
            asker.answer(error)
            return
        child = self.machine.children.get(name)
        if child is not None and child.state is State.RUNNING:
            self.ask(child.address, requests.Retire(request.timeout), lambda _: self._remove(name, asker))
            self.set_timer(request.timeout + config.kill_after + 1.0, lambda: self._remove(name, asker))
        else:
            self._remove(name, asker)

    def _remove(self, name: str, asker: Asker) -> None:
        """End the pool's process and forget the pool; only once, and only for the present stop."""
        if self.registry.stopping.get(name) is not asker or self.registry.configs.pop(name, None) is None:
            return
        self._forwarder.forget(name)

        def forget(_value: Any, _error: Exception | None) -> None:
            self.administer(DeleteChild(name), done)

        def done(_value: Any, _error: Exception | None) -> None:
            del self.registry.stopping[name]
            asker.answer(None)

        self.administer(TerminateChild(name), forget)

    def _subscribe(self, request: Subscribe, asker: Asker) -> None:
        if isinstance(asker, MessageAsker):
            self.subscribers.add([Subscriber(request.pattern, asker.address, request.caller)])
            self.listeners_changed(asker)
        else:
            asker.answer(TypeError("only an actor can subscribe: events are messages"))

    def listeners_changed(self, asker: Asker | None = None) -> None:
        """Tell all pools the present listeners; `asker` hears when they know."""
        pairs = self.subscribers.pairs()
        self._hub.listen(pairs)
        self._post.forget(address for _, address in pairs)
        self._heritage.listeners_changed()
        pools = map(self.serving, self.registry.configs)
        SubscribeAll(self, asker).begin(pairs, [address for address in pools if address is not None])

    def serving(self, name: str | None) -> Any:
        """The address of the pool of that name; None while it does not run."""
        child = self.machine.children.get(name)
        return child.address if child is not None and child.state is State.RUNNING else None

    def _supervise(self, request: manager.Supervise, asker: Asker) -> None:
        spec = request.spec
        if isinstance(spec, SupervisorSpec):
            names = (f"supervisor-{number}" for number in itertools.count(1))
            spec = ChildSpec(next(name for name in names if name not in self.machine.children), spec)
        if isinstance(spec, ChildSpec):
            self.administer(StartChild(spec), lambda address, error: asker.answer(error or address))
        else:
            text = f"supervise() takes a SupervisorSpec or a ChildSpec, not {type(spec).__name__}"
            asker.answer(TypeError(text))

    def _route(self, request: Any, asker: Asker) -> None:
        self._routing.route(request.pool, request, asker)

    def _pass_on(self, message: Any, sender: Any) -> None:
        if problems := problems_of(message):
            log.warning("dropped a %s: %s", type(message).__name__, problems)
            return
        name = message.grant.pool if isinstance(message, Checkin) else message.pool
        self._routing.pass_on(name, message, sender)

    def on_change(self) -> None:
        """A child was started, has ended, or was administered: tell those that wait for it."""
        self.registry.keep_only(self.machine.children)
        self._heritage.tell()
        self._routing.deliver()

    # -- asking others ----------------------------------------------------------------------------------------

    def ask(self, address: Any, request: Request, then: Callable[[Any], None]) -> None:
        """Ask another actor; `then` gets its answer (an error as a value), or is never called."""
        self._questions.ask(address, request, then)

    # -- time, events, the end ----------------------------------------------------------------------------------

    def on_timer(self, payload: Any) -> None:
        """Something that was put off; or a deadline of the supervisor's own."""
        payload() if callable(payload) else super().on_timer(payload)

    def on_host_gone(self, ip: str | None) -> None:
        self.subscribers.host_gone(ip)

    def on_dead_letter(self, message: Any, address: Any) -> None:
        """Events or a lease without a receiver: the actor is gone, though its process lives."""
        if isinstance(message, (Event, requests.Events)):
            self.subscribers.forget(address)
        elif isinstance(message, Ok) and isinstance(message.value, Grant):
            self._pass_on(Checkin(message.value), address)
        else:
            super().on_dead_letter(message, address)

    def emit(self, name: str, measurements: dict[str, Any], metadata: dict[str, Any]) -> None:
        """Tell an event of this supervisor, or of one above or below it."""
        named = metadata.get("child") if metadata.get("supervisor") == self.child_id else metadata.get("pool")
        pool = named if isinstance(named, str) and named in self.registry.configs else None
        event = self._history.add(Event(name, pool, time.time(), measurements, metadata))
        self._post.add(self._hub.emit(event))
        if name == "supervisor.restarted" and (address := self.serving(pool)) is not None:
            SubscribeAll(self).begin(self.subscribers.pairs(), [address])  # there may be others than when it began

    def on_exit(self) -> None:
        """End all pools, side by side with nothing left behind."""
        self._post.deliver()
        super().on_exit()
        self._post.deliver()
        self.subscribers.close()
        if self._server is not None:
            self._server.close()
        self._hub.close()
        if self._own_directory is not None:
            shutil.rmtree(self._own_directory, ignore_errors=True)


_UNANSWERED = (Checkin, requests.Cancel, requests.Abandon, shared.CancelCall)
"""What the manager passes on, and which has no answer."""
_ROUTED = (WithConnection, Checkout, shared.SharedRequest)
"""What the manager passes on, with the asker to be answered."""

_VERBS: dict[type, Callable[[ConnectionManager, Any, Asker], None]] = {
    manager.Hello: ConnectionManager._hello,
    manager.Tree: lambda manager, _, asker: TreeBuilder(manager, asker).begin(),
    manager.Supervise: ConnectionManager._supervise,
    manager.Happened: lambda actor, event, _: actor.pass_up(event),
    ListPools: lambda manager, _, asker: asker.answer(manager.registry.names()),
    requests.Dropped: lambda manager, _, asker: asker.answer(manager._post.with_dropped(manager._hub)),
    manager.FindPool: lambda manager, request, asker: asker.answer(manager.registry.kind(request.name)),
    manager.GetEvents: lambda manager, request, asker: manager._history.answer(request, asker),
    StartPool: ConnectionManager._start_pool,
    StopPool: ConnectionManager._stop_pool,
    Subscribe: ConnectionManager._subscribe,
    GetPoolStatus: lambda manager, request, asker: manager._routing.route(request.name, request, asker),
}
