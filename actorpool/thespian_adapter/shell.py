"""Thespian from the inside: the base of all our actors. Nothing else under an actor imports Thespian.

Rules kept here, once, for all actors (the facts behind them are in docs/decisions.md):
nothing escapes `receiveMessage` (Thespian would run the message a second time); a crash is an explicit act that
tells the parent its reason; a child's death is delivered once, however often Thespian says it; the process dies
with its parent.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import math
import os
import signal
import sys
import time
import traceback
from datetime import timedelta
from typing import Any

from thespian.actors import (
    Actor,
    ActorAddress,
    ActorExitRequest,
    ActorSystemConventionUpdate,
    ActorSystemMessage,
    ChildActorExited,
    DeadEnvelope,
    PoisonMessage,
    ThespianWatch,
    WakeupMessage,
    WatchMessage,
)
from thespian.system.transport import TransmitOnly
from thespian.system.utilis import withPossibleInitArgs

from actorpool import _offspring, process
from actorpool._dataclass import dataclass
from actorpool.errors import MessageTooBig
from actorpool.thespian_adapter import patches
from actorpool.thespian_adapter.sending import share_sending

log = logging.getLogger("actorpool")

__all__ = ["Actor", "ActorAddress", "ActorExitRequest", "ChildActorExited", "Exiting", "Shell", "flush_log", "log"]

CRASHED = 70  # the exit status of an actor that ended itself because of an error (EX_SOFTWARE)


def flush_log() -> None:
    """Write what the log holds back of this process, such as the number of equal lines that were left out."""
    for handler in logging.getLogger().handlers:
        handler.flush()


DATAGRAM = 60_000
"""Bytes of content that fit into a message over UDP, with all that is around it."""
UDP_ADVICE = f"it takes {DATAGRAM:,} at most. Use the TCP base, which is the default"
FAREWELL = 0.2
"""Seconds for the last messages of an ending actor to leave it."""


@dataclass(frozen=True)
class Exiting:
    """Sent by a child to its parent before it ends by itself; no such message means an abnormal end."""

    reason: Any
    traceback: str = ""


class Messages:
    """Thespian's side of an actor that also serves a channel: so that neither makes the other wait."""

    def __init__(self, actor: Shell) -> None:
        self._transport = actor._myRef.transport
        self._deadline = actor.deadline

    def pending(self) -> bool:
        """Whether messages are to be sent or handled."""
        transport = self._transport
        return bool(transport._transmitIntents or transport._waitingTransmits or transport._incomingEnvelopes)

    def patience(self) -> float:
        """Seconds until a timer runs out, or the actor's own deadline."""
        timers, deadline = self._transport._pendingWakeups, self._deadline()
        left = timers[0][0].view().remainingSeconds() if timers else math.inf
        return left if deadline is None else min(left, deadline - time.monotonic())

    def descriptors(self) -> list[int]:
        """What becomes readable when a message arrives."""
        transport = self._transport
        kept = (idle.socket.fileno() for idle in getattr(transport, "_openSockets", {}).values())
        return [transport.socket.fileno(), *transport._incomingSockets, *kept]


def drop_connection(actor: Any, child: ActorAddress) -> bool:
    """Close the connection that Thespian keeps to a child which is spoken to otherwise from now on.

    Thespian looks at every kept connection in each turn of its loop: a pool of 400 workers would crawl.

    Returns:
        Whether the child has greeted its parent by now; if not, its connection is still to come.
    """
    address = actor._myRef._addrManager.exportAddr(child)
    kept = getattr(getattr(actor._myRef, "transport", None), "_openSockets", {})
    idle = kept.pop(address.addressDetails, None) if address is not None else None
    if idle is not None:
        idle.socket.close()
    return address is not None


def ip_of(address: Any) -> str | None:
    """The address of an actor's host; None where actors have none."""
    place = getattr(getattr(address, "addressDetails", None), "sockname", None)
    return place[0] if isinstance(place, tuple) and place else None


class Shell(Actor):  # type: ignore[misc]
    """A thin actor: turns each message into one call of a hook. All hooks run in the actor's own process.

    Hooks: `on_message(message, sender)`, `on_timer(payload)`, `on_watch()`, `on_child_exit(address)`, `on_exit()`.
    `watched()` returns the descriptors Thespian should watch.
    """

    parent: ActorAddress | None = None
    exit_status: int | None = None
    """In `on_child_exit`: the exit status of the child's process, or minus the signal that ended it, if it had one."""
    start_error: str | None = None
    """In `on_child_exit`: why no process could be started for the child, if it never had one."""
    _entered = False
    _ended = False

    def receiveMessage(self, message: Any, sender: ActorAddress) -> Any:  # noqa: N802
        """Thespian's entry point; nothing is ever raised out of it."""
        try:
            self.enter()
            self._dispatch(message, sender)
        except BaseException as error:
            process.end_copy(error)
            if not isinstance(error, Exception):
                raise
            self._crash(error, message)
        process.end_copy()
        return self.watch()

    def watch(self) -> Any:
        """What Thespian wants to be returned, to watch `watched()`."""
        descriptors = [] if self._ended else self.watched()
        return ThespianWatch(descriptors) if descriptors else None

    def enter(self) -> None:
        """Become an actor's process, once: before the first message, or before `init`."""
        if not self._entered:
            self._entered = True
            if self.is_process:
                gc.freeze()  # its collector never looks through what it was forked with: that would copy every page
                process.link_to_parent()
                process.adopt_orphans()
                process.die_of_faults()
                patches.keep_loggers()
                patches.tell_every_death(self._myRef)
                patches.keep_start_errors(self._myRef)
                share_sending(self._myRef)
                self.on_process()
                process.become_actor()

    def _dispatch(self, message: Any, sender: ActorAddress) -> None:
        if isinstance(message, WatchMessage):
            self.on_watch()
        elif isinstance(message, WakeupMessage):
            self.on_timer(message.payload)
        elif isinstance(message, ChildActorExited):
            self._child_exited(message.childAddress)
        elif isinstance(message, ActorExitRequest):
            self._ended = True
            if self.can_watch:  # Thespian goes on watching while it drains, and a closed descriptor's number is reused
                self._myRef.transport.set_watch([])
            self.on_exit()
            self.leave()
        elif isinstance(message, PoisonMessage):
            self.on_undelivered(message.poisonMessage, message.details)
        elif isinstance(message, DeadEnvelope):
            self.on_dead_letter(message.deadMessage, message.deadAddress)
        elif isinstance(message, ActorSystemConventionUpdate):
            if not message.remoteAdded:
                self.on_host_gone(ip_of(message.remoteAdminAddress))
        elif not isinstance(message, ActorSystemMessage):
            self.on_message(message, sender)

    def _child_exited(self, address: ActorAddress) -> None:
        # Thespian says it twice after a graceful end and after a failed __init__; the hook hears it once.
        index = next((index for index, (living, _) in enumerate(self._living) if living == address), None)
        if index is not None:
            known, running = self._living.pop(index)
            self.start_error = running if isinstance(running, str) else None
            self.exit_status = getattr(running, "exitcode", None)
            self.on_child_exit(address)
            patches.forget_child(self._myRef, known)

    def _crash(self, error: Exception, message: Any) -> None:
        text = traceback.format_exc()
        log.error("%s pid %d crashed on %s:\n%s", type(self).__name__, os.getpid(), type(message).__name__, text)
        self.exit_with(f"{type(error).__name__}: {error}", text)

    # -- what an actor does -------------------------------------------------------------------------------

    @property
    def is_process(self) -> bool:
        """Whether this actor has a process of its own (simpleSystemBase hosts all actors in one)."""
        return hasattr(getattr(self, "_myRef", None), "transport")  # without one: it is in no actor system yet

    @property
    def can_watch(self) -> bool:
        """Whether Thespian can watch descriptors for this actor (the TCP base can)."""
        return hasattr(getattr(self._myRef, "transport", None), "set_watch")

    def fitting(self, data: bytes) -> bytes:
        """The data, if a message of this actor can hold so much.

        Raises:
            MessageTooBig: over UDP, which has no more than a datagram for it.
        """
        if len(data) > DATAGRAM and self.is_process and not self.can_watch:
            raise MessageTooBig(f"{len(data):,} bytes do not fit into a message of the UDP base: {UDP_ADVICE}")
        return data

    @property
    def messages(self) -> Messages | None:
        """Thespian's messages, for the server of the channel of an actor that `can_watch`."""
        return Messages(self) if self.can_watch else None

    @property
    def sends_together(self) -> bool:
        """Whether one message can hold several for its receiver: the node's transport unfolds it."""
        return getattr(getattr(self._myRef, "transport", None), "unfolds", False)

    def waits_for(self, address: ActorAddress) -> bool:
        """Whether messages wait here until their receiver has taken what was sent before."""
        shares = getattr(self._myRef, "shares", None)
        return shares is not None and shares.waits_for(address.addressDetails)

    @property
    def _living(self) -> list[tuple[ActorAddress, Any]]:
        return self.__dict__.setdefault("_living_children", [])  # type: ignore[no-any-return]

    def spawn(self, actor: Any, requirements: Any = None, first: Any = None) -> tuple[ActorAddress, int | None]:
        """Create a child; returns its address and, where it has one, the pid of its process.

        Args:
            actor: its class.
            requirements: capabilities of the system it may run in.
            first: its first message. A child that is forked here by a node's transport has it in its memory.
        """
        with process.linked_forks(), patches.first_message(self._myRef, first) as handed:
            address = self.createActor(actor, targetActorRequirements=requirements)
        started = getattr(self._myRef, "_child_procs", None)
        newest = started[-1] if started else None
        running = newest.childProc if newest is not None and newest.childAddr == address else None
        error = patches.start_error(self._myRef) if running is None else None
        if error is not None:
            log.error("a child of %s pid %d: %s", type(self).__name__, os.getpid(), error)
        self._living.append((address, running if error is None else error))
        if first is not None and not (handed and running is not None):
            self.send(address, first)
        return address, running.pid if running is not None else None

    def ending(self, status: int | None) -> str:
        """How the child of `on_child_exit` has ended, in words."""
        if self.start_error is not None and status is None:
            return self.start_error
        return "unknown" if status is None else process.ending(status)

    def instantiate_in_place(self, actor: Any) -> Any:
        """An object of an actor class in this actor's place: with its address, children and process."""
        capabilities = getattr(self._myRef, "capabilities", None) or self._myRef._system.capabilities
        instance = withPossibleInitArgs(capabilities=capabilities, requirements=None).create(actor)
        instance._myRef = self._myRef
        return instance

    def set_timer(self, seconds: float, payload: Any = None) -> None:
        """Have `on_timer(payload)` called after `seconds`; it cannot be cancelled, so make stale ones harmless."""
        self.wakeupAfter(timedelta(seconds=max(seconds, 0.001)), payload)

    def exit_with(self, reason: Any, text: str = "") -> None:
        """End this actor by itself, telling the parent why first."""
        if self.parent is not None:
            self.send(self.parent, Exiting(reason, text))
        self.send(self.myAddress, ActorExitRequest())

    def leave(self) -> None:
        """End the process now, once what was sent has left it.

        Thespian's own farewell waits for the parent to take it, and a parent that is ending its children does not; it
        learns of the death by SIGCHLD. Whatever was started here, and is left, ends before this process does.
        """
        if self.is_process:
            signal.signal(signal.SIGALRM, lambda *_: _end_process())
            signal.setitimer(signal.ITIMER_REAL, 2 * FAREWELL)  # a transport that is in a transmission keeps no time
            self._myRef.transport.run(TransmitOnly, timedelta(seconds=FAREWELL))
            patches.clear_places(self._myRef)
            signal.setitimer(signal.ITIMER_REAL, 0)
            logging.shutdown()
            _end_process()

    def end_orphans(self) -> None:
        """End what dead children of this actor have left running. For actors that start nothing but actors."""
        if self.is_process:
            _offspring.end_strangers(patches.processes_of(self._myRef))

    def end_child(self, address: ActorAddress) -> None:
        """Ask a child to end (its exit hook runs)."""
        self.send(address, ActorExitRequest())

    # -- hooks --------------------------------------------------------------------------------------------

    def on_process(self) -> None:
        """Once, before the first message, in an actor that has its own process."""

    def hear_of_hosts(self) -> None:
        """Have Thespian tell which hosts its convention has lost, in `on_host_gone`."""
        self.notifyOnSystemRegistrationChanges()

    def on_host_gone(self, ip: str | None) -> None:
        """A host is no longer a member of Thespian's convention."""

    def on_message(self, message: Any, sender: ActorAddress) -> None:
        """A message that is not Thespian's own."""

    def on_timer(self, payload: Any) -> None:
        """A timer of `set_timer` ran out."""

    def on_watch(self) -> None:
        """A watched descriptor is readable."""

    def on_child_exit(self, address: ActorAddress) -> None:
        """A child created by `spawn` is gone; called exactly once for each."""

    def on_undelivered(self, message: Any, why: str) -> None:
        """A message of this actor did not arrive, or its receiver failed on it."""
        log.debug("undelivered: %s: %s", type(message).__name__, why)

    def on_dead_letter(self, message: Any, address: ActorAddress) -> None:
        """A message of any sender, in a system whose dead letters this actor handles: its receiver is gone."""
        self.on_undelivered(message, "its receiver is gone")

    def on_exit(self) -> None:
        """The actor ends after this; may block for a bounded time."""

    def watched(self) -> list[int]:
        """The descriptors to watch from now on."""
        return []

    def deadline(self) -> float | None:
        """When there is something to do that no message tells, in monotonic seconds; the channel leaves it time."""
        return None


def _end_process() -> None:
    _offspring.end_all()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):  # closed, or not read any more
            stream.flush()
    os._exit(0)
