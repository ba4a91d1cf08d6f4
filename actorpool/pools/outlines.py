"""What a pool tells of itself for the supervision tree."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from actorpool._protocol.requests import Outline
from actorpool.pools.last_words import LastEnds
from actorpool.pools.worker_handles import WorkerHandles
from actorpool.status import TreeNode, WorkerInfo


def outline(handles: WorkerHandles, ends: LastEnds, infos: Iterable[WorkerInfo], **budget: Any) -> Outline:
    """The pool's workers, each with the last end in its place.

    Args:
        handles: the processes.
        ends: why others ended before them.
        infos: what the core knows of them.
        **budget: of restarts, fields of `Outline`.
    """
    by_pid = {hand.pid: hand for hand in handles if hand.pid is not None}
    nodes = []
    for info in infos:
        hand = by_pid.get(info.pid) if info.pid is not None else None
        end = ends.get(hand.place) if hand is not None else None
        nodes.append(
            TreeNode(
                str(info.id), "worker", info.pid, info.state, info.restarts,
                since=hand.since if hand is not None else None,
                last_end=end.text if end is not None else None,
                output=end.output if end is not None else "",
            )
        )  # fmt: skip
    last = ends.latest()
    return Outline(tuple((node, None) for node in nodes), last_end=last.text if last else None,
                   output=last.output if last else "", **budget)  # fmt: skip
