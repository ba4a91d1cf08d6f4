"""`System` and `connect`: a whole actor system as seen by the process that uses it."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any

from actorpool._protocol import manager as governing
from actorpool._protocol.manager import FindPool
from actorpool._protocol.requests import GetStack
from actorpool.client import _dashboard
from actorpool.client._at_fork import renewed
from actorpool.client._node_client import NodeClient, node_client
from actorpool.client.pool import Pool
from actorpool.config import PoolConfig, SharedPoolConfig, check_pool_name, unplaced_problems
from actorpool.errors import InvalidConfig, PoolAlreadyExists, PoolNotFound
from actorpool.messages import Event, GetPoolStatus, ListPools, StartPool, StopPool
from actorpool.status import PoolMetrics, PoolStatus, TreeNode
from actorpool.transport import paths

if TYPE_CHECKING:
    from actorpool.client.local import LocalPool
    from actorpool.client.shared import SharedPool

START_POOL_TIMEOUT = 60.0
"""Seconds beyond the pool's own checkout timeout; large pools start some 200 workers a second."""
STOP_MARGIN = 10.0
"""Seconds a pool may need beyond its timeout, to interrupt and kill what does not stop."""


def connect(name: str) -> System:
    """Attach to a node that another process of this user started under that name; it is never ended from here.

    Raises:
        SystemDown: no such node runs, or it is of an incompatible version.
        AuthenticationFailed: the cookie in its runtime directory cannot be read, or is not the node's.
    """
    return System(node_client(name))


class System:
    """An actor system: its pools, its supervision tree, and what ends it.

    A context manager; safe to share between threads and usable in a forked child, which cannot end it.

    Attributes:
        name: the node's name (made up if none was given).
        directory: its runtime directory; None without a node.
    """

    def __init__(self, node: NodeClient) -> None:
        self._node_client = node
        self._local: dict[str, LocalPool] = {}  # pools that were started with enabled=False
        self._lock = renewed(self, "_lock", threading.Lock)
        self.name = node.name
        self.directory = node.directory

    # -- pools --------------------------------------------------------------------------------------------

    def start_pool(self, name: str, config: PoolConfig | None = None, /, **fields: Any) -> Pool | LocalPool:
        """Start a pool and wait until all its workers are started.

        Args:
            name: `[A-Za-z][A-Za-z0-9_.-]{0,63}`.
            config: its settings.
            **fields: settings of `PoolConfig`, over those of `config`.

        Returns:
            Its handle; for `enabled=False` a `LocalPool`, which has the same verbs and no actors.

        Raises:
            InvalidConfig: names every bad setting; nothing was started.
            PoolAlreadyExists: the running one was not touched.
            PermanentError: a worker said that retrying is useless; nothing is left behind.
            Exception: what a worker's `__init__` raised; nothing is left behind.
        """
        check_pool_name(name)
        config = pool_config(config, fields)
        if problems := unplaced_problems(config):
            raise InvalidConfig("start_pool", problems)
        if not config.enabled:
            return self._start_local(name, config)
        self._check_socket(name)
        if name in self._local:
            raise _exists(name)
        self._node_client.ask(StartPool(name, config), config.checkout_timeout + START_POOL_TIMEOUT)
        return self._node_client.pool(name)

    def start_database(
        self, url: str, name: str | None = None, *, adapter: Any = None, **fields: Any
    ) -> Pool | LocalPool:
        """Start the pool of a database that a URL names; see docs/workers.md.

        Args:
            url: `postgresql://...`, `sqlite:///file` (relative to this process's directory), `sqlite://` (in memory,
                one worker), `mysql://...`, `mariadb://...`, or a URL of SQLAlchemy with a `+driver`.
            name: the pool's; None makes one of the URL without its password.
            adapter: `"postgres"`, `"sqlite"`, `"dbapi"`, `"sqlalchemy"` or a `Worker` class, in place of the scheme's.
            **fields: fields of `PoolConfig` (`size` is 10 and `max_overflow` 20 here); others go to the worker.

        Raises:
            InvalidConfig: an unknown scheme or adapter, or a driver that is not installed; it lists what there is.
            Exception: otherwise as `start_pool`.
        """
        from actorpool.workers import urls  # not at the top: few systems need it

        return self.start_pool(urls.name_of(url) if name is None else name, urls.config_of(url, adapter, fields))

    def _start_local(self, name: str, config: PoolConfig) -> LocalPool:
        from actorpool.client.local import LocalPool  # not at the top: few systems have one

        with self._lock:
            if name in self.pools():
                raise _exists(name)
            pool = self._local[name] = LocalPool(config, name)
        return pool

    def _check_socket(self, name: str) -> None:
        if self.directory is not None and not paths.fits(path := paths.pool(self.directory, name)):
            text = f"{path} has more than the {paths.LONGEST_PATH} bytes a socket's path may have: shorten the name"
            raise InvalidConfig("pool", {"name": f"{text}, or set ACTORPOOL_RUNTIME_DIR"})

    def pool(self, name: str) -> Pool | LocalPool:
        """The handle of a running pool.

        Raises:
            PoolNotFound: there is none of that name.
        """
        local = self._local.get(name)
        if local is not None:
            return local
        self._find(name, "pool")
        return self._node_client.pool(name)

    def start_shared_pool(self, name: str, config: SharedPoolConfig | None = None, /, **fields: Any) -> SharedPool:
        """Start a shared pool, whose connections are added one by one; see docs/shared-pools.md.

        Args:
            name: as of a pool, and unlike that of any other pool.
            config: its settings.
            **fields: settings of `SharedPoolConfig`, over those of `config`.

        Raises:
            InvalidConfig: names every bad setting; nothing was started.
            PoolAlreadyExists: the running one was not touched.
        """
        check_pool_name(name)
        config = _shared_config(config, fields)
        self._check_socket(name)
        if name in self._local:
            raise _exists(name)
        self._node_client.ask(StartPool(name, config), START_POOL_TIMEOUT)
        return self._node_client.shared_pool(name)

    def shared_pool(self, name: str) -> SharedPool:
        """The handle of a running shared pool.

        Raises:
            PoolNotFound: there is none of that name.
        """
        self._find(name, "shared")
        return self._node_client.shared_pool(name)

    def _find(self, name: str, kind: str | None = None) -> None:
        """Make sure that a pool of that kind (None: of either) is running."""
        if name not in self._local:
            found = self._node_client.ask(FindPool(name))
            if found is None or kind is None or found == kind:
                return
        verb, found = ("pool", "a pool that lends workers") if kind == "shared" else ("shared_pool", "a shared pool")
        raise PoolNotFound(f"{name!r} is {found}: get it by {verb}({name!r})", pool=name)

    def pools(self) -> list[str]:
        """The names of all pools, sorted."""
        return sorted([*self._node_client.ask(ListPools()), *self._local])

    def stop_pool(self, name: str, timeout: float = 5.0) -> None:
        """Stop a pool: waiters get `PoolStopped` at once, running calls may finish within `timeout` seconds.

        Raises:
            PoolNotFound: there is none of that name.
        """
        local = self._local.pop(name, None)
        if local is not None:
            local.close()
        else:
            self._node_client.ask(StopPool(name, timeout), timeout + STOP_MARGIN)

    def status(self, name: str) -> PoolStatus:
        """A pool's figures, also while it is saturated."""
        if name in self._local:
            return self._local[name].status()
        return self._node_client.ask(GetPoolStatus(name))  # type: ignore[no-any-return]

    def metrics(self, name: str) -> PoolMetrics:
        """The last 100 samples of a pool."""
        if name in self._local:
            return self._local[name].metrics()
        self._find(name)
        return self._node_client.pool(name).metrics()

    def stack(self, pool: str, worker_id: int) -> str:
        """The Python stack of all threads of a worker at this moment, also while it is stuck in C; the call goes on.

        `worker_id`: as in `Pool.workers()`; of a shared pool, the id of a connection.

        Raises:
            PoolNotFound, LookupError: there is no such pool, or it has no such worker.
            TimeoutError: the worker has not told it within a second: it is stopped.
        """
        self._find(pool)
        return self._node_client.pool(pool)._ask(GetStack(worker_id))  # type: ignore[no-any-return]

    # -- the whole ----------------------------------------------------------------------------------------

    def tree(self) -> TreeNode:
        """The supervision tree; `str(tree)` draws it."""
        return self._node_client.ask(governing.Tree())  # type: ignore[no-any-return]

    def events(self, pattern: str = "*", after: int | None = None, limit: int = 1000) -> list[Event]:
        """What has happened lately, in order: all events but those of each call, the samples, and the oldest.

        The manager keeps the last 1000, at most 1 MB; they outlive a restart of it. No secret is in them.

        Args:
            pattern: a glob over event names, such as `"worker.*"`.
            after: only events with a greater `number`: the last one seen.
            limit: how many at most, the latest.

        Raises:
            InvalidConfig: names each bad argument.
        """
        return self._node_client.ask(governing.GetEvents(pattern, after, limit))  # type: ignore[no-any-return]

    def supervise(self, spec: Any) -> Any:
        """Start actors of your own under the root supervisor.

        Args:
            spec: a `ChildSpec` or a `SupervisorSpec` of `actorpool.supervisors`.

        Returns:
            The address of the actor or of the supervisor.

        Raises:
            SupervisorError: it failed to start; the text names the child and its reason.
        """
        return self._node_client.ask(governing.Supervise(spec), START_POOL_TIMEOUT)

    @property
    def dashboard(self) -> str | None:
        """The address of the node's page; None if it was started without one."""
        return _dashboard.address_in(self.directory)

    @property
    def manager(self) -> Any:
        """The manager's `ActorAddress`; asked for anew each time, for a restarted manager has another."""
        return self._node_client.manager()

    @property
    def actor_system(self) -> Any:
        """Thespian's `ActorSystem`. Several threads: one `actor_system.private()` for each."""
        return self._node_client.actor_system()

    def wait(self) -> int:
        """Block until the system has ended; its exit status: 0 after an orderly end, also where it is not known.

        Raises:
            SystemDown: it runs in this process, so there is nothing to wait for.
        """
        return self._node_client.wait()

    def shutdown(self, timeout: float = 10.0) -> None:
        """End the system this process started, in an orderly way within `timeout` seconds, else by force.

        On a system that was only connected to, or in a forked child, this lets go of the handle.
        """
        for name in list(self._local):
            self._local.pop(name).close()
        self._node_client.close(timeout)

    def __enter__(self) -> System:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.shutdown()

    def __reduce__(self) -> Any:
        raise TypeError("a System belongs to its process: pass its pools, which pickle, or its name to connect() there")

    def __repr__(self) -> str:
        return f"<system {self.name!r} in {self.directory or 'this process'}>"


def pool_config(config: PoolConfig | None, fields: Mapping[str, Any]) -> PoolConfig:
    if config is None:
        return PoolConfig(**fields)
    if not isinstance(config, PoolConfig):
        raise InvalidConfig("start_pool", {"config": f"must be a PoolConfig, not {config!r}"})
    return dataclasses.replace(config, **fields) if fields else config


def _shared_config(config: SharedPoolConfig | None, fields: Mapping[str, Any]) -> SharedPoolConfig:
    if config is None:
        return SharedPoolConfig(**fields)
    if not isinstance(config, SharedPoolConfig):
        raise InvalidConfig("start_shared_pool", {"config": f"must be a SharedPoolConfig, not {config!r}"})
    return dataclasses.replace(config, **fields) if fields else config


def _exists(name: str) -> PoolAlreadyExists:
    return PoolAlreadyExists(f"a pool named {name!r} is running; it was not touched: stop it first", pool=name)
