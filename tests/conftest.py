"""What every test may rely on: nothing it starts outlives it, and nothing waits by sleeping.

Processes are attributed by a token in their environment, which every descendant inherits, daemonised or not;
so several test runs on one machine do not see each other's.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import secrets
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import psutil
import pytest

from tests.places import SHORT

ROOT = Path(__file__).resolve().parent.parent
TOKEN = "ACTORPOOL_TEST_RUN"
OTHER_POSTGRES = sorted(map(str, Path("/usr/lib/postgresql").glob("*/bin")))
if (found := importlib.util.find_spec("pgserver")) is not None and found.origin is not None:
    OTHER_POSTGRES.append(str(Path(found.origin).parent / "pginstall" / "bin"))
# Started by the standard library on first use and kept until the interpreter ends.
STANDARD = ("multiprocessing.resource_tracker", "multiprocessing.forkserver")

hypothesis.settings.register_profile("dev", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, max_examples=500, derandomize=True, print_blob=True)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "dev")


def pytest_configure(config: pytest.Config) -> None:
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a background job; programs that tests start inherit it
        signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ[TOKEN] = f"{os.getpid()}-{secrets.token_hex(4)}"
    os.environ["ACTORPOOL_RUNTIME_DIR"] = tempfile.mkdtemp(prefix="apt-", dir=SHORT)
    inherited = [os.environ["PYTHONPATH"]] if os.environ.get("PYTHONPATH") else []
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), *inherited])


def pytest_sessionfinish(session: pytest.Session) -> None:
    left = _wait_until_gone(set())
    if left:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
        print(f"\nprocesses outlived the whole run:\n{_describe(left)}", file=sys.stderr)
        _kill(left)
    shutil.rmtree(os.environ["ACTORPOOL_RUNTIME_DIR"], ignore_errors=True)


@pytest.fixture(autouse=True)
def _no_process_is_left() -> Iterator[None]:
    """Fail the test that leaves a process behind, and end that process."""
    before = _ours()
    yield
    left = _wait_until_gone(before)
    if left:
        text = _describe(left)
        _kill(left)
        pytest.fail(f"the test left {len(left)} process(es) running:\n{text}", pytrace=False)


def _ours() -> set[psutil.Process]:
    """Every living process of this run but this one: descendants, and whoever carries the run's token."""
    me = psutil.Process()
    found = set(me.children(recursive=True))
    found.update(process for process in psutil.process_iter() if _carries_token(process))
    found.discard(me)
    return {process for process in found if _counts(process)}


def _carries_token(process: psutil.Process) -> bool:
    try:
        return process.environ().get(TOKEN) == os.environ[TOKEN]
    except (psutil.Error, OSError):  # gone meanwhile, or somebody else's
        return False


def _counts(process: psutil.Process) -> bool:
    try:
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
        return not any(name in " ".join(process.cmdline()) for name in STANDARD)
    except psutil.Error:
        return False


def _wait_until_gone(before: set[psutil.Process], timeout: float = 3.0) -> set[psutil.Process]:
    deadline = time.monotonic() + timeout
    while True:
        left = _ours() - before
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(0.02)


def _describe(processes: set[psutil.Process]) -> str:
    lines = []
    for process in processes:
        with contextlib.suppress(psutil.Error):
            lines.append(f"  pid {process.pid} (parent {process.ppid()}): {' '.join(process.cmdline())[:200]}")
    return "\n".join(lines)


def _kill(processes: set[psutil.Process]) -> None:
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.kill()  # psutil compares the start time: never a recycled pid
    psutil.wait_procs(list(processes), timeout=3)


@pytest.fixture
def eventually() -> Callable[..., Any]:
    """Poll: `eventually(fn, timeout=5.0)` returns the first true value of `fn()`; what it raises before is forgiven."""

    def wait(fn: Callable[[], Any], timeout: float = 5.0, every: float = 0.005) -> Any:
        deadline = time.monotonic() + timeout
        while True:
            problem = None
            try:
                value = fn()
                if value:
                    return value
            except Exception as error:
                problem = error
            if time.monotonic() > deadline:
                said = f"raised {problem!r}" if problem else f"returned {value!r}"
                raise AssertionError(f"not within {timeout} s: last {said}") from problem
            time.sleep(every)

    return wait


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A directory like `tmp_path` whose path leaves room for a unix socket's, whatever TMPDIR is."""
    directory = Path(tempfile.mkdtemp(prefix="apt-", dir=SHORT))
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def free_port() -> int:
    """A TCP port on loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def open_descriptors() -> Callable[[], dict[int, str]]:
    """A function that lists this process's descriptors and what they are, to compare before and after."""

    def descriptors() -> dict[int, str]:
        found = {}
        for name in os.listdir("/dev/fd"):
            with contextlib.suppress(OSError):  # the listing's own descriptor is closed by now
                found[int(name)] = os.readlink(f"/proc/self/fd/{name}") if os.path.isdir("/proc/self/fd") else ""
        return found

    return descriptors


@pytest.fixture
def system() -> Iterator[Any]:
    """A private actor system of the default base, ended after the test."""
    import actorpool

    with actorpool.start() as running:
        yield running


# -- real servers and a breakable network: what they need is imported only where they are used --------------------


@pytest.fixture(scope="session")
def pg_server() -> Iterator[Any]:
    """A real PostgreSQL (`PgServer`), shared by all tests of the run."""
    from tests.workers.pgserver import serve

    with serve() as server:
        yield server


@pytest.fixture
def pg(pg_server: Any) -> Iterator[Any]:
    """The PostgreSQL, with an empty schema `public` before and after the test."""
    clean = "DROP SCHEMA public CASCADE; CREATE SCHEMA public; GRANT ALL ON SCHEMA public TO public"
    pg_server.query(clean)
    yield pg_server
    pg_server.query(clean)


@pytest.fixture(scope="session", params=["embedded", *OTHER_POSTGRES], ids=lambda one: Path(one).parent.name or one)
def any_pg(request: pytest.FixtureRequest) -> Iterator[Any]:
    """Each PostgreSQL at hand: the one of `pg`, those that the system has installed, and 16.2 of another package."""
    from tests.workers.pgserver import serve_installed

    if request.param == "embedded":
        yield request.getfixturevalue("pg_server")
    else:
        with serve_installed(request.param) as server:
            yield server


@pytest.fixture(scope="session")
def mariadb_server() -> Iterator[Any]:
    """A real MariaDB (`MariaDb`), shared by all tests of the run."""
    from tests.workers.mariadb import serve

    with serve() as server:
        yield server


@pytest.fixture
def mariadb(mariadb_server: Any) -> Any:
    """The MariaDB, with an empty database."""
    mariadb_server.empty()
    return mariadb_server


@pytest.fixture
def proxy_to() -> Iterator[Callable[[Any], Any]]:
    """Make a `Proxy` to a target; all are closed after the test."""
    from tests.workers.proxy import Proxy

    made: list[Proxy] = []

    def make(target: Any) -> Proxy:
        made.append(Proxy(target))
        return made[-1]

    yield make
    for proxy in made:
        proxy.close()


@pytest.fixture
def web() -> Iterator[Any]:
    """A real HTTP server on loopback (`WebServer`)."""
    from tests.workers.webserver import WebServer

    server = WebServer()
    yield server
    server.close()
