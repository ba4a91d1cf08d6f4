"""What is asked about sandboxes: make a lease one, let a process in, end it. Turns are asked for by checkouts."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

from actorpool.core.effects import Answer
from actorpool.core.machine import Effects, step
from actorpool.core.pool.leasing import Leasing


class SandboxRequests:
    """Steps of a `PoolCore`.

    Args:
        leasing: what there is of callers and workers.
        effects: where to put what is to be done.
    """

    def __init__(self, leasing: Leasing, effects: Effects) -> None:
        self.leasing = leasing
        self.sandboxes = leasing.sandboxes
        self.effects = effects
        self._do = effects.do

    def enclose(self, key: str, id: int, owner: Hashable) -> Exception | None:
        """Make the owner's lease a sandbox; the error, if that lease is over."""
        lease = self.leasing.leases.by_id.get(id)
        if lease is None:
            return self.leasing.refusals.no_such_lease(id)
        session = self.leasing.sessions.of_worker(lease.worker)
        if session is not None:
            session.ending = "sandbox"  # the end of a sandbox rolls everything back
        self.sandboxes.open(key, lease, owner)
        return None

    @step
    def allow(self, now: float, ref: Any, key: str, process: Hashable) -> None:
        """Let all calls of another process into a sandbox, until it is over. `Answer(ref)`, or the error."""
        sandbox = self.sandboxes.by_key.get(key)
        if sandbox is None:
            self._do(Answer(ref, self.leasing.refusals.sandbox_over()))
        elif not self.sandboxes.admit(sandbox, process):
            self._do(Answer(ref, self.leasing.refusals.in_another_sandbox()))
        else:
            self.leasing.recalls.recall_all(now)  # it may have a worker of its own, which is no way into the sandbox
            self._do(Answer(ref))

    @step
    def release(self, now: float, ref: Any, key: str) -> None:
        """End a sandbox: refuse its waiters, interrupt its call. `Answer(ref)` once the worker is pristine."""
        sandbox = self.sandboxes.by_key.get(key)
        if sandbox is None:
            self._do(Answer(ref))
            return
        self.sandboxes.closing.append((sandbox.lease.worker.id, ref))
        self.leasing.ending.take_back(sandbox.lease, now, "sandbox")
        self.leasing.serve_keys(now)
