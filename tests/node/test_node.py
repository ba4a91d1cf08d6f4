"""The node's process: what it tells its owner, what it inherits, and that nothing of it outlives it."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from actorpool import process
from actorpool.errors import InvalidConfig, SystemDown
from actorpool.node import launch, runtime
from actorpool.thespian_adapter import base
from tests.node.node_actors import Plain

Eventually = Callable[..., Any]
TCP, UDP = "multiprocTCPBase", "multiprocUDPBase"
ROOT = Path(__file__).resolve().parents[2]

START = f"""
import os, sys, time
from actorpool.node import launch
node = launch.launch(None, {TCP!r})
print(node.pid, node.directory, flush=True)
"""


def family(pid: int) -> list[int]:
    """A node's process and everything below it; the admin and what it started included."""
    running = psutil.Process(pid)
    return [pid, *(child.pid for child in running.children(recursive=True))]


def left(pids: list[int]) -> list[int]:
    return [pid for pid in pids if process.alive(pid)]


def gone_within(pids: list[int], seconds: float) -> float:
    """Wait until all are dead; how long that took."""
    begun = time.monotonic()
    while left(pids):
        assert time.monotonic() - begun < seconds, f"{len(left(pids))} of {len(pids)} still alive after {seconds} s"
        time.sleep(0.002)
    return time.monotonic() - begun


class Owner:
    """Another process that starts a node and then does what `program` says."""

    def __init__(self, program: str, *arguments: str, **options: Any) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", f"{START}sys.stdin.readline()\n{textwrap.dedent(program)}", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            **options,
        )
        assert self.process.stdout is not None
        pid, self.directory = self.process.stdout.readline().split()
        self.node = int(pid)
        self.family = family(self.node)
        print(file=self.process.stdin, flush=True)

    def other_children(self) -> list[int]:
        """What its program has forked, once it has."""
        deadline = time.monotonic() + 20
        while True:
            found = [child.pid for child in psutil.Process(self.process.pid).children() if child.pid != self.node]
            if found or time.monotonic() > deadline:
                return found
            time.sleep(0.01)

    def __enter__(self) -> Owner:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def node() -> Iterator[launch.Node]:
    started = launch.launch(None, TCP)
    yield started
    started.stop(5.0)


# -- its end ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "end",
    [
        "sys.stdin.read()",  # and is killed
        "raise SystemExit(0)",
        "raise RuntimeError('the owner fails')",
        "os._exit(3)",
        "os.execvp('sleep', ['sleep', '30'])",
    ],
    ids=["killed", "exit", "exception", "_exit", "exec"],
)
def test_nothing_is_left_two_seconds_after_the_owners_end(end: str) -> None:
    with Owner(end, stderr=subprocess.DEVNULL) as owner:
        assert len(owner.family) >= 5
        if "stdin" in end:
            owner.process.kill()
        took = gone_within(owner.family, 2.0)
    print(f"{len(owner.family)} processes gone {took * 1000:.0f} ms after the owner")
    assert not os.path.exists(owner.directory)


def test_a_child_of_the_owner_keeps_no_node_alive() -> None:
    program = """
    if os.fork() == 0:
        time.sleep(30)
    sys.stdin.read()
    """
    with Owner(program) as owner:
        children = owner.other_children()
        owner.process.kill()
        gone_within(owner.family, 2.0)
        for child in children:
            os.kill(child, signal.SIGKILL)


def test_an_owners_death_is_seen_without_pidfds_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACTORPOOL_POLLING", "1")
    program = """
    if os.fork() == 0:
        time.sleep(30)  # and holds the pipe's end, so only the pid tells
    sys.stdin.read()
    """
    with Owner(program.replace("os.fork()", "launch.process._libc.fork()")) as owner:
        children = owner.other_children()
        owner.process.kill()
        took = gone_within(owner.family, 2.0)
        assert len(children) == 1
        os.kill(children[0], signal.SIGKILL)
    print(f"gone {took * 1000:.0f} ms after an owner that is looked at")


@pytest.mark.slow
def test_an_owner_that_dies_while_its_node_starts_leaves_nothing(eventually: Eventually) -> None:
    for moment in (0.0, 0.02, 0.05, 0.08, 0.11, 0.15, 0.2):
        program = f"from actorpool.node import launch; print(flush=True); launch.launch(None, {TCP!r})"
        owner = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
        assert owner.stdout is not None
        owner.stdout.readline()
        time.sleep(moment)  # the moment is what is tested
        below = psutil.Process(owner.pid).children()
        owner.kill()
        owner.communicate()
        gone_within([running.pid for running in below], 3.0)
    eventually(lambda: runtime.running() == [])


def test_a_forked_copy_of_the_handle_does_not_end_its_parents_node() -> None:
    program = """
    if os.fork() == 0:
        node.stop(1.0)
        sys.exit()
    os.wait()
    print(os.path.exists(node.directory + "/node.json"), flush=True)
    sys.stdin.read()
    """
    with Owner(program) as owner:
        assert owner.process.stdout is not None
        assert owner.process.stdout.readline().strip() == "True"
        assert len(left(owner.family)) == len(owner.family)


def test_a_node_outlives_the_thread_that_started_it() -> None:
    started: list[launch.Node] = []
    thread = threading.Thread(target=lambda: started.append(launch.launch(None, TCP)))
    thread.start()
    thread.join()
    pids = family(started[0].pid)
    time.sleep(0.1)  # nothing to poll for: this is about what must not happen
    assert left(pids) == pids
    started[0].stop(5.0)
    assert left(pids) == []


def victims(pid: int) -> dict[str, int]:
    """Who is who below a node: it starts the admin, which starts the logger and the root supervisor."""
    admin = psutil.Process(pid).children()[0]
    root = next(child for child in admin.children() if child.children())
    logger = next(child for child in admin.children() if not child.children())
    return {"node": pid, "admin": admin.pid, "root": root.pid, "logger": logger.pid}


@pytest.mark.parametrize("victim", ["node", "admin", "root"])
def test_whoever_is_killed_everything_ends(node: launch.Node, victim: str) -> None:
    pids = family(node.pid)
    os.kill(victims(node.pid)[victim], signal.SIGKILL)
    took = gone_within(pids, 1.0)
    print(f"all {len(pids)} gone {took * 1000:.0f} ms after the {victim}")
    node.reap()


def test_thespians_logger_is_replaced_when_it_dies(node: launch.Node, eventually: Eventually) -> None:
    before = victims(node.pid)
    os.kill(before["logger"], signal.SIGKILL)
    eventually(lambda: victims(node.pid)["logger"] != before["logger"])
    assert left([before["node"], before["admin"], before["root"]]) == [before["node"], before["admin"], before["root"]]


def test_an_orderly_end_leaves_no_process_at_once(node: launch.Node) -> None:
    pids = family(node.pid)
    begun = time.monotonic()
    node.stop(5.0)
    assert left(pids) == []
    assert time.monotonic() - begun < 2.0
    node.stop(5.0)  # a second time is nothing


def test_what_an_actor_left_running_ends_with_the_node(node: launch.Node) -> None:
    _, facts, cookie = runtime.find(node.name)
    system = base.attach(TCP, facts.admin, cookie)
    actor = system.createActor(Plain)
    orphan = system.ask(actor, ("orphan", None), 5)
    assert process.alive(orphan)
    base.detach(system)
    node.stop(5.0)
    assert not process.alive(orphan)


@pytest.mark.slow
def test_a_node_that_does_not_end_in_time_is_killed(node: launch.Node) -> None:
    pids = family(node.pid)
    os.kill(node.pid, signal.SIGSTOP)
    begun = time.monotonic()
    node.stop(0.1)
    assert time.monotonic() - begun < launch.STOP_MARGIN + 2
    gone_within(pids, 1.0)
    assert not os.path.exists(node.directory)


@pytest.mark.slow
def test_twenty_cycles_leave_no_process_no_file_no_descriptor(
    open_descriptors: Callable[[], dict[int, str]], short_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACTORPOOL_RUNTIME_DIR", str(short_path))
    launch.launch(None, TCP).stop(5.0)
    before = open_descriptors()
    pids: list[int] = []
    for turn in range(20):
        node = launch.launch(None, UDP if turn % 4 == 3 else TCP)
        pids += family(node.pid)
        node.stop(5.0)
    assert left(pids) == []
    assert open_descriptors() == before
    assert list((short_path / f"actorpool-{os.geteuid()}").iterdir()) == []


# -- its start -------------------------------------------------------------------------------------------------------


def test_a_node_serves_soon_and_says_where(node: launch.Node) -> None:
    begun = time.perf_counter()
    second = launch.launch(None, TCP)
    took = time.perf_counter() - begun
    print(f"a node serves {took * 1000:.0f} ms after its start")
    assert took < 10.0  # where everything else wants the processors, too
    facts = json.loads(Path(second.directory, "node.json").read_text())
    assert (facts["pid"], facts["base"]) == (second.pid, TCP)
    assert os.path.dirname(facts["admin"]) == os.path.dirname(facts["root"]) == second.directory
    second.stop(5.0)


@pytest.mark.parametrize("kind", [TCP, UDP])
def test_every_node_has_an_admin_of_its_own(kind: str) -> None:
    nodes = [launch.launch(None, kind) for _ in range(3)]
    assert len({runtime.find(node.name)[1].admin for node in nodes}) == 3
    for node in nodes:
        node.stop(5.0)


def test_nodes_started_at_once_by_threads_all_serve() -> None:
    nodes: list[launch.Node] = []
    threads = [threading.Thread(target=lambda: nodes.append(launch.launch(None, TCP))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({node.directory for node in nodes}) == 4
    for node in nodes:
        node.stop(5.0)


def test_a_name_that_is_taken_is_refused_in_the_owners_process() -> None:
    node = launch.launch("shop", TCP)
    with pytest.raises(InvalidConfig, match="a node named 'shop' is running") as refused:
        launch.launch("shop", TCP)
    assert list(refused.value.problems) == ["name"]
    node.stop(5.0)
    launch.launch("shop", TCP).stop(5.0)


def test_a_node_that_cannot_start_says_why(tmp_path: Path) -> None:
    with pytest.raises(SystemDown, match=r"the node failed to start: .*No such file or directory"):
        launch.launch(None, TCP, log_file=str(tmp_path / "no" / "such" / "directory"))
    with pytest.raises(SystemDown, match=r"ended with status 1 before it served"):
        launch.launch(None, TCP, options={"sinks": _Deadly()})
    with pytest.raises(SystemDown, match=r"(?s)the node failed to start: .*cannot be opened here"):
        launch.launch(None, TCP, options={"sinks": _Unwelcome()})
    assert not [name for name in os.listdir(runtime.root()) if name.startswith(runtime.ANONYMOUS)]


class _Deadly:
    def __reduce__(self) -> tuple[Any, ...]:
        return (os._exit, (1,))


def _refuse() -> None:
    raise ValueError("cannot be opened here")


class _Unwelcome:
    def __reduce__(self) -> tuple[Any, ...]:
        return (_refuse, ())


def test_an_actor_sees_the_owners_path_directory_and_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "only_here.py").write_text("ANSWER = 42\n")
    (tmp_path / "select.py").write_text("raise ImportError('a file of the user is no module of the interpreter')\n")
    monkeypatch.syspath_prepend(str(tmp_path / "elsewhere"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SHOP", "open")
    node = launch.launch(None, TCP)
    _, facts, cookie = runtime.find(node.name)
    system = base.attach(TCP, facts.admin, cookie)
    try:
        path, directory, environment = system.ask(system.createActor(Plain), ("surroundings", None), 5)
    finally:
        base.detach(system)
        node.stop(5.0)
    assert path == [os.path.abspath(entry) for entry in sys.path]
    assert directory == str(tmp_path)
    assert environment["SHOP"] == "open"
    assert environment.get("PYTHONPATH") == os.environ.get("PYTHONPATH")


def test_starting_asks_no_other_host(node: launch.Node) -> None:
    assert [c for pid in family(node.pid) for c in psutil.Process(pid).net_connections("inet")] == []


# -- its log ---------------------------------------------------------------------------------------------------------


def test_nothing_is_said_in_the_ordinary_course() -> None:
    run = subprocess.run(
        [sys.executable, "-c", START + "node.stop(5.0)"], capture_output=True, text=True, timeout=30, check=True
    )
    assert run.stderr == ""
    assert len(run.stdout.splitlines()) == 1


@pytest.mark.parametrize(("level", "shown"), [("WARNING", {"loud"}), ("INFO", {"loud", "quiet"}), ("CRITICAL", set())])
@pytest.mark.slow
def test_the_log_gets_all_of_ours_and_the_terminal_what_was_asked_for(level: str, shown: set[str]) -> None:
    program = f"""
    import logging
    from actorpool.thespian_adapter import base; from actorpool.node import runtime
    from tests.node.node_actors import Plain
    node.stop(5.0)
    node = launch.launch(None, {TCP!r}, log_level={level!r})
    _, facts, cookie = runtime.find(node.name)
    system = base.attach({TCP!r}, facts.admin, cookie)
    actor = system.createActor(Plain)
    for line in [("actorpool", logging.INFO, "ours: quiet"), ("actorpool.pool", logging.WARNING, "ours: loud"),
                 ("shop", logging.INFO, "theirs: quiet"), ("shop", logging.ERROR, "theirs: loud")]:
        system.ask(actor, ("log", line), 5)
    base.detach(system)
    print(open(node.directory + "/node.log").read())
    """
    run = subprocess.run(
        [sys.executable, "-c", START + textwrap.dedent(program)], capture_output=True, text=True, timeout=30, check=True
    )
    assert [line.split(": ")[-2:] for line in run.stdout.splitlines() if "ours" in line] == [
        ["ours", "quiet"],
        ["ours", "loud"],
    ]
    assert "theirs: loud" in run.stdout
    assert {line.split(": ")[-1] for line in run.stderr.splitlines() if "ours" in line} == shown
    assert "Actor System" not in run.stdout + run.stderr


def test_the_log_may_be_elsewhere(tmp_path: Path) -> None:
    node = launch.launch(None, TCP, log_file=str(tmp_path / "shop.log"))
    assert not os.path.exists(os.path.join(node.directory, "node.log"))
    node.stop(5.0)
    assert "serves" in (tmp_path / "shop.log").read_text()


# -- daemons ---------------------------------------------------------------------------------------------------------


def test_a_daemon_outlives_its_starter_and_is_ended_by_name() -> None:
    program = f"""
    from actorpool.node import launch
    node = launch.launch("stall", {TCP!r}, daemon=True)
    print(node.pid)
    """
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], stdout=subprocess.PIPE, text=True, timeout=30, check=True
    )
    pids = family(int(run.stdout))
    assert runtime.running() == ["stall"]
    launch.stop("stall")
    assert left(pids) == []
    with pytest.raises(SystemDown, match="no node named 'stall' runs"):
        launch.stop("stall")


# -- who may start one -------------------------------------------------------------------------------------------------


def test_a_node_starts_from_an_interactive_interpreter() -> None:
    master, slave = pty.openpty()
    shell = subprocess.Popen(
        [sys.executable, "-i", "-q"],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        start_new_session=True,
        cwd=ROOT,
        env={**os.environ, "PYTHON_BASIC_REPL": "1"},  # 3.13's own indents what is pasted
    )
    os.close(slave)
    try:
        for line in START.strip().splitlines():
            os.write(master, line.encode() + b"\n")
        said = b""
        while not (found := re.search(rb"(\d+) /\S+\r\n", said)):
            said += os.read(master, 4096)
        pids = family(int(found[1]))
        os.write(master, b"exit()\n")
        assert shell.wait(10) == 0
        gone_within(pids, 2.0)
    finally:
        shell.kill()
        shell.wait()
        os.close(master)


def test_a_node_starts_while_other_threads_run_and_a_socket_is_open() -> None:
    stop = threading.Event()
    threads = [threading.Thread(target=stop.wait) for _ in range(5)]
    for thread in threads:
        thread.start()
    with socket.create_server(("127.0.0.1", 0)) as server:
        node = launch.launch(None, TCP)
        inherited = [os.readlink(f"/proc/{node.pid}/fd/{fd}") for fd in os.listdir(f"/proc/{node.pid}/fd")]
        assert os.readlink(f"/proc/self/fd/{server.fileno()}") not in inherited
        node.stop(5.0)
    stop.set()
    for thread in threads:
        thread.join()
