"""What the actors of both kinds of pools have in common: a core that decides, a channel, callers and workers."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from actorpool.actor import Shell
from actorpool.channel import paths
from actorpool.channel.lane import Lane
from actorpool.supervisors.callers import Holder
from actorpool.supervisors.clientele import Clientele
from actorpool.supervisors.crew import Crew
from actorpool.supervisors.supervised import Supervised
from actorpool.workers.actor import WorkerActor


class Serving(Supervised, Shell):
    """Base of a pool's actor. Everything runs in the pool's process.

    Attributes:
        effects: how each decision of the core is carried out.
        kind: the actor class of its workers.
    """

    effects: ClassVar[Mapping[type, Callable[[Any, Any], None]]]
    kind: ClassVar[type[WorkerActor]] = WorkerActor
    core: Any

    def _begin_serving(self, name: str, directory: str | None, spin: float, max_message: int) -> None:
        self.name = name
        self.directory = directory if self.can_watch else None
        self.spin, self.max_message = spin, max_message
        self._armed: float | None = None
        self._lane: Lane | None = None
        if self.directory is not None:
            path = paths.pool(self.directory, name)
            self._lane = Lane(path, self, outside=self.messages, spin=spin, max_message=max_message)
        self._clientele = Clientele(self._lane, self._holder_gone)
        self.crew = Crew(self, self._lane, self.directory, self._worker_gone, self.kind)

    def _share_memory(self) -> None:
        """Before the first fork: what is loaded so far stays shared with every worker."""
        if self.is_process:
            gc.collect()
            gc.freeze()

    # -- incoming -------------------------------------------------------------------------------------------

    def watched(self) -> list[int]:
        """The one descriptor behind which all connections and death watches are."""
        lane = getattr(self, "_lane", None)
        return [lane.descriptor] if lane is not None else []

    def on_watch(self) -> None:
        """Something arrived on the channel, or a watched process died."""
        assert self._lane is not None
        self._lane.serve()
        self._arm()

    def on_child_exit(self, address: Any) -> None:
        """Thespian tells the death of a worker (the pidfd has often told it before)."""
        id = self.crew.id_of(address)
        if id is not None:
            self._worker_gone(id, self.exit_status)

    def _worker_gone(self, id: int, status: int | None = None) -> None:
        raise NotImplementedError

    def _holder_gone(self, holder: Holder) -> None:
        self.carry_out(self.core.caller_down(time.monotonic(), holder))

    def _arm(self) -> None:
        """Ask Thespian for a timer, unless one that is early enough is on its way."""
        deadline = self.deadline()
        if deadline is not None and (self._armed is None or deadline < self._armed):
            self._armed = deadline
            self.set_timer(deadline - time.monotonic(), "tick")

    # -- outgoing -------------------------------------------------------------------------------------------

    def carry_out(self, decided: list[Any]) -> None:
        """Do what the core decided, in order."""
        effects = self.effects
        for effect in decided:
            effects[type(effect)](self, effect)

    def _end_serving(self, kill_after: float) -> None:
        """End every worker process and leave nothing behind. Blocks at most `kill_after` seconds."""
        self.crew.end_all(kill_after)
        self._clientele.close()
        if self._lane is not None:
            self._lane.close()
