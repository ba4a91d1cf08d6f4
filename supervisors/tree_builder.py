"""Drawing the supervision tree: ask all supervisors below, and answer when all have told, or after a moment."""

from __future__ import annotations

import dataclasses
import os
from typing import TYPE_CHECKING, Any

from actorpool._protocol.requests import GetOutline, Outline
from actorpool.status import TreeNode
from actorpool.supervisors.outlines import outline_of

if TYPE_CHECKING:
    from actorpool.pools.holders import Asker
    from actorpool.supervisors.governor import Governor

PATIENCE = 1.0
"""Seconds to answer; a supervisor that has not by then is drawn without its children."""


class _Sketch:
    """A node; its children are still being asked for."""

    def __init__(self, node: TreeNode) -> None:
        self.known = node
        self.children: list[_Sketch] = []

    def node(self) -> TreeNode:
        return dataclasses.replace(self.known, children=tuple(child.node() for child in self.children))

    def tell(self, outline: Outline) -> None:
        """It has told of itself; how it ended itself is the supervisor's word above it, which goes first."""
        told = {field.name: getattr(outline, field.name) for field in dataclasses.fields(outline)}
        del told["below"]
        if self.known.last_end is not None:
            del told["last_end"]
        self.known = dataclasses.replace(self.known, **told)


class TreeBuilder:
    """One drawing of the whole tree, from the root supervisor down.

    Args:
        manager: its questions and timers are used.
        asker: gets the `TreeNode`.
    """

    def __init__(self, manager: Governor, asker: Asker) -> None:
        self._manager = manager
        self._asker = asker
        self._open = 1
        process = manager.is_process
        above = os.getppid() if process and manager.parent is not None else None
        self._root = _Sketch(TreeNode("root", "supervisor", above, "running"))
        self._top = _Sketch(TreeNode("manager", "supervisor", os.getpid() if process else None, "running"))
        self._root.children.append(self._top)

    def begin(self) -> None:
        """Ask the manager's own children, and theirs; and the root, for what it knows of the manager."""
        self._below(self._top, outline_of(self._manager.machine))
        if self._manager.parent is not None:
            self._ask(self._manager.parent, self._above)
        self._manager.set_timer(PATIENCE, self.finish)
        self._told()

    def _above(self, answer: Any) -> None:
        if not isinstance(answer, Outline):
            return
        self._root.tell(answer)
        for node, _ in answer.below:
            if node.id == self._top.known.id:
                self._top.known = dataclasses.replace(
                    self._top.known, since=node.since, restarts=node.restarts, last_end=node.last_end
                )

    def _below(self, sketch: _Sketch, answer: Any) -> None:
        if not isinstance(answer, Outline):
            return
        sketch.tell(answer)
        for node, address in answer.below:
            child = _Sketch(node)
            sketch.children.append(child)
            if address is not None and node.kind in ("pool", "supervisor"):
                self._ask(address, lambda told, child=child: self._below(child, told))

    def _ask(self, address: Any, then: Any) -> None:
        self._open += 1

        def answered(answer: Any) -> None:
            then(answer)
            self._told()

        self._manager.ask(address, GetOutline(), answered)

    def _told(self) -> None:
        self._open -= 1
        if self._open == 0:
            self.finish()

    def finish(self) -> None:
        """Answer with what is known; once."""
        asker, self._asker = self._asker, None  # type: ignore[assignment]
        if asker is not None:
            asker.answer(self._root.node())
