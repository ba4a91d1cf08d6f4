"""A node from outside: who may reach it, what it leaves, and whose end it shares."""

from __future__ import annotations

import ipaddress
import os
import pickle
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

import actorpool
from tests.acceptance.kit import Toy

OWNER = """
import sys, time, threading, os
import actorpool
from tests.acceptance.kit import Toy, sleep_for, ignore_interrupts
system = actorpool.start()
pool = system.start_pool("p", worker=Toy, size=3, kill_after=30)
lease = pool.checkout()
for work in (sleep_for, ignore_interrupts):
    threading.Thread(target=lambda: pool.run(work, 60), daemon=True).start()
while pool.status().monitors < 3: time.sleep(0.01)
import psutil
def below(node):
    yield node.pid
    for child in node.children: yield from below(child)
pids = [pid for pid in below(system.tree()) if pid]
print(*pids, flush=True)
{end}
"""


def _all_processes_of(owner: int) -> set[psutil.Process]:
    """The node's processes by the environment they inherited: each runs with this variable."""
    found = set()
    for process in psutil.process_iter():
        try:
            if process.environ().get("ACCEPTANCE_OWNER") == str(owner) and process.status() != psutil.STATUS_ZOMBIE:
                found.add(process)
        except psutil.Error:
            continue
    return found


@pytest.mark.parametrize(
    ("end", "signal_number"),
    [
        ("time.sleep(60)", signal.SIGKILL),
        ("raise RuntimeError('an exception')", None),
        pytest.param("time.sleep(60)", signal.SIGTERM, marks=pytest.mark.slow),
        pytest.param("time.sleep(60)", signal.SIGINT, marks=pytest.mark.slow),
        pytest.param("sys.exit(0)", None, marks=pytest.mark.slow),
        pytest.param("os._exit(0)", None, marks=pytest.mark.slow),
        pytest.param("os.abort()", None, marks=pytest.mark.slow),
    ],
    ids=["kill -9", "exception", "SIGTERM", "SIGINT", "exit", "_exit", "abort"],
)
@pytest.mark.slow
def test_no_process_of_a_node_is_left_two_seconds_after_its_owner(end: str, signal_number: int | None) -> None:
    token = f"owner-{os.getpid()}-{time.monotonic_ns()}"
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER.format(end=end)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "ACCEPTANCE_OWNER": token},
    )
    assert owner.stdout is not None
    pids = [int(pid) for pid in owner.stdout.readline().split()]
    assert len(pids) >= 5, "manager, pool and three workers"
    before = [process for process in psutil.process_iter() if _carries(process, token) and process.pid != owner.pid]
    if signal_number is not None:
        assert len(before) >= 5
        owner.send_signal(signal_number)
    owner.wait(timeout=20)
    died = time.monotonic()

    while any(_carries(process, token) for process in psutil.process_iter()) and time.monotonic() < died + 6:
        time.sleep(0.01)
    took = time.monotonic() - died
    owner.stdout.close()

    print(f"owner gone by {end or signal_number}: nothing left after {took * 1000:.0f} ms")
    assert took < 2.0


def _carries(process: psutil.Process, token: str) -> bool:
    try:
        return process.environ().get("ACCEPTANCE_OWNER") == token and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _pids(tree: Any) -> list[int]:
    return [pid for pid in [tree.pid, *(p for child in tree.children for p in _pids(child))] if pid]


def test_the_node_listens_on_nothing_but_loopback() -> None:
    with actorpool.start() as system:
        system.start_pool("p", worker=Toy, size=1)
        listening = []
        for pid in _pids(system.tree()) + [p.pid for p in psutil.Process().children(recursive=True)]:
            for connection in psutil.Process(pid).net_connections("inet"):
                if connection.status == psutil.CONN_LISTEN or connection.type == 2:
                    listening.append(connection.laddr)
        assert all(ipaddress.ip_address(address.ip).is_loopback for address in listening), listening
        assert 1900 not in [address.port for address in listening]


def test_starting_forks_no_copy_of_the_caller() -> None:
    with actorpool.start() as system:
        for process in psutil.Process().children(recursive=True):
            if process.status() != psutil.STATUS_ZOMBIE:
                assert "pytest" not in " ".join(process.cmdline()), process
        assert os.getpid() not in _pids(system.tree())


def test_the_tree_names_kind_pid_state_and_restarts_and_draws_itself() -> None:
    with actorpool.start() as system:
        pool = system.start_pool("db", worker=Toy, size=2)
        tree = system.tree()
        found = {node.kind: node for node in _walk(tree)}
        assert tree.kind == "supervisor"
        assert set(found) <= {"supervisor", "pool", "worker", "actor"}
        database = next(node for node in _walk(tree) if node.kind == "pool")
        assert database.id == "db"
        assert psutil.pid_exists(database.pid)
        assert database.restarts == 0
        assert isinstance(database.state, str)
        assert sorted(child.pid for child in database.children) == sorted(w.pid for w in pool.workers())
        assert all(child.kind == "worker" for child in database.children)
        drawn = str(tree)
        assert "db" in drawn
        assert len(drawn.splitlines()) >= 4
        for worker in pool.workers():
            assert str(worker.pid) in drawn


def _walk(node: Any) -> list[Any]:
    return [node, *(below for child in node.children for below in _walk(child))]


def test_a_second_process_connects_by_name_and_its_end_changes_nothing(
    script: Callable[..., Any], eventually: Callable[..., Any]
) -> None:
    name = f"shop{os.getpid()}"
    with actorpool.start(name) as system:
        pool = system.start_pool("db", worker=Toy, size=2)
        other = script(
            "import sys, actorpool\n"
            "with actorpool.connect(sys.argv[1]) as system:\n"
            "    pool = system.pool('db')\n"
            "    print(system.pools(), pool.echo(5), pool.status().size, system.status('db').name)\n"
            "    held = pool.checkout()\n"
            "    print('held')\n",
            name,
        )
        assert other.stdout.readline() == "['db'] 5 2 db\n"
        other.communicate(timeout=10)
        assert other.returncode == 0
        assert pool.echo("still") == "still"
        eventually(lambda: pool.status().monitors == 0)
        again = actorpool.connect(name)
        assert again.pool("db").echo(1) == 1
        again.shutdown()  # detaches
        assert pool.echo(2) == 2


def test_connecting_to_a_name_that_nobody_runs_says_so() -> None:
    with pytest.raises(actorpool.ActorPoolError, match="nobody-runs-this"):
        actorpool.connect("nobody-runs-this")


def test_two_nodes_of_one_name_are_refused_and_the_first_goes_on() -> None:
    name = f"once{os.getpid()}"
    with actorpool.start(name) as system:
        pool = system.start_pool("db", worker=Toy, size=1)
        with pytest.raises(actorpool.ActorPoolError, match=name):
            actorpool.start(name)
        assert pool.echo(3) == 3


def test_a_name_can_be_used_again_once_its_node_is_gone() -> None:
    name = f"again{os.getpid()}"
    for _ in range(2):
        with actorpool.start(name) as system:
            assert system.pools() == []
    with pytest.raises(actorpool.ActorPoolError):
        actorpool.connect(name)


def _runtime_directory(name: str) -> Path:
    found = [path for path in Path(os.environ["ACTORPOOL_RUNTIME_DIR"]).rglob("cookie") if name in str(path)]
    assert len(found) == 1, found
    return found[0].parent


def test_cookie_and_runtime_directory_are_the_users_alone() -> None:
    name = f"private{os.getpid()}"
    with actorpool.start(name):
        directory = _runtime_directory(name)
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
        assert stat.S_IMODE((directory / "cookie").stat().st_mode) == 0o600
        assert len((directory / "cookie").read_bytes()) >= 32
        assert (directory / "node.log").exists()


def test_a_wrong_cookie_is_authentication_failed(script: Callable[..., Any]) -> None:
    name = f"guarded{os.getpid()}"
    with actorpool.start(name) as system:
        pool = system.start_pool("db", worker=Toy, size=1)
        cookie = _runtime_directory(name) / "cookie"
        right = cookie.read_bytes()
        cookie.write_bytes(bytes(len(right)) if set(right) != {0} else b"1" * len(right))
        try:
            other = script(
                "import sys, time, actorpool\n"
                "t = time.monotonic()\n"
                "try:\n    actorpool.connect(sys.argv[1])\n"
                "except Exception as error:\n    print(type(error).__name__, time.monotonic() - t < 10)\n"
                "else:\n    print('let in')\n",
                name,
            )
            assert other.stdout.readline() == "AuthenticationFailed True\n"
        finally:
            cookie.write_bytes(right)
        assert pool.echo(1) == 1


def test_once_the_node_is_gone_every_call_raises_system_down(eventually: Callable[..., Any]) -> None:
    system = actorpool.start()
    pool = system.start_pool("db", worker=Toy, size=1)
    lease = pool.checkout()
    system.shutdown()
    for call in (
        lambda: pool.echo(1), pool.status, pool.checkout, lambda: pool.run(os.getpid), system.pools, system.tree,
        lambda: system.start_pool("q", worker=Toy), lambda: system.status("db"), lambda: system.stop_pool("db"),
        pool.workers, lambda: pool.resize(size=2),
    ):  # fmt: skip
        started = time.monotonic()
        with pytest.raises(actorpool.SystemDown):
            call()
        assert time.monotonic() - started < 2
    with pytest.raises((actorpool.SystemDown, actorpool.LeaseExpired)):
        lease.echo(1)
    lease.checkin()  # giving back to nobody is no error
    system.shutdown()  # twice is once


def test_calls_of_others_raise_system_down_when_the_node_is_killed(
    script: Callable[..., Any], eventually: Callable[..., Any]
) -> None:
    name = f"killed{os.getpid()}"
    owner = script(
        "import sys, actorpool\nfrom tests.acceptance.kit import Toy\n"
        "system = actorpool.start(sys.argv[1])\nsystem.start_pool('db', worker=Toy, size=2)\nprint('up', flush=True)\n"
        "sys.stdin.read()",
        name,
    )
    assert owner.stdout.readline() == "up\n"
    system = actorpool.connect(name)
    pool = system.pool("db")
    assert pool.echo(1) == 1
    outcome: list[Any] = []
    busy = threading.Thread(target=lambda: outcome.append(_outcome(lambda: pool.call("sleep", 30))))
    busy.start()
    eventually(lambda: pool.status().monitors == 1)

    owner.kill()
    busy.join(5)
    assert len(outcome) == 1
    assert isinstance(outcome[0], actorpool.SystemDown | actorpool.WorkerDied | actorpool.LeaseExpired), outcome

    def down() -> bool:
        try:
            pool.echo(1)
        except actorpool.SystemDown:
            return True
        return False

    eventually(down, timeout=3)
    with pytest.raises(actorpool.SystemDown):
        system.pools()
    system.shutdown()


def _outcome(call: Callable[[], Any]) -> Any:
    try:
        return call()
    except Exception as error:
        return error


MAIN = """
import actorpool, sys
from actorpool.workers import Worker, method

class Mine(Worker):
    def __init__(self, factor): self.factor = factor
    @method
    def times(self, x): return self.factor * x

class Point:
    def __init__(self, x): self.x = x
    def __eq__(self, other): return self.x == other.x

class Trouble(Exception):
    pass

def double(worker, point): return Point(worker.factor * point.x)
def fail(worker): raise Trouble("from main")

if __name__ == "__main__":
    offset = 100
    with actorpool.start() as system:
        pool = system.start_pool("mine", worker=Mine, worker_args={"factor": 3}, size=2)
        print(pool.times(5))
        print(pool.run(lambda worker, y: worker.factor * y + offset, 2))
        print(pool.run(double, Point(7)) == Point(21))
        try:
            pool.run(fail)
        except Trouble as error:
            print(type(error).__name__, error)
        def local(worker): return double(worker, Point(1)).x + offset
        print(pool.run(local))
        with pool.checkout() as lease:
            print(lease.run(lambda worker: type(worker).__name__))
"""


@pytest.mark.parametrize("how", ["script", "command"])
def test_classes_functions_lambdas_and_closures_of_main_work(how: str, tmp_path: Path) -> None:
    if how == "script":
        (tmp_path / "mine.py").write_text(MAIN)
        argv = [sys.executable, "mine.py"]
    else:
        argv = [sys.executable, "-c", MAIN]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=30, cwd=tmp_path)
    assert done.stdout.splitlines() == ["15", "106", "True", "Trouble from main", "103", "Mine"], done.stderr
    assert done.stderr == ""


def test_a_script_without_a_main_guard_is_run_once(tmp_path: Path) -> None:
    (tmp_path / "bare.py").write_text(
        "print('top')\nimport actorpool\nfrom actorpool.workers import Worker, method\n"
        "class W(Worker):\n    @method\n    def f(self): return 4\n"
        "system = actorpool.start()\nprint(system.start_pool('w', worker=W, size=1).f())\n"
    )
    done = subprocess.run([sys.executable, "bare.py"], capture_output=True, text=True, timeout=30, cwd=tmp_path)
    assert done.stdout == "top\n4\n", done.stderr


def test_modules_beside_the_script_are_found_by_its_workers(tmp_path: Path) -> None:
    (tmp_path / "workers.py").write_text(
        "from actorpool.workers import Worker, method\nclass Own(Worker):\n    @method\n"
        "    def who(self): return 'my own workers module'\n"
    )
    (tmp_path / "script.py").write_text(
        "import actorpool\nfrom workers import Own\n"
        "with actorpool.start() as system:\n"
        "    print(system.start_pool('a', worker=Own, size=1).who())\n"
        "    print(system.start_pool('b', worker='workers:Own', size=1).who())\n"
    )
    env = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    root = str(Path(actorpool.__file__).parent)
    site = tmp_path / "site"
    site.mkdir()
    (site / "actorpool").symlink_to(root)
    done = subprocess.run(
        [sys.executable, str(tmp_path / "script.py")],
        capture_output=True, text=True, timeout=30, cwd=tmp_path, env={**env, "PYTHONPATH": str(site)},
    )  # fmt: skip
    assert done.stdout == "my own workers module\n" * 2, done.stderr


def test_one_system_serves_many_threads_and_each_gets_its_own_answers() -> None:
    with actorpool.start() as system:
        pool = system.start_pool("db", worker=Toy, size=4, max_overflow=0, checkout_timeout=20)
        wrong: list[Any] = []

        def use(number: int) -> None:
            for turn in range(50):
                value = (number, turn)
                if pool.echo(value) != value:
                    wrong.append(value)
                if turn % 10 == 0 and system.status("db").name != "db":
                    wrong.append("status")

        threads = [threading.Thread(target=use, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(40)
        assert not any(thread.is_alive() for thread in threads)
        assert wrong == []


def test_the_system_lists_finds_and_stops_pools() -> None:
    with actorpool.start() as system:
        assert system.pools() == []
        system.start_pool("b", worker=Toy, size=1)
        system.start_pool("a", actorpool.PoolConfig(worker=Toy, size=2))
        assert system.pools() == ["a", "b"]
        assert system.pool("a").status().size == 2
        assert system.status("b").name == "b"
        with pytest.raises(actorpool.PoolAlreadyExists, match="a"):
            system.start_pool("a", worker=Toy, size=5)
        assert system.status("a").size == 2
        assert system.stop_pool("a") is None
        assert system.pools() == ["b"]
        for call in (lambda: system.pool("a").echo(1), lambda: system.status("a"), lambda: system.stop_pool("a")):
            with pytest.raises(actorpool.PoolNotFound, match="a") as caught:
                call()
            assert caught.value.pool == "a"
        assert system.start_pool("a", worker=Toy, size=3).status().size == 3
        assert system.manager is not None
        assert system.actor_system is not None


def test_thespians_actor_system_of_the_node_answers_plain_messages() -> None:
    with actorpool.start() as system:
        system.start_pool("db", worker=Toy, size=1)
        answer = system.actor_system.ask(system.manager, actorpool.ListPools(), 5)
        assert answer.unwrap() == ["db"]


@pytest.mark.parametrize("name", ["", "1st", "has space", "-x", "a/b", "x" * 65, "ümlaut", "_x", "a\n", None, 5])
def test_a_bad_pool_name_is_refused_before_anything_starts(name: Any) -> None:
    system = _shared()
    with pytest.raises((ValueError, TypeError)) as caught:
        system.start_pool(name, worker=Toy)
    assert isinstance(caught.value, actorpool.InvalidConfig)
    assert system.pools() == []


_kept: list[actorpool.System] = []


def _shared() -> actorpool.System:
    return _kept[0]


@pytest.fixture(scope="module", autouse=True)
def _one_for_names() -> Any:
    with actorpool.start() as system:
        _kept.append(system)
        yield
    _kept.clear()


@pytest.mark.parametrize("name", ["a", "Db-1.write_2", "x" * 64])
def test_a_good_pool_name_is_accepted(name: str) -> None:
    system = _shared()
    assert system.start_pool(name, worker=Toy, size=0).status().name == name
    system.stop_pool(name)


def test_arguments_that_do_not_pickle_are_named_before_anything_starts() -> None:
    system = _shared()
    with pytest.raises(actorpool.InvalidConfig) as caught:
        system.start_pool("p", worker=Toy, worker_args={"journal": threading.Lock()})
    assert "worker_args" in caught.value.problems
    assert system.pools() == []


def test_the_simple_base_runs_everything_in_this_process() -> None:
    before = {p.pid for p in psutil.Process().children(recursive=True)}
    with actorpool.start(base="simpleSystemBase") as system:
        pool = system.start_pool("db", worker=Toy, size=2)
        assert pool.pid() == os.getpid()
        assert pool.run(lambda worker, x: x + 1, 4) == 5
        with pool.checkout() as lease:
            assert lease.echo("here") == "here"
            assert pool.status().monitors == 1
        assert pool.status().monitors == 0
        with pytest.raises(LookupError, match="bang"):
            pool.boom("bang")
        assert {p.pid for p in psutil.Process().children(recursive=True)} == before
        assert system.pools() == ["db"]
        system.stop_pool("db")
        assert system.pools() == []


def test_a_bad_base_or_option_is_refused_with_its_name() -> None:
    with pytest.raises((ValueError, TypeError), match="noSuchBase"):
        actorpool.start(base="noSuchBase")
    with pytest.raises((ValueError, TypeError), match="colour"):
        actorpool.start(colour="red")


def test_a_system_handle_pickles_or_says_why_not() -> None:
    system = _shared()
    try:
        copy = pickle.loads(pickle.dumps(system))
    except (TypeError, pickle.PicklingError) as error:
        assert "connect" in str(error) or "System" in str(error)
    else:
        assert copy.pools() == system.pools()


@pytest.mark.slow
def test_twenty_start_stop_cycles_leave_no_process_socket_file_or_descriptor(
    open_descriptors: Callable[[], dict[int, str]], tmp_path: Path
) -> None:
    def cycle() -> None:
        with actorpool.start() as system:
            pool = system.start_pool("db", worker=Toy, size=2)
            assert pool.echo(1) == 1
            with pool.checkout() as lease:
                lease.echo(2)

    cycle()
    children = len(psutil.Process().children(recursive=True))
    descriptors = len(open_descriptors())
    threads = threading.active_count()
    runtime = Path(os.environ["ACTORPOOL_RUNTIME_DIR"])
    files = sorted(str(path) for path in runtime.rglob("*"))
    started = time.monotonic()
    for _ in range(20):
        cycle()
    print(f"one start/stop cycle: {(time.monotonic() - started) / 20:.3f} s")

    assert len(psutil.Process().children(recursive=True)) == children
    assert len(open_descriptors()) == descriptors
    assert threading.active_count() <= threads
    assert sorted(str(path) for path in runtime.rglob("*")) == files
