"""A world of pretended processes around the supervision machine: does what the machine says, and tells it what happens.

Unless a test says otherwise, every init succeeds, every child obeys, and time stands still.
"""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from typing import Any

from actorpool.core.supervisor import events
from actorpool.core.supervisor.children import End
from actorpool.core.supervisor.core import SupervisorCore
from actorpool.supervisors.specs import ChildSpec, SupervisorSpec
from actorpool.workers.base import Worker

IGNORE, HANG, DIE = "ignore", "hang", "die"


def child(id: Any, restart: str = "permanent", **fields: Any) -> ChildSpec:
    return ChildSpec(id, Worker, restart=restart, **fields)


def tree(*children: ChildSpec, **fields: Any) -> SupervisorSpec:
    return SupervisorSpec(children, **fields)


class World:
    """The processes of one supervisor.

    `inits[id]` is a queue of outcomes for the next starts of a child: `IGNORE`, `HANG`, `DIE`, or a reason to fail
    with. `stubborn` holds the ids of those who do not end when asked. `log` tells what was done: `("start", "a")`, ...
    """

    def __init__(self, spec: SupervisorSpec, *, boot: bool = True, random: float = 0.5, **options: Any) -> None:
        self.machine = SupervisorCore(spec, lambda value: isinstance(value, str) and value.startswith("@"), **options)
        self.now = 1000.0
        self.random = random
        self.inits: dict[Any, deque[Any]] = defaultdict(deque)
        self.stubborn: set[Any] = set()
        self.log: list[tuple[str, Any]] = []
        self.reports: list[events.Report] = []
        self.answers: dict[Any, events.Answer] = {}
        self.answered: Counter[Any] = Counter()
        self.alive: dict[int, Any] = {}  # token -> id of the child
        self.extras: dict[int, Any] = {}
        self.leaving: set[int] = set()  # who only waits for the request to end
        self.exit: events.Exit | None = None
        self.ready = False
        self._timers: list[tuple[float, int]] = []
        self._events: deque[events.Event] = deque()
        self._refs = 0
        if boot:
            self.tell(events.Boot())

    # -- what happens -----------------------------------------------------------------------------------------------

    def tell(self, *events: events.Event) -> None:
        """Tell the machine, and then whatever follows from what it does."""
        self._events.extend(events)
        while self._events:
            for effect in self.machine.handle(self._events.popleft(), self.now, self.random):
                getattr(self, "_" + type(effect).__name__.lower())(effect)

    def ask(self, request: Any) -> Any:
        """The ref of a request that has been put."""
        self._refs += 1
        self.tell(events.Asked(self._refs, request))
        return self._refs

    def reply(self, request: Any) -> Any:
        """The answer to a request, which must come at once: the value, or the error."""
        answer = self.answers[self.ask(request)]
        return answer.value if answer.error is None else answer.error

    def token(self, id: Any) -> int:
        """The present incarnation of a child (an id, or the address of one of many)."""
        if isinstance(id, str) and id.startswith("@"):
            return int(id[1:])
        return next(token for token, name in self.alive.items() if name == id)

    def ends(self, id: Any, reason: Any = None, traceback: str = "") -> None:
        """A child ends by itself, with a reason, or without one."""
        if reason is None:
            self.dies(id)
        else:
            token = self.token(id)
            self.leaving.add(token)
            self.tell(events.Leaving(token, End(reason, traceback)))

    def dies(self, id: Any) -> None:
        """A process is gone (again: a process that is gone may be said to be so twice)."""
        token = self.token(id)
        self.alive.pop(token, None)
        self.tell(events.Exited(token))

    def comes_up(self, id: Any) -> None:
        """A child whose init hung is up now."""
        token = self.token(id)
        self.log.append(("up", id))
        self.tell(events.Began(token, f"@{token}", token))

    def fails(self, id: Any, reason: Any) -> None:
        """A child whose init hung has failed now."""
        self.leaving.add(self.token(id))
        self.tell(events.Refused(self.token(id), End(reason)))

    def advance(self, seconds: float) -> None:
        """Let time pass, and timers run out in their order."""
        until = self.now + seconds
        while self._timers and min(self._timers)[0] <= until:
            moment, number = min(self._timers)
            self._timers.remove((moment, number))
            self.now = moment
            self.tell(events.Due(number))
        self.now = until

    # -- what the machine wants done ----------------------------------------------------------------------------------

    def _start(self, effect: events.Start) -> None:
        id, token = effect.spec.id, effect.token
        assert token not in self.alive
        self.alive[token], self.extras[token] = id, (effect.extra, effect.memory)
        self.log.append(("start", id))
        outcome = self.inits[id].popleft() if self.inits[id] else None
        if outcome is None:
            self._events.append(events.Began(token, f"@{token}", token))
        elif outcome == IGNORE:
            self.leaving.add(token)
            self._events.append(events.Ignored(token))
        elif outcome == DIE:
            del self.alive[token]
            self._events.append(events.Exited(token))
        elif outcome != HANG:
            self.leaving.add(token)
            self._events.append(events.Refused(token, End(outcome)))

    def _terminate(self, effect: events.Terminate) -> None:
        id = self.alive[effect.token]
        if effect.token not in self.leaving:
            self.log.append(("stop", id))
        if id not in self.stubborn:
            self._gone(effect.token)

    def _kill(self, effect: events.Kill) -> None:
        self.log.append(("kill", self.alive[effect.token]))
        self._gone(effect.token)

    def _gone(self, token: int) -> None:
        del self.alive[token]
        self._events.append(events.Exited(token))

    def _timer(self, effect: events.Timer) -> None:
        self._timers.append((self.now + effect.delay, effect.number))

    def _answer(self, effect: events.Answer) -> None:
        self.answers[effect.ref] = effect
        self.answered[effect.ref] += 1

    def _report(self, effect: events.Report) -> None:
        self.reports.append(effect)

    def _ready(self, _: events.Ready) -> None:
        self.ready = True

    def _exit(self, effect: events.Exit) -> None:
        assert self.exit is None
        assert not self.alive
        self.exit = effect

    # -- looking ------------------------------------------------------------------------------------------------------

    def forget_the_past(self) -> World:
        self.log.clear()
        self.reports.clear()
        return self

    @property
    def kinds(self) -> list[str]:
        return [report.kind for report in self.reports]

    @property
    def timers(self) -> list[float]:
        """Delays from now of the timers that are set."""
        return sorted(round(moment - self.now, 6) for moment, _ in self._timers)

    def states(self) -> dict[Any, str]:
        """Child id to the state a user sees, in the order of start."""
        return {item.spec.id: item.info().state for item in self.machine.children.values()}
