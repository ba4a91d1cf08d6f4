"""A database in one line, with a node of its own: `with actorpool.database("sqlite:///app.db") as db:`."""

from __future__ import annotations

from types import TracebackType
from typing import Any

from actorpool.client.local import LocalPool
from actorpool.client.pool import Pool
from actorpool.client.start import start
from actorpool.client.system import System
from actorpool.workers import urls


class Database:
    """A database's pool and the node that it is in, which ends with it. Has the verbs of `Pool`.

    Attributes:
        system: the node.
        pool: the pool.
    """

    def __init__(self, system: System, pool: Pool | LocalPool) -> None:
        self.system = system
        self.pool = pool

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name in ("system", "pool"):
            raise AttributeError(name)
        return getattr(self.pool, name)

    def close(self) -> None:
        """End the pool and its node."""
        self.system.shutdown()

    def __enter__(self) -> Pool | LocalPool:
        return self.pool

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<database {self.pool!r}>"


def database(url: str, name: str | None = None, *, adapter: Any = None, **fields: Any) -> Database:
    """Start a node with the pool of one database, for a script; see `System.start_database`.

    `with actorpool.database(url) as db:` gives the pool, and ends both at the end of the block.

    Raises:
        InvalidConfig: as `start_database`; nothing was started.
    """
    urls.config_of(url, adapter, fields)
    system = start()
    try:
        return Database(system, system.start_database(url, name, adapter=adapter, **fields))
    except BaseException:
        system.shutdown()
        raise
