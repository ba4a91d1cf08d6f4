"""The processes that hold leases or wait: when one dies, everything it held is told to be over.

The end of a channel connection says so for that connection; the death of the process, seen by its pidfd, is the
second witness for the channel and the only one for messages.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from actorpool.process import Caller
from actorpool.supervisors.callers import Holder
from actorpool.supervisors.monitor import POLL_EVERY, DeathWatch
from actorpool.thespian_adapter.shell import log
from actorpool.transport.server import ChannelServer

MANY_HOSTS = 100
"""Of so many other hosts it is said that their processes cannot be seen."""


class Clientele:
    """Holders by process.

    Args:
        lane: where descriptors are watched; None: processes are looked at every `POLL_EVERY` seconds.
        on_gone: called with each holder of a process that died.
    """

    def __init__(self, lane: ChannelServer | None, on_gone: Callable[[Holder], None]) -> None:
        self._lane = lane
        self._on_gone = on_gone
        self._watch = DeathWatch(polling=None if lane is not None else True)
        self._holders: dict[Caller, set[Holder]] = {}
        self._descriptors: dict[Caller, int] = {}
        self._looked = 0.0
        self._unseen: set[str] = set()

    def add(self, holder: Holder) -> bool:
        """Watch the holder's process; False when it is gone already. One of another host is not ours to watch."""
        caller = holder.caller
        if not caller.is_here:
            self._cannot_see(caller)
            return True
        if caller.pid == os.getpid():
            return True
        known = self._holders.get(caller)
        if known is not None:
            known.add(holder)
            return True
        try:
            descriptor = self._watch.watch(caller)
        except ProcessLookupError:
            return False
        self._holders[caller] = {holder}
        if descriptor is not None and self._lane is not None:
            self._descriptors[caller] = descriptor
            self._lane.watch(descriptor, lambda _: self._died(caller))
        return True

    def _cannot_see(self, caller: Caller) -> None:
        """Say it once: what a caller of another host holds is not given back by its death."""
        if caller.machine not in self._unseen and len(self._unseen) < MANY_HOSTS:
            self._unseen.add(caller.machine)
            text = "callers of host %s (as pid %s) cannot be watched from here: leases of dead ones end by max_lease"
            log.warning(text, caller.host, caller.pid)

    def remove(self, holder: Holder) -> None:
        """This holder holds nothing more. Its process stays watched until it dies: it may well ask again."""
        holders = self._holders.get(holder.caller)
        if holders is not None:
            holders.discard(holder)

    def poll(self, now: float) -> None:
        """Look at the processes that have no descriptor."""
        self._looked = now
        for caller in self._watch.poll(now):
            self._died(caller)

    def deadline(self) -> float | None:
        """When `poll` is to be called next."""
        return self._looked + POLL_EVERY if self._watch.polled else None

    def _died(self, caller: Caller) -> None:
        holders = self._holders.get(caller, set())
        self._forget(caller)
        for holder in holders:
            self._on_gone(holder)

    def _forget(self, caller: Caller) -> None:
        self._holders.pop(caller, None)
        descriptor = self._descriptors.pop(caller, None)
        if descriptor is not None and self._lane is not None:
            self._lane.unwatch(descriptor)
        self._watch.forget(caller)

    def close(self) -> None:
        """Let go of all descriptors."""
        self._watch.close()
