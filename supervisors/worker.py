"""A `Worker` as a child of a supervisor of the user's, without a pool."""

from __future__ import annotations

from typing import Any

from actorpool.supervisors.supervised import Supervised
from actorpool.workers.actor import WorkerActor


class SupervisedWorker(Supervised, WorkerActor):
    """Hosts one worker: send it `Call(None, method, args)`. A connection that fails is no crash, a dying process is."""

    def init(self, worker: Any, worker_args: dict[str, Any] | None = None) -> None:
        """Create the worker; it connects at its first call.

        Raises:
            Exception: what its class raises; the start has failed.
        """
        self.host_worker(worker, worker_args)
