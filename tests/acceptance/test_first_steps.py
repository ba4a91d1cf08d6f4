"""The first example, word for word, in every way that one starts Python; and the names that the packages export."""

from __future__ import annotations

import contextlib
import os
import pickle
import pty
import select
import subprocess
import sys
import time
from pathlib import Path

import pytest

EXAMPLE = """\
import actorpool
from actorpool.workers import SqliteWorker

def count(conn, table):                       # runs inside the worker's process
    return conn.execute(f"select count(*) from {table}").fetchone()[0]

with actorpool.start() as system:             # private actor system on loopback, gone when this process is gone
    db = system.start_pool("db", worker=SqliteWorker, worker_args={"database": "app.db"}, size=4, max_overflow=2)
    db.execute("create table t (x int)")      # one call: checkout, call, checkin
    with db.checkout(timeout=5) as conn:      # a lease: the same worker for the whole block
        conn.execute("insert into t values (?)", [1])
    print(db.run(count, "t"))                 # with_connection: ship a function to a worker
    print(db.status(), system.tree())
"""

MESSAGES = """\
from thespian.actors import ActorSystem
from actorpool import ConnectionManager, PoolConfig, StartPool, WithConnection
from actorpool.workers import SqliteWorker

def make(conn):
    conn.execute("create table if not exists t (x int)")

def count(conn, table):                       # runs inside the worker's process
    return conn.execute(f"select count(*) from {table}").fetchone()[0]

PORT
manager = ActorSystem("multiprocTCPBase").createActor(ConnectionManager)
config = PoolConfig(worker=SqliteWorker, worker_args={"database": "app.db"})
ActorSystem().ask(manager, StartPool("db", config), 10).unwrap()
ActorSystem().ask(manager, WithConnection("db", make), 10).unwrap()
print(ActorSystem().ask(manager, WithConnection("db", count, ("t",)), 10).unwrap())
ActorSystem().shutdown()
"""

NAMES = """
start connect System Pool AsyncPool Lease AsyncLease SharedPool LocalPool PoolConfig PoolStatus
PoolMetrics Breaker Autoscale ConnectionManager StartPool StopPool ListPools GetPoolStatus
WithConnection Checkout Checkin Call Grant Ok Err Subscribe Event StatsdSink LoggingSink pool_size
""".split()
ERRORS = """
ActorPoolError InvalidConfig PoolNotFound PoolAlreadyExists PoolStopped PoolDown CheckoutTimeout
PoolFull TooManyWaiting QueueShed CircuitOpen WorkerUnavailable CallTimeout WorkerDied LeaseExpired
MethodNotFound RemoteError PermanentError AuthenticationFailed SystemDown RestartIntensityExceeded
""".split()
WORKER_NAMES = """
Worker method Reply RetryAfter PermanentError spawn_worker WorkerActor PostgresWorker SqliteWorker
HttpWorker DbapiWorker SqlAlchemyWorker
""".split()
SUPERVISOR_NAMES = """
Supervisor SupervisorSpec ChildSpec Supervised IGNORE Backoff start_supervisor monitor ChildInfo
SupervisorError StartChild TerminateChild RestartChild DeleteChild WhichChildren CountChildren
GetChildSpec WhereIs
""".split()


@pytest.mark.parametrize("how", ["script", "command", "stdin"])
def test_the_example_of_the_manual_runs_as_written(how: str, tmp_path: Path) -> None:
    if how == "script":
        (tmp_path / "example.py").write_text(EXAMPLE)
        argv, given = [sys.executable, "example.py"], ""
    elif how == "command":
        argv, given = [sys.executable, "-c", EXAMPLE], ""
    else:
        argv, given = [sys.executable, "-"], EXAMPLE

    done = subprocess.run(argv, input=given, cwd=tmp_path, capture_output=True, text=True, timeout=30)

    assert (done.returncode, done.stderr) == (0, "")
    first, status, *tree = done.stdout.splitlines()
    assert first == "1"
    assert "size=4" in status
    assert "db" in "\n".join([status, *tree])


def test_the_example_runs_typed_into_the_interactive_interpreter(tmp_path: Path) -> None:
    typed = EXAMPLE.replace("\n\nwith", "\n\nstarted = time.time()\nwith").replace(
        "import actorpool\n", "import actorpool, time\n"
    )
    lines = []
    for line in [*typed.splitlines(), "", "print('spent', 2 + 3)", "exit()"]:
        if line and not line.startswith(" ") and lines and lines[-1].startswith(" "):
            lines.append("")  # the interpreter wants an empty line after a block
        lines.append(line)

    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(tmp_path)
        os.environ["PYTHON_BASIC_REPL"] = "1"
        os.execv(sys.executable, [sys.executable, "-q", "-i"])
    shown = _converse(terminal, "\n".join(lines) + "\n")
    _, status = os.waitpid(pid, 0)

    assert "Traceback" not in shown, shown
    assert "spent 5" in shown
    assert "\n1\r\n" in shown or "\r1\r\n" in shown, shown
    assert os.waitstatus_to_exitcode(status) == 0


def _converse(terminal: int, text: str) -> str:
    said = b""
    deadline = time.monotonic() + 30
    pending = text.encode()
    while time.monotonic() < deadline:
        readable, writable, _ = select.select([terminal], [terminal] if pending else [], [], 1)
        if readable:
            try:
                chunk = os.read(terminal, 65536)
            except OSError:
                break
            if not chunk:
                break
            said += chunk
        if writable:
            end = pending.index(b"\n") + 1
            os.write(terminal, pending[:end])
            pending = pending[end:]
    with contextlib.suppress(OSError):
        os.close(terminal)
    return said.decode(errors="replace")


def test_the_example_of_messages_alone_runs_as_written(tmp_path: Path, free_port: int) -> None:
    text = MESSAGES.replace(
        "PORT",
        f"ActorSystem('multiprocTCPBase', {{'Admin Port': {free_port}}})  # no node of somebody else on port 1900",
    )
    (tmp_path / "example.py").write_text(text)

    done = subprocess.run([sys.executable, "example.py"], cwd=tmp_path, capture_output=True, text=True, timeout=40)

    assert (done.returncode, done.stdout) == (0, "0\n"), done.stderr


def test_the_packages_export_the_names_of_the_manual() -> None:
    import actorpool
    import actorpool.errors
    import actorpool.messages
    import actorpool.supervisors
    import actorpool.workers

    assert [name for name in [*NAMES, *ERRORS] if not hasattr(actorpool, name)] == []
    assert [name for name in ERRORS if getattr(actorpool, name) is not getattr(actorpool.errors, name)] == []
    assert [name for name in WORKER_NAMES if not hasattr(actorpool.workers, name)] == []
    assert [name for name in SUPERVISOR_NAMES if not hasattr(actorpool.supervisors, name)] == []
    assert set(NAMES + ERRORS) <= set(actorpool.__all__)
    assert set(WORKER_NAMES) <= set(actorpool.workers.__all__)
    assert set(SUPERVISOR_NAMES) <= set(actorpool.supervisors.__all__)
    assert set(NAMES) <= set(dir(actorpool))
    with pytest.raises(AttributeError, match="nonsense"):
        _ = actorpool.nonsense  # type: ignore[attr-defined]


def test_importing_the_package_imports_no_driver() -> None:
    text = (
        "import sys, actorpool, actorpool.workers, actorpool.supervisors\n"
        "from actorpool import PoolConfig, start, Pool, ConnectionManager, LocalPool\n"
        "drivers = 'psycopg httpx sqlalchemy pymysql statsd starlette click rich pytest'\n"
        "print([n for n in drivers.split()"
        " if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, timeout=30)
    assert done.stdout == "[]\n", done.stdout + done.stderr


def test_the_package_is_imported_quickly_enough_for_a_command_line() -> None:
    started = time.monotonic()
    subprocess.run([sys.executable, "-c", "import actorpool"], check=True, timeout=30)
    assert time.monotonic() - started < 3


def test_the_sizing_formula_is_the_one_of_the_manual() -> None:
    from actorpool import pool_size

    assert pool_size() == 80
    assert pool_size(100, 20, 3) == 26
    assert pool_size(max_connections=10, reserved_connections=20, nodes=2) == 1


def test_messages_are_frozen_and_survive_pickling_with_their_ref() -> None:
    from actorpool import (
        Call,
        Checkin,
        Checkout,
        Err,
        GetPoolStatus,
        Grant,
        ListPools,
        Ok,
        PoolNotFound,
        StopPool,
        Subscribe,
        WithConnection,
    )  # fmt: skip
    from tests.acceptance.kit import pid_of

    grant = Grant(1, "db", None)
    requests = [
        StopPool("db"), ListPools(), GetPoolStatus("db"), WithConnection("db", pid_of, (1,), {"a": 2}, timeout=3.0),
        Checkout("db", block=False, timeout=1.0), Call(None, "echo", (1,), {"b": 2}), Subscribe("worker.*"),
        Checkin(grant),
    ]  # fmt: skip
    refs = set()
    for request in requests:
        copy = pickle.loads(pickle.dumps(request))
        assert copy == request
        if isinstance(request, Checkin):
            continue  # it is not answered
        assert copy.ref == request.ref
        refs.add(copy.ref)
        with pytest.raises(AttributeError):
            request.ref = "another"  # type: ignore[misc]
    assert len(refs) == len(requests) - 1, "each request has its own ref"
    assert WithConnection("db", pid_of).ref != WithConnection("db", pid_of).ref

    assert Ok(5).unwrap() == 5
    with pytest.raises(PoolNotFound):
        Err(PoolNotFound("db")).unwrap()
