"""The dashboard as an option of `start`: what may be given, and the child that is supervised for it."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping
from typing import Any

from actorpool.errors import SupervisorError, SystemDown
from actorpool.node import launch, runtime

_DEFAULTS = {"host": "127.0.0.1", "port": 8420, "hosts": ()}
_NEEDED = ("starlette", "uvicorn")


def problem_of(wanted: Any, base: str) -> str | None:
    """What is wrong with `start(dashboard=wanted)`; None if nothing is."""
    given = wanted if isinstance(wanted, Mapping) else {"port": wanted}
    port, host, hosts = (dict(_DEFAULTS) | dict(given))["port"], given.get("host", ""), given.get("hosts", ())
    if set(given) - set(_DEFAULTS) or not isinstance(host, str) or isinstance(hosts, str):
        return f"takes a port, or a dict of {', '.join(_DEFAULTS)}, not {wanted!r}"
    if isinstance(port, bool) or not isinstance(port, int) or not 0 <= port <= 65535:
        return f"must be a port from 0 (any that is free) to 65535, not {port!r}"
    if base == "simpleSystemBase":
        return "needs a node: simpleSystemBase has no processes"
    if missing := [name for name in _NEEDED if importlib.util.find_spec(name) is None]:
        return f"needs {' and '.join(missing)}: pip install 'actorpool[dashboard]'"
    return None


def begin(system: Any, wanted: Any) -> None:
    """Start the dashboard of a node that has just been started.

    Raises:
        SystemDown: it did not start, so the node was ended.
    """
    try:
        system.supervise(_spec(wanted, system.name, system.directory))
    except SupervisorError as error:
        launch.stop(system.name)
        raise SystemDown(f"the dashboard did not start, so the node was ended: {error}", cause=error) from error


def address_in(directory: str | None) -> str | None:
    """The address of the dashboard of the node with that runtime directory; None if it has none."""
    try:
        with open(os.path.join(directory or "", runtime.DASHBOARD), encoding="ascii") as file:
            return file.read()
    except OSError:
        return None


def _spec(wanted: Any, node: str, directory: str | None) -> Any:
    """The supervisor of a dashboard: it starts a server again for ever, ever more slowly, and never gives up."""
    from actorpool.core.machine import Backoff
    from actorpool.supervisors.specs import ChildSpec, SupervisorSpec

    given = wanted if isinstance(wanted, Mapping) else {"port": wanted}
    args = _DEFAULTS | dict(given) | {"node": node, "directory": directory}
    keeper = ChildSpec("server", "actorpool.dashboard.keeper:Keeper", args=args | {"hosts": tuple(args["hosts"])})  # type: ignore[arg-type]
    backoff = Backoff(0.2, 10.0)  # at most 50 in these 10 seconds, so its intensity is never exceeded
    return ChildSpec("dashboard", SupervisorSpec([keeper], max_restarts=1000, max_seconds=10, backoff=backoff))
