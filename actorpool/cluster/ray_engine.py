"""Ray as the engine: the only module that imports it, and where its errors become ours.

Agents and the coordinator are detached, async actors, restarted by Ray for ever, and no call to them is ever repeated
by Ray (`max_task_retries=0`): what may have run is told, and what certainly has not begun goes elsewhere.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import threading
from collections.abc import Mapping
from typing import Any

import ray
from ray.exceptions import ActorUnavailableError, GetTimeoutError, RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from actorpool.cluster.agent import Agent
from actorpool.cluster.coordinator import Coordinator
from actorpool.cluster.engine import Handle, Lost
from actorpool.cluster.nodes import be_an_ordinary_process, node_name, open_node
from actorpool.core.cluster.members import Member
from actorpool.errors import RemoteError, SystemDown
from actorpool.serialization import pickling

_NEVER_SENT = "The actor is restarting."
"""The one text of `ActorUnavailableError` that Ray gives only to calls that it has never sent."""
_CONCURRENCY = 10_000
"""Calls that an agent has under way at once; each is a coroutine."""
_COORDINATOR = "/coordinator"
_remote = functools.cache(ray.remote)  # what it makes of a class tells Ray of that class once
_BUILT_IN = ("CPU", "GPU", "memory", "object_store_memory")
_starting = threading.Lock()
_users = 0


def told(error: RayError) -> Exception:
    """What an error of Ray means for a call."""
    if isinstance(error, RayTaskError):  # our own code has failed there
        return RemoteError(f"the call failed on its way: {error}", type_name=type(error.cause).__name__)
    sent = not (isinstance(error, ActorUnavailableError) and _NEVER_SENT in str(error))
    text = str(error).strip().splitlines()
    return Lost(f"{type(error).__name__}: {text[0] if text else ''}"[:300], sent)


class RayPending:
    """A far call under way; see `engine.Pending`."""

    def __init__(self, ref: Any) -> None:
        self._ref = ref

    def result(self, timeout: float | None = None) -> Any:
        """Wait in this thread for the answer."""
        try:
            return pickling.loads(ray.get(self._ref, timeout=timeout))
        except GetTimeoutError:
            raise TimeoutError from None
        except RayError as error:
            raise told(error) from None

    async def wait(self) -> Any:
        """The answer, on the running event loop."""
        try:
            return pickling.loads(await asyncio.wrap_future(self._ref.future()))
        except RayError as error:
            raise told(error) from None

    def cancel(self) -> None:
        """Cancel the task that the call runs as, without waiting."""
        ray.cancel(self._ref)


class RayHandle:
    """An agent or a coordinator; see `engine.Handle`.

    What is asked travels as one string of bytes, and so does the answer: Ray takes some 30 µs for each argument of a
    call, and passes bytes on as they are.
    """

    def __init__(self, actor: Any) -> None:
        self.actor = actor
        self._ask = actor.ask.remote

    def ask(self, operation: str, *args: Any, token: Any = None) -> RayPending:
        """Call a coroutine method of it."""
        tokens = () if token is None else ([token],)  # in a list, as Ray would wait for the answer of a bare one
        try:
            return RayPending(self._ask(pickling.dumps((operation, args)), *tokens))
        except RayError as error:
            raise Lost(str(error), sent=False) from None

    def hold(self) -> Any:
        """A call that is never answered: its reference fails when either process ends. The caller owns it."""
        return self.actor.hold.remote()


class RayEngine:
    """See `engine.Engine`.

    Args:
        name: the cluster's name.
        namespace: of the actors.
        attach, runtime_env: as of `Cluster`; only who starts a coordinator has to know them.
    """

    def __init__(
        self, name: str, namespace: str, attach: bool | None = None, runtime_env: Mapping[str, Any] | None = None
    ) -> None:
        self.name = name
        self._namespace = namespace
        self._attach = attach
        self._environment = dict(runtime_env or {})
        self._ours = False
        self.here: str = ray.get_runtime_context().get_node_id()

    @classmethod
    def of_program(
        cls, name: str | None, address: str, namespace: str, attach: bool | None, runtime_env: Mapping[str, Any] | None
    ) -> RayEngine:
        """For a program, a task or an actor of Ray: joins the Ray cluster if this process has not yet.

        Args:
            name: of the cluster; None: of the only one there is.

        Raises:
            SystemDown: there is no Ray cluster at that address, or not one of ours in it.
        """
        global _users
        with _starting:
            ours = _users > 0 or not ray.is_initialized()
            if not ray.is_initialized():
                try:
                    ray.init(address, namespace=namespace, log_to_driver=False, logging_level="ERROR")
                except (ConnectionError, ValueError, RuntimeError) as error:
                    advice = "start one by `ray start --head`, and join it by `ray start --address=HEAD:6379`"
                    raise SystemDown(f"no Ray cluster answers at {address!r} ({error}): {advice}") from error
            _users += ours
        engine = cls(name or "", namespace, attach, runtime_env)
        engine._ours = ours
        if name is None:
            known = engine.clusters()
            if len(known) != 1:
                engine.close()
                raise SystemDown(f"clusters run there: {', '.join(known)}; name one" if known else "no cluster runs")
            engine.name = known[0]
        return engine

    def close(self) -> None:
        """Leave the Ray cluster, if it was joined for this and nobody else needs it."""
        global _users
        with _starting:
            if self._ours:
                self._ours = False
                _users -= 1
                if not _users:
                    ray.shutdown()

    def members(self) -> list[Member]:
        """The hosts that Ray calls alive, with their labels and custom resources."""
        return [
            Member(node["NodeID"], node["NodeManagerHostname"], _labels(node)) for node in ray.nodes() if node["Alive"]
        ]

    # -- actors -----------------------------------------------------------------------------------------------

    def agent(self, host: str) -> RayHandle:
        """The agent of a host."""
        return self._find(self._agent_name(host))

    def agents(self) -> list[Handle]:
        """All agents that there are."""
        prefix = self._agent_name("")
        found: list[Handle] = []
        for name in self._named():
            if name.startswith(prefix):
                with contextlib.suppress(Lost):  # it has ended meanwhile
                    found.append(self._find(name))
        return found

    def clusters(self) -> list[str]:
        """The names of all clusters."""
        return sorted(name.removesuffix(_COORDINATOR) for name in self._named() if name.endswith(_COORDINATOR))

    def _named(self) -> list[str]:
        known = ray.util.list_named_actors(all_namespaces=True)
        return [actor["name"] for actor in known if actor["namespace"] == self._namespace]

    def start_agent(self, host: str) -> RayHandle:
        """The agent of a host, pinned to it."""
        pinned = NodeAffinitySchedulingStrategy(host, soft=False)
        return self._start(RayAgent, self._agent_name(host), scheduling_strategy=pinned, runtime_env=self._environment)

    def coordinator(self, start: bool) -> RayHandle:
        """The coordinator."""
        name = f"{self.name}{_COORDINATOR}"
        return self._start(RayCoordinator, name) if start else self._find(name)

    def _agent_name(self, host: str) -> str:
        return f"{self.name}/agent/{host}"

    def _find(self, name: str) -> RayHandle:
        try:
            return RayHandle(ray.get_actor(name, self._namespace))
        except (ValueError, RayError) as error:
            raise Lost(str(error), sent=False) from None

    def _start(self, cls: type, name: str, **options: Any) -> RayHandle:
        remote = _remote(cls).options(
            name=name,
            namespace=self._namespace,
            lifetime="detached",
            get_if_exists=True,
            num_cpus=0,
            max_restarts=-1,
            max_task_retries=0,
            max_concurrency=_CONCURRENCY,
            **options,
        )
        try:
            return RayHandle(remote.remote(self.name, self._namespace, self._attach, self._environment))
        except (ValueError, RayError) as error:
            raise Lost(str(error), sent=False) from None

    def end(self, handle: Any) -> None:
        """End an actor for good."""
        ray.kill(handle.actor, no_restart=True)

    async def ended(self, token: Any) -> None:
        """Return once the reference fails: its owner is gone, or the actor that it is a call of."""
        try:
            await asyncio.wrap_future(token.future())
        except RayError:
            pass


def _labels(node: Mapping[str, Any]) -> dict[str, Any]:
    resources = [name for name in node["Resources"] if name not in _BUILT_IN and not name.startswith("node:")]
    return {**node["Labels"], **dict.fromkeys(resources, True)}


# -- actors -------------------------------------------------------------------------------------------------------


class RayActor:
    """An agent or a coordinator in a process of Ray. `ask` and `hold` are what a `RayHandle` calls."""

    _target: Any

    async def ask(self, packed: bytes, tokens: list[Any] | None = None) -> bytes:
        """Call a method of it."""
        operation, args = pickling.loads(packed)
        return pickling.dumps(await getattr(self._target, operation)(*args, *(tokens or ())))

    async def hold(self) -> None:
        """Never answers."""
        await asyncio.Event().wait()


class RayAgent(RayActor):
    """The agent of the host that it runs on."""

    async def __init__(  # type: ignore[misc]
        self, name: str, namespace: str, attach: bool | None, runtime_env: dict[str, Any]
    ) -> None:
        be_an_ordinary_process()
        engine = RayEngine(name, namespace, attach, runtime_env)
        self._target = Agent(engine, functools.partial(open_node, name, attach))


class RayCoordinator(RayActor):
    """The coordinator."""

    async def __init__(  # type: ignore[misc]
        self, name: str, namespace: str, attach: bool | None, runtime_env: dict[str, Any]
    ) -> None:
        self._target = Coordinator(RayEngine(name, namespace, attach, runtime_env), node_name(name, attach))
