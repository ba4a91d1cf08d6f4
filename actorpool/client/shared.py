"""`SharedPool`: the handle of a shared pool. A name and an address; nothing is leased, nothing is given back."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from actorpool._protocol import shared
from actorpool.client._blocking import THREADS, drive
from actorpool.client._shared_calls import STARTING, SharedChannel, SharedTransport
from actorpool.serialization import tracing
from actorpool.status import ConnInfo
from actorpool.transport.paths import Endpoint

if TYPE_CHECKING:
    from actorpool.client.shared_aio import AsyncSharedPool


class SharedPool:
    """A handle of a shared pool: thread-safe, fork-safe, picklable, cheap.

    Callers do not lease a connection, they call; several of them share one connection through its queue. Which one a
    call goes to, how it can end and what becomes of connections is told in docs/shared-pools.md.

    Args:
        endpoint: the system's channel (or the directory of it), or a transport of another kind.
        name: the pool's name.
    """

    def __init__(self, endpoint: Endpoint | SharedTransport | str, name: str) -> None:
        self.name = name
        if isinstance(endpoint, (Endpoint, str)):
            endpoint = SharedChannel(endpoint, name)
        self._transport: SharedTransport = endpoint
        self._aio: AsyncSharedPool | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        transport = self._transport
        return (SharedPool, (transport.endpoint if isinstance(transport, SharedChannel) else transport, self.name))

    # -- connections ----------------------------------------------------------------------------------------

    def add(
        self,
        worker: Any,
        worker_args: Mapping[str, Any] | None = None,
        *,
        resource: Hashable = None,
        extra: Any = None,
        ttl: float | None = None,
        revive: bool | str = False,
        timeout: float = 5.0,
        penalties: Sequence[float] | None = None,
    ) -> int:
        """Start a worker in a process of its own, open its connection, and return its id once it is open.

        Args:
            worker: a `Worker` subclass, or `"module:Class"`.
            worker_args: its keyword arguments; never logged, shown or sent to telemetry.
            resource: what callers find it by; any hashable value that can be pickled. By default the worker's own
                `resource`.
            extra: anything to choose it by, see `where` of `call`.
            ttl: seconds from connecting until it expires; None: never.
            revive: what becomes of it when it ends: False drops it, True opens it again in the background; `"force"`
                does so from the very beginning, so that this returns although it cannot be opened yet.
            timeout: seconds within which "not now" is tried again.
            penalties: seconds before each further attempt to open it, in place of the pool's.

        Raises:
            InvalidConfig: names what cannot be.
            WorkerUnavailable: it could not be opened in time; `cause` says why, nothing is left behind.
            PermanentError: its worker says that retrying is useless.
            Exception: what its `__init__` raised.
        """
        args = {} if worker_args is None else worker_args
        request = shared.AddConnection(self.name, worker, args, resource, extra, ttl, revive, timeout, penalties)
        return self._ask(request, timeout + STARTING)  # type: ignore[no-any-return]

    def info(self, id: int) -> ConnInfo:
        """All about one connection.

        Raises:
            UnknownConnection: there is none of that id.
        """
        return self._ask(shared.GetConnection(self.name, id))  # type: ignore[no-any-return]

    def extra(self, id: int, value: Any) -> Any:
        """Attach `value` to a connection; returns what was attached before.

        Raises:
            UnknownConnection: there is none of that id.
        """
        return self._ask(shared.SetExtra(self.name, id, value))

    def update(self, resource: Hashable, where: Any = None, **settings: Any) -> int:
        """Change `extra`, `ttl` or `revive` of the connections to `resource` that `where` accepts; how many these are.

        Raises:
            InvalidConfig: a setting is unknown or bad; nothing was changed.
        """
        return self._ask(shared.UpdateConnections(self.name, resource, where, settings))  # type: ignore[no-any-return]

    def pop(self, id: int) -> ConnInfo:
        """Take a connection out: it gets no new calls, and is gone once those that wait are done; then this returns.

        Raises:
            UnknownConnection: there is none of that id.
        """
        return self._ask(shared.PopConnection(self.name, id), None)  # type: ignore[no-any-return]

    def pop_all(self, resource: Hashable, where: Any = None) -> list[ConnInfo]:
        """Take out all connections to `resource` that `where` accepts; as `pop`."""
        return self._ask(shared.PopConnections(self.name, resource, where), None)  # type: ignore[no-any-return]

    def is_empty(self, resource: Hashable) -> bool:
        """Whether no connection to `resource` is open."""
        return self._ask(shared.IsEmpty(self.name, resource))  # type: ignore[no-any-return]

    def resources(self) -> list[Any]:
        """What open connections lead to."""
        return self._ask(shared.ListResources(self.name))  # type: ignore[no-any-return]

    # -- calls ----------------------------------------------------------------------------------------------

    def call(
        self,
        resource: Hashable,
        method: str,
        /,
        *args: Any,
        where: Any = None,
        timeout: float | None = None,
        **kwargs: Any,
    ) -> Any:
        """Call a `@method` on the connection to `resource` with the least expected wait, and return its result.

        Args:
            resource: what the connection leads to.
            method: the method's name.
            where: which connections will do: a mapping that `extra` must contain, or a function of `ConnInfo` that can
                be pickled; it runs in the pool's process.
            timeout: seconds, waiting and running together; None is no limit.

        Raises:
            NoResource, MethodNotFound, NoMatch: no connection will do; `reason` says what is missing.
            CallTimeout: `started` says whether it was running; one that waited is never run.
            WorkerDied: the process of the connection, or the pool's own, died during it; it may have taken effect.
            PoolStopped, PoolNotFound, PoolDown, SystemDown: there is no pool.
            BaseException: what the method raised, with its own type and the remote traceback as its cause.
        """
        if timeout is not None or where is not None or type(method) is not str:
            shared.check_call(method, where, timeout)
        return self._transport.call_now(resource, method, args, kwargs, where, timeout)

    def map(
        self, resource: Hashable, method: str, /, *args: Any, timeout: float | None = None, **kwargs: Any
    ) -> dict[int, Any]:
        """Call a method on every open connection to `resource`: id to result, or to the exception in its place."""
        request = shared.CallAll(self.name, resource, method, args, tracing.carried(kwargs), None, timeout)
        return self._transport.value(drive(self._transport.call_all(THREADS, request)))  # type: ignore[no-any-return]

    def _ask(self, request: Any, timeout: float | None = 5.0) -> Any:
        return drive(self._transport.ask(THREADS, request, timeout))

    @property
    def aio(self) -> AsyncSharedPool:
        """The same verbs as coroutines, on the running event loop."""
        if self._aio is None:
            from actorpool.client.shared_aio import AsyncSharedPool  # not at the top: it loads asyncio

            self._aio = AsyncSharedPool(self)
        return self._aio

    def __repr__(self) -> str:
        return f"<shared pool {self.name!r} by {self._transport!r}>"
