"""Where the pool of `Tools` or `Sessions` is: started when first needed, in a node of its own or in a given system."""

from __future__ import annotations

import asyncio
import os
import secrets
import threading
from types import TracebackType
from typing import Any, TypeVar

from actorpool.client.local import LocalPool
from actorpool.client.pool import Pool
from actorpool.client.start import start
from actorpool.client.system import System
from actorpool.config import PoolConfig, check_pool_name
from actorpool.errors import InvalidConfig, PoolAlreadyExists

H = TypeVar("H", bound="Hosted")


def name_problem(name: str | None) -> str | None:
    """What is wrong with the name of a pool."""
    try:
        if name is not None:
            check_pool_name(name)
    except InvalidConfig as error:
        return next(iter(error.problems.values()))
    return None


class Hosted:
    """Has a pool of its own, and perhaps a node for it.

    Args:
        prefix: what the pool's name begins with, unless it is given.
        config: the pool's settings.
        name: the pool's; in a given system, one of that name that another process has started is used.
    """

    def __init__(self, prefix: str, config: PoolConfig, name: str | None = None) -> None:
        self._config = config
        self._is_shared = name is not None
        self._name = name or f"{prefix}_{secrets.token_hex(4)}"
        self._locks: dict[int, Any] = {}  # by pid: one that was taken at a fork is never free in the child
        self._pool: Pool | None = None
        self._system: System | None = None
        self._owns: int | None = None  # the process whose node it is
        self._found = False  # another process has started the pool

    @property
    def _lock(self) -> Any:
        return self._locks.setdefault(os.getpid(), threading.RLock())

    def start(self, system: System | None = None) -> Pool:
        """Start the pool now, and wait until its workers are started; nothing if it runs already.

        Args:
            system: where; None: in a node of its own, which ends with this program.

        Returns:
            The pool, for whoever wants to look at it or to operate it.

        Raises:
            As `System.start_pool`.
        """
        with self._lock:
            if self._pool is None:
                config = self._prepared()
                if system is None and config.enabled:
                    # What workers print must not get between the lines of a protocol on standard output.
                    self._system, self._owns = start(output="stderr"), os.getpid()
                    system = self._system
                try:
                    self._pool = LocalPool(config, self._name) if system is None else self._in(system, config)
                except BaseException:
                    self.stop()
                    raise
                self._system = system
            return self._pool

    def _in(self, system: System, config: PoolConfig) -> Pool:
        self._found = False
        try:
            return system.start_pool(self._name, config)
        except PoolAlreadyExists:
            if not self._is_shared:
                raise
        self._found = True
        return system.pool(self._name)

    def _prepared(self) -> PoolConfig:
        """The settings, as late as they can be told."""
        return self._config

    async def started(self) -> Pool:
        """The pool; while it starts, other tasks go on."""
        if self._pool is None:
            return await asyncio.get_running_loop().run_in_executor(None, self.start)
        return self._pool

    def stop(self) -> None:
        """End the pool, and its node if that is its own; a later call starts it anew.

        Nothing in a forked child; and a pool that another process has started goes on.
        """
        with self._lock:
            pool, self._pool = self._pool, None
            system, self._system = self._system, None
            owner, self._owns = self._owns, None
            if owner is not None:
                if system is not None and owner == os.getpid():
                    system.shutdown()
            elif pool is not None and system is not None and not self._found:
                system.stop_pool(pool.name)
            elif isinstance(pool, LocalPool):
                pool.close()

    def __enter__(self: H) -> H:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._name!r}, {'not started' if self._pool is None else 'started'}>"
