"""The processes that hold leases or wait for one, and how each is told: by channel or by Thespian message.

When one of them dies, everything it held is told to be over.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import field
from typing import Any

from actorpool import process
from actorpool._dataclass import dataclass
from actorpool._protocol import reports
from actorpool.core.effects import Ended, Granted, Keyed, Refused, UseLocal
from actorpool.errors import CallTimeout, CheckoutTimeout, LeaseExpired, WorkerDied
from actorpool.messages import Err, Grant, Ok, WithConnection
from actorpool.pools.shell import PoolShell
from actorpool.process import Caller
from actorpool.serialization import pickling
from actorpool.supervisors.monitor import POLL_EVERY, DeathWatch
from actorpool.thespian_adapter.shell import ip_of, log
from actorpool.transport import frames
from actorpool.transport.server import ChannelServer, ServerConn


class ChannelCaller:
    """A client at the other end of a channel connection; its leases end when the connection does."""

    __slots__ = ("caller", "host", "peer", "pid")

    def __init__(self, peer: ServerConn) -> None:
        self.peer = peer
        self.pid = peer.pid
        self.host = process.HOST
        self.caller = Caller(process.HOST, peer.pid, process.start_time(peer.pid) or 0.0)

    def granted(self, pool: PoolShell, grant: Granted) -> None:
        """Tell the client which worker it has."""
        flags = frames.CHECK_FIRST * grant.check_first | frames.TURN * grant.turn | frames.STICKY * grant.sticky
        hand = pool.worker_handles.hand(grant.worker)
        lost = b""
        if grant.keyed is not None:
            flags |= frames.KEYED if grant.keyed.fresh else frames.KEYED | frames.CONTINUED
            lost = (grant.keyed.lost or "").encode()
        body = frames.GRANT_BODY.pack(grant.lease, grant.worker, hand.pid or 0, flags, hand.seal(grant.lease)) + lost
        self.peer.send(frames.GRANT, grant.ref, body)

    def use_local(self, effect: UseLocal) -> None:
        """Tell the client to look among its own threads."""
        self.peer.send(frames.USE_LOCAL, effect.ref)

    def refused(self, pool: PoolShell, refusal: Refused) -> None:
        """Tell the client why it gets none."""
        error = refusal.error
        if isinstance(error, CheckoutTimeout) and self.peer.pid in pool.worker_handles.pids.values():
            text = "it was asked for by a worker of this very pool, which is busy with that: use the connection it has"
            error.args = (f"{error}; {text}", *error.args[1:])
        self.peer.send(frames.ERROR, refusal.ref, frames.dump_error(error))

    def ended(self, pool: PoolShell, end: Ended) -> None:
        """Nothing to say: the worker's own connection tells the client, or its fence does."""


@dataclass(unsafe_hash=True)
class MessageCaller:
    """A checkout of an actor or a plain `ask`, by message; its lease ends when its process dies.

    `ref`: of the request. Two of one request are equal: the same one again, or its cancellation. `has_called`: a call
    under its lease has begun.
    """

    caller: Caller
    address: Any = field(hash=False)
    ref: Any
    has_called: bool = field(default=False, compare=False)

    @property
    def pid(self) -> int:
        """The caller's process."""
        return self.caller.pid

    @property
    def host(self) -> str:
        """The caller's host."""
        return self.caller.host

    def granted(self, pool: PoolShell, grant: Granted) -> None:
        """Answer `Ok(Grant)`."""
        worker = pool.worker_handles.hand(grant.worker)
        where = (worker.address, grant.worker, worker.pid, pool.myAddress)
        keyed = (grant.keyed is not None, *(grant.keyed or Keyed(True)))
        value = Grant(grant.lease, pool.name, *where, grant.turn, self.address, worker.seal(grant.lease), *keyed)
        pool.send(self.address, Ok(value, grant.ref))

    def refused(self, pool: PoolShell, refusal: Refused) -> None:
        """Answer `Err`."""
        pool.send(self.address, Err(refusal.error, refusal.ref))
        pool.done(self)

    def ended(self, pool: PoolShell, end: Ended) -> None:
        """Nothing to say: the next call meets the worker's fence."""
        pool.done(self)


class RunCaller:
    """One `WithConnection`: the lease is the pool's own affair; its asker gets one reply, the first there is.

    Two of one message are equal, as those of `MessageCaller`.

    `sandbox`: the one that its process is a guest of; it is run there, or not at all.
    """

    __slots__ = ("address", "began", "caller", "deadline", "done", "request", "running", "sandbox")

    def __init__(self, request: WithConnection, address: Any, deadline: float, sandbox: str | None = None) -> None:
        self.request = request
        self.address = address
        self.caller = request.caller
        self.deadline = deadline
        self.sandbox = sandbox
        self.running = False
        self.began = 0.0
        self.done = False

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RunCaller) and (self.caller, self.request.ref, self.address) == (
            other.caller, other.request.ref, other.address)  # fmt: skip

    def __hash__(self) -> int:
        return hash((self.caller, self.request.ref))

    @property
    def pid(self) -> int:
        """The caller's process."""
        return self.caller.pid

    @property
    def host(self) -> str:
        """The caller's host."""
        return self.caller.host

    def answered(self, pool: PoolShell, reply: Any) -> None:
        """Pass the worker's reply on."""
        if not self.done:
            self.done = True
            pool.send(self.address, reply)

    def granted(self, pool: PoolShell, grant: Granted) -> None:
        """Send the call to the worker."""
        self.running = False
        self.began = time.monotonic()
        pool.run(self, grant)

    def refused(self, pool: PoolShell, refusal: Refused) -> None:
        """Answer `Err`."""
        self._fail(pool, refusal.error)

    def ended(self, pool: PoolShell, end: Ended) -> None:
        """The worker died or was taken back. What had not begun goes to another worker, unseen by the asker."""
        if end.died and not self.running and not self.done:
            pool.again(self)
        elif end.died:
            self._fail(pool, worker_died(pool.name, end.worker))
        else:
            self._fail(pool, self._interrupted(pool, end))

    def _interrupted(self, pool: PoolShell, end: Ended) -> Exception:
        waited = time.monotonic() - self.began
        limit = pool.config.call_timeout
        if limit is not None and waited >= limit:
            text = f"pool {pool.name!r}: the call ran longer than call_timeout ({limit:g} s) and was interrupted"
            return CallTimeout(text, pool=pool.name, waited=waited)
        text = f"pool {pool.name!r}: the call was interrupted after {waited:.2f} s, its lease taken back ({end.why})"
        return LeaseExpired(text, pool=pool.name, waited=waited)

    def lost_sandbox(self, pool: PoolShell) -> None:
        """The sandbox it was to run in has lost its worker or its connection; elsewhere it must not run."""
        text = f"pool {pool.name!r}: the sandbox has lost its worker or its connection; the call was not started"
        self._fail(pool, LeaseExpired(text, pool=pool.name))

    def _fail(self, pool: PoolShell, error: Exception) -> None:
        self.answered(pool, Err(error, self.request.ref))
        pool.done(self)


class Calls:
    """The `Call` messages that workers run: each gets one reply, the worker's or, should it die, the pool's."""

    def __init__(self, pool: PoolShell) -> None:
        self._pool = pool
        self._under_way: dict[int, reports.Running] = {}

    def begin(self, call: reports.Running) -> None:
        """A worker begins one."""
        self._under_way[call.worker_id] = call

    def answered(self, answer: reports.Answered, reply: Any) -> None:
        """Pass the worker's reply on."""
        call = self._under_way.get(answer.worker_id)
        if call is not None and call.ref == answer.ref:
            del self._under_way[answer.worker_id]
            self._pool.send(call.asker, reply)

    def died(self, worker: int) -> None:
        """The worker is gone: answer in its place."""
        call = self._under_way.pop(worker, None)
        if call is not None:
            self._pool.send(call.asker, Err(worker_died(self._pool.name, worker), call.ref))


def worker_died(pool: str, worker: int) -> WorkerDied:
    """For the asker of the call that the worker ran."""
    text = f"pool {pool!r}: worker {worker} died while it ran the call, which may have taken effect"
    return WorkerDied(text, pool=pool)


@dataclass(frozen=True)
class ChannelAsker:
    """Waits for a `REPLY` or `ERROR` frame."""

    peer: ServerConn
    ref: int

    def answer(self, value: Any) -> None:
        """Send the value, or the error that it is."""
        if not isinstance(value, BaseException):
            try:
                self.peer.send(frames.REPLY, self.ref, pickling.dumps(value))
                return
            except Exception as error:  # what a user's stats() returned does not pickle
                value = error
        self.peer.send(frames.ERROR, self.ref, frames.dump_error(value))


@dataclass(frozen=True)
class MessageAsker:
    """Waits for an `Ok` or `Err` message; `actor` sends it."""

    actor: Any = field(compare=False)
    address: Any = field(hash=False)
    ref: Any = None

    def answer(self, value: Any) -> None:
        """Send the value, or the error that it is."""
        reply = Err(value, self.ref) if isinstance(value, BaseException) else Ok(value, self.ref)
        self.actor.send(self.address, reply)


Asker = ChannelAsker | MessageAsker
Holder = ChannelCaller | MessageCaller | RunCaller


MANY_HOSTS = 100
"""Of so many other hosts it is said that their processes cannot be seen."""


class Holders:
    """Holders by process.

    Args:
        server: watches descriptors; None: processes are looked at every `POLL_EVERY` seconds.
        on_gone: called with each holder of a process that died.
        on_far: called when the first caller of another host comes: from then on `host_gone` is to be told.
    """

    def __init__(
        self, server: ChannelServer | None, on_gone: Callable[[Holder], None], on_far: Callable[[], None]
    ) -> None:
        self._server = server
        self._on_gone = on_gone
        self._on_far = on_far
        self._far: dict[str, set[Holder]] = {}  # by the address of their host
        self._watch = DeathWatch(polling=None if server is not None else True)
        self._holders: dict[Caller, set[Holder]] = {}
        self._descriptors: dict[Caller, int] = {}
        self._looked = 0.0
        self._unseen: set[str] = set()

    def add(self, holder: Holder) -> bool:
        """Watch the holder's process; False when it is gone already. Of another host only the host's end is heard."""
        caller = holder.caller
        if not caller.is_here:
            self._cannot_see(caller)
            self._add_far(holder)
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
        if descriptor is not None and self._server is not None:
            self._descriptors[caller] = descriptor
            self._server.watch(descriptor, lambda _: self._died(caller))
        return True

    def _cannot_see(self, caller: Caller) -> None:
        """Say it once: what a caller of another host holds is not given back by its death."""
        if caller.machine not in self._unseen and len(self._unseen) < MANY_HOSTS:
            self._unseen.add(caller.machine)
            text = "callers of host %s (as pid %s) cannot be watched from here: leases of dead ones end by max_lease"
            log.warning(f"{text}, or when the convention has lost their host", caller.host, caller.pid)

    def _add_far(self, holder: Holder) -> None:
        ip = ip_of(getattr(holder, "address", None))
        if ip is not None:
            if not self._far:
                self._on_far()
            self._far.setdefault(ip, set()).add(holder)

    def host_gone(self, ip: str | None) -> None:
        """Thespian's convention has lost a host: what its processes hold is over."""
        for holder in self._far.pop(ip or "", ()):
            self._on_gone(holder)

    def remove(self, holder: Holder) -> None:
        """This holder holds nothing more. Its process is watched until it dies: it may ask again."""
        holders = self._holders.get(holder.caller)
        if holders is not None:
            holders.discard(holder)
        elif self._far and (ip := ip_of(getattr(holder, "address", None))) in self._far:
            self._far[ip].discard(holder)

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
        if descriptor is not None and self._server is not None:
            self._server.unwatch(descriptor)
        self._watch.forget(caller)

    def close(self) -> None:
        """Let go of all descriptors."""
        self._watch.close()
