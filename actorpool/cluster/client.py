"""What one client process knows of a cluster: the view, the hosts in quarantine, its own host's pools."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Hashable
from typing import Any

from actorpool.client.system import System, connect
from actorpool.cluster.engine import Engine, Handle, Lost, Pending
from actorpool.core.cluster.choice import Choice
from actorpool.core.cluster.members import Declaration, View
from actorpool.core.cluster.shares import host_of_key
from actorpool.errors import ActorPoolError, PoolDown, PoolNotFound, SystemDown

FOLLOW = 20.0
"""Seconds that the coordinator keeps a question after a newer view; more often than this it is asked again."""
PROBE_EVERY = 0.1
"""Seconds between two questions to a host in quarantine whether it answers again."""
PROBE_PATIENCE = 5.0


class Client:
    """Shared by all pools of one `Cluster` object. Safe to use from any thread.

    Args:
        engine: of this process.
        name: the cluster's name.
        owner: the cluster is to end with this process.
    """

    def __init__(self, engine: Engine, name: str, owner: bool = False) -> None:
        self.engine = engine
        self.name = name
        self.id = uuid.uuid4().hex
        self.coordinator = engine.coordinator(False)
        self.choice = Choice(engine.here, self.id)
        self.view = View(0, {}, {}, {})
        self._system: System | None = None
        self._local: dict[str, Any] = {}
        self._no_node_until = 0.0
        self._agents: dict[str, Handle] = {}
        self._tokens: dict[str, Any] = {}
        self._numbers = 0
        self._lock = threading.RLock()
        self._closed = False
        self._owner = owner
        self._belonging: Any = None
        if owner:
            self._belong()
        threading.Thread(target=self._follow, name="actorpool cluster", daemon=True).start()

    def close(self) -> None:
        """Follow the cluster no more; leases that are out end with the engine's part in it."""
        self._closed = True
        with self._lock:
            system, self._system = self._system, None
            self._local.clear()
        if system is not None:
            system.shutdown()

    def _belong(self) -> None:
        """Have the coordinator, or its successor, end the cluster when this process ends."""
        self._belonging = self.coordinator.hold()
        self.coordinator.ask("belong", token=self._belonging)

    # -- the view ---------------------------------------------------------------------------------------------

    def _follow(self) -> None:
        while not self._closed:
            known = self.view
            try:
                view = self.coordinator.ask("seen", known.version, FOLLOW).result(2 * FOLLOW)
            except (Lost, TimeoutError):
                if self._closed:
                    return
                time.sleep(PROBE_EVERY)
                if self._owner:  # it may have been restarted
                    self._belong()
                continue
            if self.view is known:  # else `refresh` has taken one meanwhile, which may be newer
                self._take(view)

    def _take(self, view: View) -> None:
        with self._lock:
            former, self.view = self.view, view
            for host in self.choice.suspects - view.hosts.keys():
                self.choice.cleared(host)
            for host in list(self._agents):
                if former.agents.get(host) != view.agents.get(host):  # it is another one, or there is no such host
                    self._agents.pop(host, None)
            for host in self._tokens.keys() - view.hosts.keys():
                self._tokens.pop(host, None)

    def refresh(self, timeout: float = 10.0) -> View:
        """The coordinator's present view, for who has just changed something; of its successor, if it has just died.

        Raises:
            SystemDown: none has answered within `timeout` seconds.
        """
        deadline = time.monotonic() + timeout
        while True:
            left = max(deadline - time.monotonic(), 0.0)
            try:
                view: View = self.coordinator.ask("seen", -1, 0.0).result(left)
            except (Lost, TimeoutError) as error:
                if time.monotonic() >= deadline:
                    text = f"the coordinator of cluster {self.name!r} has not answered within {timeout:g} s: {error}"
                    raise SystemDown(text) from None
                time.sleep(PROBE_EVERY)
            else:
                self._take(view)
                return view

    def declaration(self, pool: str) -> Declaration:
        """A pool as it was declared.

        Raises:
            PoolNotFound: there is none of that name.
        """
        known = self.view.declared.get(pool) or self.refresh().declared.get(pool)
        if known is None:
            names = ", ".join(sorted(self.view.declared)) or "none"
            text = f"no pool named {pool!r} is running in cluster {self.name!r} (running: {names}): start it first"
            raise PoolNotFound(text, pool=pool)
        return known

    # -- where a call goes ------------------------------------------------------------------------------------

    def candidates(self, pool: str, host: str | None = None, key: Hashable = None) -> list[str]:
        """The hosts to try, in order.

        Args:
            host: the name or the id of the only one that is meant.
            key: of a keyed lease, which belongs to one host.
        """
        shares = self.view.shares.get(pool, {})
        if host is not None:
            node = self.node_id(host)
            return [node] if self.choice.usable(node) else []
        if key is not None:
            home = host_of_key(key, shares) if shares else None
            return [home] if home is not None and self.choice.usable(home) else []
        return self.choice.order(shares)

    def node_id(self, host: str) -> str:
        """The id of a host by its name or its id.

        Raises:
            LookupError: there is no such host.
        """
        hosts = self.view.hosts
        if host in hosts:
            return host
        found = [info.node_id for info in hosts.values() if info.name == host]
        if len(found) == 1:
            return found[0]
        names = ", ".join(sorted(info.name for info in hosts.values()))
        raise LookupError(f"cluster {self.name!r} has no host {host!r}; there are {names}")

    def host_name(self, node: str) -> str:
        """The name of a host that is or was a member."""
        info = self.view.hosts.get(node)
        return info.name if info else node

    def nobody(self, pool: str, waited: float) -> PoolDown:
        """The error when no host of a pool is left that could be asked."""
        shares = self.view.shares.get(pool, {})
        suspects = ", ".join(sorted(self.host_name(host) for host in shares if not self.choice.usable(host)))
        reason = f"hosts {suspects} do not answer" if suspects else "no host that fits is up"
        hosts = ", ".join(sorted(info.name for info in self.view.hosts.values())) or "none"
        text = f"pool {pool!r} of cluster {self.name!r} has no host left: {reason} (members: {hosts})"
        return PoolDown(text, pool=pool, waited=waited)

    # -- this host's pools ------------------------------------------------------------------------------------

    def local(self, pool: str, node: str) -> Any:
        """The handle of this host's own pool, which needs no engine; None: it has to be asked through its agent."""
        if node != self.engine.here:
            return None
        known = self._local.get(pool)
        if known is not None or time.monotonic() < self._no_node_until:
            return known
        with self._lock:
            try:
                if self._system is None:
                    self._system = connect(self.view.node)
                self._local[pool] = self._system.pool(pool)
            except ActorPoolError:  # of another user, or elsewhere on this host: its agent knows the way
                self._no_node_until = time.monotonic() + 1.0
                return None
            return self._local[pool]

    def forget_local(self) -> None:
        """This host's node has ended; the next one has to be found."""
        with self._lock:
            self._local.clear()
            self._system = None

    # -- agents -----------------------------------------------------------------------------------------------

    def agent(self, host: str) -> Handle:
        """The agent of a host. Raises `Lost` (never sent) if there is none."""
        handle = self._agents.get(host)
        if handle is None:
            handle = self._agents[host] = self.engine.agent(host)
        return handle

    def introduce(self, host: str) -> Pending:
        """Have the agent of a host watch this process."""
        agent = self.agent(host)
        with self._lock:
            token = self._tokens[host] = agent.hold()
        return agent.ask("watch", self.id, self.engine.here, token=token)

    def number(self) -> str:
        """A new name for a lease."""
        with self._lock:
            self._numbers += 1
            return f"{self.id}/{self._numbers}"

    def suspect(self, host: str) -> None:
        """A call there was lost: no more go there until its agent answers a question, or it is no member any more."""
        with self._lock:
            self._tokens.pop(host, None)
            if self.choice.suspect(host):
                threading.Thread(target=self._probe, args=(host,), name="actorpool probe", daemon=True).start()

    def _probe(self, host: str) -> None:
        while not self._closed and not self.choice.usable(host):
            try:
                self.agent(host).ask("ping").result(PROBE_PATIENCE)
            except (Lost, TimeoutError):
                self._agents.pop(host, None)
                time.sleep(PROBE_EVERY)
            else:
                self.choice.cleared(host)
