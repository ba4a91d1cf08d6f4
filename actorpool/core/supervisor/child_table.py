"""The children of one supervisor and their processes: how one is started and how some are stopped, as steps of plans.

Knows nothing of strategies. Starting and stopping end with an event about a token; everything that waits for it is a
plan and is resumed by `settled`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable
from typing import Any

from actorpool.core.machine import Backoff, Intensity, Retry
from actorpool.core.supervisor.children import DIED, KILLED, SHUTDOWN, Child, End, Spec, State, ended_as_asked
from actorpool.core.supervisor.events import (
    Began,
    Due,
    Effect,
    Exited,
    Ignored,
    Kill,
    Leaving,
    Refused,
    Remembered,
    Report,
    Start,
    Terminate,
    Timer,
)
from actorpool.core.supervisor.plans import Sequencer, Steps

_FORMER = 1000  # ended children of simple_one_for_one with an address that is still recognized as a former child's


class ChildTable:
    """The children, in order of start.

    Args:
        dynamic: children are many of one spec, and their specs go with them.
        new_intensity: gives the window in which a new child's restarts count.
        backoff: bounds of the delays between restarts; None is none.
    """

    def __init__(self, dynamic: bool, new_intensity: Callable[[], Intensity], backoff: Backoff | None) -> None:
        self.children: dict[Hashable, Child] = {}
        self.former: deque[Any] = deque(maxlen=_FORMER)
        self.plans = Sequencer()
        self.effects: list[Effect] = []
        self.now = 0.0
        self._dynamic = dynamic
        self._new_intensity = new_intensity
        self._backoff = backoff
        self._tokens: dict[int, Child] = {}
        self._timers: dict[int, Callable[[], None]] = {}
        self._last_number = 0

    # -- children ------------------------------------------------------------------------------------------------

    def register(self, key: Hashable, spec: Spec, extra: Any = None) -> Child:
        """Add a child, not started yet, behind all others."""
        retry = Retry(self._backoff) if self._backoff is not None else None
        child = Child(key, spec, self._new_intensity(), retry, dynamic=self._dynamic, extra=extra)
        self.children[key] = child
        return child

    def retire(self, child: Child) -> None:
        """The child must not run any more. Its spec is kept, unless it is temporary or dynamic."""
        child.state = State.STOPPED
        if child.dynamic or child.temporary:
            self.forget(child)

    def forget(self, child: Child) -> None:
        """Drop a child and its spec."""
        self.children.pop(child.key, None)
        if child.dynamic and child.address is not None:
            self.former.append(child.address)

    def new_number(self) -> int:
        """A number that was never used before, for tokens, timers and keys."""
        self._last_number += 1
        return self._last_number

    # -- steps of plans -------------------------------------------------------------------------------------------

    def start(self, child: Child) -> Steps[End | None]:
        """Start it and wait; gives how it failed, or None: it runs, or its init asked to be ignored."""
        child.token, child.state, child.end = self.new_number(), State.STARTING, None
        self._tokens[child.token] = child
        self.effects.append(Start(child.token, child.spec, child.extra, child.memory))
        yield [child.token]
        if child.state is State.RUNNING:
            return None
        if child.end is None and (child.dynamic or child.temporary):
            self.forget(child)
        return child.end

    def stop(self, children: list[Child]) -> Steps[None]:
        """Stop them side by side, under one timer, and wait until all are gone."""
        ended = [child for child in children if child.alive or child.state is State.DEAD]
        stopping = [child for child in ended if child.state in (State.STARTING, State.RUNNING)]
        for child in stopping:
            child.state = State.STOPPING
        self._let_go(stopping)
        waiting = [child.token for child in ended if child.alive]
        refused = [child for child in ended if child.state is State.LEAVING]
        if waiting:
            yield waiting
        for child in ended:
            if child not in refused and not ended_as_asked(child):
                self.report("stop_failed", child)
        for child in children:
            child.state = State.STOPPED

    def _let_go(self, children: list[Child]) -> None:
        """Have them end: at once, or within the `shutdown` of the first (several have one spec)."""
        if not children:
            return
        tokens = [child.token for child in children]
        within = children[0].spec.shutdown
        if within == "brutal_kill":
            self._kill(tokens)
            return
        self.effects.extend(map(Terminate, tokens))
        if within != "infinity":
            self.after(float(within), lambda: self._kill(tokens))

    def _kill(self, tokens: list[int]) -> None:
        for token in tokens:
            child = self._tokens.get(token)
            if child is not None:
                child.end = child.end or (End(KILLED) if child.state is State.STOPPING else None)
                self.effects.append(Kill(token))

    def after(self, delay: float, action: Callable[[], None]) -> None:
        """Call `action` in `delay` seconds. There is no way back: it must find out itself that it is stale."""
        number = self.new_number()
        self._timers[number] = action
        self.effects.append(Timer(delay, number))

    def report(self, kind: str, child: Child, end: End | None = None) -> None:
        """Have something logged about a child and the way it ended."""
        window = child.intensity
        count = window.count(self.now)
        told = end or child.end or End(DIED)
        self.effects.append(
            Report(kind, child.spec.id, child.pid, told, count, window.max_restarts, window.max_seconds)
        )

    # -- events ---------------------------------------------------------------------------------------------------

    def on_began(self, event: Began) -> None:
        """A child runs."""
        child = self._tokens.get(event.token)
        if child is not None and child.state is State.STARTING:
            child.state, child.address, child.pid, child.started_at = State.RUNNING, event.address, event.pid, self.now
            self.plans.settled(event.token)

    def on_not_begun(self, event: Ignored | Refused) -> None:
        """A child does not run; its start is over once its process is gone."""
        child = self._tokens.get(event.token)
        if child is not None and child.state is State.STARTING:
            child.state, child.end = State.LEAVING, event.end if isinstance(event, Refused) else None
            self._let_go([child])

    def on_leaving(self, event: Leaving) -> None:
        """A child ends itself, for a reason that it tells; one that is being stopped keeps it, too."""
        child = self._tokens.get(event.token)
        if child is not None and child.end is None and child.state is not State.LEAVING:
            child.end = event.end
            if child.state is not State.STOPPING:
                self._let_go([child])

    def on_exited(self, event: Exited) -> Child | None:
        """A process is gone; the child, if it had not been told to end."""
        child = self._tokens.pop(event.token, None)
        if child is None:
            return None  # said twice
        before, child.state = child.state, State.STOPPED
        if child.end is None and before is not State.LEAVING:
            child.end = event.end or End(SHUTDOWN if before is State.STOPPING else DIED)
        child.last_end, child.ended_at = child.end, self.now
        if before is State.RUNNING:
            child.state = State.DEAD
        self.plans.settled(event.token)
        return child if before is State.RUNNING else None

    def on_remembered(self, event: Remembered) -> None:
        """A child says what it wants to be told when it is started again."""
        child = self._tokens.get(event.token)
        if child is not None:
            child.memory = event.memory

    def on_due(self, event: Due) -> None:
        """A timer ran out."""
        action = self._timers.pop(event.number, None)
        if action is not None:
            action()
