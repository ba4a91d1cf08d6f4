"""What `actorpool up` does: starts a node with all that its file describes, looks after it, and ends it."""

from __future__ import annotations

import contextlib
import functools
import os
import queue
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

from actorpool.attention import SERVING
from actorpool.cli import draining, memo, spreading
from actorpool.cli.notify import Notifier
from actorpool.cli.output import say
from actorpool.cli.refusals import FAILED, INTERRUPTED, Refusal
from actorpool.client.start import start
from actorpool.client.system import System
from actorpool.configuration import Configuration, DashboardSettings
from actorpool.errors import ActorPoolError, InvalidConfig
from actorpool.node import launch
from actorpool.node.runtime import KEPT
from actorpool.supervisors.specs import ChildSpec

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
AT_ONCE = 0.1
"""Seconds that a node gets to end in which is to end at once; then it kills what is left."""
ORDERLY = 1.0
LOOK_EVERY = 0.25
"""Seconds between two looks at pools that do not serve yet."""


class _Interrupted(BaseException):
    """A signal came before the node served."""


class Foreground:
    """The process that owns a node. It waits for signals, for the node's end, and for what its threads find out.

    Args:
        config: what to start.
    """

    def __init__(self, config: Configuration) -> None:
        self._config = config
        self._notifier = Notifier()
        self._happened: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()  # filled by handlers and threads
        self._starting = True
        self._ready = False
        self._told: dict[str, str] = {}

    def run(self) -> int:
        """Start the node, serve until the end, and return the exit code."""
        handlers = {number: signal.signal(number, self._on_signal) for number in ENDING}
        try:
            try:
                system = start_node(self._config)
            except _Interrupted:
                return INTERRUPTED
            try:
                start_all(system, self._config)
                spreading.join(self._config)
                _remember(system, self._config)
                self._starting = False
                return self._serve(system)
            except _Interrupted:
                say("interrupted before it served: ended")
                return INTERRUPTED
            finally:
                self._starting = False
                system.shutdown(AT_ONCE)
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)

    def _on_signal(self, number: int, frame: Any) -> None:
        if self._starting:
            self._starting = False
            raise _Interrupted
        self._happened.put(("signal", number))

    def _serve(self, system: System) -> int:
        self._in_thread("ended", system.wait)
        say(f"{system.name} runs {_counted(self._config)}. End it with Ctrl-C, or: actorpool down {system.name}")
        self._in_thread("looked", functools.partial(_look, system))
        look_at = float("inf")
        while True:
            try:
                what, value = self._happened.get(timeout=_patience(look_at))
            except queue.Empty:
                look_at = float("inf")
                self._in_thread("looked", functools.partial(_look, system))
                continue
            if what == "signal":
                return self._drain(system)
            if what == "ended":
                return self._told_of_end(system, value)
            pause = self._on_look(system, value)
            look_at = float("inf") if pause is None else time.monotonic() + pause

    def _on_look(self, system: System, found: dict[str, str] | BaseException) -> float | None:
        """Tell the service manager what was seen; how many seconds until the next look, None for none."""
        pause = self._notifier.watchdog / 3 if self._notifier.watchdog else None
        if isinstance(found, BaseException):
            self._notifier.tell(f"STATUS={found}".replace("\n", " "))
            return pause or LOOK_EVERY
        behind = _behind(found)
        states = [f"STATUS={len(found)} pools{''.join(f', {name} {state}' for name, state in behind.items())}"]
        if behind and self._told != behind:
            self._told = behind
            say(_waiting_for(behind))
        if not self._ready and not behind:
            self._ready = True
            states.append("READY=1")
            say(f"{system.name} serves")
        self._notifier.tell(*states, *["WATCHDOG=1"] * bool(self._notifier.watchdog))
        return pause if self._ready else min(LOOK_EVERY, pause or LOOK_EVERY)

    def _drain(self, system: System) -> int:
        """End in an orderly way; a further signal or the node's own end cuts it short."""
        self._notifier.tell("STOPPING=1", "STATUS=draining")
        limit = self._config.system.drain

        def drain() -> None:
            spreading.leave(self._config)
            with contextlib.suppress(ActorPoolError):  # it ends meanwhile
                say(f"draining: {draining.leases_out(system)} leases out, {limit:g} s at most; again to end at once")
                draining.drain(system, limit)

        self._in_thread("drained", drain)
        while True:
            what, value = self._happened.get()
            if what == "signal":
                say("ended at once")
                return INTERRUPTED
            if what == "drained":
                system.shutdown(ORDERLY)
                say(f"{system.name} has ended")
                return 0
            if what == "ended":
                return self._told_of_end(system, value)

    def _told_of_end(self, system: System, status: int) -> int:
        """The node is gone; whether somebody ended it, or it ended by itself."""
        if status == 0:
            self._notifier.tell("STOPPING=1")
            say(f"{system.name} was ended")
            return 0
        how = f"status {status}" if status > 0 else f"signal {-status}"
        say(f"{system.name} ended by itself ({how}); its log: {os.path.join(system.directory or '', KEPT)}")
        return FAILED

    def _in_thread(self, what: str, call: Callable[[], Any]) -> None:
        """Have `(what, result or exception)` put among what has happened."""

        def run() -> None:
            try:
                self._happened.put((what, call()))
            except Exception as error:
                self._happened.put((what, error))

        threading.Thread(target=run, daemon=True).start()


def _patience(until: float) -> float | None:
    return None if until == float("inf") else max(until - time.monotonic(), 0)


def _look(system: System) -> dict[str, str]:
    """A round trip to the manager and to every pool: their states."""
    states = {}
    for name in system.pools():
        try:
            states[name] = system.status(name).state
        except ActorPoolError as error:
            states[name] = type(error).__name__
    return states


def _behind(states: dict[str, str]) -> dict[str, str]:
    """The pools that do not serve."""
    return {name: state for name, state in states.items() if state not in SERVING}


def _waiting_for(behind: dict[str, str]) -> str:
    return f"not serving: {', '.join(f'{name} ({state})' for name, state in behind.items())}"


def _counted(config: Configuration) -> str:
    counts = {
        "pool": sum(pool.enabled for pool in config.pools.values()),
        "spread pool": len(config.spread),
        "shared pool": len(config.shared_pools),
        "supervisor": len(config.supervisors),
    }
    parts = [f"{count} {what}{'s' * (count > 1)}" for what, count in counts.items() if count]
    return ", ".join(parts) or "without pools"


def detach(config: Configuration) -> int:
    """Start a node that outlives this process.

    Raises:
        Refusal: it, or something of it, did not start; nothing is left behind.
    """
    system = start_node(config, daemon=True)
    try:
        start_all(system, config)
        spreading.join(config)
        _remember(system, config)
    except BaseException:
        launch.stop(system.name, AT_ONCE)
        raise
    say(f"{system.name} runs {_counted(config)}. End it: actorpool down {system.name}")
    if behind := _behind(_look(system)):
        say(_waiting_for(behind))
    return 0


def _remember(system: System, config: Configuration) -> None:
    assert system.directory is not None
    memo.remember(system.directory, drain=config.system.drain, pools=[*config.pools, *config.shared_pools])


def start_node(config: Configuration, daemon: bool = False) -> System:
    """Start the node itself.

    Raises:
        Refusal: the name or the dashboard's port is taken.
    """
    settings = {name: value for name, value in vars(config.system).items() if name not in ("name", "drain")}
    if config.dashboard is not None:
        _check_port(config.dashboard)
        settings["dashboard"] = dict(vars(config.dashboard))
    try:
        return start(config.system.name, daemon=daemon, telemetry=list(config.sinks), **settings)
    except InvalidConfig as error:
        if set(error.problems) != {"name"}:
            raise
        hint = f"End it: actorpool down {config.system.name}"
        raise Refusal(f"{error.problems['name']}.", "name_taken", hint) from error


def _check_port(dashboard: DashboardSettings) -> None:
    """Listen for a moment, so that a port that is taken is told before anything is started."""
    from actorpool.dashboard.sockets import listen  # not at the top: it is an extra

    try:
        listen(dashboard.host, dashboard.port).close()
    except OSError as error:
        text = f"The dashboard cannot listen on {dashboard.host}:{dashboard.port}: {error.strerror or error}."
        raise Refusal(text, "port_taken", "Choose another port in [dashboard]; nothing was started.") from error


def start_all(system: System, config: Configuration) -> None:
    """Start everything that the file describes; the pools at the same time, then what may use them.

    Raises:
        Refusal: names everything that did not start.
    """
    for name, shared in config.shared_pools.items():
        system.start_shared_pool(name, shared)
    enabled = {name: pool for name, pool in config.pools.items() if pool.enabled}
    starts = {name: functools.partial(system.start_pool, name, pool) for name, pool in enabled.items()}
    failed = [
        f"\n  [pools.{name}] {type(outcome).__name__}: {outcome}"
        for name, outcome in draining.at_once(starts).items()
        if isinstance(outcome, BaseException)
    ]
    if not failed:
        for name, spec in config.supervisors.items():
            try:
                system.supervise(ChildSpec(name, spec))
            except ActorPoolError as error:
                failed.append(f"\n  [supervisors.{name}] {error}")
    if failed:
        raise Refusal(f"{system.name} did not start, and was ended:{''.join(failed)}", "start_failed")
