"""A pool core in an invented world: a driven clock, a resource that comes and goes, callers without processes.

The core under test is the real one, `actorpool.core.pool.core.PoolCore`; the world does what its shell would do.
A run is a function of its seed: it gives the same figures on every machine.
"""

from __future__ import annotations

import heapq
import itertools
import math
import random
from collections import Counter
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from actorpool.config import PoolConfig
from actorpool.core import effects
from actorpool.core.pool.core import PoolCore
from actorpool.workers.base import Worker

STARTING = 0.005  # a forked worker process is up after about that long
STOPPING = 0.002
CHECKING = 0.0005
PATIENCE = 10_000
"""Ticks without any progress of the clock after which the core is taken to be in a loop."""

Served = Callable[[effects.Granted], None]
Turned = Callable[[Exception], None]


class World:
    """Time, a resource that is up or down, and one pool on it.

    Args:
        size: workers of the pool.
        connecting: seconds that a connection attempt takes, successful or not.
        seed: of all randomness.
        **config: fields of the `PoolConfig`.
    """

    def __init__(self, size: int, *, connecting: float = 0.02, seed: int = 1, **config: Any) -> None:
        self.now = 0.0
        self.up = True
        self.connecting = connecting
        self.random = random.Random(seed)
        self.attempts: list[float] = []
        self.connected: list[float] = []
        self.events: Counter[str] = Counter()
        self.answers: dict[Any, tuple[float, Any]] = {}
        self.ended: set[int] = set()
        self._asked: dict[int, tuple[Served, Turned]] = {}
        self._refs = itertools.count(1)
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self.core = PoolCore("simulated", PoolConfig(worker=Worker, **config), size, 0.0, self.random.random)
        self.carry(self.core.start(0.0))

    # -- time ---------------------------------------------------------------------------------------------

    def after(self, seconds: float, act: Callable[[], None]) -> None:
        """Do something later."""
        heapq.heappush(self._timers, (self.now + seconds, next(self._order), act))

    def every(self, seconds: float, act: Callable[[], None]) -> None:
        """Do something again and again, the first time after `seconds`."""

        def again() -> None:
            act()
            self.after(seconds, again)

        self.after(seconds, again)

    def run(self, until: float) -> None:
        """Let the time pass until then."""
        still = 0
        while True:
            planned = self._timers[0][0] if self._timers else math.inf
            wanted = self.core.deadline()
            wanted = math.inf if wanted is None else wanted
            moment = max(min(planned, wanted), self.now)
            if moment > until:
                break
            still = 0 if moment > self.now else still + 1
            assert still < PATIENCE, f"the clock stands still at {self.now}: deadline {wanted}"
            self.now = moment
            if wanted <= planned:
                self.carry(self.core.tick(self.now))
            else:
                heapq.heappop(self._timers)[2]()
        self.now = until

    # -- callers ------------------------------------------------------------------------------------------

    def checkout(self, served: Served, turned: Turned, holder: Any = None, timeout: float | None = None) -> None:
        """Ask for a worker; one of the two functions is called, now or later."""
        ref = next(self._refs)
        self._asked[ref] = served, turned
        self.carry(self.core.checkout(self.now, ref, ref if holder is None else holder, timeout))

    def checkin(self, grant: effects.Granted) -> None:
        """Give the worker back, if the lease has not been taken back before."""
        self.carry(self.core.checkin(self.now, grant.lease))

    def call(self, grant: effects.Granted, seconds: float, then: Callable[[bool], None]) -> None:
        """Use the connection for some seconds; `then(worked)`. Without the resource it fails at once or at its end."""

        def done() -> None:
            if not self.up:
                self.carry(self.core.lost(self.now, grant.worker, ConnectionError("the server is away")))
            then(self.up)

        self.after(seconds if self.up else 0.0, done)

    # -- what the shell does ------------------------------------------------------------------------------

    def carry(self, decided: Iterable[effects.Effect]) -> None:
        """Carry effects out."""
        for effect in decided:
            self._carry(effect)

    def _carry(self, effect: effects.Effect) -> None:
        core = self.core
        if isinstance(effect, effects.Granted):
            self._asked.pop(effect.ref)[0](effect)
        elif isinstance(effect, effects.Refused):
            self._asked.pop(effect.ref)[1](effect.error)
        elif isinstance(effect, effects.Start):
            self._later(STARTING, core.worker_started, effect.worker)
        elif isinstance(effect, effects.Open):
            self.attempts.append(self.now)
            self.after(self.connecting, partial(self._opened, effect.worker))
        elif isinstance(effect, effects.Check):
            self.after(CHECKING, partial(self._checked, effect.worker))
        elif isinstance(effect, effects.Revoke):
            self._later(CHECKING, core.revoked, effect.worker, effect.lease)
        elif isinstance(effect, effects.Stop):
            self._later(STOPPING, core.died, effect.worker)
        elif isinstance(effect, effects.Kill):
            self._later(0.0, core.died, effect.worker)
        elif isinstance(effect, effects.Ended):
            self.ended.add(effect.lease)
        elif isinstance(effect, effects.Answer):
            self.answers[effect.ref] = self.now, effect.value
        elif isinstance(effect, effects.Emit):
            self.events[effect.name] += 1

    def _later(self, seconds: float, step: Callable[..., list[effects.Effect]], *args: Any) -> None:
        self.after(seconds, lambda: self.carry(step(self.now, *args)))

    def _opened(self, worker: int) -> None:
        if self.up:
            self.connected.append(self.now)
            self.carry(self.core.opened(self.now, worker, self.connecting))
        else:
            self.carry(self.core.open_failed(self.now, worker, ConnectionError("the server is away")))

    def _checked(self, worker: int) -> None:
        if self.up:
            self.carry(self.core.checked(self.now, worker))
        else:
            self.carry(self.core.lost(self.now, worker, ConnectionError("the server is away")))
