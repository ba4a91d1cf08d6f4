"""`LocalPool`: the verbs of `Pool` without an actor system: each call and each lease has a connection of its own."""

from __future__ import annotations

from types import TracebackType
from typing import Any

from actorpool._protocol.requests import HandleFacts
from actorpool.client._local import LocalTransport
from actorpool.client.pool import Pool
from actorpool.config import PoolConfig
from actorpool.errors import InvalidConfig


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
        link = LocalTransport(config, name)
        link.probe()
        super().__init__(link, name, HandleFacts(config.checkout_timeout, config.call_timeout))
        self._local = link

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
