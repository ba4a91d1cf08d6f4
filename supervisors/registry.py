"""The names of the pools: which there are, which are coming or going, and which could not be brought back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from actorpool.config import PoolConfig, SharedPoolConfig
from actorpool.core.machine import Backoff
from actorpool.core.supervisor.children import State
from actorpool.errors import ActorPoolError, PoolAlreadyExists, PoolDown, PoolNotFound
from actorpool.serialization.exceptions import OpaqueError, dump_error
from actorpool.supervisors.specs import SupervisorSpec


class Registry:
    """Knows pools by name; starts and stops nothing.

    Args:
        limits: how often a pool may fail, for the text about one that did so too often.

    Attributes:
        configs: the pools that were started, with their settings.
        starting: names on their way in.
        stopping: names on their way out, with the asker.
        failed: pools of a predecessor that did not start again, with the reason.
    """

    def __init__(self, limits: SupervisorSpec) -> None:
        self._limits = limits
        self.configs: dict[str, PoolConfig | SharedPoolConfig] = {}
        self.starting: set[str] = set()
        self.stopping: dict[str, Any] = {}
        self.failed: dict[str, Exception] = {}

    def __contains__(self, name: Any) -> bool:
        """Whether that is a pool that was started, or is being started."""
        return name in self.configs or name in self.starting

    def names(self) -> list[str]:
        """All pools, those that failed included, sorted."""
        return sorted(name for name in (*self.configs, *self.failed) if name not in self.stopping)

    def kind(self, name: str) -> str | PoolNotFound | None:
        """Whether it is a `"pool"` or a `"shared"` one; None for one that could not be brought back; or that it is
        not there."""
        if name in self.failed:
            return None
        if name not in self.configs or name in self.stopping:
            return self._not_found(name)
        return "shared" if isinstance(self.configs[name], SharedPoolConfig) else "pool"

    def begin(self, name: str) -> None:
        """Take a name for a pool that is being started.

        Raises:
            PoolAlreadyExists: it is taken.
        """
        if name in self.configs or name in self.starting:
            raise PoolAlreadyExists(f"a pool named {name!r} is running; it was not touched: stop it first", pool=name)
        self.failed.pop(name, None)
        self.starting.add(name)

    def retire(self, name: str, asker: Any) -> PoolConfig | SharedPoolConfig:
        """Note that a pool is being stopped, as `asker` wants: from now on its name is not found.

        Raises:
            PoolNotFound: there is none of that name.
        """
        if name not in self.configs or name in self.stopping:
            raise self._not_found(name)
        self.stopping[name] = asker
        return self.configs[name]

    def serving(self, name: str, children: Mapping[Any, Any]) -> Any:
        """The child that is the running pool of that name.

        Raises:
            PoolNotFound, PoolDown: there is none, or not now (`temporary`: it is being restarted).
        """
        if name in self.failed:
            cause = self.failed[name]
            raise PoolDown(f"pool {name!r} could not be started again: {cause}", pool=name, cause=cause)
        if name not in self.configs or name in self.stopping:
            raise self._not_found(name)
        child = children.get(name)
        if child is not None and child.state is State.RUNNING:
            return child
        if child is not None and child.state is State.FAILED:
            end, limits = child.end, self._limits
            text = f"pool {name!r} failed more than {limits.max_restarts} times within {limits.max_seconds} s"
            raise PoolDown(
                f"{text}, and is left alone; the last reason: {end.reason if end else 'unknown'}",
                pool=name,
                cause=end.error if end and isinstance(end.error, BaseException) else None,
            )
        if child is not None and child.state is State.STOPPED:
            advice = f"RestartChild({name!r}) starts it again, stop_pool({name!r}) makes room for another"
            raise PoolDown(f"pool {name!r} was terminated: {advice}", pool=name)
        raise PoolDown(f"pool {name!r} is being restarted", pool=name, temporary=True)

    def restarting(self, name: str, children: Mapping[Any, Any]) -> bool:
        """Whether the pool of that name is only not there yet."""
        try:
            self.serving(name, children)
        except PoolDown as down:
            return bool(getattr(down, "temporary", False))
        except PoolNotFound:
            return False
        return False

    def keep_only(self, children: Mapping[Any, Any]) -> None:
        """Forget pools that are no children any more: they were deleted."""
        for name in [name for name in self.configs if name not in children]:
            del self.configs[name]

    def _not_found(self, name: str) -> PoolNotFound:
        known = ", ".join(self.names()) or "none"
        text = f"no pool named {name!r} is running (running: {known}): start it first"
        return PoolNotFound(text, pool=name)


def cause_of(error: Exception, name: str) -> Exception:
    """Why a pool did not start, as its caller wants to catch it: the worker's own error, with the pool's name."""
    cause = getattr(error, "cause", None)
    if isinstance(cause, OpaqueError):
        return OpaqueError(dump_error(cause, name))
    if not isinstance(cause, Exception):
        return error
    if isinstance(cause, ActorPoolError) and cause.pool is None:
        cause.pool = name
    return cause


POOLS = SupervisorSpec(max_restarts=20, max_seconds=60, backoff=Backoff(0.01, 1.0))
"""Each pool may fail this often before it is left alone, in state "failed"; it stays registered until it is stopped."""
