"""The life of a worker's process, the same in every pool: started, told to open, stopped, killed, gone.

Pools of both kinds have their workers here. What they decide differs (how many there are, when a connection is tried
again, what becomes of its calls) and is decided by them; that a process which was asked to end is killed if it does
not, and that its death is then no crash, is decided here.
"""

from __future__ import annotations

from typing import Any

from actorpool.core.effects import Kill, Open, Start, Stop
from actorpool.core.machine import Effects, TimerQueue
from actorpool.core.workers import OPENING, STARTING, STOPPING, Worker, Workers
from actorpool.serialization.exceptions import description_of, name_of


class Processes:
    """Moves workers between the states that every pool has, and asks the shell for it.

    Args:
        workers: the table of them.
        kill_after: seconds that a process has to end.
        timers: where to have oneself called later.
        effects: where to put what is to be done.
    """

    def __init__(self, workers: Workers, kill_after: float, timers: TimerQueue, effects: Effects) -> None:
        self.workers = workers
        self.kill_after = kill_after
        self.timers = timers
        self._do, self._emit = effects.do, effects.emit

    def start(
        self, now: float, overflow: bool = False, restarts: int = 0, connection: int | None = None, spec: Any = None
    ) -> Worker:
        """Have a process created.

        Args:
            now: monotonic seconds.
            overflow: it is above what is kept.
            restarts: how many there were in its place before.
            connection: what it serves, in a pool where that outlives its process.
            spec: what the shell needs to know of it.
        """
        worker = self.workers.hire(now, overflow, restarts, connection)
        self._do(Start(worker.id, spec))
        return worker

    def started(self, id: int) -> Worker | None:
        """The process is up; it is to be told to open now. None: it is not expected any more."""
        worker = self.workers.get(id, STARTING)
        if worker is not None:
            self.tell(worker, "worker.started")
        return worker

    def open(self, worker: Worker, now: float) -> None:
        """Have the worker connect."""
        self.workers.move(worker, OPENING)
        worker.disconnected(now)
        self._do(Open(worker.id))

    def opened(self, worker: Worker, took: float) -> None:
        """Tell that a worker has connected; `took`: seconds."""
        self._emit("worker.connected", metadata=worker.named(), ms=took * 1e3)

    def failed(self, worker: Worker, error: Exception) -> dict[str, str]:
        """Tell that a worker could not connect, or has lost its connection; what is told of the error."""
        why = {"error": name_of(error), "reason": description_of(error)}
        self.tell(worker, "worker.connect_error", **why)
        return why

    def stop(self, worker: Worker, now: float, interrupt: bool = False) -> None:
        """Ask the process to end, and kill it unless it does. Its death is no crash then."""
        interrupt = interrupt or worker.state is OPENING
        self.workers.move(worker, STOPPING)
        self._do(Stop(worker.id, interrupt))
        self.timers.at(now + self.kill_after, (self._kill_if_there, worker.id, None))

    def _kill_if_there(self, id: int, _since: None, now: float) -> None:
        if id in self.workers:
            self._do(Kill(id))

    def kill(self, worker: Worker) -> None:
        """End a process that does not answer. No crash: it was us. Nothing that it still says counts."""
        self.workers.move(worker, STOPPING)
        self._do(Kill(worker.id))

    def died(self, id: int, reason: str) -> Worker | None:
        """The process is gone. None: that was told before."""
        worker = self.workers.get(id)
        if worker is not None:
            self.workers.remove(worker)
            if worker.state is not STOPPING:
                self.tell(worker, "worker.died", reason=reason)
        return worker

    def tell(self, worker: Worker, event: str, /, **more: Any) -> None:
        """Tell an event of a worker."""
        self._emit(event, metadata=worker.named(**more))
