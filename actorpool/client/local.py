"""`LocalPool`: the verbs of `Pool` without an actor system: each call and each lease has a connection of its own."""

from __future__ import annotations

from collections.abc import Hashable
from types import TracebackType
from typing import Any

from actorpool._protocol.requests import HandleFacts
from actorpool._protocol.sandboxes import OUTSIDE
from actorpool.client._blocking import THREADS
from actorpool.client._calls import CallRequest, LeaseHandle
from actorpool.client._driver import Driver
from actorpool.client._local import LocalWorkers
from actorpool.client._transport import InThreadTransport
from actorpool.client.pool import Pool
from actorpool.config import PoolConfig
from actorpool.errors import InvalidConfig
from actorpool.messages import Err, Ok


class LocalTransport(InThreadTransport):
    """The way to workers in this process, or (with a `sandbox`) to turns at one of them.

    Args:
        workers: these.
    """

    def __init__(self, workers: LocalWorkers) -> None:
        self.workers = self.where = workers
        self.pool = workers.pool

    async def checkout(
        self, driver: Driver, timeout: float, block: bool = True, stack: str | None = None, key: Hashable = None
    ) -> LeaseHandle:
        if self.sandbox is None or self.sandbox == OUTSIDE:
            return await super().checkout(driver, timeout, block, stack, key)
        return await self.workers.sandbox(self.sandbox).enter(driver, timeout, block, self.checkin)

    def checkout_now(self, timeout: float, block: bool, stack: str | None, key: Hashable) -> LeaseHandle:
        return self.workers.checkout(timeout, block, key)

    def perform_now(self, lease: LeaseHandle, work: CallRequest) -> Ok | Err:
        return self.workers.perform(lease, work)

    def checkin(self, lease: LeaseHandle, driver: Driver = THREADS) -> bool:
        return self.workers.checkin(lease)

    def abandon(self, lease: LeaseHandle) -> None:
        self.workers.abandon(lease)

    def ask_now(self, request: Any, timeout: float | None = 5.0) -> Any:
        return self.workers.ask(request)


class LocalPool(Pool):
    """A pool that keeps nothing, for notebooks, tests, and programs that switch pooling off (`enabled=False`).

    The same verbs, results and errors as `Pool`, `aio` included; one connection for each call or lease, in this
    process. What needs a process to act on does not happen: a call is not interrupted at its timeout, a worker that
    crashes takes this process along, there is no queue, no breaker and no health check, and `resize` and `recycle`
    have nothing to do. Thread-safe; a pickled copy, or one in a forked child, is a pool of its own.

    Args:
        config: as for `start_pool`.
        name: for errors and figures.

    Raises:
        InvalidConfig: `config` is no `PoolConfig`.
        PermanentError: a first connection says that retrying is useless.
        Exception: what the worker's `__init__` raised.
    """

    _most_turns = 8
    """Calls of `submit` at once: each has a connection of its own."""

    def __init__(self, config: PoolConfig, name: str = "local") -> None:
        if not isinstance(config, PoolConfig):
            raise InvalidConfig("LocalPool", {"config": f"must be a PoolConfig, not {config!r}"})
        self._local = LocalWorkers(config, name)
        self._local.probe()
        facts = HandleFacts(config.checkout_timeout, config.call_timeout)
        super().__init__(LocalTransport(self._local), name, facts)

    def __reduce__(self) -> tuple[Any, ...]:
        return (LocalPool, (self._local.config, self.name))

    def close(self) -> None:
        """End all leases and their connections; later use is `PoolNotFound`."""
        self._local.close()

    def __enter__(self) -> LocalPool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<local pool {self.name!r} of {self._local._worker.__name__}>"
