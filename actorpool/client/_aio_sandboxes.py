"""The same as `sandboxes` for asyncio: calls that go along on an open lease of a sandbox."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable
from typing import Any

from actorpool.client._asyncio import AsyncioTransport, ThreadedTransport
from actorpool.client._blocking import BlockingTransport
from actorpool.client._calls import CallRequest, LeaseHandle
from actorpool.client._transport import PoolTransport
from actorpool.client.sandboxes import NestedTransport


class AsyncioNestedTransport:
    """The way of calls that go along on an open turn.

    Args:
        link: the blocking way of the same.
        base: the way of that turn itself.
    """

    def __init__(self, link: NestedTransport, base: AsyncioTransport | ThreadedTransport) -> None:
        self.link = link
        self.pool = link.pool
        self.base = base
        self.now = base.now
        self.ask = base.ask
        self.facts = base.facts
        self.checkin = link.checkin

    async def checkout(
        self, timeout: float, block: bool = True, stack: str | None = None, key: Hashable = None
    ) -> LeaseHandle:
        """As `NestedTransport.checkout`."""
        gate = self.link.turn.gate
        ticket = gate.ticket()
        try:
            if not ticket.done():
                await asyncio.wait_for(asyncio.wrap_future(ticket), timeout if block else 0.0)
        except BaseException as error:
            if gate.give_up(ticket):
                gate.leave()
            if isinstance(error, (asyncio.TimeoutError, TimeoutError)):
                raise self.link.refusal(timeout, block) from None
            raise
        return self.link.hold()

    async def call(self, hold: LeaseHandle, work: CallRequest) -> Any:
        """As `PoolTransport.call`; cancelled, the outer lease is over as well."""
        try:
            return await self.base.call(hold, work)
        finally:
            if not hold.open:
                self.link.end(hold)

    async def run(self, work: CallRequest, timeout: float, stack: str | None = None) -> Any:
        """As `PoolTransport.run`."""
        hold = await self.checkout(timeout)
        try:
            return await self.call(hold, work)
        finally:
            self.checkin(hold)

    async def another(self, deadline: float, pause: float, error: BaseException, key: Hashable = None) -> LeaseHandle:
        """There is no other worker in a sandbox."""
        raise error


AnyAsyncioTransport = AsyncioTransport | ThreadedTransport | AsyncioNestedTransport


def aio_transport(link: PoolTransport) -> AnyAsyncioTransport:
    """The asyncio side of a way to a pool."""
    if isinstance(link, NestedTransport):
        return AsyncioNestedTransport(link, _plain(link.base))
    return _plain(link)


def _plain(link: PoolTransport) -> AsyncioTransport | ThreadedTransport:
    return AsyncioTransport(link) if isinstance(link, BlockingTransport) else ThreadedTransport(link)
