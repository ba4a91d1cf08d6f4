"""Plans: sequences of steps that wait for events, run one after another or, on different things, side by side.

A plan is a generator that yields the tokens it waits for and is resumed once each of them has been settled. Its scope
is what it works on: two plans of one scope never overlap, and a plan of scope `EVERYTHING` overlaps with none. Plans
that must wait keep the order in which they came.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Generator, Hashable
from typing import Any, TypeVar

T = TypeVar("T")
Steps = Generator[Collection[int], None, T]
"""The type of a plan's generator: yields tokens to wait for, returns T."""

EVERYTHING = object()


class Plan:
    """One plan on its way."""

    __slots__ = ("ref", "scope", "steps", "waits")

    def __init__(self, scope: Hashable, steps: Steps[None], ref: Any) -> None:
        self.scope = scope
        self.steps = steps
        self.ref = ref
        self.waits: set[int] = set()


class Sequencer:
    """Keeps the plans, begins each when it may, and resumes each when what it waits for is settled."""

    def __init__(self) -> None:
        self._queue: deque[Plan] = deque()
        self._running: dict[Plan, None] = {}
        self._waiting: dict[int, Plan] = {}
        self._ready: deque[Plan] = deque()
        self._current: Plan | None = None

    def add(self, scope: Hashable, steps: Steps[None], ref: Any = None) -> None:
        """Queue a plan; `ref` (not None) names the request that it answers."""
        self._queue.append(Plan(scope, steps, ref))

    def settled(self, token: int) -> None:
        """The event that `token` names has happened; unknown tokens are ignored."""
        plan = self._waiting.pop(token, None)
        if plan is not None:
            plan.waits.discard(token)
            if not plan.waits:
                self._ready.append(plan)

    def run(self) -> None:
        """Take every step that can be taken now."""
        while True:
            while self._ready:
                self._step(self._ready.popleft())
            plan = self._next_to_begin()
            if plan is None:
                return
            self._queue.remove(plan)
            self._running[plan] = None
            self._step(plan)

    def abandon_others(self) -> list[Any]:
        """Forget every plan but the one that is taking a step now; returns the refs that will get no answer."""
        others = [plan for plan in (*self._running, *self._queue) if plan is not self._current]
        for plan in others:
            plan.steps.close()
            self._running.pop(plan, None)
        self._queue.clear()
        self._ready.clear()
        self._waiting.clear()
        return [plan.ref for plan in others if plan.ref is not None]

    def _step(self, plan: Plan) -> None:
        self._current = plan
        try:
            plan.waits = set(next(plan.steps))
        except StopIteration:
            del self._running[plan]
        else:
            self._waiting.update(dict.fromkeys(plan.waits, plan))
        finally:
            self._current = None

    def _next_to_begin(self) -> Plan | None:
        """The first queued plan with a free scope: not taken by a running plan, nor claimed by an older one."""
        taken = {plan.scope for plan in self._running} if self._queue else set()
        for plan in self._queue:
            if EVERYTHING in taken:
                return None
            if plan.scope not in taken and not (plan.scope is EVERYTHING and taken):
                return plan
            taken.add(plan.scope)
        return None
