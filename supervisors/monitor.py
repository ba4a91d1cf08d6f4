"""Monitors: tell an actor, exactly once, that a process is gone.

A process of this host is watched by its pidfd, which becomes readable when the process ends; where the kernel has
none, or an actor's system base cannot watch descriptors, its pid and start time are looked at every `POLL_EVERY`
seconds. A process is named by pid and start time, so a recycled pid is never mistaken for it.
"""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any

from thespian.actors import ActorExitRequest, ThespianWatch, WakeupMessage, WatchMessage

from actorpool import process
from actorpool._dataclass import dataclass
from actorpool.messages import Down, new_ref
from actorpool.process import Caller

POLL_EVERY = 0.05
"""Seconds between two looks: half of the 0.1 s within which a dead caller's lease is back."""
EXITED = "exited"
NO_PROCESS = "noproc"
"""Reason of a `Down` for a process that was gone before it was monitored (Erlang's word)."""


class DeathWatch:
    """The processes that are watched for their death. Opens descriptors, sends nothing, waits for nothing.

    Args:
        polling: use no pidfd (tests, and bases that cannot watch); None: only where there is none, or where the
            environment says `ACTORPOOL_POLLING=1`.
    """

    def __init__(self, polling: bool | None = None) -> None:
        self._polling = os.environ.get("ACTORPOOL_POLLING") == "1" if polling is None else polling
        self._descriptors: dict[Caller, int | None] = {}
        self._callers: dict[int, Caller] = {}
        self._looked = float("-inf")

    def watch(self, caller: Caller) -> int | None:
        """Start to watch; the descriptor that becomes readable at its death, or None: call `poll` from time to time.

        Raises:
            ProcessLookupError: it is already gone.
            ValueError: it is a process of another host.
        """
        if caller in self._descriptors:
            return self._descriptors[caller]
        if not caller.is_here:
            raise ValueError(
                f"pid {caller.pid} is a process of host {caller.host}; only those of {process.HOST} are seen"
            )
        descriptor = None if self._polling else process.watch_descriptor(caller.pid)
        if not caller.alive():  # looked at after the pidfd was opened: it is that process's, or the process is gone
            if descriptor is not None:
                os.close(descriptor)
            raise ProcessLookupError(f"pid {caller.pid} is gone")
        self._descriptors[caller] = descriptor
        if descriptor is not None:
            self._callers[descriptor] = caller
        return descriptor

    def forget(self, caller: Caller) -> None:
        """Stop to watch it (if it was watched)."""
        descriptor = self._descriptors.pop(caller, None)
        if descriptor is not None:
            del self._callers[descriptor]
            os.close(descriptor)

    def died(self, descriptor: int) -> Caller | None:
        """The process that made the descriptor readable by its death, now forgotten; None for a stale notice."""
        caller = self._callers.get(descriptor)
        if caller is None or caller.alive():
            return None
        self.forget(caller)
        return caller

    def poll(self, now: float) -> list[Caller]:
        """Those without a descriptor that are gone, now forgotten; looks no more often than every `POLL_EVERY`."""
        if now < self._looked + POLL_EVERY:
            return []
        self._looked = now
        return self.look()

    def look(self) -> list[Caller]:
        """As `poll`, at once."""
        dead = [caller for caller, descriptor in self._descriptors.items() if descriptor is None and not caller.alive()]
        for caller in dead:
            self.forget(caller)
        return dead

    @property
    def descriptors(self) -> list[int]:
        """What to wait for."""
        return list(self._callers)

    @property
    def polled(self) -> bool:
        """Whether `poll` has anything to look at."""
        return len(self._callers) < len(self._descriptors)

    def close(self) -> None:
        """Forget them all."""
        for caller in list(self._descriptors):
            self.forget(caller)


def monitor(actor: Any, pid_or_caller: int | Caller, *, polling: bool | None = None) -> Any:
    """Have `Down(ref, pid, reason)` sent to `actor` exactly once, when a process of this host is gone.

    Runs in: the actor's own process, inside `receiveMessage` (any Thespian actor; not in its `__init__`). The reason
    is "exited", or "noproc" for a process that was already gone. Monitors end with the actor.

    Args:
        actor: `self`.
        pid_or_caller: a pid, or the `Caller` that a request carries (which a recycled pid is not mistaken for).
        polling: see `DeathWatch`.

    Returns:
        The reference that the `Down` will carry.

    Raises:
        ValueError: the process is another host's.
    """
    monitors = actor.__dict__.get("_actorpool_monitors")
    if monitors is None:
        can_watch = hasattr(getattr(actor._myRef, "transport", None), "set_watch")
        monitors = actor._actorpool_monitors = _Monitors(actor, polling if can_watch else True)
    ref = new_ref()
    if isinstance(pid_or_caller, Caller):
        monitors.add(ref, pid_or_caller)
    else:
        monitors.add(ref, Caller(process.HOST, pid_or_caller, process.start_time(pid_or_caller) or -1.0))
    return ref


def demonitor(actor: Any, ref: Any) -> bool:
    """End a monitor: its `Down` is not sent any more (Erlang's `demonitor`).

    Code that monitors long-lived processes again and again must end what it no longer needs, or they add up.

    Args:
        actor: `self`, as for `monitor`.
        ref: what `monitor` returned.

    Returns:
        Whether it was still there; if not, its `Down` was sent.
    """
    monitors = actor.__dict__.get("_actorpool_monitors")
    return monitors is not None and monitors.remove(ref)


@dataclass(frozen=True)
class _Look:
    """An actor's word to itself: set the watch, look at the polled."""


class _Monitors:
    """The monitors of one actor: called before its `receiveMessage`, so that they share Thespian's one watch list."""

    def __init__(self, actor: Any, polling: bool | None) -> None:
        self._actor = actor
        self._receive = actor.receiveMessage
        self._watch = DeathWatch(polling)
        self._refs: dict[Caller, dict[Any, None]] = {}
        self._callers: dict[Any, Caller] = {}
        self._own_watches: list[int] = []  # what the actor itself asked to have watched
        self._looks = False  # whether a timer is set
        actor.receiveMessage = self.receive

    def add(self, ref: Any, caller: Caller) -> None:
        try:
            self._watch.watch(caller)
        except ProcessLookupError:
            self._send(Down(ref, caller.pid, NO_PROCESS))
            return
        self._refs.setdefault(caller, {})[ref] = None
        self._callers[ref] = caller
        if self._watch.polled:
            self._look_later()
        else:
            self._send(_Look())  # its answer to Thespian is what sets the watch

    def remove(self, ref: Any) -> bool:
        caller = self._callers.pop(ref, None)
        if caller is None:
            return False
        del self._refs[caller][ref]
        if not self._refs[caller]:
            del self._refs[caller]
            self._watch.forget(caller)
            self._send(_Look())
        return True

    def receive(self, message: Any, sender: Any) -> Any:
        """Thespian's entry point of the actor from now on."""
        if isinstance(message, WakeupMessage) and isinstance(message.payload, _Look):
            self._looks = False
            for caller in self._watch.look():
                self._report(caller)
            if self._watch.polled:
                self._look_later()
        elif isinstance(message, WatchMessage):
            theirs = [ready for ready in message.ready if not self._is_death(ready)]
            if theirs:
                self._pass_on(WatchMessage(theirs), sender)
        elif not isinstance(message, _Look):
            self._pass_on(message, sender)
        watches = self._own_watches + self._watch.descriptors
        return ThespianWatch(watches) if watches else None

    def _pass_on(self, message: Any, sender: Any) -> None:
        try:
            result = self._receive(message, sender)
        except Exception:
            self._send(_Look())  # Thespian forgets the whole watch list when an actor raises
            raise
        self._own_watches = list(result.filenos) if isinstance(result, ThespianWatch) else []
        if isinstance(message, ActorExitRequest):
            self._watch.close()

    def _is_death(self, descriptor: int) -> bool:
        if descriptor in self._own_watches:
            return False
        caller = self._watch.died(descriptor)
        if caller is not None:
            self._report(caller)
        return True

    def _report(self, caller: Caller) -> None:
        for ref in self._refs.pop(caller):
            del self._callers[ref]
            self._send(Down(ref, caller.pid, EXITED))

    def _look_later(self) -> None:
        if not self._looks:
            self._looks = True
            self._actor.wakeupAfter(timedelta(seconds=POLL_EVERY), _Look())

    def _send(self, message: Any) -> None:
        self._actor.send(self._actor.myAddress, message)
