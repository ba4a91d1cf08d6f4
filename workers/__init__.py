"""Workers: the base class for your own, and those that are shipped. Importing this imports no driver."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from actorpool.workers.actor import WorkerActor
    from actorpool.workers.alchemy import SqlAlchemyWorker
    from actorpool.workers.base import PermanentError, Reply, RetryAfter, Worker, method, pool_size
    from actorpool.workers.dbapi import DbapiWorker
    from actorpool.workers.echo import EchoWorker
    from actorpool.workers.embedding import spawn_worker
    from actorpool.workers.http import HttpWorker, Response
    from actorpool.workers.postgres import PostgresWorker
    from actorpool.workers.sql import Result, Rollback, SqlWorker
    from actorpool.workers.sqlite import SqliteWorker
    from actorpool.workers.statements import cache_key

_HOMES = {
    "actorpool.workers.actor": "WorkerActor",
    "actorpool.workers.alchemy": "SqlAlchemyWorker",
    "actorpool.workers.base": "PermanentError Reply RetryAfter Worker method pool_size",
    "actorpool.workers.dbapi": "DbapiWorker",
    "actorpool.workers.echo": "EchoWorker",
    "actorpool.workers.embedding": "spawn_worker",
    "actorpool.workers.postgres": "PostgresWorker",
    "actorpool.workers.sql": "Result Rollback SqlWorker",
    "actorpool.workers.statements": "cache_key",
    "actorpool.workers.sqlite": "SqliteWorker",
    "actorpool.workers.http": "HttpWorker Response",
}
_HOME = {name: module for module, names in _HOMES.items() for name in names.split()}

__all__ = [
    "DbapiWorker",
    "EchoWorker",
    "HttpWorker",
    "PermanentError",
    "PostgresWorker",
    "Reply",
    "Response",
    "Result",
    "RetryAfter",
    "Rollback",
    "SqlAlchemyWorker",
    "SqlWorker",
    "SqliteWorker",
    "Worker",
    "WorkerActor",
    "cache_key",
    "method",
    "pool_size",
    "spawn_worker",
]


def __getattr__(name: str) -> Any:
    """Import what is asked for, when it is asked for."""
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
