"""The connections of a shared pool: by id, by resource, by the worker that serves each; and which of them are meant.

Users' code runs here, in the comparison of resources and in `where`; what it raises is no error of the pool's.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Hashable, Mapping
from reprlib import repr as short
from typing import Any

from actorpool.core.shared.effects import Kept, Log
from actorpool.core.shared.records import LIVE, Connection
from actorpool.errors import InvalidConfig
from actorpool.status import ConnInfo

_PLAIN = frozenset({str, int, float, bool, bytes, type(None)})


def _is_plain(resource: Any) -> bool:
    """Whether no code of a user's runs when it is hashed or compared with its like."""
    return type(resource) in _PLAIN or (type(resource) is tuple and _PLAIN.issuperset(map(type, resource)))


REVIVALS = (False, True, "force")
SETTINGS = ("extra", "ttl", "revive")
"""What can be changed of a connection."""

Look = Callable[[Callable[[], Any]], Any]
"""Calls a function that runs a user's code (`where`, `__eq__`, `__hash__`) and bounds what that may take."""


def look_unbounded(look: Callable[[], Any]) -> Any:
    """Call it."""
    return look()


def check_settings(resource: Any = None, ttl: Any = None, revive: Any = False, look: Look = look_unbounded) -> None:
    """Refuse bad settings of a connection.

    Args:
        resource: what it is connected to; anything hashable.
        ttl: seconds to live from connecting, above 0, or None for ever.
        revive: False, True or `"force"`.
        look: calls what runs a user's code.

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


def check_changes(settings: Mapping[str, Any]) -> None:
    """Refuse what cannot be changed of a connection, or not to that.

    Raises:
        InvalidConfig: names every bad setting.
    """
    problems = {name: f"is unknown; known are {', '.join(SETTINGS)}" for name in settings if name not in SETTINGS}
    if problems:
        raise InvalidConfig("connection", problems)
    check_settings(ttl=settings.get("ttl"), revive=settings.get("revive", False))


class Connections:
    """All connections; every figure is counted from them, never kept beside them.

    Args:
        name: the pool's name, for texts.
        epoch: the Unix time at the monotonic time 0, for `ConnInfo`.
        look: calls what runs a user's code.
        do: takes effects.
    """

    def __init__(self, name: str, epoch: float, look: Look, do: Callable[[Any], None]) -> None:
        self.name = name
        self.epoch = epoch
        self.look = look
        self.by_id: dict[int, Connection] = {}
        self.by_resource: dict[Hashable, list[Connection]] = {}
        self.by_worker: dict[int, Connection] = {}
        """By the id of the worker that serves it now. Ids grow, so late news of an old one is lost."""
        self.last_id = 0
        self._too_slow: Any = None  # the last `where` that took too long; it matches nothing any more
        self._do = do

    # -- what there is ------------------------------------------------------------------------------------

    def info(self, connection: Connection, now: float) -> ConnInfo:
        """All about a connection."""
        return connection.info(now, self.epoch)

    def infos(self, now: float) -> list[ConnInfo]:
        """All about all of them, oldest first."""
        return [self.info(connection, now) for connection in self.by_id.values()]

    def kept(self) -> tuple[int, list[Kept]]:
        """The last id, and the connections that are revived: what `restore` takes."""
        sticky = [one for one in self.by_id.values() if one.revive and one.popped is None and one.adding is None]
        return self.last_id, [
            Kept(one.id, one.spec, one.resource, one.extra, one.ttl, one.revive, one.penalties) for one in sticky
        ]

    def add(self, connection: Connection) -> None:
        """Take a connection in, under its resource if that is known."""
        self.by_id[connection.id] = connection
        if connection.resource is not None:
            self.file(connection, connection.resource)

    def remove(self, connection: Connection) -> None:
        """Take a connection out."""
        del self.by_id[connection.id]
        filed = self.of(connection.resource)
        if connection in filed:
            filed.remove(connection)
            with contextlib.suppress(Exception):  # it could be compared a moment ago
                self.look(lambda: self._refile(connection.resource, filed))

    # -- by resource --------------------------------------------------------------------------------------

    def of(self, resource: Hashable) -> list[Connection]:
        """The connections of a resource in whatever state, oldest first."""
        try:
            if _is_plain(resource):
                return list(self.by_resource.get(resource, ()))
            return list(self.look(lambda: self.by_resource.get(resource, ())))
        except Exception:  # unhashable, or a user's __eq__ raised: nothing is filed under such a thing
            return []

    def live_now(self, resource: Hashable, now: float) -> bool:
        """Whether a connection of a resource would take a call."""
        return any(one.state is LIVE and not one.expired(now) for one in self.of(resource))

    def file(self, connection: Connection, resource: Hashable) -> None:
        """Have a connection found under its resource."""
        connection.resource = resource
        try:
            filed: list[Connection] = self.look(lambda: self.by_resource.setdefault(resource, []))
        except Exception as error:
            text = f"shared pool {self.name!r}: the resource of connection {connection.id} cannot be compared"
            self._do(Log("warning", f"{text}, so no call finds it: {type(error).__name__}: {error}"))
            return
        filed.append(connection)
        filed.sort(key=lambda one: one.id)  # a resource may be known only once its connection is open

    def _refile(self, resource: Hashable, filed: list[Connection]) -> None:
        self.by_resource[resource] = filed
        if not filed:
            del self.by_resource[resource]

    # -- by what a user wants -----------------------------------------------------------------------------

    def matching(self, resource: Hashable, where: Any, now: float) -> list[Connection]:
        """The connections of a resource that `where` accepts, in whatever state."""
        return [connection for connection in self.of(resource) if self.fits(where, connection, now)]

    def fits(self, where: Any, connection: Connection, now: float) -> bool:
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
                return isinstance(extra, Mapping) and bool(self.look(
                    lambda: all(k in extra and extra[k] == v for k, v in where.items())))  # fmt: skip
            return bool(self.look(lambda: bool(where(self.info(connection, now)))))
        except Exception as error:
            self._too_slow = where if isinstance(error, TimeoutError) else self._too_slow
            text = f"shared pool {self.name!r}: where={self.short(where)} raised {type(error).__name__}: {error}"
            self._do(Log("warning", f"{text}; connection {connection.id} counts as not matching"))
            return False

    def short(self, value: Any) -> str:
        """A user's value for a text, whatever its `__repr__` does."""
        try:
            return str(self.look(lambda: short(value)))
        except Exception:
            return f"<{type(value).__name__}>"
