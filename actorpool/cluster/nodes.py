"""The node of a host that takes part in a cluster: one that it runs anyway, or one of the agent's own."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import Any

from actorpool.client.start import start
from actorpool.client.system import connect
from actorpool.errors import SystemDown
from actorpool.node import runtime


class Node:
    """The part of a `System` that an agent uses.

    Args:
        system: a `System`.
        serves: whether it still does.
        ours: whether it was started for the agent, and ends with it.
    """

    def __init__(self, system: Any, serves: Callable[[], bool], ours: bool) -> None:
        self.system = system
        self.serves = serves
        self.ours = ours


def node_name(name: str, attach: bool | None) -> str:
    """The name of a host's node; one of the agents' own is not called as a node that the host may run anyway."""
    return f"{name}.cluster" if attach is False else name


def open_node(name: str, attach: bool | None) -> Node:
    """Attach to the node that this host runs, or start one that ends with this process.

    Args:
        name, attach: as of `Cluster`.

    Raises:
        SystemDown: there is none, and none is to be started.
    """
    name = node_name(name, attach)
    if attach is not False:
        try:
            system = connect(name)
            return Node(system, functools.partial(_serves, system), ours=False)
        except SystemDown:
            if attach:
                text = f"no node named {name!r} runs on this host: run `actorpool up` with that name"
                raise SystemDown(text) from None
    system = start(name, output="log")
    return Node(system, functools.partial(_serves, system), ours=True)


def _serves(system: Any) -> bool:
    return runtime.serves(system.directory)


def be_an_ordinary_process() -> None:
    """Ray makes its workers nice, and the kernel's first victims; a node and its workers would inherit both."""
    try:
        os.setpriority(os.PRIO_PROCESS, 0, 0)
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write("0")
    except OSError:  # only root may; docs/cluster.md says how to have Ray not do it
        pass
