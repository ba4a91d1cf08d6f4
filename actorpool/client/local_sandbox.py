"""Sandboxes of a `LocalPool`: a lease that the callers of this process use in turn."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from actorpool import turns
from actorpool.client import faults
from actorpool.client.link import Link
from actorpool.client.sandboxes import Gate
from actorpool.client.work import Hold, Work
from actorpool.errors import CheckoutTimeout, LeaseExpired, PoolFull

if TYPE_CHECKING:
    from actorpool.client.local_link import LocalLease, LocalLink


class LocalSandbox:
    """A lease, and who has its turn at it."""

    def __init__(self, lease: LocalLease) -> None:
        self.lease = lease
        self.gate = Gate()
        self.turn: Hold | None = None
        self.closed = False

    def leave(self, hold: Hold) -> None:
        """This turn is over: back to where it began, and the next one may come. Nothing if it was over before."""
        with self.lease.lock:
            hold.end()
            if self.turn is not hold:
                return
            self.turn = None
            if not self.lease.over:
                self.lease.session.reset()
        self.gate.leave()

    def close(self) -> None:
        """Let those who wait come in, to be told that it is over."""
        self.closed = True
        turn, self.turn = self.turn, None
        if turn is not None:
            turn.end()
            self.gate.leave()


class LocalTurnLink(Link):
    """The way to a `LocalPool` for callers of a sandbox.

    Args:
        link: the way of those who are not.
        sandbox: its key.
    """

    def __init__(self, link: LocalLink, sandbox: str) -> None:
        self.link = link
        self.pool, self.where = link.pool, link.where
        self.sandbox = sandbox

    def checkout(self, timeout: float, block: bool = True, stack: str | None = None) -> Hold:
        """Wait for a turn; as `Link.checkout`."""
        sandbox = self._sandbox()
        ticket = sandbox.gate.ticket()
        if not sandbox.gate.wait(ticket, timeout if block else 0.0):
            if not block:
                raise PoolFull(f"pool {self.pool!r}: the sandbox's only worker is in use", pool=self.pool)
            text = f"pool {self.pool!r}: no turn in the sandbox within {timeout:.2f} s: end the lease that is open"
            raise CheckoutTimeout(text, pool=self.pool, waited=timeout)
        if sandbox.closed:
            sandbox.gate.leave()
            raise self._over()
        number = sandbox.lease.number
        hold = sandbox.turn = Hold(number, number, os.getpid(), give_back=self.checkin, turn=True)
        return hold

    def _sandbox(self) -> LocalSandbox:
        sandbox = self.link.sandboxes.get(self.sandbox or "")
        if sandbox is None:
            raise self._over()
        return sandbox

    def _over(self) -> LeaseExpired:
        return LeaseExpired(f"pool {self.pool!r}: the sandbox is over, or another process's", pool=self.pool)

    def perform(self, hold: Hold, work: Work, last: bool = False) -> Any:
        """Run work on the sandbox's connection; as `Link.perform`."""
        if not hold.ours:
            raise faults.expired(self.pool, hold)
        sandbox = self._sandbox()
        try:
            return self.link.perform(hold, work)
        finally:
            if not hold.open:
                sandbox.leave(hold)

    def value(self, answer: Any) -> Any:
        """As `Link.value`."""
        return self.link.value(answer)

    def ask(self, request: Any, timeout: float | None = 5.0) -> Any:
        """As `Link.ask`."""
        return self.link.ask(request, timeout)

    def checkin(self, hold: Hold) -> bool:
        """End a turn; waits for a call of it that another thread has under way."""
        there = hold.ours
        sandbox = self.link.sandboxes.get(self.sandbox or "")
        if there and sandbox is not None:
            sandbox.leave(hold)
        return there

    def abandon(self, hold: Hold) -> None:
        """The turn is over now; a call that is under way ends by itself, and lets the next one come then."""
        sandbox = self.link.sandboxes.get(self.sandbox or "")
        hold.end()
        if sandbox is not None and sandbox.lease.lock.acquire(blocking=False):
            try:
                sandbox.leave(hold)
            finally:
                sandbox.lease.lock.release()


def open_sandbox(link: LocalLink, request: turns.OpenSandbox) -> None:
    """Answer `OpenSandbox`."""
    link.sandboxes[request.key] = LocalSandbox(link.lease(request.lease))


def close_sandbox(link: LocalLink, request: turns.CloseSandbox) -> None:
    """Answer `CloseSandbox`."""
    sandbox = link.sandboxes.pop(request.key, None)
    if sandbox is not None:
        sandbox.close()
        link.take_back(sandbox.lease)


def allow(link: LocalLink, request: turns.Allow) -> None:
    """Answer `Allow`."""
    raise TypeError(f"pool {link.pool!r} is a LocalPool, which is in this process only: nobody else can come in")
