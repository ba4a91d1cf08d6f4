"""The coordinator's decisions: from who is there and what is declared, what each host is told.

It keeps nothing that the agents do not know: a coordinator that starts anew reads `Orders` of the agents and goes on.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import NamedTuple

from actorpool.core.cluster.members import (
    LEFT,
    UNUSABLE,
    UP,
    Declaration,
    HostInfo,
    Member,
    Orders,
    Share,
    View,
    display_names,
)
from actorpool.core.cluster.shares import overflow_shares, shares
from actorpool.core.effects import Emit
from actorpool.core.machine import StateMachine, step


class Tell(NamedTuple):
    """Tell a host's agent its orders; start the agent if there is none. Answered by `told` or `failed`."""

    host: str
    orders: Orders


class Dismiss(NamedTuple):
    """The host has left: its agent has nothing to run any more and ends. Answered by `dismissed`."""

    host: str


Effect = Tell | Dismiss | Emit


class ClusterCore(StateMachine):
    """Shares of all pools on all hosts.

    Args:
        declared, left: what the agents know, of a coordinator that starts again.
        told: by host, what its agent has carried out.
    """

    def __init__(
        self,
        declared: Mapping[str, Declaration] | None = None,
        left: Iterable[str] = (),
        told: Mapping[str, Orders] | None = None,
    ) -> None:
        super().__init__()
        self.declared: dict[str, Declaration] = dict(declared or {})
        self.members: dict[str, Member] = {}
        self.left: set[str] = set(left)
        self.version = 0
        self._since: dict[str, float] = {}
        self._unusable: dict[str, tuple[str, float]] = {}  # why, and when to try again
        self._asked: dict[str, Orders] = {}  # under way
        self._told: dict[str, Orders] = dict(told or {})  # done
        self._parting: set[str] = set()  # whose agents are ending
        self._dismissed: dict[str, int] = {}  # how many have
        self._shares: dict[str, dict[str, int]] = {}
        self._wanted: dict[str, Orders] = {}

    # -- what happens -----------------------------------------------------------------------------------------

    @step
    def members_are(self, now: float, members: Iterable[Member]) -> None:
        """The engine's list of living hosts.

        Args:
            now: Unix time.
        """
        present = {member.id: member for member in members}
        gone, new = self.members.keys() - present.keys(), present.keys() - self.members.keys()
        names = display_names({**self.members, **present})
        changed = present != self.members
        self.members = present
        for host in sorted(new):
            self._since[host] = now
            self._emit("host.up", metadata={"host": names[host], "node_id": host})
        for known in (self._since, self._unusable, self._asked, self._told, self._dismissed):
            for host in known.keys() - present.keys():
                del known[host]
        self._parting &= present.keys()
        for host in sorted(gone):
            if host in self.left:
                self.left.discard(host)
            else:
                self._emit("host.down", metadata={"host": names[host], "node_id": host})
        retried = [host for host, (_, when) in self._unusable.items() if when <= now]
        for host in retried:
            del self._unusable[host]
        if changed or retried:
            self._settle()

    @step
    def declare(self, declaration: Declaration) -> None:
        """A pool is started, or changed: of two declarations the later one counts."""
        self.declared[declaration.name] = declaration
        self._settle()

    @step
    def remove(self, pool: str) -> None:
        """A pool is stopped."""
        if self.declared.pop(pool, None) is not None:
            self._settle()

    @step
    def resize(self, pool: str, size: int | None, max_overflow: int | None) -> None:
        """Change the sizes of all hosts together; None: as it is."""
        known = self.declared[pool]
        self.declared[pool] = replace(
            known,
            size=known.size if size is None else size,
            max_overflow=known.max_overflow if max_overflow is None else max_overflow,
            changed=known.changed + 1,
        )
        self._settle()

    @step
    def leave(self, host: str) -> None:
        """A host leaves in order: its workers are moved to the others, then its agent ends."""
        if host in self.members and host not in self.left:
            self.left.add(host)
            self._unusable.pop(host, None)
            metadata = {"host": display_names(self.members)[host], "node_id": host}
            self._emit("host.left", metadata=metadata)
            self._settle()

    @step
    def join(self, host: str) -> None:
        """A host that had left takes part again."""
        if host in self.left:
            self.left.discard(host)
            self._settle()

    @step
    def told(self, host: str, orders: Orders) -> None:
        """A host has carried out its orders."""
        if self._asked.get(host) != orders:
            return
        del self._asked[host]
        if host not in self.members:
            return
        self._told[host] = orders
        self._tell(host)
        if host in self.left and not orders.shares and host not in self._asked:
            del self._told[host]
            self._parting.add(host)
            self._do(Dismiss(host))

    @step
    def dismissed(self, host: str) -> None:
        """The agent of a host that has left has ended; if the host has joined again meanwhile, another one begins."""
        self._parting.discard(host)
        self._dismissed[host] = self._dismissed.get(host, 0) + 1
        self._tell(host)

    @step
    def failed(self, host: str, orders: Orders, reason: str | None = None, again: float = 0.0) -> None:
        """A host has not carried out its orders.

        Args:
            reason: None: it is to be told again. Else no node can run there, and others take over its shares.
            again: Unix time from which on it is tried again.
        """
        if self._asked.get(host) != orders:
            return
        del self._asked[host]
        if reason is None:
            self._tell(host)
        elif host in self.members:
            self._unusable[host] = (reason, again)
            self._told.pop(host, None)
            self._settle()

    @step
    def agent_lost(self, host: str) -> None:
        """The agent has ended; its successor knows nothing."""
        self._asked.pop(host, None)
        self._told.pop(host, None)
        self._tell(host)

    # -- what follows -----------------------------------------------------------------------------------------

    def hosts_of(self, pool: str) -> list[str]:
        """The hosts that may have workers of a pool."""
        placement = self.declared[pool].placement
        return [
            host
            for host, member in self.members.items()
            if host not in self.left and host not in self._unusable and member.fits(placement)
        ]

    def _settle(self) -> None:
        """Reckon all shares, and tell each host whose orders have changed; those that lose workers come first."""
        before, self._shares = self._shares, {}
        extra: dict[str, dict[str, int]] = {}
        for name, known in self.declared.items():
            hosts = self.hosts_of(name)
            self._shares[name] = shares(known.size, hosts, name, known.most)
            serving = [host for host in hosts if self._shares[name][host]]
            extra[name] = overflow_shares(known.max_overflow, serving or hosts, name)
            self._tell_shares(name, before.get(name, {}), self._shares[name])
        declared, left = dict(self.declared), frozenset(self.left)
        self._wanted = {host: Orders({}, declared, left) for host in self.members}
        for name, share in self._shares.items():
            for host, size in share.items():
                if size or extra[name].get(host):
                    mine = self._wanted[host].shares
                    mine[name] = Share(self.declared[name], size, extra[name].get(host, 0))  # type: ignore[index]
        for host in sorted(self.members, key=self._growth):
            self._tell(host)

    def _tell(self, host: str) -> None:
        """Tell a host its orders, if they are news and it is not busy with others."""
        self.version += 1
        orders = self._wanted.get(host)
        busy = host in self._asked or host in self._parting
        if orders is None or busy or host in self._unusable or self._told.get(host) == orders:
            return
        if orders.shares or host in self._told:
            self._asked[host] = orders
            self._do(Tell(host, orders))

    def _growth(self, host: str) -> int:
        known = self._told.get(host)
        former = sum(share.size for share in known.shares.values()) if known else 0
        return sum(share.size for share in self._wanted[host].shares.values()) - former

    def _tell_shares(self, pool: str, before: Mapping[str, int], now: Mapping[str, int]) -> None:
        if before != now:
            names = display_names(self.members)
            metadata = {"shares": {names[host]: share for host, share in sorted(now.items())}}
            self._emit("pool.share", metadata={"pool": pool, **metadata}, hosts=len(now), size=sum(now.values()))

    # -- looking ----------------------------------------------------------------------------------------------

    def view(self) -> View:
        """What callers go by: the shares of hosts that have carried out their orders, or had some before."""
        serving: dict[str, dict[str, int]] = {name: {} for name in self.declared}
        for host, orders in self._told.items():
            for name, share in orders.shares.items():
                if name in serving and host in self._shares[name]:
                    serving[name][host] = share.size or 1  # only overflow: one worker at a time will do for a weight
        names = display_names(self.members)
        hosts = {
            host: HostInfo(
                names[host],
                host,
                LEFT if host in self.left else UNUSABLE if host in self._unusable else UP,
                dict(member.labels),
                {name: share[host] for name, share in self._shares.items() if share.get(host)},
                self._since[host],
                self._unusable.get(host, ("", 0.0))[0],
            )
            for host, member in self.members.items()
        }
        agents = {host: self._dismissed.get(host, 0) for host in self.members}
        return View(self.version, hosts, serving, dict(self.declared), agents)

    def settled(self, pool: str) -> bool:
        """Whether every host that is to have workers of the pool has been told and has done it."""
        return pool in self.declared and all(
            host in self._told and self._told[host].shares.get(pool) == orders.shares[pool]
            for host, orders in self._wanted.items()
            if pool in orders.shares
        )

    def runs(self, pool: str) -> bool:
        """Whether any host may still run something of a pool."""
        return any(pool in orders.shares for known in (self._told, self._asked) for orders in known.values())

    def check(self) -> None:
        """What must be true after every step."""
        for name, known in self.declared.items():
            share, hosts = self._shares[name], self.hosts_of(name)
            most = known.size if known.most is None else min(known.size, known.most * len(hosts))
            assert share.keys() == set(hosts), (share, hosts)
            assert sum(share.values()) == (most if hosts else 0), (share, known)
            assert max(share.values(), default=0) - min(share.values(), default=0) <= 1, share
        assert self._asked.keys() <= self.members.keys()
        assert self._told.keys() <= self.members.keys()
        for host in self.members.keys() - self._asked.keys() - self._unusable.keys() - self._parting:
            told = self._told.get(host)
            wanted = {name for name, share in self._shares.items() if share.get(host)}
            assert wanted <= (told.shares.keys() if told else set()), (host, wanted, told)
