"""Drawing the supervision tree: ask all supervisors below, and answer when all have told, or after a moment.

What the manager itself knows of its children is read when it answers, not when it is asked: one that died meanwhile is
not shown as it was, and one that was started again is asked in its place.
"""

from __future__ import annotations

import dataclasses
import os
import time
from typing import TYPE_CHECKING, Any

from actorpool import process
from actorpool._protocol.requests import GetOutline, Outline
from actorpool.core.supervisor.children import Child, State
from actorpool.status import TreeNode
from actorpool.supervisors.outlines import node_of, outline_of

if TYPE_CHECKING:
    from actorpool.pools.holders import Asker
    from actorpool.supervisors.governor import Governor

PATIENCE = 1.0
"""Seconds to answer; a supervisor that has not by then is drawn without its children."""
PATIENCE_WITH_STARTS = 0.25
"""Seconds for one that starts: it may serve already, with the word of it still on its way here."""
LOOK = 0.02
"""Seconds until it is looked again which processes have died, of which no answer comes."""


class _Sketch:
    """A node below the manager's children, which may be asked for its own children."""

    def __init__(self, node: TreeNode, address: Any) -> None:
        self.known = node
        self.address = address if node.kind in ("pool", "supervisor") else None
        self.told = False
        self.children: list[_Sketch] = []

    def node(self) -> TreeNode:
        """With its children; one whose process is gone was not told of in time, and is replaced by its supervisor."""
        known = self.known
        if self.address is not None and not self.told and self.is_gone:
            known = dataclasses.replace(known, pid=None, state="restarting", since=None)
        return dataclasses.replace(known, children=tuple(child.node() for child in self.children))

    @property
    def is_gone(self) -> bool:
        return self.known.pid is not None and not process.alive(self.known.pid)

    @property
    def awaited(self) -> bool:
        """Whether it, or one below it, may still tell of itself."""
        if not self.told:
            return self.address is not None and not self.is_gone
        return any(child.awaited for child in self.children)

    def tell(self, outline: Outline) -> list[_Sketch]:
        """It has told of itself. Returns those below it."""
        self.told = True
        self.known = _with(self.known, outline)
        self.children = [_Sketch(node, address) for node, address in outline.below]
        return self.children


class TreeBuilder:
    """One drawing of the whole tree, from the root supervisor down.

    Args:
        manager: its questions and timers are used.
        asker: gets the `TreeNode`.
    """

    def __init__(self, manager: Governor, asker: Asker) -> None:
        self._manager = manager
        self._asker: Asker | None = asker
        self._began = time.monotonic()
        self._root: Outline | None = None
        self._asked: dict[int, _Sketch] = {}
        """By incarnation of a child."""

    def begin(self) -> None:
        """Ask the manager's own children, and theirs; and the root, for what it knows of the manager."""
        if self._manager.parent is not None:
            self._manager.ask(self._manager.parent, GetOutline(), self._above)
        self._look()

    def _above(self, answer: Any) -> None:
        if isinstance(answer, Outline):
            self._root = answer
        self._answer_if_told()

    def _look(self) -> None:
        """Ask those that have come, and see whether all have told."""
        if self._asker is None:
            return
        for child in self._children:
            if child.token not in self._asked and child.state is State.RUNNING:
                self._asked[child.token] = sketch = _Sketch(node_of(child), child.address)
                self._ask(sketch)
        if self._answer_if_told():
            return
        self._manager.set_timer(LOOK, self._look)

    @property
    def _children(self) -> list[Child]:
        return list(self._manager.machine.children.values())

    def _ask(self, sketch: _Sketch) -> None:
        if sketch.address is None:
            return

        def told(answer: Any) -> None:
            if isinstance(answer, Outline):
                for child in sketch.tell(answer):
                    self._ask(child)
            else:
                sketch.address = None  # it does not know the question
            self._answer_if_told()

        self._manager.ask(sketch.address, GetOutline(), told)

    def _answer_if_told(self) -> bool:
        """Answer if all have told, or the time is over; once."""
        asker, waited = self._asker, time.monotonic() - self._began
        if asker is not None and (waited >= PATIENCE or not self._is_awaited(waited)):
            self._asker = None
            asker.answer(self._tree())
        return self._asker is None

    def _is_awaited(self, waited: float) -> bool:
        if self._manager.parent is not None and self._root is None:
            return True
        for child in self._children:
            if child.state is State.RUNNING:
                sketch = self._asked.get(child.token)
                if sketch is None or sketch.awaited or (sketch.is_gone and not sketch.told):
                    return True
            elif child.state is State.DEAD or (child.state is State.STARTING and waited < PATIENCE_WITH_STARTS):
                return True
        return False

    def _tree(self) -> TreeNode:
        manager, is_process = self._manager, self._manager.is_process
        top = TreeNode("manager", "supervisor", os.getpid() if is_process else None, "running")
        top = _with(top, outline_of(manager.machine))
        above = os.getppid() if is_process and manager.parent is not None else None
        root = TreeNode("root", "supervisor", above, "running", since=process.began(above) if above else None)
        if self._root is not None:
            root = _with(root, self._root)
            for node, _ in self._root.below:
                if node.id == top.id:
                    top = dataclasses.replace(top, since=node.since, restarts=node.restarts, last_end=node.last_end)
        top = dataclasses.replace(top, children=tuple(map(self._drawn, self._children)))
        return dataclasses.replace(root, children=(top,))

    def _drawn(self, child: Child) -> TreeNode:
        """A child of the manager as it is now, with what its present process has told."""
        sketch, now = self._asked.get(child.token), node_of(child)
        if sketch is None or not child.alive:
            return now
        return dataclasses.replace(
            sketch.node(), pid=now.pid, state=now.state, since=now.since, restarts=now.restarts,
            last_end=now.last_end or sketch.known.last_end,
        )  # fmt: skip


def _with(node: TreeNode, outline: Outline) -> TreeNode:
    """A node with what it tells of itself; how it ended itself is the supervisor's word above it, which goes first."""
    told = {field.name: getattr(outline, field.name) for field in dataclasses.fields(outline)}
    del told["below"]
    if node.last_end is not None:
        del told["last_end"]
    return dataclasses.replace(node, **told)
