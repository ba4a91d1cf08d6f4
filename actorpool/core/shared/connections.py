"""The connections of a shared pool by id and by resource, what is told about them, and their loans to callers."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Hashable, Mapping, Sequence
from reprlib import repr as short
from typing import Any

from actorpool.core.effects import Answer
from actorpool.core.machine import Backoff, StateMachine, TimerQueue
from actorpool.core.shared.effects import Kept, Log, Recall
from actorpool.core.shared.records import LIVE, RESTING, Call, Connection, Deadlines, Gather, Loan
from actorpool.errors import (
    CallTimeout,
    InvalidConfig,
    MethodNotFound,
    NoMatch,
    NoResource,
    PoolStopped,
    UnknownConnection,
)
from actorpool.status import ConnInfo

_PLAIN = frozenset({str, int, float, bool, bytes, type(None)})


def _is_plain(resource: Any) -> bool:
    """Whether no code of a user's runs when it is hashed or compared with its like."""
    return type(resource) in _PLAIN or (type(resource) is tuple and _PLAIN.issuperset(map(type, resource)))


REVIVALS = (False, True, "force")


def check_settings(
    resource: Any = None,
    ttl: Any = None,
    revive: Any = False,
    look: Callable[[Callable[[], Any]], Any] = lambda look: look(),
) -> None:
    """Refuse bad settings of a connection.

    Args:
        resource: what it is connected to; anything hashable.
        ttl: seconds to live from connecting, above 0, or None for ever.
        revive: False, True or `"force"`.
        look: see `Connections`.

    Raises:
        InvalidConfig: names every bad setting.
    """
    problems = {}
    try:
        look(lambda: hash(resource))
    except Exception as error:  # a user's __hash__ may raise anything
        problems["resource"] = f"must be hashable ({type(error).__name__}: {error})"
    number = isinstance(ttl, (int, float)) and not isinstance(ttl, bool)
    if ttl is not None and not (number and ttl > 0):
        problems["ttl"] = f"must be a number of seconds above 0 or None, not {ttl!r}"
    if not any(revive is value or (isinstance(value, str) and revive == value) for value in REVIVALS):
        problems["revive"] = f'must be False, True or "force", not {revive!r}'
    if problems:
        raise InvalidConfig("connection", problems)


class Connections(StateMachine):
    """Everything a shared pool knows; every figure is counted from it, never kept beside it.

    Args:
        name: the pool's name, for texts.
        random: a source of numbers in [0, 1), for jitter.
        backoff: delays between attempts to open a connection.
        penalties: fixed delays in their place; of a connection that was not given others.
        kill_after: seconds a worker has to obey an interrupt or an exit request before it is killed.
        epoch: the Unix time at the monotonic time 0, for `ConnInfo`.
        look: calls a function that runs a user's code (`where`, `__eq__`, `__hash__`) and bounds what that may take.
    """

    def __init__(
        self,
        name: str,
        random: Callable[[], float],
        *,
        backoff: Backoff | None = None,
        penalties: Sequence[float] | None = None,
        kill_after: float = 2.0,
        epoch: float = 0.0,
        look: Callable[[Callable[[], Any]], Any] = lambda look: look(),
    ) -> None:
        super().__init__()
        self.name = name
        self.random = random
        self.backoff = backoff or Backoff(0.1, 30.0)
        self.penalties = penalties
        self.kill_after = kill_after
        self.epoch = epoch
        self._look = look
        self.observed = False
        """Whether an event is wanted for every call."""
        self.connections: dict[int, Connection] = {}
        self.by_resource: dict[Hashable, list[Connection]] = {}
        self.workers: dict[int, Connection] = {}
        """Connections by the id of the process that serves them now. Ids grow, so late news of an old one is lost."""
        self.leaving: set[int] = set()
        """Processes that were asked to end and have not yet."""
        self.calls: dict[Hashable, Call] = {}
        """Calls whose callers wait for an answer."""
        self.timers = TimerQueue()
        self.deadlines = Deadlines()
        self._too_slow: Any = None  # the last `where` that took too long; it matches nothing any more
        self.stopping = False
        self.stoppers: list[Any] = []
        self.last_id = 0
        self._worker_ids = itertools.count(1)
        self._numbers = itertools.count(1)

    # -- figures ------------------------------------------------------------------------------------------

    def infos(self, now: float) -> list[ConnInfo]:
        """All connections, oldest first."""
        return [connection.info(now, self.epoch) for connection in self.connections.values()]

    def kept(self) -> tuple[int, list[Kept]]:
        """The last id, and the connections that are revived: what `restore` takes."""
        sticky = [one for one in self.connections.values() if one.revive and one.popped is None and one.adding is None]
        return self.last_id, [
            Kept(one.id, one.spec, one.resource, one.extra, one.ttl, one.revive, one.penalties) for one in sticky
        ]

    def _of(self, resource: Hashable) -> list[Connection]:
        """The connections of a resource in whatever state, oldest first."""
        try:
            if _is_plain(resource):
                return list(self.by_resource.get(resource, ()))
            return list(self._look(lambda: self.by_resource.get(resource, ())))
        except Exception:  # unhashable, or a user's __eq__ raised: nothing is filed under such a thing
            return []

    def _file(self, connection: Connection, resource: Hashable) -> None:
        connection.resource = resource
        try:
            filed: list[Connection] = self._look(lambda: self.by_resource.setdefault(resource, []))
        except Exception as error:
            text = f"shared pool {self.name!r}: the resource of connection {connection.id} cannot be compared"
            self._do(Log("warning", f"{text}, so no call finds it: {type(error).__name__}: {error}"))
            return
        filed.append(connection)
        filed.sort(key=lambda one: one.id)  # a resource may be known only once its connection is open

    def _unfile(self, connection: Connection) -> None:
        filed = self._of(connection.resource)
        if connection in filed:
            filed.remove(connection)
            with contextlib.suppress(Exception):  # it could be compared a moment ago
                self._look(lambda: self._refile(connection.resource, filed))

    def _refile(self, resource: Hashable, filed: list[Connection]) -> None:
        self.by_resource[resource] = filed
        if not filed:
            del self.by_resource[resource]

    def _fits(self, where: Any, connection: Connection, now: float) -> bool:
        """Whether `where` accepts the connection: None, a mapping that `extra` contains, or a function of `ConnInfo`.

        The function is a user's. One that raises accepts nothing, and the log says so.
        """
        if where is None:
            return True
        if where is self._too_slow:
            return False
        try:
            if isinstance(where, Mapping):
                extra = connection.extra
                return isinstance(extra, Mapping) and bool(self._look(
                    lambda: all(k in extra and extra[k] == v for k, v in where.items())))  # fmt: skip
            return bool(self._look(lambda: bool(where(connection.info(now, self.epoch)))))
        except Exception as error:
            self._too_slow = where if isinstance(error, TimeoutError) else self._too_slow
            text = f"shared pool {self.name!r}: where={self._short(where)} raised {type(error).__name__}: {error}"
            self._do(Log("warning", f"{text}; connection {connection.id} counts as not matching"))
            return False

    def _short(self, value: Any) -> str:
        """A user's value for a text, whatever its `__repr__` does."""
        try:
            return str(self._look(lambda: short(value)))
        except Exception:
            return f"<{type(value).__name__}>"

    # -- answers that connections make up together ----------------------------------------------------------

    def _contribute(self, gather: Gather, connection: Connection, value: Any) -> None:
        if gather.put(connection.id, value):
            self._do(Answer(gather.ref, gather.answer))

    # -- what went wrong, in words --------------------------------------------------------------------------

    def _no_resource(self, resource: Hashable, now: float) -> NoResource:
        known = self._of(resource)
        resting = [connection for connection in known if connection.state is RESTING]
        text = f"shared pool {self.name!r} has no live connection to {self._short(resource)}"
        if not known:
            text += "; add() one"
        else:
            text += f" ({len(known)} known: {', '.join(f'{one.id} {one.state.value}' for one in known)})"
        cause = next((connection.cause for connection in reversed(known) if connection.cause is not None), None)
        if resting:
            first = min(connection.retry_at for connection in resting) - now
            text += f"; the next attempt to open one is in {max(first, 0.0):.1f} s"
        if cause is not None:
            text += f"; the last problem was {type(cause).__name__}: {cause}"
        return NoResource(text, pool=self.name, resource=resource, cause=cause)

    def _none_left(self, call: Call) -> NoResource:
        connection = call.connection
        assert connection is not None
        cause = connection.cause
        why = f" ({type(cause).__name__}: {cause})" if cause is not None else ""
        text = (
            f"shared pool {self.name!r}: connection {connection.id} to {self._short(call.resource)} is over{why}, and "
            f"no other live one can take the call of {call.method!r} that waited there; it was not run"
        )
        return NoResource(text, pool=self.name, resource=call.resource, cause=cause)

    def _no_method(self, resource: Hashable, method: str, live: list[Connection]) -> MethodNotFound:
        methods = dict.fromkeys(name for connection in live for name in connection.meters)
        text = (
            f"none of the {len(live)} live connection(s) to {self._short(resource)} in shared pool {self.name!r} has "
            f"the method {method!r}; they have {', '.join(methods) or 'none: mark methods with @method'}"
        )
        return MethodNotFound(text, pool=self.name, resource=resource)

    def _no_match(self, call: Call, able: int) -> NoMatch:
        text = (
            f"where={self._short(call.where)} rejected all {able} live connection(s) to "
            f"{self._short(call.resource)} in shared pool {self.name!r} that have the method {call.method!r}; look at "
            "their extra with info()"
        )
        return NoMatch(text, pool=self.name, resource=call.resource)

    def _timed_out(self, call: Call, now: float) -> CallTimeout:
        where = f"shared pool {self.name!r}, {self._short(call.resource)}: {call.method!r}"
        if not call.running:
            ahead = call.connection.ahead if call.connection is not None else 0
            text = (
                f"{where} waited {now - call.arrived:.3f} s and was not run ({ahead} call(s) on its connection); "
                "raise timeout, or add connections to the resource"
            )
            return CallTimeout(text, pool=self.name, waited=now - call.arrived, started=False)
        waited, ran = call.started - call.arrived, now - call.started
        text = (
            f"{where} ran {ran:.3f} s after waiting {waited:.3f} s, is being interrupted, and may have taken effect; "
            "raise timeout, or find out why the connection is slow"
        )
        return CallTimeout(text, pool=self.name, waited=waited, started=True)

    def _stopped(self) -> PoolStopped:
        return PoolStopped(f"shared pool {self.name!r} was stopped", pool=self.name)

    def _unknown(self, id: int) -> UnknownConnection:
        return UnknownConnection(
            f"shared pool {self.name!r} has no connection {id!r}; it was popped, dropped, or never there",
            pool=self.name,
        )

    def _live_now(self, resource: Hashable, now: float) -> bool:
        return any(one.state is LIVE and not one.expired(now) for one in self._of(resource))


ALONE = 4
"""Calls in a row of one caller after which it is taken to be alone; calling back costs about as much as two save."""
TELLING = 0.05
"""Seconds a worker has to tell what was done in a loan; after that the asker is told what is known."""


class Loans(Connections):
    """The layer that lends connections and gets them back."""

    def _lend(self, connection: Connection, call: Call, now: float) -> Loan | None:
        """The loan that the caller of a call gets, which has just ended well; None if it was not alone, or may not."""
        alone = call.caller == connection.last_caller
        connection.in_row = connection.in_row + 1 if alone else 1
        connection.last_caller = call.caller
        if connection.in_row < ALONE or not call.direct or call.answered:
            return None
        free = connection.state is LIVE and connection.running is None and connection.free_at <= now
        if not free or connection.ttl is not None or self.observed:
            return None
        loan = connection.running = Loan(next(self._numbers), call.caller)
        return loan

    def _recall(self, connection: Connection) -> None:
        """If it is lent, have it back as soon as the call that may be running is over."""
        loan = connection.running
        if isinstance(loan, Loan) and not loan.recalled:
            assert connection.worker is not None
            loan.recalled = True
            self._do(Recall(connection.worker, loan.number))

    def _tell(self, connection: Connection, loan: Loan, now: float) -> None:
        """The loan is back, or its askers have waited for long enough: tell them what is known."""
        asking, loan.asking = loan.asking, []
        for gather in asking:
            self._contribute(gather, connection, connection.info(now, self.epoch))
