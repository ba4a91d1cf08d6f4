"""A dispatcher on the bench, for tests of single behaviours."""

from __future__ import annotations

from typing import Any

from actorpool.core.effects import Answer, Emit, Stopped
from actorpool.core.machine import Backoff
from actorpool.core.shared.core import SharedPoolCore
from actorpool.core.shared.effects import Deliver, Log
from actorpool.core.shared.records import CLOSED, Call, Loan


class Bench:
    """A dispatcher on the bench: a clock, and every effect noted where a test looks for it."""

    def __init__(self) -> None:
        self.now = 100.0
        self.core = SharedPoolCore("mirrors", lambda: 0.5, backoff=Backoff(1.0, 8.0), kill_after=2.0, epoch=1000.0)
        self.answers: dict[Any, Any] = {}
        self.asked: list[Any] = []
        """What the workers were told, in order, by name: effects are tuples, and `Open(1) == Kill(1)`."""
        self.events: list[str] = []
        self.logs: list[Log] = []
        self.stopped = 0
        self.loans: dict[Any, Loan] = {}
        """The last loan that each caller got."""

    def __call__(self, step: str, *args: Any, **kwargs: Any) -> list[Any]:
        """Take a step of the dispatcher now, and note what it decided."""
        effects = getattr(self.core, step)(self.now, *args, **kwargs)
        for effect in effects:
            if isinstance(effect, Answer):
                assert effect.ref not in self.answers, f"{effect.ref} is answered twice"
                self.answers[effect.ref] = effect.value
            elif isinstance(effect, Deliver):
                assert effect.call.ref not in self.answers, f"{effect.call.ref} is answered twice"
                self.answers[effect.call.ref] = effect.reply
                if effect.loan is not None:
                    self.loans[effect.call.caller] = effect.loan
            elif isinstance(effect, Emit):
                self.events.append(effect.name)
            elif isinstance(effect, Log):
                self.logs.append(effect)
            elif isinstance(effect, Stopped):
                self.stopped += 1
            else:
                self.asked.append((type(effect).__name__, *effect))
        return list(effects)

    def after(self, seconds: float) -> None:
        """Let time pass, ticking at every deadline on the way."""
        end = self.now + seconds
        while (moment := self.core.deadline()) is not None and moment <= end:
            self.now = max(self.now, moment)
            self("tick")
        self.now = end

    def adding(self, ref: Any = "add", resource: Any = "r", **settings: Any) -> int:
        """Add a connection whose worker has started and is about to open; its worker id."""
        self("add", ref, "spec", resource=resource, **settings)
        worker = max(self.core.connections.by_worker)
        self("worker_started", worker, 7000 + worker)
        return worker

    def open(self, resource: Any = "r", methods: tuple[str, ...] = ("get", "put"), **settings: Any) -> int:
        """Add a connection and open it; its id."""
        worker = self.adding(("add", self.now, len(self.core.connections.by_id)), resource, **settings)
        self("opened", worker, methods=methods)
        return self.core.connections.by_worker[worker].id

    def call(self, ref: Any, method: str = "get", resource: Any = "r", caller: Any = "c", **options: Any) -> Any:
        """Call; what the caller was told so far (None: nothing)."""
        self("call", ref, caller, resource, method, f"payload of {ref}", **options)
        return self.answers.get(ref)

    def finish(self, id: int, reply: Any = "done", **options: Any) -> Any:
        """Have the worker of a connection answer what it runs; the ref of that call."""
        connection = self.core.connections.by_id[id]
        call = connection.running
        assert isinstance(call, Call)
        options.setdefault("took", self.now - call.started or 0.001)  # quicker calls are sent ahead
        self("done", self.worker(id), call.number, reply, **options)
        return call.ref

    def running(self, id: int) -> Any:
        call = self.core.connections.by_id[id].running
        return call.ref if isinstance(call, Call) else None

    def waiting(self, id: int) -> list[Any]:
        return [call.ref for call in self.core.connections.by_id[id].queue.values()]

    def measure(self, id: int, seconds: float, method: str = "get") -> None:
        """Let one call of that length run on the connection, chosen by its `extra`."""
        where = {"id": id}
        self("extra", object(), id, where)
        self.call(("measure", id, method, self.now), method, self.core.connections.by_id[id].resource, where=where)
        self.now += seconds
        self.finish(id)

    def die(self, id: int, reason: str = "killed") -> None:
        self("died", self.worker(id), reason)

    def worker(self, id: int) -> int:
        """The worker that serves a connection."""
        worker = self.core.connections.by_id[id].worker
        assert worker is not None
        return worker.id

    def state(self, id: int) -> Any:
        """The state of a connection; of its worker while it is closed and has one."""
        connection = self.core.connections.by_id[id]
        worker = connection.worker
        return worker.state if worker is not None and connection.state is CLOSED else connection.state
