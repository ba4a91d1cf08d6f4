"""What `actorpool doctor` looks at where a file has `[cluster]`: Ray as it runs on this host (docs/cluster.md)."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping
from importlib import metadata
from typing import NamedTuple

import psutil

from actorpool.cli.finding import Finding

QUICK = {
    "RAY_health_check_initial_delay_ms": "500",
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_timeout_ms": "1000",
    "RAY_health_check_failure_threshold": "3",
    "RAY_timeout_ms_task_wait_for_death_info": "100",
    "RAY_core_worker_internal_heartbeat_ms": "100",
    "RAY_raylet_death_check_interval_milliseconds": "200",
    "RAY_grpc_client_check_connection_status_interval_milliseconds": "100",
    "RAY_raylet_liveness_self_check_interval_ms": "2000",
}
"""Settings with which a silent host is noticed after some 4 s instead of some 62 s."""
_RAY = "2.60."
_TELL = "import importlib.metadata as m, platform as p; print('Ray', m.version('ray'), 'Python', p.python_version())"
_WORKERS = "--python_worker_command="
_NOT_REAPING = ("sleep", "tail")


def of_cluster() -> Iterator[Finding]:
    """Version, settings and surroundings of Ray on this host."""
    try:
        version = metadata.version("ray")
    except metadata.PackageNotFoundError:
        yield Finding("fail", "ray", "not installed", "pip install 'actorpool[ray]'")
        return
    tested = version.startswith(_RAY)
    yield Finding("ok" if tested else "warn", "ray", version, "" if tested else f"tested with {_RAY}*")
    raylet = _raylet()
    if raylet is None:
        advice = "start it: ray start --address=HEAD:6379 (on the first host: ray start --head)"
        yield Finding("warn", "raylet", "none runs on this host", advice)
    else:
        yield of_versions(_versions_of(raylet.python), _versions_of(sys.executable))
    yield from of_settings(raylet.environment if raylet else os.environ)
    yield of_first_process(_first_process())


def of_versions(theirs: str, ours: str) -> Finding:
    """Whether programs may take part: Ray refuses those with other versions than its own, to the patch level."""
    if theirs == ours:
        return Finding("ok", "raylet", theirs)
    return Finding("fail", "raylet", theirs, f"this program has {ours}: install the same versions everywhere")


def _versions_of(python: str) -> str:
    """Of Ray and Python, as an interpreter tells them."""
    done = subprocess.run([python, "-c", _TELL], capture_output=True, text=True, timeout=30, check=False)
    return done.stdout.strip() or f"unknown ({python})"


def of_first_process(first: str) -> Finding:
    """Whether process 1 reaps what dies, so that Ray notices it."""
    if first in _NOT_REAPING:
        advice = "it does not reap: a dead raylet is taken for living. Use an init, or ray start --block"
        return Finding("warn", "process 1", first, advice)
    return Finding("ok", "process 1", first)


def _first_process() -> str:
    with open("/proc/1/comm") as file:
        return file.read().strip()


def of_settings(environment: Mapping[str, str]) -> Iterator[Finding]:
    """What the environment of a raylet says."""
    other = [f"{name}={value}" for name, value in QUICK.items() if environment.get(name) != value]
    if other:
        text = f"{len(other)} of {len(QUICK)} are Ray's defaults or others: a silent host is lost after some 65 s"
        yield Finding("warn", "health checks", text, f"set for ray start on every host: {' '.join(other)}")
    else:
        yield Finding("ok", "health checks", "as in docs/cluster.md")
    token = environment.get("RAY_AUTH_MODE") == "token"
    advice = "" if token else "whoever reaches its ports runs code as you: set RAY_AUTH_MODE=token"
    yield Finding("ok" if token else "warn", "ray token", "asked for" if token else "not asked for", advice)
    nice = environment.get("RAY_worker_niceness", "15")
    lowered = nice != "0" and os.geteuid() != 0
    advice = "set RAY_worker_niceness=0 RAY_worker_oom_score_adjustment=0, or run actorpool up on each host"
    yield Finding("warn" if lowered else "ok", "niceness", nice, advice if lowered else "")
    monitor = environment.get("RAY_memory_monitor_refresh_ms", "250")
    advice = "" if monitor == "0" else "it may kill agents when others take all memory: RAY_memory_monitor_refresh_ms=0"
    yield Finding("ok" if monitor == "0" else "warn", "memory monitor", f"every {monitor} ms", advice)


class _Raylet(NamedTuple):
    """What the raylet of this host was started with."""

    environment: Mapping[str, str]
    python: str


def _raylet() -> _Raylet | None:
    """The raylet of this host; None if there is none that may be looked at."""
    for process in psutil.process_iter(["name"]):
        if process.info["name"] == "raylet":
            try:
                words = [word for word in process.cmdline() if word.startswith(_WORKERS)]
                python = shlex.split(words[0].removeprefix(_WORKERS))[0] if words else sys.executable
                return _Raylet(process.environ(), python)
            except psutil.Error:
                continue
    return None
