"""What a node tells its own dashboard besides what any program may ask of a `System`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from actorpool._protocol.requests import Dropped, GetSettings, Histogram, Histograms, Status

if TYPE_CHECKING:
    from actorpool.client.system import System
    from actorpool.status import PoolStatus


def status(system: System, pool: str, timeout: float) -> PoolStatus:
    """A pool's figures, asked for at the pool itself: to ask by the manager, as `System.status` does, costs much more.

    Raises:
        PoolNotFound: there is none of that name.
        PoolDown: it is being restarted, or has not answered within `timeout` seconds.
    """
    return system._node_client.pool(pool)._ask(Status(), timeout)  # type: ignore[no-any-return]


def histograms(system: System, pool: str) -> tuple[Histogram, Histogram]:
    """How long callers of a pool waited and held since it began.

    Raises:
        PoolNotFound: there is none of that name, or it lends nothing.
    """
    return system._node_client.pool(pool)._ask(Histograms())  # type: ignore[no-any-return]


def settings(system: System, pool: str) -> dict[str, str]:
    """With what a pool was started, by dotted names, without secrets.

    Raises:
        PoolNotFound: there is none of that name.
    """
    return system._node_client.pool(pool)._ask(GetSettings())  # type: ignore[no-any-return]


def dropped(system: System, pool: str | None = None) -> dict[str, int]:
    """How many events the sinks of a pool (None: of the manager) have not taken, by the sink's name.

    Raises:
        PoolNotFound: there is none of that name.
    """
    ask = system._node_client.ask if pool is None else system._node_client.pool(pool)._ask
    return ask(Dropped())  # type: ignore[no-any-return]
