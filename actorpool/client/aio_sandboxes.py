"""The same as `sandboxes` for asyncio: calls that go along on an open lease of a sandbox."""

from __future__ import annotations

import asyncio
from typing import Any

from actorpool.client.aio_link import AioLink, ThreadedLink
from actorpool.client.channel_link import ChannelLink
from actorpool.client.link import Link
from actorpool.client.sandboxes import NestedLink
from actorpool.client.work import Hold, Work


class AioNestedLink:
    """The way of calls that go along on an open turn.

    Args:
        link: the blocking way of the same.
        base: the way of that turn itself.
    """

    def __init__(self, link: NestedLink, base: AioLink | ThreadedLink) -> None:
        self.link = link
        self.pool = link.pool
        self.base = base
        self.now = base.now
        self.ask = base.ask
        self.facts = base.facts
        self.checkin = link.checkin

    async def checkout(self, timeout: float, block: bool = True, stack: str | None = None) -> Hold:
        """As `NestedLink.checkout`."""
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

    async def call(self, hold: Hold, work: Work) -> Any:
        """As `Link.call`; cancelled, the outer lease is over as well."""
        try:
            return await self.base.call(hold, work)
        finally:
            if not hold.open:
                self.link.end(hold)

    async def run(self, work: Work, timeout: float, stack: str | None = None) -> Any:
        """As `Link.run`."""
        hold = await self.checkout(timeout)
        try:
            return await self.call(hold, work)
        finally:
            self.checkin(hold)

    async def another(self, deadline: float, pause: float, error: BaseException, stack: str | None = None) -> Hold:
        """There is no other worker in a sandbox."""
        raise error


AnyAioLink = AioLink | ThreadedLink | AioNestedLink


def aio_link(link: Link) -> AnyAioLink:
    """The asyncio side of a way to a pool."""
    if isinstance(link, NestedLink):
        return AioNestedLink(link, _plain(link.base))
    return _plain(link)


def _plain(link: Link) -> AioLink | ThreadedLink:
    return AioLink(link) if isinstance(link, ChannelLink) else ThreadedLink(link)
