"""What `actorpool doctor` looks at. Each examination gives one finding, and changes nothing."""

from __future__ import annotations

import contextlib
import functools
import os
import platform
import pwd
import resource
import select
import socket
import stat
import sys
from collections.abc import Callable, Iterable, Iterator
from importlib import metadata
from typing import Any

from actorpool import __version__, _scrubbing
from actorpool.cli.cluster_examinations import of_cluster
from actorpool.cli.draining import at_once
from actorpool.cli.finding import Finding
from actorpool.config import PoolConfig, load_worker
from actorpool.configuration import Configuration
from actorpool.errors import ActorPoolError
from actorpool.node import runtime

ANSWER_WITHIN = 8.0
"""Seconds for a server to take a connection and a login."""
FILES_OF_AN_ACTOR = 30
FILES_OF_A_WORKER = 6
LEAST_FILES = 64
_LEAST_KERNEL = (5, 3)
_LEAST_FREE = 1 << 20
_LIBRARIES = {
    "thespian": "", "cloudpickle": "", "psutil": "", "psycopg": "PostgresWorker", "httpx": "HttpWorker",
    "statsd": "StatsdSink", "sqlalchemy": "SqlAlchemyWorker", "h2": "HttpWorker(http2=True)",
    "starlette": "the dashboard", "uvicorn": "the dashboard",
}  # fmt: skip
"""Libraries, and what needs each; the first ones everything needs."""


def of_machine(config: Configuration | None) -> Iterator[Finding]:
    """This machine, this interpreter, and what the nodes of this user need of them."""
    yield Finding("ok", "actorpool", f"{__version__}, {platform.python_implementation()} {platform.python_version()}")
    yield _kernel()
    yield _process_descriptors()
    yield from _limits(config)
    yield from _control_group(config)
    yield _shared_memory()
    yield from _runtime_directory(config)
    yield from _libraries()
    yield from _nodes()
    if config is not None and config.cluster is not None:
        yield from of_cluster()
    if config is not None and config.dashboard is not None:
        yield _port(config.dashboard.host, config.dashboard.port)


# -- the kernel ---------------------------------------------------------------------------------------------------


def _kernel() -> Finding:
    if sys.platform != "linux":
        return Finding("warn", "kernel", sys.platform, "only Linux ends every process with its parent")
    release = platform.release()
    numbers = tuple(int(part) for part in release.split("-")[0].split(".")[:2] if part.isdigit())
    if numbers < _LEAST_KERNEL:
        return Finding("fail", "kernel", release, "5.3 or newer is needed, for process descriptors")
    return Finding("ok", "kernel", release)


def _process_descriptors() -> Finding:
    try:
        descriptor = os.pidfd_open(os.getpid())
    except (AttributeError, OSError) as error:
        advice = "processes are looked at every 50 ms instead; a container's seccomp profile may forbid it"
        return Finding("warn", "pidfd", f"not available ({error})", advice)
    with contextlib.suppress(OSError):
        select.poll().register(descriptor)
    os.close(descriptor)
    return Finding("ok", "pidfd", "available")


def sizes(config: Configuration | None) -> list[int]:
    """How many workers each pool of a file may have at most."""
    found = []
    for pool in config.pools.values() if config is not None else ():
        found.append((pool.size if isinstance(pool.size, int) else 1) + pool.max_overflow)
    return found


def _limits(config: Configuration | None) -> Iterator[Finding]:
    workers = sum(sizes(config))
    processes = 4 + len(sizes(config)) + workers
    files = max(FILES_OF_AN_ACTOR + FILES_OF_A_WORKER * max(sizes(config), default=0), LEAST_FILES)
    for what, number, need, why in (
        ("processes", resource.RLIMIT_NPROC, processes, "ulimit -u, or LimitNPROC= of the service"),
        ("files", resource.RLIMIT_NOFILE, files, "ulimit -Hn, or LimitNOFILE= of the service"),
    ):
        limit = resource.getrlimit(number)[1]
        bounded = limit != resource.RLIM_INFINITY and not (what == "processes" and os.geteuid() == 0)
        value = f"at most {limit}" if bounded else "unlimited"
        if config is not None:
            value += f", {need} needed"
        short = bounded and limit < need
        yield Finding("fail", what, value, f"raise it: {why}") if short else Finding("ok", what, value)


def _control_group(config: Configuration | None) -> Iterator[Finding]:
    """Limits of the container or service; the smallest on the way up counts."""
    try:
        with open("/proc/self/cgroup") as file:
            path = next(line.split(":", 2)[2].strip() for line in file if line.startswith("0::"))
    except (OSError, StopIteration):
        return
    processes = 4 + len(sizes(config)) + sum(sizes(config))
    for name, what, need in (("pids.max", "cgroup tasks", processes), ("memory.max", "cgroup memory", 0)):
        least = None
        for depth in range(len(path.split("/")) + 1):
            folder = "/".join(path.split("/")[: depth + 1])
            with contextlib.suppress(OSError, ValueError), open(f"/sys/fs/cgroup{folder}/{name}") as file:
                value = int(file.read())
                least = value if least is None else min(least, value)
        if least is None:
            continue
        shown = f"at most {least}" if name == "pids.max" else f"at most {least >> 20} MiB"
        if least < need:
            yield Finding("fail", what, f"{shown}, {need} needed", "raise TasksMax= or --pids-limit")
        else:
            yield Finding("ok", what, shown)


def _shared_memory() -> Finding:
    try:
        found = os.statvfs("/dev/shm")
    except OSError as error:
        return Finding("warn", "/dev/shm", str(error.strerror), "shared memory is then kept elsewhere")
    free = found.f_bavail * found.f_frsize
    value = f"{free >> 20} MiB free"
    if not os.access("/dev/shm", os.W_OK):
        return Finding("warn", "/dev/shm", "not writable", "mount it writable")
    return Finding("ok", "/dev/shm", value) if free > _LEAST_FREE else Finding("warn", "/dev/shm", value, "make room")


# -- where the nodes are --------------------------------------------------------------------------------------------


def _runtime_directory(config: Configuration | None) -> Iterator[Finding]:
    what = "runtime dir"
    try:
        path = runtime.root()
    except ActorPoolError as error:
        yield Finding("fail", what, str(error))
        return
    found = os.stat(path)
    yield Finding("ok", what, f"{path}, mode {stat.S_IMODE(found.st_mode):o}, yours")
    space = os.statvfs(path)
    free = space.f_bavail * space.f_frsize
    value = f"{free >> 20} MiB free for the log"
    if free < _LEAST_FREE:
        yield Finding("fail", "disk", value, "make room: nodes cannot start, and running ones lose lines of their log")
    else:
        yield Finding("ok", "disk", value)
    if config is not None:
        yield _length_of_sockets(path, config)
    if path.startswith("/tmp/"):
        private = _is_private_tmp()
        if private:
            advice = (
                "other services see another /tmp (PrivateTmp=): set ACTORPOOL_RUNTIME_DIR, or use RuntimeDirectory="
            )
            yield Finding("warn", "/tmp", "private to this service", advice)
        else:
            advice = "a node puts back what a cleaner of old files takes; XDG_RUNTIME_DIR or RuntimeDirectory= has none"
            yield Finding("warn", "/tmp", "may be cleaned of old files", advice)
    session = f"/run/user/{os.geteuid()}"
    if path.startswith(session) and os.geteuid() and not _lingers():
        yield Finding(
            "warn", "linger", "off", f"{session} and your nodes end with your last login: loginctl enable-linger"
        )


def _length_of_sockets(path: str, config: Configuration) -> Finding:
    from actorpool.transport import paths

    directory = os.path.join(path, config.system.name)
    longest = max([paths.manager(directory), *(paths.pool(directory, name) for name in config.pools)], key=len)
    value = f"{len(os.fsencode(longest))} of {paths.LONGEST_PATH} bytes"
    if paths.fits(longest):
        return Finding("ok", "socket paths", value)
    return Finding("fail", "socket paths", f"{value}: {longest}", "set ACTORPOOL_RUNTIME_DIR to a shorter one")


def _is_private_tmp() -> bool:
    with contextlib.suppress(OSError), open("/proc/self/mountinfo") as file:
        return any(line.split()[4] == "/tmp" and "systemd-private" in line.split()[3] for line in file)
    return False


def _lingers() -> bool:
    return os.path.exists(f"/var/lib/systemd/linger/{pwd.getpwuid(os.geteuid()).pw_name}")


def _libraries() -> Iterator[Finding]:
    versions, missing = [], []
    for name, user in _LIBRARIES.items():
        try:
            versions.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            missing.append(f"{name} ({user})" if user else name)
    yield Finding("ok", "libraries", ", ".join(versions))
    if missing:
        yield Finding("ok", "not installed", ", ".join(missing))


def _nodes() -> Iterator[Finding]:
    try:
        names = runtime.running()
    except ActorPoolError:  # told already, of the runtime directory
        return
    for name in names:
        try:
            facts = runtime.find(name)[1]
        except ActorPoolError as error:
            yield Finding("fail", f"node {name}", str(error))
        else:
            yield Finding("ok", f"node {name}", f"pid {facts.pid}, actorpool {facts.version}")


def _port(host: str, port: int) -> Finding:
    value = f"{host}:{port}"
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        return Finding(
            "warn", "dashboard", value, f"{error.strerror or error}: it runs already, or choose another port"
        )
    return Finding("ok", "dashboard", f"{value} is free")


# -- servers --------------------------------------------------------------------------------------------------------


def of_servers(config: Configuration) -> Iterator[Finding]:
    """Whether each pool's worker gets a connection, and whether its server has room for all of them."""
    pools = dict(config.pools)
    probes: dict[str, Callable[[], Any]] = {name: functools.partial(_probe, name, pool) for name, pool in pools.items()}
    outcomes = at_once(probes, ANSWER_WITHIN)
    for name in pools:
        what = f"pool {name}"
        outcome = outcomes.get(name, TimeoutError(f"no answer within {ANSWER_WITHIN:g} s"))
        if isinstance(outcome, BaseException):
            text = _scrubbing.scrub(f"{type(outcome).__name__}: {' '.join(str(outcome).split())}")
            yield Finding("fail", what, f"cannot connect: {text}", "mend the server, the network or the login")
        else:
            yield Finding("ok", what, "connects")
    yield from _room(pools, [name for name in pools if not isinstance(outcomes.get(name), (BaseException, type(None)))])


def _probe(name: str, pool: PoolConfig) -> bool:
    from actorpool.client.local import LocalPool

    with LocalPool(pool, name) as local:
        local.run(_nothing)
    return True


def _nothing(connection: Any) -> None:
    """All that was wanted is the connection."""


def _room(pools: dict[str, PoolConfig], connected: Iterable[str]) -> Iterator[Finding]:
    """The sum of what pools may take of one server, beside what it allows."""
    servers: dict[tuple[str, str], list[str]] = {}
    for name in connected:
        server = _postgres(pools[name])
        if server is not None:
            servers.setdefault(server, []).append(name)
    for (host, port), names in servers.items():
        first = pools[names[0]]
        try:
            allowed = load_worker(first.worker).auto_size(**{**first.worker_args, "nodes": 1})  # type: ignore[attr-defined]
        except Exception:  # whatever the server says
            continue
        asked = [pools[name] for name in names]
        wanted = sum((one.size if isinstance(one.size, int) else 0) + one.max_overflow for one in asked)
        value = f"{host}:{port} has room for {allowed}, its pools may take {wanted}"
        if wanted > allowed:
            yield Finding("warn", "connections", value, "lower size or max_overflow, or raise the server's limit")
        else:
            yield Finding("ok", "connections", value)


def _postgres(pool: PoolConfig) -> tuple[str, str] | None:
    """Host and port of a pool's PostgreSQL; None for another kind of worker."""
    from actorpool.workers.postgres import PostgresWorker

    if not issubclass(load_worker(pool.worker), PostgresWorker):
        return None
    from psycopg.conninfo import conninfo_to_dict

    given = pool.worker_args.get("conninfo", "")
    known = dict(given) if not isinstance(given, str) else conninfo_to_dict(given)
    known |= {key: value for key, value in pool.worker_args.items() if key in ("host", "port")}
    return str(known.get("host", "local")), str(known.get("port", 5432))
