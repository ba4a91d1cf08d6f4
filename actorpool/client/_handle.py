"""What a handle does for threads and tasks alike: it goes by its pool's settings and by the context of its caller."""

from __future__ import annotations

import time
from collections.abc import Hashable
from typing import Any

from actorpool._protocol import requests
from actorpool._protocol.requests import HandleFacts
from actorpool.client import client_errors, sandboxes
from actorpool.client._calls import Attempt, CallRequest, LeaseHandle, Replaced
from actorpool.client._driver import Driver
from actorpool.client._transport import PoolTransport, stack_of_caller
from actorpool.client.lease import BaseLease
from actorpool.config import check_checkout, check_request

LEARNING = 5.0
"""Seconds to learn the pool's settings in a call that goes by its checkout timeout, which is one of them."""


class PoolHandle:
    """A pool's name, the way to it, and what is known of its settings.

    Args:
        name: the pool's.
        transport: the way to it.
        facts: settings of the pool that the handle goes by; None has them asked for when first needed.
    """

    def __init__(self, name: str, transport: PoolTransport, facts: HandleFacts | None) -> None:
        self.name = name
        self._transport = transport
        self._known = facts

    async def _learn(self, driver: Driver, timeout: float | None) -> tuple[HandleFacts, float]:
        """Ask for the settings, as a part of a checkout; also how many seconds that took.

        Raises:
            As `PoolTransport.facts`.
        """
        began = time.perf_counter()
        facts = self._known = await self._transport.facts(driver, LEARNING if timeout is None else timeout)
        return facts, time.perf_counter() - began

    async def _run_by(
        self, driver: Driver, work: CallRequest, checkout_timeout: float | None, attempt: Attempt | None = None
    ) -> Any:
        """`run` of a request, in which None as `timeout` is the pool's; returns the answer."""
        limit = work.timeout
        if limit is not None or checkout_timeout is not None:
            check_request("call", call_timeout=limit, checkout_timeout=checkout_timeout)
        while True:
            facts, spent = self._known, 0.0
            if facts is None:
                facts, spent = await self._learn(driver, checkout_timeout)
            work.timeout = facts.call_timeout if limit is None else limit
            timeout = facts.checkout_timeout if checkout_timeout is None else checkout_timeout
            stack = stack_of_caller() if facts.stacks else None
            transport = sandboxes.route(self._transport)
            try:
                return await transport.run(driver, work, max(timeout - spent, 0.0), stack, attempt)
            except Replaced:
                self._known = attempt = None

    async def _checkout_by(
        self, driver: Driver, block: bool, timeout: float | None, key: Hashable
    ) -> tuple[PoolTransport, LeaseHandle, float, float | None]:
        """`checkout`: what a lease is made of, but for its key."""
        if block is not True or timeout is not None or key is not None:
            check_checkout(block, timeout, key)
        while True:
            facts, spent = self._known, 0.0
            if facts is None:
                facts, spent = await self._learn(driver, timeout)
            longest = facts.checkout_timeout if timeout is None else timeout
            transport = sandboxes.route(self._transport)
            stack = stack_of_caller() if facts.stacks else None
            try:
                lease = await transport.checkout(driver, max(longest - spent, 0.0), block, stack, key)
            except Replaced:
                self._known = None
            else:
                sandboxes.entered(transport, lease)
                return transport, lease, longest, facts.call_timeout

    async def _stats_by(self, driver: Driver, timeout: float) -> dict[int, Any]:
        """`worker_stats`."""
        check_request("worker_stats", timeout=timeout)
        patience = timeout + client_errors.grace(5.0)
        told = await self._transport.ask(driver, requests.GatherStats(timeout), patience)
        return {worker: stats.open() for worker, stats in told.items()}

    def _check_own(self, lease: Any, kind: type[BaseLease]) -> None:
        """Raise ValueError if it is no lease of that kind of this pool, or has ended."""
        if not isinstance(lease, kind) or lease._transport.where != self._transport.where:
            raise ValueError(f"pool {self.name!r}: {lease!r} is no lease of this pool")
        if lease.closed:
            raise ValueError(f"pool {self.name!r}: {lease!r} has ended already, it cannot be checked in")
