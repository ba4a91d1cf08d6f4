"""Looks at a node for everybody who watches: at most about once a second, and not at all while nobody does."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

from actorpool.attention import need
from actorpool.dashboard import sight as sights
from actorpool.dashboard.readiness import troubles
from actorpool.dashboard.sight import Sight, Tally
from actorpool.dashboard.streams import Streams, frame
from actorpool.errors import ActorPoolError, PoolNotFound, SystemDown
from actorpool.status import LeaseInfo, PoolStatus, TreeNode

if TYPE_CHECKING:
    from actorpool.client.system import System

log = logging.getLogger("actorpool")

EVERY = 1.0
"""Seconds between two looks."""
SAMPLES_EVERY = 10.0
"""Seconds between two questions for a pool's samples, and for the leases of a pool in need: with the figures, a pool
is asked 1.2 times a second at most."""
TALLY_EVERY = 5.0
"""Seconds between two questions for what only Prometheus reads, which are asked only when it does."""
UNSETTLED_AFTER = 5.0
"""Seconds after which the tree is asked for once more if something in it was being restarted."""
ANSWER = 5.0
"""Seconds that a request waits for the node."""
_STEADY = ("pool.timeout", "pool.shed", "pool.reclaimed", "pool.leak", "pool.sample", "call.")
"""Beginnings of the names of events after which the tree is as before."""

Result = TypeVar("Result")


class NoAnswer(Exception):
    """The node is gone, or does not answer in time; the text says which."""


class Collector:
    """What the server knows of its node. All of it runs in the server's loop, but for the questions to the node.

    Args:
        connect: attaches to the node; called again after the node was gone.

    Attributes:
        streams: those who are sent what is seen.
        sight, seen_tree: what was seen last; None before the first look.
        tree: `seen_tree`, for JSON.
        state: the last sight, for JSON.
        samples: of each pool, for JSON.
        counted: what pools had counted when it was asked for last.
        history: the last events, for JSON.
        down: why there is no answer now; None while there is.
    """

    def __init__(self, connect: Callable[[], System]) -> None:
        self._connect = connect
        self._system: System | None = None
        self._thread = ThreadPoolExecutor(1, "actorpool-dashboard")
        self._single = asyncio.Lock()
        self._watching: asyncio.Task[None] | None = None
        self._looked_at = self._sampled_at = self._tree_at = self._tallied_at = float("-inf")
        self._details: dict[str, tuple[float, dict[str, Any]]] = {}
        self._leases: dict[str, list[LeaseInfo]] = {}
        self._unsettled = False
        self._weighed_at = float("-inf")
        self._memories: dict[str, int] = {}
        self._told: deque[dict[str, Any]] = deque(maxlen=sights.MOST_EVENTS)  # `history`, for the thread alone
        self._last = 0
        self.streams = Streams()
        self.sight: Sight | None = None
        self.seen_tree: TreeNode | None = None
        self.tree: dict[str, Any] | None = None
        self.state: dict[str, Any] = {}
        self.samples: dict[str, list[dict[str, Any]]] = {}
        self.counted = Tally()
        self.history: deque[dict[str, Any]] = deque(maxlen=sights.MOST_EVENTS)
        self.down: str | None = None

    def close(self) -> None:
        """End every stream; a question that is out is not waited for."""
        self.streams.close()
        if self._watching is not None:
            self._watching.cancel()
        self._thread.shutdown(wait=False, cancel_futures=True)

    def watch(self) -> None:
        """Look once a second from now on, until nobody is connected to `streams`."""
        if self._watching is None or self._watching.done():
            self._watching = asyncio.create_task(self._watch())

    async def _watch(self) -> None:
        while len(self.streams):
            began = time.monotonic()
            try:
                await self.fresh()
            except NoAnswer as error:
                self.streams.send([frame({"error": str(error)}, "down")], state=True)
            except Exception:
                log.exception("dashboard: cannot tell what the node says")
            await asyncio.sleep(max(0.0, EVERY - (time.monotonic() - began)))

    async def fresh(self) -> Sight:
        """The node as it was less than about a second ago.

        Raises:
            NoAnswer: it is gone, or does not answer.
        """
        async with self._single:  # whoever came meanwhile sees the same
            began = time.monotonic()
            if began - self._looked_at >= EVERY * 0.95:
                await self._ask(self._look)
                self._looked_at = (
                    began  # and not now: a look may take long, and the next is due a second after this began
                )
        assert self.sight is not None
        return self.sight

    async def fresh_tree(self) -> dict[str, Any]:
        """The supervision tree as it was less than about a second ago, whether or not an event tells of a change.

        Raises:
            NoAnswer: the node is gone, or does not answer.
        """
        await self.fresh()
        async with self._single:
            if time.monotonic() - self._tree_at >= EVERY:
                await self._ask(self._look_at_tree)
        assert self.tree is not None
        return self.tree

    async def tally(self) -> Tally:
        """What the pools have counted, as it was a few seconds ago at most.

        Raises:
            NoAnswer: the node is gone, or does not answer.
        """
        seen = await self.fresh()
        async with self._single:
            if time.monotonic() - self._tallied_at >= TALLY_EVERY:
                self.counted = await self._ask(lambda system: sights.tally(system, seen.pools))
                self._tallied_at = time.monotonic()
        return self.counted

    async def alive(self) -> None:
        """Make sure that the manager answers within a second.

        Raises:
            NoAnswer: it does not.
        """
        if time.monotonic() - self._looked_at >= EVERY:
            await self._ask(lambda system: system.pools(), 1.0)

    async def detail(self, name: str) -> dict[str, Any]:
        """All of one pool, as it was less than a second ago.

        Raises:
            NoAnswer: the node is gone, or does not answer.
            PoolNotFound: there is no such pool.
        """
        seen, found = self._details.get(name, (float("-inf"), {}))
        if time.monotonic() - seen >= EVERY:
            found = await self._ask(lambda system: sights.pool_document(system, name))
            self._details = {
                other: kept for other, kept in self._details.items() if time.monotonic() - kept[0] < EVERY
            } | {name: (time.monotonic(), found)}
        return found

    async def _ask(self, question: Callable[[System], Result], timeout: float | None = None) -> Result:
        timeout = ANSWER if timeout is None else timeout
        try:
            call = asyncio.get_running_loop().run_in_executor(self._thread, self._attached, question)
            answer = await asyncio.wait_for(call, timeout)
        except PoolNotFound:
            raise
        except (asyncio.TimeoutError, TimeoutError) as error:  # first: the latter is an OSError
            self.down = f"the node has not answered within {timeout:g} s"
            raise NoAnswer(self.down) from error
        except (ActorPoolError, OSError) as error:
            if not isinstance(error, ActorPoolError) or isinstance(error, SystemDown):
                self._system = None
            self.down = str(error)
            raise NoAnswer(self.down) from error
        self.down = None
        return answer

    # -- in the thread ------------------------------------------------------------------------------------------

    def _attached(self, question: Callable[[System], Result]) -> Result:
        if self._system is None:
            self._system = self._connect()
            self._last, self._tree_at = 0, float("-inf")
            self._told.clear()
            self.streams.loop.call_soon_threadsafe(self.history.clear)
        return question(self._system)

    def _look(self, system: System) -> None:
        """See what is new, and have everybody told."""
        now = time.monotonic()
        told = [sights.event_document(event) for event in system.events(after=self._last, limit=sights.MOST_EVENTS)]
        changed = any(not event["name"].startswith(_STEADY) for event in told)
        unsettled = self._unsettled and now - self._tree_at >= UNSETTLED_AFTER
        wants_tree = changed or unsettled or self.tree is None
        seen = sights.look(system, tree=wants_tree)
        sampled = now - self._sampled_at >= SAMPLES_EVERY
        if sampled:
            self._sampled_at = now
            self._sample(system, seen.pools)
        frames = []
        if seen.tree is not None:
            frames.append(self._keep_tree(seen.tree))
        if self.seen_tree is not None and self.sight is not None and now - self._weighed_at >= SAMPLES_EVERY:
            self._weighed_at = now  # not at the first look: whoever opens a page of a thousand workers waits for that
            self._memories = sights.memories(self.seen_tree)
        self._told.extend(told)
        matters = troubles(self.seen_tree, self._told)
        self.sight, self.state = seen, sights.state_document(seen, self._leases, self._memories, matters)
        frames.append(frame(self.state, "state"))
        if sampled:
            frames.append(frame(self.samples, "samples"))
        missed = told[0]["number"] - self._last - 1 if told and self._last else 0
        self.streams.loop.call_soon_threadsafe(self._tell, told, missed, frames)
        if told:
            self._last = told[-1]["number"]

    def _look_at_tree(self, system: System) -> None:
        told = self._keep_tree(system.tree())
        self.streams.loop.call_soon_threadsafe(self._tell, [], 0, [told])

    def _keep_tree(self, tree: TreeNode) -> bytes:
        """Keep the tree; returns the message that tells it."""
        self._tree_at, self.seen_tree, self.tree = time.monotonic(), tree, sights.tree_document(tree)
        self._unsettled = any(node.state == "restarting" for node in sights.nodes_of(tree))
        return frame(self.tree, "tree")

    def _sample(self, system: System, pools: tuple[PoolStatus, ...]) -> None:
        self.samples, self._leases = {}, {}
        for pool in pools:
            try:
                self.samples[pool.name] = sights.samples_document(system, pool.name)
                if need(pool):
                    self._leases[pool.name] = sights.leases(system, pool.name)
            except SystemDown:
                raise
            except ActorPoolError:  # it has just been stopped, or does not answer: it is told of without them
                continue

    def _tell(self, told: list[dict[str, Any]], missed: int, state: list[bytes]) -> None:
        """Send what is new; `missed` events were gone before they could be asked for."""
        self.history.extend(told)
        gap = [frame({"dropped": missed}, "gap")] if missed else []
        self.streams.send(gap + [frame(event, number=event["number"]) for event in told])
        self.streams.send(state, state=True)
