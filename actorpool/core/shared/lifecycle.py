"""Worker processes and their connections: starting, opening, losing, reviving, dropping them.

What becomes of a connection that is over is its `revive`:

- `False`: it is dropped. It was added for as long as it lasts.
- `True`: it is opened again in the background, at once if it had answered a call or lasted, else after a delay;
  each failure in a row delays the next attempt more. Only a `PermanentError`, or a failing `__init__`, ends it.
- `"force"`: as `True` from the very beginning: adding it succeeds although its resource cannot be reached yet.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

from actorpool.core.effects import Answer, Kill, Open, Stop, Stopped
from actorpool.core.machine import Retry, Series, step
from actorpool.core.shared.connections import Loans, check_settings
from actorpool.core.shared.effects import Kept, Launch, Log
from actorpool.core.shared.records import DROPPED, ENDING, LIVE, OPENING, RESTING, STARTING, Connection, Meter
from actorpool.errors import InvalidConfig, PoolStopped, WorkerDied, WorkerUnavailable
from actorpool.serialization.exceptions import description_of, name_of


class Lifecycle(Loans):
    """The layer that opens connections and buries them."""

    # -- opening --------------------------------------------------------------------------------------------

    @step
    def add(
        self,
        now: float,
        ref: Any,
        spec: Any,
        *,
        resource: Hashable = None,
        extra: Any = None,
        ttl: float | None = None,
        revive: bool | str = False,
        timeout: float | None = None,
        penalties: Sequence[float] | None = None,
    ) -> None:
        """Start a worker and open it; answered by the connection's id, or by why it cannot be opened.

        "Not now" is tried again until `timeout`, then the answer is `WorkerUnavailable` and nothing is left behind;
        with `revive="force"` the id is answered after the first failure, and the attempts go on.

        Args:
            spec: whatever the shell needs to start the worker; comes back in `Launch`.
            resource: what it connects to; None: what the worker says when it is open.
            timeout: seconds for opening it, or None.
            penalties: seconds before each further attempt to open it, the last one repeated; None: as the pool's.
        """
        try:
            if self.stopping:
                raise self._stopped()
            check_settings(resource, ttl, revive, self._look)
        except (InvalidConfig, PoolStopped) as error:
            self._do(Answer(ref, error))
            return
        if any(one.adding is not None and one.adding == ref for one in self.connections.values()):
            return  # the same request once more
        self.last_id += 1
        connection = self._admit(Kept(self.last_id, spec, resource, extra, ttl, revive, penalties))
        connection.adding = ref
        if timeout is not None:
            connection.add_until = now + timeout
            self.timers.at(connection.add_until, (self._add_over, connection.id, None))
        self._start(connection)

    @step
    def restore(self, now: float, last_id: int, kept: Sequence[Kept]) -> None:
        """Bring back the connections of a former life of this pool, under their ids; each opens in the background."""
        self.last_id = last_id
        for one in kept:
            self._start(self._admit(one))

    def _admit(self, kept: Kept) -> Connection:
        penalties = kept.penalties or self.penalties
        retry = Series(penalties) if penalties else Retry(self.backoff)
        connection = Connection(kept.id, kept.spec, None, kept.extra, kept.ttl, kept.revive, retry, kept.penalties)
        self.connections[connection.id] = connection
        if kept.resource is not None:
            self._file(connection, kept.resource)
        return connection

    def _add_over(self, id: int, _since: None, now: float) -> None:
        connection = self.connections.get(id)
        if connection is None or connection.adding is None:
            return
        if connection.revive == "force":
            self._added(connection)
        else:
            self._give_up(connection, self._unavailable(connection), now)

    def _added(self, connection: Connection) -> None:
        if connection.adding is not None:
            self._do(Answer(connection.adding, connection.id))
            connection.adding = None

    def _unavailable(self, connection: Connection) -> WorkerUnavailable:
        cause = connection.cause
        why = f"{type(cause).__name__}: {cause}" if cause is not None else "it is still trying"
        return WorkerUnavailable(
            f"shared pool {self.name!r}: a connection could not be opened in time ({why}); make its resource "
            'reachable, or add it with revive="force" to have it join once it can be opened',
            pool=self.name,
            cause=cause,
        )

    def _start(self, connection: Connection) -> None:
        worker = connection.worker = next(self._worker_ids)
        self.workers[worker] = connection
        self._do(Launch(worker, connection.id, connection.spec))

    @step
    def worker_started(self, now: float, worker: int, pid: int | None = None, prompt: bool = True) -> None:
        """The worker's process is up and its `__init__` has run.

        Args:
            prompt: each of its answers is safely on its way before it begins the next call, and told here before its
                death is. Otherwise nothing is sent ahead: it would be unknown which of these calls it had begun.
        """
        connection = self.workers.get(worker)
        if connection is not None and connection.state is STARTING:
            connection.pid, connection.prompt = pid, prompt
            self._emit("worker.started", metadata={"worker": worker, "connection": connection.id})
            connection.move(OPENING)
            self._do(Open(worker))

    @step
    def start_failed(self, now: float, worker: int, error: Exception) -> None:
        """The worker's `__init__` raised: its arguments are wrong, and a second try would be the same."""
        connection = self.workers.get(worker)
        if connection is not None and connection.state is STARTING:
            self._give_up(connection, error, now)

    @step
    def opened(
        self, now: float, worker: int, took: float = 0.0, resource: Hashable = None, methods: tuple[str, ...] = ()
    ) -> None:
        """The worker is connected.

        Args:
            took: seconds it took.
            resource: the worker's own `resource`, used if `add` was given none.
            methods: its `@method`s in order of definition; figures of those it had before are kept.
        """
        connection = self.workers.get(worker)
        if connection is None or connection.state is not OPENING:
            return
        if connection.resource is None and not self._adopt(connection, resource, now):
            return
        known = connection.meters
        connection.meters = {name: known.get(name) or Meter() for name in methods}
        connection.move(LIVE)
        connection.connected_at = connection.free_at = now
        connection.proven = False
        connection.cause = None
        self._emit("worker.connected", metadata={"worker": worker, "connection": connection.id}, ms=took * 1e3)
        self._watch_ttl(connection)
        self._added(connection)

    def _adopt(self, connection: Connection, resource: Hashable, now: float) -> bool:
        """File the connection under the resource its worker names; without a resource no call could find it."""
        try:
            if resource is None:
                raise InvalidConfig("connection", {"resource": "neither add() nor the worker's `resource` names one"})
            check_settings(resource)
        except InvalidConfig as error:
            connection.move(RESTING)
            self._give_up(connection, error, now)
            return False
        self._file(connection, resource)
        return True

    @step
    def open_failed(
        self, now: float, worker: int, error: Exception, permanent: bool = False, retry_after: float | None = None
    ) -> None:
        """The worker could not connect: tried again after `retry_after` seconds or a backoff; never if `permanent`."""
        connection = self.workers.get(worker)
        if connection is None or connection.state is not OPENING:
            return
        connection.move(RESTING)
        connection.cause = error
        self._tell_error(connection, error)
        if permanent:
            self._give_up(connection, error, now)
        else:
            self._rest(connection, now, connection.retry.next(self.random()) if retry_after is None else retry_after)

    def _give_up(self, connection: Connection, error: BaseException, now: float) -> None:
        """The connection will never be open: tell the asker that added it, or log it. No call is concerned."""
        if connection.adding is not None:
            self._do(Answer(connection.adding, error))
            connection.adding = None
        else:
            text = f"connection {connection.id} is given up: {type(error).__name__}: {error}"
            self._do(Log("error", f"shared pool {self.name!r}: {text}"))
        self._drop(connection, now)

    # -- trying again ---------------------------------------------------------------------------------------

    def _rest(self, connection: Connection, now: float, delay: float) -> None:
        """Open a resting connection again in `delay` seconds, if that is still in time for the asker that adds it."""
        connection.retry_at = now + delay
        if connection.revive == "force":
            self._added(connection)
        if connection.adding is not None and connection.retry_at >= connection.add_until:
            self._give_up(connection, self._unavailable(connection), now)
            return
        if connection.adding is None and not connection.revive:  # `update` changed it while it was being revived
            self._give_up(connection, connection.cause or self._unavailable(connection), now)
            return
        if delay <= 0:
            self._reopen(connection, now)
            return
        cause = connection.cause
        why = f"{type(cause).__name__}: {cause}" if cause is not None else "closed"
        text = f"connection {connection.id} is not open ({why}); next attempt in {delay:.1f} s"
        self._do(Log("warning", f"shared pool {self.name!r}: {text}"))
        self.timers.at(connection.retry_at, (self._try_again, connection.id, None))

    def _try_again(self, id: int, _since: None, now: float) -> None:
        connection = self.connections.get(id)
        if connection is not None and connection.state is RESTING:
            self._reopen(connection, now)

    def _reopen(self, connection: Connection, now: float) -> None:
        connection.restarts += 1
        if connection.worker is not None:
            connection.move(OPENING)
            self._do(Open(connection.worker))
        else:
            connection.move(STARTING)
            self._start(connection)
            self._emit("worker.restarted", metadata={"worker": connection.worker, "connection": connection.id})

    # -- the end --------------------------------------------------------------------------------------------

    def _watch_ttl(self, connection: Connection) -> None:
        if connection.ttl is not None and connection.connected_at is not None:
            self.timers.at(connection.connected_at + connection.ttl, (self._ttl_over, connection.id, None))

    def _ttl_over(self, id: int, _since: None, now: float) -> None:
        """Expiry is met by calls. An idle connection that is revived waits for one; it may never be needed again."""
        connection = self.connections.get(id)
        if connection is None or not connection.serving or not connection.expired(now):
            return
        if connection.queue or not connection.revive:
            self._end(connection, now)

    def _tell_error(self, connection: Connection, error: Exception) -> None:
        told = {"error": name_of(error), "reason": description_of(error)}
        self._emit("worker.connect_error", metadata={"worker": connection.worker, "connection": connection.id, **told})

    @step
    def lost(self, now: float, worker: int, error: Exception) -> None:
        """The connection is gone; its process is fine. A call that runs is still answered by the worker."""
        connection = self.workers.get(worker)
        if connection is None or not connection.serving:
            return
        connection.cause = error
        self._tell_error(connection, error)
        self._end(connection, now, failed=True)

    @step
    def died(
        self, now: float, worker: int, reason: str = "killed", *, begun: bool = True, refused: int | None = None
    ) -> None:
        """The worker's process is gone, whatever the reason. A second notice of the same death is nothing.

        All its answers have been told before, if it is `prompt`. So the calls that were sent ahead have not begun.

        Args:
            begun: it may have read all that it was told to run; else it has left the last of that unread.
            refused: the number of the first call that could not be sent to it any more.
        """
        if worker in self.leaving:
            self.leaving.remove(worker)
            self._check_stopped()
            return
        connection = self.workers.pop(worker, None)
        if connection is None:
            return
        connection.worker = connection.pid = None
        connection.cause = WorkerDied(f"the process of connection {connection.id} died: {reason}", pool=self.name)
        self._emit("worker.died", metadata={"worker": worker, "connection": connection.id, "reason": reason})
        if connection.state in (STARTING, OPENING):
            connection.move(RESTING)
            self._rest(connection, now, connection.retry.next(self.random()))
        elif connection.state is not RESTING:
            self._lose_running(connection, now, reason, begun, refused)
            self._end(connection, now, failed=True)

    def _end(self, connection: Connection, now: float, failed: bool = False) -> None:
        """The connection takes no more calls; those that wait go elsewhere, the one that runs ends first.

        Args:
            failed: it broke; reviving is delayed if it never got anywhere since it connected.
        """
        assert connection.connected_at is not None
        if connection.proven or now - connection.connected_at >= connection.retry.longest:
            connection.retry.reset()
            failed = False
        connection.retry_at = now + connection.retry.again(self.random()) if failed else now
        if connection.state is not ENDING:
            connection.move(ENDING)
        self._move_calls(connection, now)
        self._settle(connection, now)

    def _settle(self, connection: Connection, now: float) -> None:
        """Revive or drop a connection that is over, once nothing runs on it."""
        if connection.running is not None:
            self._recall(connection)
            return
        if connection.revive and connection.popped is None and not self.stopping:
            connection.move(RESTING)
            self._rest(connection, now, max(0.0, connection.retry_at - now))
        else:
            self._drop(connection, now)

    def _drop(self, connection: Connection, now: float, interrupt: bool = False) -> None:
        """Forget a connection on which no call is left, and have its process end."""
        interrupt = interrupt or connection.state is OPENING
        connection.move(DROPPED)
        del self.connections[connection.id]
        self._unfile(connection)
        if connection.worker is not None:
            self._dismiss(connection.worker, now, interrupt)
        if connection.adding is not None:
            self._do(Answer(connection.adding, self._unknown(connection.id)))
        if connection.popped is not None:
            self._contribute(connection.popped, connection, connection.info(now, self.epoch))
        self._check_stopped()

    def _dismiss(self, worker: int, now: float, interrupt: bool) -> None:
        del self.workers[worker]
        self.leaving.add(worker)
        self._do(Stop(worker, interrupt))
        self.timers.at(now + self.kill_after, (self._kill_if_there, worker, None))

    def _kill_if_there(self, worker: int, _since: None, now: float) -> None:
        if worker in self.leaving:
            self._do(Kill(worker))

    def _check_stopped(self) -> None:
        if self.stoppers and not self.connections and not self.leaving:
            for ref in self.stoppers:
                self._do(Answer(ref))
            self.stoppers.clear()
            self._do(Stopped())

    # -- what the layer above decides -----------------------------------------------------------------------

    def _move_calls(self, connection: Connection, now: float) -> None:
        raise NotImplementedError

    def _lose_running(self, connection: Connection, now: float, reason: str, begun: bool, refused: int | None) -> None:
        raise NotImplementedError
