"""Workers without a pool: for actors and programs that want one process of their own to call."""

from __future__ import annotations

from typing import Any

from actorpool._protocol import orders
from actorpool.serialization.pickling import Pickled
from actorpool.workers.actor import CHECK_AFTER, WorkerActor


def spawn_worker(host: Any, worker: Any, /, **worker_args: Any) -> Any:
    """Start a worker actor that belongs to no pool.

    Args:
        host: an actor (the worker becomes its child) or a Thespian `ActorSystem`.
        worker: a `Worker` subclass or `"module:Class"`.
        **worker_args: its keyword arguments.

    Returns:
        Its address: send it `Call(None, method, args)`. It connects at its first call. What its `__init__` raised is
        the answer to each.
    """
    address = host.createActor(WorkerActor)
    tell = getattr(host, "tell", None) or host.send
    tell(
        address,
        orders.Init(
            pool=None,
            worker_id=0,
            worker=Pickled.of(worker),
            worker_args=Pickled.of(worker_args),
            check_on_checkout=CHECK_AFTER,
            directory=None,
            parent=None,
        ),
    )
    return address
