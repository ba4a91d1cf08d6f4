"""Connections: added, opened, over, opened again, dropped; each is served by a worker that may be replaced.

What becomes of a connection that is over is its `revive`:

- `False`: it is dropped. It was added for as long as it lasts.
- `True`: it is opened again in the background, at once if it had answered a call or lasted, else after a delay;
  each failure in a row delays the next attempt more. Only a `PermanentError`, or a failing `__init__`, ends it.
- `"force"`: as `True` from the very beginning: adding it succeeds although its resource cannot be reached yet.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any

from actorpool.core.effects import Answer, Stopped
from actorpool.core.machine import Backoff, Effects, Retry, Series, TimerQueue
from actorpool.core.processes import Processes
from actorpool.core.shared.connections import Connections, check_settings
from actorpool.core.shared.effects import Kept, Log
from actorpool.core.shared.loans import Loans
from actorpool.core.shared.records import CLOSED, DROPPED, ENDING, LIVE, Connection, Meter
from actorpool.core.shared.refusals import Refusals
from actorpool.core.workers import DOWN, IDLE, OPENING, STARTING, STOPPING, State, Worker
from actorpool.errors import InvalidConfig, PoolStopped, WorkerDied


class Lifecycle:
    """Mediates between connections and the processes that serve them. It knows nothing of calls but that some run.

    Args:
        random: a source of numbers in [0, 1), for jitter.
        backoff: delays between attempts to open a connection.
        penalties: fixed delays in their place; of a connection that was not given others.
        connections, loans, refusals: parts of the pool.
        processes: the processes of its workers.
        timers: where to have oneself called later.
        effects: where to put what is to be done.
    """

    def __init__(
        self,
        random: Callable[[], float],
        backoff: Backoff,
        penalties: Sequence[float] | None,
        connections: Connections,
        loans: Loans,
        refusals: Refusals,
        processes: Processes,
        timers: TimerQueue,
        effects: Effects,
    ) -> None:
        self.random = random
        self.backoff = backoff
        self.penalties = penalties
        self.connections = connections
        self.loans = loans
        self.refusals = refusals
        self.processes = processes
        self.workers = processes.workers
        self.timers = timers
        self.stopping = False
        self.stoppers: list[Any] = []
        self._effects = effects
        self._do = effects.do

    # -- added ----------------------------------------------------------------------------------------------

    def add(self, now: float, ref: Any, kept: Kept, timeout: float | None) -> None:
        """Start a worker and open it; see `SharedPoolCore.add`."""
        try:
            if self.stopping:
                raise self.refusals.stopped()
            check_settings(kept.resource, kept.ttl, kept.revive, self.connections.look)
        except (InvalidConfig, PoolStopped) as error:
            self._do(Answer(ref, error))
            return
        if any(one.adding is not None and one.adding == ref for one in self.connections.by_id.values()):
            return  # the same request once more
        self.connections.last_id += 1
        connection = self.admit(kept._replace(id=self.connections.last_id))
        connection.adding = ref
        if timeout is not None:
            connection.add_until = now + timeout
            self.timers.at(connection.add_until, (self._add_over, connection.id, None))
        self.start(connection, now)

    def admit(self, kept: Kept) -> Connection:
        """Take in a connection that is still to be started."""
        penalties = kept.penalties or self.penalties
        retry = Series(penalties) if penalties else Retry(self.backoff)
        connection = Connection(
            kept.id, kept.spec, kept.resource, kept.extra, kept.ttl, kept.revive, retry, kept.penalties
        )
        self.connections.add(connection)
        return connection

    def _add_over(self, id: int, _since: None, now: float) -> None:
        connection = self.connections.by_id.get(id)
        if connection is None or connection.adding is None:
            return
        if connection.revive == "force":
            self._added(connection)
        else:
            self.give_up(connection, self.refusals.unavailable(connection), now)

    def _added(self, connection: Connection) -> None:
        if connection.adding is not None:
            self._do(Answer(connection.adding, connection.id))
            connection.adding = None

    # -- opened -----------------------------------------------------------------------------------------------

    def start(self, connection: Connection, now: float) -> None:
        """Start a worker for a connection that has none."""
        worker = self.processes.start(now, connection=connection.id, spec=connection.spec)
        connection.worker = worker
        self.connections.by_worker[worker.id] = connection

    def served_by(self, id: int, state: State) -> Connection | None:
        """The connection that this worker serves, if it is in this state."""
        worker = self.workers.get(id, state)
        return None if worker is None else self.connections.by_worker[id]

    def opened(
        self, connection: Connection, took: float, resource: Hashable, methods: tuple[str, ...], now: float
    ) -> bool:
        """The worker is connected; whether its connection is live now."""
        worker = connection.worker
        assert worker is not None
        if connection.resource is None and not self._adopt(connection, worker, resource, now):
            return False
        known = connection.meters
        connection.meters = {name: known.get(name) or Meter() for name in methods}
        self.workers.move(worker, IDLE)
        connection.move(LIVE)
        connection.connected_at = connection.free_at = now
        connection.proven = False
        connection.cause = None
        self.processes.opened(worker, took)
        self._added(connection)
        return True

    def _adopt(self, connection: Connection, worker: Worker, resource: Hashable, now: float) -> bool:
        """File the connection under the resource its worker names; without a resource no call could find it."""
        try:
            if resource is None:
                raise InvalidConfig("connection", {"resource": "neither add() nor the worker's `resource` names one"})
            check_settings(resource)
        except InvalidConfig as error:
            self.workers.move(worker, DOWN)
            self.give_up(connection, error, now)
            return False
        self.connections.file(connection, resource)
        return True

    def open_failed(
        self, connection: Connection, error: Exception, permanent: bool, retry_after: float | None, now: float
    ) -> None:
        """The worker could not connect."""
        assert connection.worker is not None
        self.workers.move(connection.worker, DOWN)
        self.lost(connection, error)
        if permanent:
            self.give_up(connection, error, now)
        else:
            self._rest(connection, now, self._delay(connection) if retry_after is None else retry_after)

    def lost(self, connection: Connection, error: Exception) -> None:
        """Note why a connection is not open."""
        assert connection.worker is not None
        connection.cause = error
        self.processes.failed(connection.worker, error)

    def _delay(self, connection: Connection) -> float:
        return connection.retry.next(self.random())

    def give_up(self, connection: Connection, error: BaseException, now: float) -> None:
        """The connection will never be open: tell the asker that added it, or log it. No call is concerned."""
        if connection.adding is not None:
            self._do(Answer(connection.adding, error))
            connection.adding = None
        else:
            self._log("error", f"connection {connection.id} is given up: {type(error).__name__}: {error}")
        self.drop(connection, now)

    def _log(self, level: str, text: str) -> None:
        self._do(Log(level, f"shared pool {self.connections.name!r}: {text}"))

    # -- trying again ---------------------------------------------------------------------------------------

    def _rest(self, connection: Connection, now: float, delay: float) -> None:
        """Open a closed connection again in `delay` seconds, if that is still in time for the asker that adds it."""
        connection.retry_at = now + delay
        if connection.revive == "force":
            self._added(connection)
        if connection.adding is not None and connection.retry_at >= connection.add_until:
            self.give_up(connection, self.refusals.unavailable(connection), now)
            return
        if connection.adding is None and not connection.revive:  # `update` changed it while it was being revived
            self.give_up(connection, connection.cause or self.refusals.unavailable(connection), now)
            return
        if delay <= 0:
            self._reopen(connection, now)
            return
        cause = connection.cause
        why = f"{type(cause).__name__}: {cause}" if cause is not None else "closed"
        self._log("warning", f"connection {connection.id} is not open ({why}); next attempt in {delay:.1f} s")
        self.timers.at(connection.retry_at, (self._try_again, connection.id, None))

    def _try_again(self, id: int, _since: None, now: float) -> None:
        connection = self.connections.by_id.get(id)
        if connection is not None and connection.rests:
            self._reopen(connection, now)

    def _reopen(self, connection: Connection, now: float) -> None:
        connection.restarts += 1
        if connection.worker is not None:
            self.processes.open(connection.worker, now)
        else:
            self.start(connection, now)
            assert connection.worker is not None
            self.processes.tell(connection.worker, "worker.restarted")

    # -- the end --------------------------------------------------------------------------------------------

    def over(self, connection: Connection, now: float, failed: bool) -> None:
        """The connection takes no more calls.

        Args:
            connection: it.
            now: monotonic seconds.
            failed: it broke; reviving is delayed if it never got anywhere since it connected.
        """
        assert connection.connected_at is not None
        if connection.proven or now - connection.connected_at >= connection.retry.longest:
            connection.retry.reset()
            failed = False
        connection.retry_at = now + connection.retry.again(self.random()) if failed else now
        if connection.state is not ENDING:
            connection.move(ENDING)

    def settle(self, connection: Connection, now: float) -> None:
        """Revive or drop a connection that is over, once nothing runs on it."""
        if connection.running is not None:
            self.loans.recall(connection)
            return
        if connection.revive and connection.popped is None and not self.stopping:
            connection.move(CLOSED)
            if connection.worker is not None:
                self.workers.move(connection.worker, DOWN)
            self._rest(connection, now, max(0.0, connection.retry_at - now))
        else:
            self.drop(connection, now)

    def died(self, id: int, reason: str, now: float) -> Connection | None:
        """The worker's process is gone; its connection, if that was open, and is still to be ended."""
        worker, connection = self.processes.died(id, reason), self.connections.by_worker.pop(id, None)
        if worker is None or worker.state is STOPPING:
            self.check_stopped()
        if worker is None or connection is None:
            return None
        connection.worker = connection.pid = None
        connection.cause = WorkerDied(
            f"the process of connection {connection.id} died: {reason}", pool=self.connections.name
        )
        if connection.state is not CLOSED:
            return connection
        if worker.state in (STARTING, OPENING):
            self._rest(connection, now, self._delay(connection))
        return None

    def drop(self, connection: Connection, now: float, interrupt: bool = False) -> None:
        """Forget a connection on which no call is left, and have its process end."""
        connection.move(DROPPED)
        self.connections.remove(connection)
        if connection.worker is not None:
            del self.connections.by_worker[connection.worker.id]
            self.processes.stop(connection.worker, now, interrupt)
        if connection.adding is not None:
            self._do(Answer(connection.adding, self.refusals.unknown(connection.id)))
        if connection.popped is not None:
            connection.popped.put(connection.id, self.connections.info(connection, now), self._do)
        self.check_stopped()

    def stop(self, ref: Any) -> None:
        """Take nothing more in, and start nothing again."""
        self.stopping = True
        self.stoppers.append(ref)
        for connection in self.connections.by_id.values():
            if connection.adding is not None:
                self._do(Answer(connection.adding, self.refusals.stopped()))
                connection.adding = None

    def check_stopped(self) -> None:
        """Tell that the pool has stopped, once nothing is left."""
        if self.stoppers and not self.connections.by_id and not len(self.workers):
            self._effects.answer(self.stoppers)
            self._do(Stopped())
