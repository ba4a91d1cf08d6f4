"""`Pools`: one pool for each kind of work, so that reads, writes and jobs do not wait for each other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from actorpool.client.pool import Pool
from actorpool.config import PoolConfig
from actorpool.status import PoolStatus

if TYPE_CHECKING:
    from actorpool.client.system import System


class Pools(Mapping[str, Pool]):
    """Pools by the work they are for: `pools.read.execute(...)`, `pools.write.transaction(...)`, `pools["jobs"]`.

    A mapping that cannot be changed; as thread-safe, fork-safe and picklable as the pools in it.

    Args:
        **pools: a pool for each kind of work, under the name that the program uses for it.
    """

    def __init__(self, **pools: Pool) -> None:
        self._pools = dict(pools)

    @classmethod
    def start(cls, system: System, **configs: PoolConfig | Mapping[str, Any]) -> Pools:
        """Start a pool for each kind of work, named after it; all of them, or none.

        Args:
            system: where.
            **configs: `PoolConfig`s, or dicts of its fields.

        Raises:
            As `System.start_pool`; those that were already started are stopped again.
        """
        started: dict[str, Any] = {}
        try:
            for name, config in configs.items():
                if not isinstance(config, PoolConfig):
                    config = PoolConfig(**config)
                started[name] = system.start_pool(name, config)
        except BaseException:
            for name in started:
                system.stop_pool(name)
            raise
        return cls(**started)

    def route(self, read_only: bool) -> Pool:
        """The pool for a piece of work: `read` for what only reads, where there is one, else `write`, else `main`.

        Raises:
            KeyError: there is none of these.
        """
        for name in ("read", "write", "main") if read_only else ("write", "main"):
            if name in self._pools:
                return self._pools[name]
        raise KeyError(f"no pool called write or main; there are {', '.join(self._pools) or 'none'}")

    def status(self) -> dict[str, PoolStatus]:
        """The figures of each pool."""
        return {name: pool.status() for name, pool in self._pools.items()}

    def __getattr__(self, name: str) -> Pool:
        if not name.startswith("_") and name in self._pools:
            return self._pools[name]
        raise AttributeError(f"no pool for {name!r}; there are {', '.join(self.__dict__.get('_pools', ())) or 'none'}")

    def __getitem__(self, name: str) -> Pool:
        return self._pools[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._pools)

    def __len__(self) -> int:
        return len(self._pools)

    def __reduce__(self) -> tuple[Any, ...]:
        return (_pools, (self._pools,))

    def __repr__(self) -> str:
        return f"<Pools {', '.join(f'{name}: {pool!r}' for name, pool in self._pools.items())}>"


def _pools(pools: dict[str, Pool]) -> Pools:
    return Pools(**pools)
