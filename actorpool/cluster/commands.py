"""Plans are carried out here: by blocking the thread, or on the event loop.

A plan is a generator: it yields commands and gets their answers, or has their errors raised in it. So each verb is
written once, for threads and for event loops.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Generator, Mapping
from typing import Any, NamedTuple, TypeVar

from actorpool.cluster.engine import Lost, Pending

T = TypeVar("T")


class Pause(NamedTuple):
    """Wait for some seconds."""

    seconds: float

    def now(self) -> None:
        """In this thread."""
        time.sleep(self.seconds)

    async def later(self) -> None:
        """On the event loop."""
        await asyncio.sleep(self.seconds)


class Await(NamedTuple):
    """Wait for the answer of a far call; whoever is interrupted or runs out of patience cancels the call."""

    pending: Pending
    patience: float | None = None

    def now(self) -> Any:
        """In this thread."""
        try:
            return self.pending.result(self.patience)
        except Lost:
            raise
        except BaseException:
            self.pending.cancel()
            raise

    async def later(self) -> Any:
        """On the event loop."""
        try:
            return await asyncio.wait_for(self.pending.wait(), self.patience)
        except Lost:
            raise
        except asyncio.TimeoutError:
            self.pending.cancel()
            raise TimeoutError from None
        except BaseException:
            self.pending.cancel()
            raise


class Here(NamedTuple):
    """Use a verb of this host's own pool."""

    pool: Any
    verb: str
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]

    def now(self) -> Any:
        """In this thread."""
        return getattr(self.pool, self.verb)(*self.args, **self.kwargs)

    async def later(self) -> Any:
        """On the event loop."""
        return await getattr(self.pool.aio, self.verb)(*self.args, **self.kwargs)


Plan = Generator[Any, Any, T]


def drive(plan: Plan[T]) -> T:
    """Carry a plan out in this thread."""
    answer, error = None, None
    while True:
        try:
            command = plan.send(answer) if error is None else plan.throw(error)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]
        answer, error = None, None
        try:
            answer = command.now()
        except BaseException as raised:
            error = raised


async def adrive(plan: Plan[T]) -> T:
    """Carry a plan out on the running event loop."""
    answer, error = None, None
    while True:
        try:
            command = plan.send(answer) if error is None else plan.throw(error)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]
        answer, error = None, None
        try:
            answer = await command.later()
        except BaseException as raised:
            error = raised
