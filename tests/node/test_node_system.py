"""`start`, `connect` and `System` as a program uses them."""

from __future__ import annotations

import os
import pickle
import pty
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from thespian.actors import ActorSystem

import actorpool
from actorpool import process
from actorpool.errors import (
    AuthenticationFailed,
    InvalidConfig,
    PoolAlreadyExists,
    PoolNotFound,
    SystemDown,
)
from actorpool.messages import GetPoolStatus, WithConnection
from actorpool.supervisors import ChildSpec, SupervisorSpec
from actorpool.workers import EchoWorker

Eventually = Callable[..., Any]
ROOT = Path(__file__).resolve().parents[2]

EXAMPLE = """
import actorpool
from actorpool.workers import SqliteWorker, Worker, method

def count(conn, table):
    return conn.execute(f"select count(*) from {table}").fetchone()[0]

class Greeter(Worker):
    greeting = "hello"

    @method
    def greet(self, name):
        return f"{self.greeting} {name}"

system = actorpool.start()
db = system.start_pool("db", worker=SqliteWorker, worker_args={"database": "app.db"}, size=2, max_overflow=1)
_ = db.execute("create table t (x int)")
conn = db.checkout(timeout=5)
_ = conn.execute("insert into t values (?)", [1])
conn.checkin()
greeters = system.start_pool("greeters", worker=Greeter, size=1)
factor = 14
print("SAID", db.run(count, "t"), greeters.greet("you"), greeters.run(lambda worker: factor * 3), flush=True)
"""
SAID = "SAID 1 hello you 42"


def run(*command: str, cwd: Path, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, timeout=60, check=False, cwd=cwd, **options
    )


# -- how programs use it -----------------------------------------------------------------------------------------------


def test_a_script_with_classes_and_functions_of_its_own_runs_without_a_word(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(EXAMPLE + "\nsystem.shutdown()\n")
    done = run("shop.py", cwd=tmp_path)
    assert (done.stdout.strip(), done.stderr, done.returncode) == (SAID, "", 0)


def test_a_program_given_on_the_command_line_runs(tmp_path: Path) -> None:
    done = run("-c", EXAMPLE, cwd=tmp_path)  # and its end ends the system
    assert (done.stdout.strip(), done.stderr, done.returncode) == (SAID, "", 0)


def test_a_module_run_by_name_runs(tmp_path: Path) -> None:
    (tmp_path / "stall").mkdir()
    (tmp_path / "stall" / "__init__.py").touch()
    (tmp_path / "stall" / "__main__.py").write_text(EXAMPLE)
    done = run("-m", "stall", cwd=tmp_path)
    assert (done.stdout.strip(), done.stderr, done.returncode) == (SAID, "", 0)


def test_an_interactive_session_runs(tmp_path: Path) -> None:
    master, slave = pty.openpty()
    shell = subprocess.Popen(
        [sys.executable, "-i", "-q"],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        cwd=tmp_path,
        env={**os.environ, "PYTHON_BASIC_REPL": "1"},  # 3.13's own indents what is pasted
    )
    os.close(slave)
    said = b""
    try:
        for block in re.split(r"\n(?=\S)", EXAMPLE.replace("\n\n    @", "\n    @")):
            os.write(master, block.strip().encode() + (b"\n\n" if "\n  " in block else b"\n"))
        while SAID.encode() not in said and b"Error" not in said:
            said += os.read(master, 4096)
        assert SAID.encode() in said, said.decode()
        os.write(master, b"exit()\n")
        assert shell.wait(10) == 0
    finally:
        shell.kill()
        shell.wait()
        os.close(master)


def test_a_system_starts_in_a_thread_of_a_program_with_other_threads() -> None:
    results: list[Any] = []

    def work() -> None:
        try:
            with actorpool.start() as system:
                pool = system.start_pool("echo", worker=EchoWorker, size=1)
                results.append(pool.echo("from a thread"))
        except BaseException:
            results.append(traceback.format_exc())

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == ["from a thread"] * 2


# -- start -------------------------------------------------------------------------------------------------------------


def test_unknown_and_bad_options_are_all_named_before_anything_starts() -> None:
    with pytest.raises(InvalidConfig) as refused:
        bad: dict[str, Any] = {"base": "tcp", "metrics_interval": 0, "log_level": "LOUD", "log_file": "/no/such/place"}
        actorpool.start(**bad, spin="yes", colour="red", port=1)  # type: ignore[arg-type]
    assert sorted(refused.value.problems) == [
        "base", "colour", "log_file", "log_level", "metrics_interval", "port", "spin",
    ]  # fmt: skip
    with pytest.raises(InvalidConfig, match="must be a StatsdSink"):
        actorpool.start(telemetry=[3])
    with pytest.raises(InvalidConfig, match="A-Za-z"):
        actorpool.start("no name")


def test_a_system_has_a_name_and_a_directory_to_show(system: Any) -> None:
    assert repr(system) == f"<system {system.name!r} in {system.directory}>"
    with actorpool.start("shop") as named:
        assert named.name == "shop"
        assert str(named.directory).endswith("/shop")


# -- pools -------------------------------------------------------------------------------------------------------------


def test_pools_are_started_listed_found_and_stopped(system: Any) -> None:
    assert system.pools() == []
    config = actorpool.PoolConfig(worker=EchoWorker, size=1)
    started = system.start_pool("b", config)
    system.start_pool("a", config, size=2)
    assert system.pools() == ["a", "b"]
    assert system.pool("b").echo(7) == started.echo(7) == 7
    assert system.status("a").size == 2
    assert system.metrics("a").samples == ()
    system.stop_pool("b")
    assert system.pools() == ["a"]
    for use in (system.pool, system.status, system.stop_pool, system.metrics):
        with pytest.raises(PoolNotFound, match="no pool named 'b' is running"):
            use("b")


def test_a_pool_that_cannot_be_is_refused_and_nothing_is_changed(system: Any) -> None:
    pool = system.start_pool("db", worker=EchoWorker, size=1)
    with pytest.raises(InvalidConfig) as refused:
        system.start_pool("db", worker=dict, sise=3, size=-1)
    assert sorted(refused.value.problems) == ["sise", "size", "worker"]
    with pytest.raises(InvalidConfig, match="must be a PoolConfig"):
        system.start_pool("other", {"worker": EchoWorker})
    with pytest.raises(PoolAlreadyExists, match="it was not touched"):
        system.start_pool("db", worker=EchoWorker, size=3)
    for name in ("", "1", "a b", "a/b", "x" * 65, None):
        with pytest.raises(InvalidConfig):
            system.start_pool(name, worker=EchoWorker)
    assert system.pools() == ["db"]
    assert pool.status().size == 1


def test_a_name_that_makes_a_sockets_path_too_long_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    base = os.environ["ACTORPOOL_RUNTIME_DIR"]
    monkeypatch.setenv("ACTORPOOL_RUNTIME_DIR", os.path.join(base, "x" * (60 - len(base))))
    with actorpool.start() as system:
        assert len(str(system.directory)) > 75
        with pytest.raises(InvalidConfig, match=r"shorten the name, or set ACTORPOOL_RUNTIME_DIR"):
            system.start_pool("a" * 40, worker=EchoWorker)
        assert system.start_pool("a" * 9, worker=EchoWorker, size=1).echo(1) == 1


def test_a_handle_is_good_in_another_process(system: Any, tmp_path: Path) -> None:
    pool = system.start_pool("echo", worker=EchoWorker, size=1)
    (tmp_path / "pool").write_bytes(pickle.dumps(pool))
    done = run("-c", "import pickle; print(pickle.load(open('pool', 'rb')).echo(5))", cwd=tmp_path)
    assert (done.stdout.strip(), done.stderr) == ("5", "")


def test_a_pool_that_is_not_enabled_is_local_and_has_the_same_verbs(system: Any) -> None:
    pool = system.start_pool("echo", worker=EchoWorker, size=1, enabled=False)
    assert isinstance(pool, actorpool.LocalPool)
    assert pool.pid() == os.getpid()
    assert system.pools() == ["echo"]
    assert system.pool("echo") is pool
    with pytest.raises(PoolAlreadyExists):
        system.start_pool("echo", worker=EchoWorker, size=1)
    assert system.status("echo").name == "echo"
    system.stop_pool("echo")
    assert system.pools() == []


# -- the whole ---------------------------------------------------------------------------------------------------------


def test_the_tree_shows_who_is_below_whom(system: Any) -> None:
    system.start_pool("db", worker=EchoWorker, size=2)
    tree = system.tree()
    assert (tree.kind, [child.id for child in tree.children]) == ("supervisor", ["manager"])
    pool = tree.children[0].children[0]
    assert (pool.id, pool.kind, len(pool.children)) == ("db", "pool", 2)
    assert all(process.alive(worker.pid) for worker in pool.children)
    assert "pool db pid" in str(tree)


def nodes(tree: Any) -> Iterator[Any]:
    yield tree
    for child in tree.children:
        yield from nodes(child)


def test_every_node_of_the_tree_tells_since_when_it_runs(system: Any) -> None:
    system.start_pool("db", worker=EchoWorker, size=1)
    for node in nodes(system.tree()):
        assert 0 <= time.time() - node.since < 120, node


def test_the_tree_shows_no_pool_that_has_died_and_each_that_serves_again(system: Any) -> None:
    pool = system.start_pool("db", worker=EchoWorker, size=2)
    for _ in range(3):
        pid = system.tree().children[0].children[0].pid
        os.kill(pid, signal.SIGKILL)
        shown = system.tree().children[0].children[0]
        assert shown.pid != pid
        assert "killed by SIGKILL" in shown.last_end
        assert pool.run(lambda connection: 3) == 3
        shown = system.tree().children[0].children[0]
        assert shown.state == "running"
        assert process.alive(shown.pid)
        assert [process.alive(worker.pid) for worker in shown.children] == [True, True]


def test_the_tree_shows_no_child_of_a_users_supervisor_that_has_died(system: Any) -> None:
    inner = SupervisorSpec([ChildSpec("packer", "tests.node.node_actors:Plain")])
    system.supervise(SupervisorSpec([ChildSpec("team", inner)]))
    pid = next(node.pid for node in nodes(system.tree()) if node.id == "team")
    os.kill(pid, signal.SIGKILL)
    assert pid not in [node.pid for node in nodes(system.tree())]


def test_plain_thespian_reaches_the_manager(system: Any) -> None:
    system.start_pool("echo", worker=EchoWorker, size=1)
    manager = system.manager
    status = ActorSystem().ask(manager, GetPoolStatus("echo"), 5).unwrap()
    assert status.size == 1
    call = WithConnection("echo", EchoWorker.echo, (6,))
    assert system.actor_system.ask(manager, call, 5).unwrap() == 6


def test_actors_of_ones_own_are_supervised(system: Any) -> None:
    spec = ChildSpec("planner", "tests.node.node_actors:Plain")
    address = system.supervise(spec)
    with system.actor_system.private() as context:
        pid = context.ask(address, ("pid", None), 5)
    assert process.alive(pid)
    system.supervise(SupervisorSpec([ChildSpec("packer", "tests.node.node_actors:Plain")]))
    assert "packer" in str(system.tree())


def test_a_killed_manager_is_found_again_with_its_pools(system: Any, eventually: Eventually) -> None:
    pool = system.start_pool("echo", worker=EchoWorker, size=1)
    before = system.manager
    os.kill(system.tree().children[0].pid, signal.SIGKILL)
    begun = time.perf_counter()
    assert system.pools() == ["echo"]
    assert pool.echo(1, checkout_timeout=5) == 1
    took = time.perf_counter() - begun
    print(f"serving again {took * 1000:.0f} ms after kill -9 of the manager")
    assert took < 2.0
    after = system.manager
    assert after != before
    assert system.actor_system.ask(after, GetPoolStatus("echo"), 5).unwrap().size == 1


def test_a_system_is_shared_by_threads(system: Any) -> None:
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            pool = system.start_pool(f"pool{number}", worker=EchoWorker, size=1)
            for turn in range(20):
                assert pool.echo((number, turn)) == (number, turn)
                assert system.status(f"pool{number}").name == f"pool{number}"
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert system.pools() == ["pool0", "pool1", "pool2", "pool3"]


def test_two_systems_in_one_process_do_not_meet(system: Any) -> None:
    with actorpool.start() as other:
        mine = system.start_pool("echo", worker=EchoWorker, size=1)
        theirs = other.start_pool("echo", worker=EchoWorker, size=1)
        assert mine.pid() != theirs.pid()
        assert system.actor_system is not other.actor_system
        assert system.actor_system.ask(system.manager, GetPoolStatus("echo"), 5).unwrap().size == 1
        assert other.actor_system.ask(other.manager, GetPoolStatus("echo"), 5).unwrap().size == 1
    assert mine.echo(1) == 1
    with pytest.raises(SystemDown):
        theirs.echo(1)


# -- a forked child ----------------------------------------------------------------------------------------------------


def test_a_forked_child_uses_the_system_and_does_not_end_it(tmp_path: Path) -> None:
    program = EXAMPLE + textwrap.dedent(
        """
        import os, sys
        with system:
            system.actor_system
            child = os.fork()
            if child == 0:
                print("CHILD", system.pools(), greeters.greet("child"), flush=True)
                raise SystemExit(0)
            os.waitpid(child, 0)
            print("PARENT", system.pools(), greeters.greet("parent"), flush=True)
        """
    )
    done = run("-c", program, cwd=tmp_path)
    assert done.stdout.splitlines()[1:] == [
        "CHILD ['db', 'greeters'] hello child",
        "PARENT ['db', 'greeters'] hello parent",
    ]
    assert done.stderr == ""


# -- connect -----------------------------------------------------------------------------------------------------------


def test_another_process_connects_by_name_and_does_not_end_the_node(tmp_path: Path) -> None:
    program = """
    import actorpool
    with actorpool.connect("shop") as system:
        print(system.pools(), system.pool("echo").echo("from elsewhere"))
    system = actorpool.connect("shop")
    system.shutdown()
    """
    with actorpool.start("shop") as system:
        system.start_pool("echo", worker=EchoWorker, size=1)
        done = run("-c", textwrap.dedent(program), cwd=tmp_path)
        assert (done.stdout.strip(), done.stderr) == ("['echo'] from elsewhere", "")
        assert system.pool("echo").echo(1) == 1


def test_many_processes_connect_and_attach_at_once(tmp_path: Path) -> None:
    program = """
    import actorpool
    from actorpool import GetPoolStatus
    system = actorpool.connect("shop")
    print(system.actor_system.ask(system.manager, GetPoolStatus("echo"), 10).unwrap().size)
    """
    with actorpool.start("shop") as system:
        system.start_pool("echo", worker=EchoWorker, size=1)
        crowd = [
            subprocess.Popen([sys.executable, "-c", textwrap.dedent(program)], stdout=subprocess.PIPE, text=True)
            for _ in range(4)
        ]
        assert [running.communicate(timeout=50)[0].strip() for running in crowd] == ["1"] * 4


def test_a_wrong_cookie_is_refused() -> None:
    with actorpool.start("shop") as system:
        cookie = Path(str(system.directory), "cookie")
        kept = cookie.read_text()
        cookie.write_text("00" * 32)
        with pytest.raises(AuthenticationFailed, match="is not the cookie that node 'shop'"):
            actorpool.connect("shop")
        cookie.write_text(kept)
        with actorpool.connect("shop") as other:
            assert other.pools() == []


def test_nobody_of_that_name_is_system_down() -> None:
    with pytest.raises(SystemDown, match=r"no node named 'nobody' runs"):
        actorpool.connect("nobody")


# -- after the end -----------------------------------------------------------------------------------------------------


def calls(system: Any, pool: Any) -> list[Callable[[], Any]]:
    return [
        lambda: system.start_pool("more", worker=EchoWorker, size=1), system.pools, system.tree,
        lambda: system.pool("echo"), lambda: system.stop_pool("echo"), lambda: system.status("echo"),
        lambda: system.metrics("echo"), lambda: system.manager, lambda: system.actor_system,
        lambda: pool.echo(1), pool.status, pool.checkout,
    ]  # fmt: skip


def test_after_a_shutdown_every_call_says_so() -> None:
    system = actorpool.start()
    pool = system.start_pool("echo", worker=EchoWorker, size=1)
    assert system.actor_system
    system.shutdown()
    system.shutdown()
    for call in calls(system, pool):
        with pytest.raises(SystemDown):
            call()
    assert not os.path.exists(str(system.directory))


@pytest.mark.parametrize("attached", [True, False])
def test_after_the_nodes_death_every_call_says_so_and_soon(attached: bool, eventually: Eventually) -> None:
    with actorpool.start() as system:
        pool = system.start_pool("echo", worker=EchoWorker, size=1)
        if attached:
            assert system.actor_system
        root = psutil.Process(system.tree().pid)
        below = [root, *root.children(recursive=True)]
        os.kill(psutil.Process(root.ppid()).ppid(), signal.SIGKILL)
        eventually(lambda: not any(process.alive(running.pid) for running in below), 1.0)
        for call in calls(system, pool):
            begun = time.monotonic()
            with pytest.raises(SystemDown):
                call()
            assert time.monotonic() - begun < 1.0


def test_a_system_whose_root_supervisor_dies_is_down(system: Any, eventually: Eventually) -> None:
    pool = system.start_pool("echo", worker=EchoWorker, size=1)
    os.kill(system.tree().pid, signal.SIGKILL)

    def is_down() -> bool:
        try:
            pool.echo(1)
        except SystemDown:
            return True
        return False

    eventually(is_down, 2.0)


@pytest.mark.slow
def test_twenty_systems_leave_nothing_behind(
    open_descriptors: Callable[[], dict[int, str]], short_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACTORPOOL_RUNTIME_DIR", str(short_path))

    def cycle() -> None:
        with actorpool.start() as system:
            assert system.start_pool("echo", worker=EchoWorker, size=1).echo(1) == 1
            assert system.actor_system.ask(system.manager, GetPoolStatus("echo"), 5)

    def children() -> list[int]:
        found = psutil.Process().children()
        return [running.pid for running in found if running.status() != psutil.STATUS_ZOMBIE]

    cycle()
    before, family = open_descriptors(), children()
    for _ in range(20):
        cycle()
    assert set(open_descriptors()) <= set(before)
    assert list((short_path / f"actorpool-{os.geteuid()}").iterdir()) == []
    assert children() == family


# -- without the channel -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("base", ["multiprocTCPBase", "multiprocUDPBase", "simpleSystemBase"])
def test_a_system_is_run_by_messages_alone(base: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actorpool.transport.available", lambda: False)
    with actorpool.start(base=base) as system:
        assert system.pools() == []
        system.start_pool("echo", worker=EchoWorker, size=2)
        assert system.pools() == ["echo"]
        assert system.status("echo").total == 2
        call = WithConnection("echo", EchoWorker.echo, (6,))
        assert system.actor_system.ask(system.manager, call, 5).unwrap() == 6
        assert len(system.tree().children[0].children[0].children) == 2
        with pytest.raises(PoolNotFound):
            system.status("other")
        system.stop_pool("echo")
        assert system.pools() == []
    with pytest.raises(SystemDown):
        system.pools()


@pytest.mark.parametrize("base", ["multiprocTCPBase", "multiprocUDPBase"])
def test_a_killed_manager_is_found_again_by_messages(base: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actorpool.transport.available", lambda: False)
    with actorpool.start(base=base) as system:
        system.start_pool("echo", worker=EchoWorker, size=1)
        process.kill(system.tree().children[0].pid)
        begun = time.perf_counter()
        assert system.pools() == ["echo"]
        assert time.perf_counter() - begun < 2.0
        assert system.status("echo").size == 1


def test_a_system_inside_this_process_starts_none_and_leaves_its_logging_alone() -> None:
    import logging

    handlers = list(logging.root.handlers)
    before = set(psutil.Process().children(recursive=True))
    with actorpool.start("test", base="simpleSystemBase") as system:
        system.start_pool("echo", worker=EchoWorker, size=2)
        assert (system.name, system.directory) == ("test", None)
        assert set(psutil.Process().children(recursive=True)) <= before
        assert ActorSystem().ask(system.manager, WithConnection("echo", EchoWorker.pid), 5).unwrap() == os.getpid()
    assert logging.root.handlers == handlers


# -- the end of everything ---------------------------------------------------------------------------------------------


def test_two_seconds_after_the_owners_death_busy_workers_are_gone_as_well(
    tmp_path: Path, eventually: Eventually
) -> None:
    program = """
    import actorpool, threading, time
    from actorpool.workers import EchoWorker
    system = actorpool.start()
    pool = system.start_pool("echo", worker=EchoWorker, size=3)
    def busy(worker):
        for _ in range(60):
            time.sleep(1)
    for _ in range(3):
        threading.Thread(target=pool.run, args=(busy,), daemon=True).start()
    while pool.status().monitors < 3:
        time.sleep(0.01)
    print(system.tree().pid, flush=True)
    time.sleep(60)
    """
    owner = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tmp_path
    )
    assert owner.stdout is not None
    root = psutil.Process(int(owner.stdout.readline()))
    everybody = [*psutil.Process(owner.pid).children(recursive=True)]
    assert len(everybody) == 9  # node, admin, logger, root, manager, pool and three workers
    assert root in everybody
    owner.kill()
    begun = time.monotonic()
    eventually(lambda: not any(process.alive(running.pid) for running in everybody), 2.0)
    print(f"{len(everybody)} processes, three of them busy, gone {time.monotonic() - begun:.2f} s after the owner")
    owner.communicate()


def test_an_orderly_end_lets_workers_disconnect(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(
        textwrap.dedent(
            """
            import actorpool, os
            from actorpool.workers import Worker

            class Polite(Worker):
                def open(self):
                    self.mark = f"{os.getpid()}.open"
                    open(self.mark, "w").close()

                def close(self):
                    os.rename(self.mark, self.mark.replace("open", "closed"))

            with actorpool.start() as system:
                system.start_pool("polite", worker=Polite, size=3)
            """
        )
    )
    done = run("shop.py", cwd=tmp_path)
    assert (done.stderr, done.returncode) == ("", 0)
    assert len(list(tmp_path.glob("*.closed"))) == 3
    assert list(tmp_path.glob("*.open")) == []
