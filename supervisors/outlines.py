"""What a supervisor tells of itself for the supervision tree."""

from __future__ import annotations

import time

from actorpool import _scrubbing
from actorpool._protocol.requests import Outline
from actorpool.core.supervisor.children import Child
from actorpool.core.supervisor.core import SupervisorCore
from actorpool.pools.last_words import moment
from actorpool.status import TreeNode
from actorpool.supervisors.supervised import plain


def outline_of(machine: SupervisorCore) -> Outline:
    """The supervisor's children, its strategy and what is left of its restarts."""
    now, spec = time.monotonic(), machine.spec
    return Outline(
        tuple((node_of(child), child.info().address) for child in machine.children.values()),
        strategy=spec.strategy,
        restarts_used=machine.restarts_used(now),
        restarts_limit=spec.max_restarts,
        restarts_period=spec.max_seconds,
    )


def node_of(child: Child) -> TreeNode:
    """What a supervisor knows of a child."""
    info, spec, end = child.info(), child.spec, child.last_end
    epoch = time.time() - time.monotonic()
    kind = getattr(spec, "kind", None) or ("supervisor" if spec.type == "supervisor" else "actor")
    return TreeNode(
        str(plain(info.id)),
        kind,
        info.pid,
        info.state,
        info.restarts,
        since=epoch + child.started_at if info.address is not None else None,
        last_end=f"{_scrubbing.scrub(str(end.reason))} at {moment(epoch + child.ended_at)}" if end else None,
    )
