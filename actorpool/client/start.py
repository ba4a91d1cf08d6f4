"""`start`: a system of one's own, in a node that begins before this process has loaded what it needs itself."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from actorpool._choices import MAX_MESSAGE
from actorpool.client._start_options import NODE_BASES as NODE_BASES
from actorpool.client._start_options import level_name, problems_of
from actorpool.errors import InvalidConfig
from actorpool.node import names
from actorpool.node.spawn import spawn

if TYPE_CHECKING:
    from actorpool.client.system import System


def start(
    name: str | None = None,
    *,
    base: str = "multiprocTCPBase",
    telemetry: Any = None,
    metrics_interval: float = 10.0,
    log_level: str | int = "WARNING",
    log_file: str | os.PathLike[str] | None = None,
    log_format: str = "text",
    output: str = "inherit",
    spin: bool = True,
    max_message: int = MAX_MESSAGE,
    daemon: bool = False,
    dashboard: int | Mapping[str, Any] | None = None,
    **options: Any,
) -> System:
    """Start a private actor system and wait until it serves.

    It runs in a node: a fresh process that listens on nothing but loopback and ends when this process ends, however
    that ends. `with actorpool.start() as system:` ends it at the end of the block.

    Args:
        name: under which other processes of this user can `connect`; None: for this process and its children.
        base: "multiprocTCPBase"; "multiprocUDPBase" (a node without the channel, messages only); or
            "simpleSystemBase" (everything in this process, without real timeouts, for unit tests).
        telemetry: a sink, `"module:function"`, or a list of them (see `actorpool.telemetry`).
        metrics_interval: seconds between two samples of each pool.
        log_level: from which level on the node's lines go to this process's standard error as well.
        log_file: where the node writes its log; None: `node.log` in its runtime directory.
        log_format: "text", or "json" for one object a line, with time, level, node, pool, worker, pid and message.
        output: where what workers write to their standard output and error goes: "inherit", to those of this process;
            "log", line by line with the worker's id into the log; "stderr", to this process's standard error, never
            to its output, which may be a protocol's.
        spin: whether the two ends of the channel look for an answer for some microseconds before they sleep.
        max_message: bytes the arguments or the result of one call may have; more is an error of that call only.
        daemon: the node outlives this process, and is ended by `actorpool down NAME` alone; what its workers write goes
            to the log.
        dashboard: the port of loopback on which the node's page is served (0: any that is free, `System.dashboard`
            tells it), or a dict of `host`, `port` and `hosts`, further names for it; None: no page.

    Raises:
        InvalidConfig: names every bad or unknown option; or the name is taken by a running node.
        SystemDown: it did not come up; the text says why.
    """
    problems = {option: _unknown(option) for option in options}
    problems |= problems_of(base, metrics_interval, log_level, log_file, log_format, spin, max_message, output)
    names.check(name)
    if dashboard is not None:
        from actorpool.client import _dashboard

        if problem := _dashboard.problem_of(dashboard, base):
            problems["dashboard"] = problem
    if problems:
        raise InvalidConfig("start", problems)
    settings = {
        "sinks": () if telemetry is None else _sinks_of(telemetry),
        "metrics_interval": float(metrics_interval),
        "spin": spin,
        "max_message": max_message,
    }
    if base not in NODE_BASES:
        return _inside(name, settings)
    with spawn(daemon=daemon) as spawned:
        # Not at the top: two interpreters load what they need at the same time, the node's and this one.
        from actorpool.client._node_client import node_client
        from actorpool.client.system import System
        from actorpool.node import launch

        node = launch.settle(
            spawned,
            name,
            base,
            log_level=level_name(log_level),
            log_file=None if log_file is None else os.path.abspath(log_file),
            log_format=log_format,
            output="log" if daemon and output == "inherit" else output,
            options=settings,
            daemon=daemon,
        )
    system = System(node_client(node.name, None if daemon else node, spin))
    if dashboard is not None:
        _dashboard.begin(system, dashboard)
    return system


def _unknown(option: str) -> str:
    import inspect  # not at the top: only for a mistake

    from actorpool._validation import nearest

    near = nearest(option, [name for name in inspect.signature(start).parameters if name != "options"])
    return "is no option of start()" + (f": did you mean {near!r}?" if near else "")


def _sinks_of(telemetry: Any) -> Any:
    from actorpool.telemetry import sinks_of

    return sinks_of(telemetry)


def _inside(name: str | None, settings: dict[str, Any]) -> System:
    """A system without processes."""
    from actorpool.client._in_process import InProcessClient
    from actorpool.client.system import System

    return System(InProcessClient(name, settings))
