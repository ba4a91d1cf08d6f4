"""What the actors of both kinds of pools have in common: a core that decides, a channel, callers and workers."""

from __future__ import annotations

import gc
import logging
import os
import time
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from actorpool._arriving import problems_of, ref_of
from actorpool._dataclass import generate
from actorpool._protocol import manager, requests
from actorpool._protocol.orders import Init, Open
from actorpool._protocol.reports import Opened, Started
from actorpool.core.effects import Start
from actorpool.errors import InvalidConfig
from actorpool.messages import Err, Event, Ok
from actorpool.pools.holders import Asker, ChannelAsker, ChannelCaller, Holder, Holders, MessageAsker
from actorpool.pools.last_words import LastEnd, LastEnds
from actorpool.pools.stacks import Stacks
from actorpool.pools.worker_handles import WorkerHandle, WorkerHandles
from actorpool.serialization import pickling
from actorpool.supervisors.supervised import Supervised
from actorpool.thespian_adapter.shell import Shell, log
from actorpool.transport import bodies, frames, paths
from actorpool.transport.server import ChannelServer, ServerConn
from actorpool.workers.actor import WorkerActor

_OF_THE_MANAGER = frozenset({requests.Retire, requests.Listen})
"""What only the manager may ask for."""

REMEMBER_AFTER = 0.02
"""Seconds after a worker's end in which others may follow it; then the supervisor hears of all of them."""

LATER_ANSWER = object()
"""Returned by a verb whose answer comes with a later effect."""


class BasePoolActor(Supervised, Shell):
    """Base of a pool's actor. Everything runs in the pool's process.

    Attributes:
        effects: how each decision of the core is carried out.
        reports: what its workers tell it, by type.
        verbs: what it can be asked, by type.
        others: types of messages that are no question with one answer.
        kind: the actor class of its workers.
    """

    effects: ClassVar[Mapping[type, Callable[[Any, Any], None]]]
    reports: ClassVar[Mapping[type, Callable[[Any, Any], None]]]
    verbs: ClassVar[Mapping[type, Callable[[Any, Any, Asker], Any]]]
    others: ClassVar[frozenset[type]]
    kind: ClassVar[type[WorkerActor]] = WorkerActor
    title: ClassVar[str] = "pool"
    core: Any
    telemetry: Any

    def init(
        self,
        name: str,
        config: Any,
        directory: str | None = None,
        spin: float = 0.0,
        max_message: int = frames.MAX_MESSAGE,
        sinks: tuple[Any, ...] = (),
        subscriptions: tuple[tuple[str, Any], ...] = (),
        metrics_interval: float = 10.0,
        kept: Any = None,
        ends: dict[int, LastEnd] | None = None,
    ) -> Any:
        """Start the pool.

        Args:
            name: the pool's name.
            config: its settings.
            directory: where its socket and its workers' are; None: messages only.
            spin: seconds to look again before blocking on the channel.
            max_message: bytes a frame may have.
            sinks: settings of the telemetry sinks, opened here.
            subscriptions: (pattern, address) pairs of those that get events as messages.
            metrics_interval: seconds between two samples.
            kept, ends: what `remember` has last told the supervisor.
        """
        self.name, self.config = name, config
        prepared = self._prepare(kept)
        self._begin_serving(directory, spin, max_message)
        self._begin_ends(ends)
        return self._begin(kept, prepared, (sinks, subscriptions, metrics_interval))

    def _prepare(self, kept: Any) -> Any:
        """What comes before the first descriptor is open; its value is for `_begin`."""

    def _begin(self, kept: Any, prepared: Any, listeners: tuple[Any, Any, float]) -> Any:
        """Make the telemetry, for these listeners, and the core, and carry out what that decides first."""
        raise NotImplementedError

    def _begin_serving(self, directory: str | None, spin: float, max_message: int) -> None:
        self.directory = directory if self.can_watch else None
        self.spin, self.max_message = spin, max_message
        self._armed: float | None = None
        self._server: ChannelServer | None = None
        if self.directory is not None:
            path = paths.pool(self.directory, self.name)
            self._server = ChannelServer(path, self, outside=self.messages, spin=spin, max_message=max_message)
        self._holders = Holders(self._server, self._holder_gone, self.hear_of_hosts)
        self.worker_handles = WorkerHandles(self, self._server, self.directory, self._worker_gone, self.kind)

    def _begin_ends(self, kept: dict[int, LastEnd] | None) -> None:
        self.ends = LastEnds(kept)
        self.stacks = Stacks(self)
        self._remembered: dict[str, Any] = {} if kept is None else {"ends": kept}
        self._to_remember = False

    def _note_end(self, hand: WorkerHandle, reason: str, in_order: bool, restarted: bool = False) -> None:
        """A worker has ended. Unless it was in good order, have this known, also if this process is killed."""
        why = f"{reason}, since it had not answered in time" if hand.killed else reason
        then = "; it is restarted" if restarted else ""
        level = logging.DEBUG if in_order else logging.WARNING
        log.log(level, "%s %s: worker %s (pid %s) is gone: %s%s", self.title, self.name, hand.id, hand.pid, why, then)
        if in_order:
            return
        self.ends.add(hand.place, f"{why} (pid {hand.pid})", hand.words)
        if not self._to_remember:  # many may die together
            self._to_remember = True
            self.set_timer(REMEMBER_AFTER, self._remember_ends)

    def _remember_ends(self) -> None:
        self._to_remember = False
        self.remember_also(ends=self.ends.kept())

    def remember_also(self, **args: Any) -> None:
        """As `remember`, with what was said before."""
        self._remembered.update(args)
        self.remember(**self._remembered)

    @staticmethod
    def load_for_workers() -> None:
        """Load what each worker would else load by itself; in the manager, from which pools are forked, or here."""
        generate(Init, Open, Started, Opened, Event)
        import cloudpickle  # noqa: F401 - needed by the first function that a worker gets by value

    def _share_memory(self) -> None:
        """Before the first fork: what is loaded so far remains shared with every worker."""
        if self.is_process:
            self.load_for_workers()
            gc.collect()
            gc.freeze()

    # -- incoming: messages ---------------------------------------------------------------------------------

    def on_message(self, message: Any, sender: Any) -> None:
        """Anything that is no system message: a worker's report, or what others want.

        The latter is looked at before anything is done with it, and that is the one step in which it can fail. What
        is raised after it is an error of our own, and a crash.
        """
        if not hasattr(self, "core"):
            return
        if type(message) is manager.Routed:
            if problems_of(message) or message.asker is None:
                return
            message, sender = message.request, message.asker
        if type(message) in self.reports:
            hand = self.worker_handles.find(getattr(message, "worker_id", None))
            if hand is not None and hand.address == sender:  # else it is a stranger's, or of one that is gone
                self._on_report(message)
        elif not isinstance(message, (Ok, Err)):  # to answer an answer would be the first step of a storm
            asker = MessageAsker(self, sender, ref_of(message))
            error = self._refusal(message, sender)
            if error is not None:
                asker.answer(error)
            elif type(message) in self.verbs:
                self._ask(message, asker)
            else:
                self._other(message, sender)
        self._arm()

    def _refusal(self, message: Any, sender: Any) -> Exception | None:
        """What is wrong with a message, before anything is done with it; it has no `sender` if it came by channel."""
        kind = type(message)
        known = kind in self.verbs or (kind in self.others and sender is not None)
        if not known or (kind in _OF_THE_MANAGER and (sender is None or self.parent not in (None, sender))):
            text = f"{self.title} {self.name!r} does not understand {kind.__name__}"
            log.warning("%s", text)
            return TypeError(text)
        problems = problems_of(message)
        if problems:
            return InvalidConfig(kind.__name__, problems)
        return self._unpacked(message)

    def _unpacked(self, _message: Any) -> Exception | None:
        """Rebuild what the pool has to look at of what a user gave; what that raised."""
        return None

    def _ask(self, request: Any, asker: Asker) -> None:
        answer = self.verbs[type(request)](self, request, asker)
        if answer is not LATER_ANSWER:
            asker.answer(answer)

    def _other(self, message: Any, sender: Any) -> None:
        raise NotImplementedError

    def _on_report(self, message: Any) -> None:
        self.reports[type(message)](self, message)

    # -- incoming: the channel ------------------------------------------------------------------------------

    def _on_ask(self, peer: ServerConn, ref: int, body: bytes | memoryview) -> None:
        """A request by channel, looked at as if it were a message."""
        asker = ChannelAsker(peer, ref)
        try:
            request = bodies.request(body)
            error = self._refusal(request, None)
        except BaseException as raised:  # what a stranger has pickled may raise anything
            error = raised if isinstance(raised, Exception) else ValueError(f"the request raised {raised!r}")
        if error is not None:
            asker.answer(error)
        else:
            self._ask(request, asker)

    def _on_order(self, peer: ServerConn, kind: int, body: bytes | memoryview) -> None:
        """What the manager passes on; no other process may give orders."""
        if kind != frames.ROUTED or peer.pid != os.getppid():
            raise frames.BadFrame(f"a frame of kind {kind} is not for process {peer.pid} to send")
        try:
            routed = pickling.loads(body)
        except BaseException as error:  # the same
            log.warning("%s %s: dropped what cannot be rebuilt here: %r", self.title, self.name, error)
            return
        if type(routed) is manager.Routed:
            self.on_message(routed, None)

    def _welcome(self, peer: ServerConn) -> ChannelCaller | None:
        """The caller at the other end; None if that process has died: its request must not be begun."""
        holder = ChannelCaller(peer)
        # A process of another pid namespace has the pid 0 here. The end of its connection tells of its death.
        if not self._holders.add(holder) and peer.pid:
            return None
        peer.state = holder
        return holder

    def on_gone(self, peer: ServerConn) -> None:
        """A client closed its end: what it waited for or held is over. (A worker's end is told by its death.)"""
        if isinstance(peer.state, ChannelCaller):
            self._holder_gone(peer.state)
            self._holders.remove(peer.state)

    # -- incoming: descriptors, deaths, time ------------------------------------------------------------------

    def watched(self) -> list[int]:
        """The one descriptor behind which all connections and death watches are."""
        server = getattr(self, "_server", None)
        return [server.descriptor] if server is not None else []

    def on_watch(self) -> None:
        """Something arrived on the channel, or a watched process died."""
        assert self._server is not None
        self._server.serve()
        self._arm()

    def on_child_exit(self, address: Any) -> None:
        """Thespian tells the death of a worker (the pidfd has often told it before)."""
        id = self.worker_handles.id_of(address)
        if id is not None:
            self._worker_gone(id, self.exit_status)

    def _worker_gone(self, id: int, status: int | None = None) -> None:
        raise NotImplementedError

    def on_host_gone(self, ip: str | None) -> None:
        """What callers of that host hold is over."""
        if hasattr(self, "core"):
            self._holders.host_gone(ip)
            self._arm()

    def _holder_gone(self, holder: Holder) -> None:
        self.carry_out(self.core.caller_down(time.monotonic(), holder))

    def _arm(self) -> None:
        """Ask Thespian for a timer, unless one that is early enough is on its way."""
        deadline = self.deadline()
        if deadline is not None and (self._armed is None or deadline < self._armed):
            self._armed = deadline
            self.set_timer(deadline - time.monotonic(), "tick")

    # -- outgoing -------------------------------------------------------------------------------------------

    def carry_out(self, decided: list[Any]) -> None:
        """Do what the core decided, in order."""
        effects = self.effects
        for effect in decided:
            effects[type(effect)](self, effect)

    def _start_first(self, decided: list[Any]) -> list[Any]:
        """Of what the core decided, fork the processes now, for callers wait for them; what remains to be done."""
        self.carry_out([effect for effect in decided if type(effect) is Start])
        return [effect for effect in decided if type(effect) is not Start]

    def _end_serving(self, kill_after: float) -> None:
        """End every worker process and leave nothing behind. Blocks at most `kill_after` seconds."""
        self.worker_handles.end_all(kill_after)
        self._holders.close()
        if self._server is not None:
            self._server.close()
