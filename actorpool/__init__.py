"""OTP-style supervised pools of worker actors on Thespian.

Importing this module imports nothing else of ours: each name is loaded from its module when it is first used.
So no program loads a driver that it does not use, and a program that only sends messages loads no client.
"""

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

if sys.platform == "win32":
    raise ImportError(
        "actorpool does not run on Windows: it needs fork, unix sockets and signals; use Linux (WSL 2 will do) or macOS"
    )

if TYPE_CHECKING:
    from actorpool.client.aio import AsyncLease, AsyncPool
    from actorpool.client.database import database
    from actorpool.client.executor import Executor
    from actorpool.client.lease import Lease
    from actorpool.client.local import LocalPool
    from actorpool.client.pool import Pool
    from actorpool.client.router import Pools
    from actorpool.client.shared import SharedPool
    from actorpool.client.start import start
    from actorpool.client.system import System, connect
    from actorpool.config import Autoscale, Breaker, PoolConfig
    from actorpool.errors import (
        ActorPoolError,
        AuthenticationFailed,
        CallTimeout,
        CheckoutTimeout,
        CircuitOpen,
        InvalidConfig,
        LeaseExpired,
        MethodNotFound,
        NoMatch,
        NoResource,
        PermanentError,
        PoolAlreadyExists,
        PoolDown,
        PoolFull,
        PoolNotFound,
        PoolStopped,
        QueueShed,
        RemoteError,
        RestartIntensityExceeded,
        SessionLost,
        SystemDown,
        TooManyWaiting,
        UnknownConnection,
        WorkerDied,
        WorkerUnavailable,
    )
    from actorpool.limits import Limits
    from actorpool.messages import (
        Call,
        Checkin,
        Checkout,
        Err,
        Event,
        GetPoolStatus,
        Grant,
        ListPools,
        Ok,
        StartPool,
        StopPool,
        Subscribe,
        WithConnection,
    )
    from actorpool.status import PoolMetrics, PoolStatus, SessionInfo
    from actorpool.supervisors.manager import ConnectionManager
    from actorpool.telemetry import LoggingSink, StatsdSink
    from actorpool.workers.base import pool_size

__version__ = "0.1.0"

_HOMES = {
    "actorpool.client.aio": "AsyncLease AsyncPool",
    "actorpool.client.database": "database",
    "actorpool.client.executor": "Executor",
    "actorpool.client.lease": "Lease",
    "actorpool.client.local": "LocalPool",
    "actorpool.client.pool": "Pool",
    "actorpool.client.router": "Pools",
    "actorpool.client.shared": "SharedPool",
    "actorpool.client.start": "start",
    "actorpool.client.system": "System connect",
    "actorpool.config": "Autoscale Breaker PoolConfig",
    "actorpool.errors": (
        "ActorPoolError AuthenticationFailed CallTimeout CheckoutTimeout CircuitOpen InvalidConfig LeaseExpired "
        "MethodNotFound NoMatch NoResource PermanentError PoolAlreadyExists PoolDown PoolFull PoolNotFound "
        "PoolStopped QueueShed RemoteError RestartIntensityExceeded SessionLost SystemDown TooManyWaiting "
        "UnknownConnection WorkerDied WorkerUnavailable"
    ),
    "actorpool.limits": "Limits",
    "actorpool.messages": (
        "Call Checkin Checkout Err Event GetPoolStatus Grant ListPools Ok StartPool StopPool Subscribe WithConnection"
    ),
    "actorpool.status": "PoolMetrics PoolStatus SessionInfo",
    "actorpool.supervisors.manager": "ConnectionManager",
    "actorpool.telemetry": "LoggingSink StatsdSink",
    "actorpool.workers.base": "pool_size",
}
_HOME = {name: module for module, names in _HOMES.items() for name in names.split()}

__all__ = [  # spelled out for type checkers, which read no table
    "ActorPoolError",
    "AsyncLease",
    "AsyncPool",
    "AuthenticationFailed",
    "Autoscale",
    "Breaker",
    "Call",
    "CallTimeout",
    "Checkin",
    "Checkout",
    "CheckoutTimeout",
    "CircuitOpen",
    "ConnectionManager",
    "Err",
    "Event",
    "Executor",
    "GetPoolStatus",
    "Grant",
    "InvalidConfig",
    "Lease",
    "LeaseExpired",
    "Limits",
    "ListPools",
    "LocalPool",
    "LoggingSink",
    "MethodNotFound",
    "NoMatch",
    "NoResource",
    "Ok",
    "PermanentError",
    "Pool",
    "PoolAlreadyExists",
    "PoolConfig",
    "PoolDown",
    "PoolFull",
    "PoolMetrics",
    "PoolNotFound",
    "PoolStatus",
    "PoolStopped",
    "Pools",
    "QueueShed",
    "RemoteError",
    "RestartIntensityExceeded",
    "SessionInfo",
    "SessionLost",
    "SharedPool",
    "StartPool",
    "StatsdSink",
    "StopPool",
    "Subscribe",
    "System",
    "SystemDown",
    "TooManyWaiting",
    "UnknownConnection",
    "WithConnection",
    "WorkerDied",
    "WorkerUnavailable",
    "connect",
    "database",
    "pool_size",
    "start",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_HOME[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
