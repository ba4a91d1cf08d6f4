"""The supervisor that has none above it: what it has to tell goes down to the manager, where the sinks are."""

from __future__ import annotations

from typing import Any

from actorpool._protocol import manager
from actorpool.core.supervisor.children import State
from actorpool.node.runtime import MANAGER
from actorpool.supervisors.supervisor import Supervisor


class Topmost(Supervisor):
    """The root supervisor of a system."""

    def emit(self, name: str, measurements: dict[str, Any], metadata: dict[str, Any]) -> None:
        """Tell the manager; one that was just restarted hears so itself."""
        child = self.machine.children.get(MANAGER)
        if child is not None and child.state is State.RUNNING:
            self.send(child.address, manager.Happened(name, measurements, metadata))
