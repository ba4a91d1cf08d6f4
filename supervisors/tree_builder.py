"""Drawing the supervision tree: ask all supervisors below, and answer when all have told, or after a moment."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from actorpool._protocol import requests
from actorpool.messages import WhichChildren
from actorpool.status import TreeNode
from actorpool.supervisors.supervised import plain

if TYPE_CHECKING:
    from actorpool.pools.holders import Asker
    from actorpool.supervisors.governor import Governor

PATIENCE = 1.0
"""Seconds to answer; a supervisor that has not by then is drawn without its children."""


class _Sketch:
    """A node; its children are still being asked for."""

    def __init__(self, id: str, kind: str, pid: int | None, state: str, restarts: int) -> None:
        self.id, self.kind, self.pid, self.state, self.restarts = id, kind, pid, state, restarts
        self.children: list[_Sketch] = []

    def node(self) -> TreeNode:
        return TreeNode(
            self.id, self.kind, self.pid, self.state, self.restarts, tuple(child.node() for child in self.children)
        )


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
        self._root = _Sketch("root", "supervisor", above, "running", 0)
        self._top = _Sketch("manager", "supervisor", os.getpid() if process else None, "running", 0)
        self._root.children.append(self._top)

    def begin(self) -> None:
        """Ask the manager's own children, and theirs."""
        for child in self._manager.machine.children.values():
            info = child.info()
            self._visit(self._top, info, child.spec.kind)  # type: ignore[attr-defined]
        self._manager.set_timer(PATIENCE, self.finish)
        self._told()

    def _visit(self, above: _Sketch, info: Any, kind: str) -> None:
        sketch = _Sketch(str(plain(info.id)), kind, info.pid, info.state, info.restarts)
        above.children.append(sketch)
        if info.address is None:
            return
        if kind == "pool":
            self._ask(info.address, requests.Workers(), lambda answer: self._workers(sketch, answer))
        elif kind == "supervisor":
            self._ask(info.address, WhichChildren(), lambda answer: self._below(sketch, answer))

    def _ask(self, address: Any, request: Any, then: Any) -> None:
        self._open += 1

        def answered(answer: Any) -> None:
            then(answer)
            self._told()

        self._manager.ask(address, request, answered)

    def _workers(self, pool: _Sketch, answer: Any) -> None:
        if isinstance(answer, list):
            pool.children = [_Sketch(str(w.id), "worker", w.pid, w.state, w.restarts) for w in answer]

    def _below(self, supervisor: _Sketch, answer: Any) -> None:
        if isinstance(answer, list):
            for info in reversed(answer):  # told latest first; drawn in the order of start
                self._visit(supervisor, info, "supervisor" if info.type == "supervisor" else "actor")

    def _told(self) -> None:
        self._open -= 1
        if self._open == 0:
            self.finish()

    def finish(self) -> None:
        """Answer with what is known; once."""
        asker, self._asker = self._asker, None  # type: ignore[assignment]
        if asker is not None:
            asker.answer(self._root.node())
