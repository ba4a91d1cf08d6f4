"""`Cluster`: this process's part in a cluster of hosts."""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any

from actorpool._validation import Check, instance
from actorpool.client.system import pool_config
from actorpool.cluster.client import Client
from actorpool.cluster.commands import Plan, drive
from actorpool.cluster.engine import Engine, Lost
from actorpool.cluster.plans import STARTING, Plans
from actorpool.cluster.pool import ClusterPool
from actorpool.config import PoolConfig, SharedPoolConfig, check_pool_name
from actorpool.core.cluster.members import Declaration, HostInfo
from actorpool.errors import InvalidConfig, SystemDown
from actorpool.messages import Event
from actorpool.node import names
from actorpool.serialization import pickling

if TYPE_CHECKING:
    from actorpool.cluster.ray_engine import RayEngine


def _name_problem(name: Any) -> str | None:
    if isinstance(name, str) and names.NODE_NAME.match(name):
        return None
    return f"must be [A-Za-z][A-Za-z0-9_.-]{{0,63}}, not {name!r}"


_ARGUMENTS: dict[str, Check] = {
    "name": _name_problem,
    "address": instance(str, optional=False),
    "detached": instance(bool, optional=False),
    "attach": instance(bool),
    "runtime_env": instance(Mapping),
    "namespace": instance(str, optional=False),
}


def _ray(
    name: str | None,
    address: str,
    namespace: str,
    attach: bool | None = None,
    runtime_env: Mapping[str, Any] | None = None,
) -> RayEngine:
    try:
        from actorpool.cluster.ray_engine import RayEngine  # only now: importing this package imports no ray
    except ModuleNotFoundError as error:
        raise ImportError("a cluster needs Ray: pip install 'actorpool[ray]'", name=error.name) from error
    return RayEngine.of_program(name, address, namespace, attach, runtime_env)


class Cluster:
    """Pools that are spread over the hosts of a Ray cluster; see docs/cluster.md.

    The first `Cluster` of a name starts its coordinator; the hosts' agents and nodes are started as pools need them.
    As a context manager it ends what it started, unless it is `detached`. Safe to share between threads.

    Args:
        name: of the cluster, and of the node on each of its hosts.
        address: of the Ray cluster: "auto" finds the one that this host belongs to, else "ip:port" of its head.
        detached: the cluster goes on when this process ends; `shutdown` still ends it. Otherwise it ends with the
            process that started it, however that ends.
        attach: None: an agent attaches to the node of that name that its host runs already (`actorpool up`), and
            starts one only if there is none; True: only a running one; False: always one of its own.
        runtime_env: Ray's runtime environment of agents, and so of the workers: `working_dir`, `py_modules`, ...
        namespace: of Ray's actors; two clusters of one name may run in two namespaces.

    Raises:
        InvalidConfig: names every bad argument.
        SystemDown: there is no Ray cluster at that address; the text says how to start one.
    """

    def __init__(
        self,
        name: str,
        address: str = "auto",
        *,
        detached: bool = False,
        attach: bool | None = None,
        runtime_env: Mapping[str, Any] | None = None,
        namespace: str = "actorpool",
    ) -> None:
        given = {"name": name, "address": address, "detached": detached, "attach": attach}
        given |= {"runtime_env": runtime_env, "namespace": namespace}
        problems = {field: text for field, value in given.items() if (text := _ARGUMENTS[field](value))}
        if problems:
            raise InvalidConfig("Cluster", problems)
        engine = _ray(name, address, namespace, attach, runtime_env)
        self._open(engine, name, True, detached, (address, namespace))

    def _open(self, engine: Engine, name: str, start: bool, detached: bool, reconnect: tuple[str, str]) -> None:
        self.name = name
        self._engine = engine
        self._reconnect = reconnect
        try:
            engine.coordinator(False)
            self._started = False
        except Lost:
            if not start:
                engine.close()
                text = f"no cluster named {name!r} runs there: start it by Cluster({name!r})"
                raise SystemDown(text) from None
            engine.coordinator(True)
            self._started = not detached
        self._client = Client(engine, name, self._started)
        self._client.refresh(STARTING)

    @classmethod
    def connect(cls, name: str | None = None, address: str = "auto", *, namespace: str = "actorpool") -> Cluster:
        """Take part in a cluster that another process started; it is never ended from here, except by `shutdown`.

        Args:
            name: of the cluster; None: the only one there is.
            address, namespace: as of `Cluster`.

        Raises:
            SystemDown: there is none of that name, or without a name not exactly one.
        """
        engine = _ray(name, address, namespace)
        cluster = cls.__new__(cls)
        cluster._open(engine, engine.name, False, False, (address, namespace))
        return cluster

    @classmethod
    def with_engine(cls, engine: Engine, name: str, *, start: bool = True, detached: bool = False) -> Cluster:
        """A cluster on another engine than Ray; tests use it."""
        cluster = cls.__new__(cls)
        cluster._open(engine, name, start, detached, ("", ""))
        return cluster

    # -- pools ------------------------------------------------------------------------------------------------

    def start_pool(
        self,
        name: str,
        config: PoolConfig | None = None,
        /,
        *,
        placement: Mapping[str, Any] | None = None,
        most: int | None = None,
        **fields: Any,
    ) -> ClusterPool:
        """Start a pool on all hosts that fit, and wait until each has started its share.

        Args:
            name, config, **fields: as of `System.start_pool`; `size` and `max_overflow` are of all hosts together.
            placement: labels (or custom resources, with the value True) that a host must have; None: the config's.
            most: workers that one host has at most; None: no limit.

        Raises:
            InvalidConfig: names every bad setting, or no host has the labels; nothing was started.
            PoolAlreadyExists: the running one was not touched.
            Exception: what the start on a host failed with; nothing is left behind.
        """
        check_pool_name(name)
        if isinstance(config, SharedPoolConfig):
            raise InvalidConfig("Cluster.start_pool", {"config": "is of a shared pool, which is on one host"})
        config = pool_config(config, fields)
        placement = config.placement if placement is None else placement
        self._check(config, placement, most)
        declaration = Declaration(
            name,
            pickling.dumps(config),
            int(config.size),
            config.max_overflow,
            None if placement is None else dict(placement),
            most,
            config.checkout_timeout,
            config.call_timeout,
            time.time_ns(),
        )
        drive(self._ask("declare", declaration, config.checkout_timeout + STARTING))
        self._client.refresh()
        return self.pool(name)

    def _check(self, config: PoolConfig, placement: Any, most: Any) -> None:
        problems = {}
        if config.autoscale is not None:
            problems["autoscale"] = "must be None in a pool that is spread over hosts: resize() it as a whole"
        if config.size == "auto":
            problems["size"] = 'must be a number in a pool that is spread over hosts, not "auto"'
        if not config.enabled:
            problems["enabled"] = "must be True in a pool that is spread over hosts"
        if placement is not None and not (
            isinstance(placement, Mapping) and all(isinstance(key, str) for key in placement)
        ):
            problems["placement"] = f"must be a mapping of labels or None, not {placement!r}"
        if most is not None and (isinstance(most, bool) or not isinstance(most, int) or most < 1):
            problems["most"] = f"must be a whole number of at least 1 or None, not {most!r}"
        if problems:
            raise InvalidConfig("Cluster.start_pool", problems)

    def pool(self, name: str) -> ClusterPool:
        """The handle of a running pool.

        Raises:
            PoolNotFound: there is none of that name.
        """
        if not self._client.view.shares.get(name):
            self._client.refresh()
        self._client.declaration(name)
        return ClusterPool(self._client, name, _Reconnect(self.name, *self._reconnect))

    def pools(self) -> list[str]:
        """The names of all pools, sorted."""
        return sorted(self._client.refresh().declared)

    def stop_pool(self, name: str) -> None:
        """Stop a pool on all hosts; on each as by `System.stop_pool`.

        Raises:
            PoolNotFound: there is none of that name.
        """
        drive(self._ask("remove", name, STARTING))
        self._client.refresh()

    # -- hosts ------------------------------------------------------------------------------------------------

    def hosts(self) -> list[HostInfo]:
        """The hosts of the cluster by name, with the workers that each is to have."""
        return sorted(self._client.refresh().hosts.values(), key=lambda info: (info.name, info.node_id))

    def leave(self, host: str | None = None) -> None:
        """Have a host (None: this one) leave in order: others take over its shares, then its agent ends."""
        self._client.refresh()
        node = self._engine.here if host is None else self._client.node_id(host)
        drive(self._ask("leave", node))

    def join(self, host: str | None = None) -> None:
        """Have a host that has left take part again."""
        self._client.refresh()
        node = self._engine.here if host is None else self._client.node_id(host)
        drive(self._ask("join", node))

    def events(self) -> list[Event]:
        """The latest `host.up`, `host.down`, `host.left` and `pool.share`, since the coordinator's process started."""
        return self._client.coordinator.ask("events").result(STARTING)  # type: ignore[no-any-return]

    def _ask(self, operation: str, *args: Any) -> Plan[None]:
        return Plans(self._client, self.name).asked(operation, *args)

    # -- the end ----------------------------------------------------------------------------------------------

    def shutdown(self) -> None:
        """End the cluster: all pools, agents, the nodes that agents started, and the coordinator."""
        try:
            self._client.coordinator.ask("shutdown").result(STARTING)
        except (Lost, TimeoutError):
            pass
        self._engine.end(self._client.coordinator)
        self.close()

    def close(self) -> None:
        """Take part no more. The cluster goes on, unless it belongs to this process and that ends."""
        self._client.close()
        self._engine.close()

    def __enter__(self) -> Cluster:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._started:
            self.shutdown()
        else:
            self.close()

    def __reduce__(self) -> Any:
        raise TypeError("a Cluster belongs to its process: pass its pools, which pickle, or connect() by name there")

    def __repr__(self) -> str:
        return f"<cluster {self.name!r}>"


_connected: dict[tuple[str, str, str], Cluster] = {}


class _Reconnect:
    """Makes the handle of a pool anew in another process: one connection for all handles of a cluster."""

    def __init__(self, name: str, address: str, namespace: str) -> None:
        self._cluster = (name, address, namespace)

    def __call__(self, pool: str) -> ClusterPool:
        name, address, namespace = self._cluster
        if self._cluster not in _connected:
            _connected[self._cluster] = Cluster.connect(name, address, namespace=namespace)
        return _connected[self._cluster].pool(pool)
