"""What a supervisor starts and stops, when, and in what order: OTP's `supervisor`, as a machine without processes.

`handle(event, now, random)` returns the effects for a shell to carry out. Starting and stopping take time and end with
later events, so everything of several steps is a plan: initial start, restart, administration, shutdown. Under
`one_for_all` and `rest_for_one` there is one plan at a time, as in OTP. Under `one_for_one` and `simple_one_for_one`,
where children do not concern each other, there is one for each child, so that a slow start delays no other child.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any, Protocol

from actorpool.core.machine import Backoff, Intensity
from actorpool.core.supervisor.child_table import ChildTable
from actorpool.core.supervisor.children import DIED, SHUTDOWN, Child, End, Spec, State, is_ordinary, restarts
from actorpool.core.supervisor.events import (
    Answer,
    Asked,
    Began,
    Boot,
    Due,
    Effect,
    Event,
    Exit,
    Exited,
    Ignored,
    Leaving,
    Ready,
    Refused,
    Remembered,
)
from actorpool.core.supervisor.plans import EVERYTHING, Steps
from actorpool.core.supervisor.requests import Requests, start_error
from actorpool.errors import SupervisorError


class TreeSpec(Protocol):
    """What is decided by, of a `SupervisorSpec`."""

    @property
    def children(self) -> Sequence[Spec]: ...
    @property
    def strategy(self) -> str: ...
    @property
    def max_restarts(self) -> int: ...
    @property
    def max_seconds(self) -> float: ...
    @property
    def auto_shutdown(self) -> str: ...
    @property
    def backoff(self) -> Backoff | None: ...

    def admit(self, child: Any) -> None:
        """Raise `SupervisorError` if that may not be given to `StartChild`."""


class SupervisorCore:
    """The decisions of one supervisor.

    Args:
        spec: its `SupervisorSpec`.
        is_address: tells an actor's address from a child's id.
        per_child: every child has an intensity window of its own, and one that exceeds it is left alone, in state
            `"failed"`, while supervisor and siblings go on. Not in OTP; for `one_for_one`.
    """

    def __init__(self, spec: TreeSpec, is_address: Callable[[Any], bool], *, per_child: bool = False) -> None:
        self.spec = spec
        self.ending: Any = None
        self._dynamic = spec.strategy == "simple_one_for_one"
        self._together = spec.strategy in ("rest_for_one", "one_for_all")
        self._per_child = per_child
        shared = Intensity(spec.max_restarts, spec.max_seconds)
        self._child_table = ChildTable(
            self._dynamic,
            (lambda: Intensity(spec.max_restarts, spec.max_seconds)) if per_child else (lambda: shared),
            spec.backoff,
        )
        self._plans = self._child_table.plans
        self._administration = Requests(self._child_table, spec.children, self._dynamic, spec.admit, is_address)
        self._booted = False
        self._random = 0.0

    @property
    def children(self) -> dict[Hashable, Child]:
        """All registered children, in order of start."""
        return self._child_table.children

    def restarts_used(self, now: float) -> int:
        """How many restarts count at that monotonic time; where each child has a window of its own, in the fullest."""
        return max((child.intensity.count(now) for child in self.children.values()), default=0)

    def register(self, spec: Spec) -> None:
        """Add a child that does not run, as if it had been terminated."""
        self._child_table.register(spec.id, spec)

    def handle(self, event: Event, now: float, random: float = 0.5) -> list[Effect]:
        """Take in one event.

        Args:
            event: one of `signals`.
            now: monotonic seconds.
            random: evenly distributed in [0, 1), for the jitter of a delayed restart.

        Returns:
            What is to be done, in this order.
        """
        self._random, self._child_table.now, self._child_table.effects = random, now, []
        _EVENTS[type(event)](self, event)
        self._plans.run()
        return self._child_table.effects

    def last_stand(self) -> list[list[Child]]:
        """The children with a process, in the order in which a supervisor that ends at once must end them.

        Those of one list are ended side by side.
        """
        alive = [child for child in reversed(self.children.values()) if child.alive]
        if self._dynamic:
            return [alive] if alive else []
        return [[child] for child in alive]

    # -- events -----------------------------------------------------------------------------------------------------

    def _on_boot(self, _: Boot) -> None:
        self._plans.add(EVERYTHING, self._boot())

    def _on_exited(self, event: Exited) -> None:
        child = self._child_table.on_exited(event)
        if child is not None and self.ending is None:
            self._plans.add(self._scope(child.key), self._after_exit(child, event.token))

    def _on_asked(self, asked: Asked) -> None:
        problem = self._administration.problem(asked.request)
        if self.ending is not None:
            self._answer(asked.ref, error=_ended(self.ending))
        elif problem is not None:
            self._answer(asked.ref, error=problem)
        elif not self._administration.reads(asked.request):
            steps = self._answered(asked.ref, self._administration.change(asked.request))
            self._plans.add(self._scope(self._administration.key_of(asked.request)), steps, asked.ref)
        elif self._booted:
            self._answer_read(asked)
        else:  # a supervisor that is not up yet answers nothing, as in OTP
            self._plans.add(EVERYTHING, self._read_later(asked), asked.ref)

    def _scope(self, key: Hashable) -> Hashable:
        return EVERYTHING if self._together else key

    # -- answers ----------------------------------------------------------------------------------------------------

    def _answer(self, ref: Any, value: Any = None, error: SupervisorError | None = None) -> None:
        self._child_table.effects.append(Answer(ref, value, error))

    def _answer_read(self, asked: Asked) -> None:
        try:
            self._answer(asked.ref, self._administration.read(asked.request))
        except SupervisorError as error:
            self._answer(asked.ref, error=error)

    def _read_later(self, asked: Asked) -> Steps[None]:
        self._answer_read(asked)
        yield from ()

    def _answered(self, ref: Any, steps: Steps[Any]) -> Steps[None]:
        try:
            value = yield from steps
        except SupervisorError as error:
            self._answer(ref, error=error)
        else:
            self._answer(ref, value)

    # -- plans ------------------------------------------------------------------------------------------------------

    def _boot(self) -> Steps[None]:
        if not self._dynamic:
            for spec in self.spec.children:
                self._child_table.register(spec.id, spec)
        for child in list(self.children.values()):
            end = yield from self._child_table.start(child)
            if end is not None:
                self._child_table.report("start_failed", child)
                error = start_error(child, end, within=SHUTDOWN)
                yield from self._end(error.reason, error)
                return
        self._booted = True
        self._child_table.effects.append(Ready())

    def _after_exit(self, child: Child, token: int) -> Steps[None]:
        if child.token != token or child.state is not State.DEAD:
            return  # a plan that came first has stopped or restarted it
        end = child.end or End(DIED)
        if child.spec.restart == "permanent" or not is_ordinary(end.reason):
            self._child_table.report("terminated", child)
        if child.retry is not None and self._child_table.now - child.started_at > child.retry.backoff.maximum:
            child.retry.reset()
        if restarts(child.spec.restart, end.reason):
            yield from self._restart(child, end)
            return
        self._child_table.retire(child)
        if self._calls_for_shutdown(child):
            yield from self._end(SHUTDOWN)

    def _calls_for_shutdown(self, child: Child) -> bool:
        """Whether the end of `child`, by itself and for good, ends the supervisor (OTP's `auto_shutdown`)."""
        if not child.spec.significant or self.spec.auto_shutdown == "never":
            return False
        others = (other for other in self.children.values() if other.spec.significant)
        return self.spec.auto_shutdown == "any_significant" or all(other.state is State.STOPPED for other in others)

    def _restart(self, child: Child, end: End) -> Steps[None]:
        """Count a restart and carry it out; `end` is what it is for."""
        if not child.intensity.add(self._child_table.now):
            self._child_table.report("gave_up", child, end)
            if self._per_child:
                child.state = State.FAILED
            else:
                child.state = State.STOPPED
                yield from self._end(SHUTDOWN)
        elif child.retry is None:
            yield from self._bring_up(child, end)
        else:
            yield from self._stop_bystanders(child)
            self._try_again(child, self._bring_up(child, end), child.retry.next(self._random))

    def _bring_up(self, child: Child, end: End) -> Steps[None]:
        """Restart `child` and the children that share its fate, in the order of their specs."""
        yield from self._stop_bystanders(child)
        for other in self._sharing_fate(child):
            failure = yield from self._child_table.start(other)
            if failure is not None:
                self._child_table.report("start_failed", other)
                self._try_again(other, self._restart(other, failure))
                return
            if other.state is State.RUNNING:
                other.restarts += 1
                self._child_table.report("restarted", other, end)

    def _try_again(self, child: Child, steps: Steps[None], delay: float = 0.0) -> None:
        """Take `steps` later, behind whatever waits, unless the child was terminated meanwhile. Others are served."""
        child.state, child.token = State.RESTARTING, self._child_table.new_number()
        ticket = child.token

        def later() -> Steps[None]:
            if child.state is State.RESTARTING and child.token == ticket:
                yield from steps

        def add() -> None:
            if self.ending is None:
                self._plans.add(self._scope(child.key), later())

        if delay:
            self._child_table.after(delay, add)
        else:
            add()

    def _sharing_fate(self, child: Child) -> list[Child]:
        """The children restarted with `child`, itself included, in the order of their specs."""
        if not self._together:
            return [child]
        children = list(self.children.values())
        return children if self.spec.strategy == "one_for_all" else children[children.index(child) :]

    def _stop_bystanders(self, child: Child) -> Steps[None]:
        for other in reversed(self._sharing_fate(child)):
            if other is not child:
                yield from self._child_table.stop([other])
                self._child_table.retire(other)

    def _end(self, reason: Any, failed: SupervisorError | None = None) -> Steps[None]:
        """End everything below, then the supervisor itself. Requests that wait are refused."""
        self.ending = reason
        for ref in self._plans.abandon_others():
            self._answer(ref, error=failed or _ended(reason))
        children = list(reversed(self.children.values()))
        for together in [children] if self._dynamic else [[child] for child in children]:
            yield from self._child_table.stop(together)
        self._child_table.effects.append(Exit(reason, failed))


def _ended(reason: Any) -> SupervisorError:
    return SupervisorError(SHUTDOWN, f"the supervisor has ended or is ending ({reason}); its own supervisor decides")


_EVENTS: dict[type, Callable[[SupervisorCore, Any], None]] = {
    Boot: SupervisorCore._on_boot,
    Began: lambda machine, event: machine._child_table.on_began(event),
    Ignored: lambda machine, event: machine._child_table.on_not_begun(event),
    Refused: lambda machine, event: machine._child_table.on_not_begun(event),
    Leaving: lambda machine, event: machine._child_table.on_leaving(event),
    Exited: SupervisorCore._on_exited,
    Remembered: lambda machine, event: machine._child_table.on_remembered(event),
    Due: lambda machine, event: machine._child_table.on_due(event),
    Asked: SupervisorCore._on_asked,
}
