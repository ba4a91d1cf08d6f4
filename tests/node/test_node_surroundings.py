"""What a program may have done to itself, or its machine to it, before and while it runs a node."""

from __future__ import annotations

import ast
import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import actorpool
from actorpool.errors import SystemDown
from actorpool.node import runtime
from actorpool.node.server import LogFile
from actorpool.workers import EchoWorker
from tests.node.node_actors import Crowded
from tests.places import SHORT

Eventually = Callable[..., Any]


def run(program: str, *options: str, **more: Any) -> subprocess.CompletedProcess[str]:
    """A program of its own; its output."""
    return subprocess.run(
        [sys.executable, *options, "-c", program], capture_output=True, text=True, check=False, timeout=60, **more
    )


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Where the nodes of a test are."""
    path = tempfile.mkdtemp(prefix="apt-", dir=SHORT)
    monkeypatch.setenv("ACTORPOOL_RUNTIME_DIR", path)
    yield path
    shutil.rmtree(path)


# -- files that are removed ----------------------------------------------------------------------------------------


def test_files_that_a_cleaner_takes_are_put_back_and_the_node_is_found_meanwhile(
    place: str, eventually: Eventually
) -> None:
    with actorpool.start("shop") as system:
        pool = system.start_pool("db", worker=EchoWorker, size=1)
        directory = Path(str(system.directory))
        files = [directory / name for name in ("cookie", "node.json", "node.log")]
        before = [file.read_text() for file in files[:2]]
        for file in files:
            file.unlink()
        assert runtime.serves(str(directory))  # a caller whose pool is being restarted goes on waiting
        with actorpool.connect("shop") as other:
            assert other.pools() == ["db"]
        assert pool.echo(1) == 1
        eventually(lambda: all(file.exists() for file in files), 5.0)
        assert [file.read_text() for file in files[:2]] == before
        assert [stat.S_IMODE(file.stat().st_mode) for file in files] == [0o600] * 3
        assert "cookie was removed" in files[2].read_text()
        assert runtime.running() == ["shop"]


def test_a_node_keeps_its_files_young(place: str) -> None:
    directory = runtime.RuntimeDirectory.claim("shop")
    try:
        old = time.time() - 100 * 86400
        names = ["cookie", "db.pool"]
        Path(directory.path, "db.pool").touch()
        for path in [*(os.path.join(directory.path, name) for name in names), directory.path]:
            os.utime(path, (old, old))
        directory.tend(1.0)
        for path in [*(os.path.join(directory.path, name) for name in names), directory.path]:
            assert os.stat(path).st_atime > time.time() - 60
            assert os.stat(path).st_mtime > time.time() - 60
    finally:
        directory.release()


def test_a_cleaner_that_honours_locks_finds_the_directory_locked(place: str) -> None:
    with actorpool.start("shop") as system:
        done = subprocess.run(["flock", "--nonblock", str(system.directory), "true"], check=False)
        assert done.returncode == 1


def test_sockets_that_killed_clients_left_are_removed_and_no_others(place: str, eventually: Eventually) -> None:
    client = """
import actorpool, os
system = actorpool.connect("shop").actor_system
os.kill(os.getpid(), 9)
"""
    with actorpool.start("shop") as system:
        directory = str(system.directory)
        mine = system.actor_system  # has a socket that lives
        before = set(os.listdir(directory))
        assert run(client).returncode == -9
        left = set(os.listdir(directory)) - before
        assert len(left) == 1
        os.utime(os.path.join(directory, *left), (1, 1))
        tended = runtime.RuntimeDirectory.__new__(runtime.RuntimeDirectory)
        vars(tended).update(path=directory, _texts={}, _touch_at=float("inf"), _sweep_at=0.0, _gone=False)
        for name in before:
            os.utime(os.path.join(directory, name), (1, 1))
        tended.tend(1.0)
        assert set(os.listdir(directory)) == before
        assert mine.ask(system.manager, actorpool.ListPools(), 5).unwrap() == []


def test_a_directory_that_was_removed_as_a_whole_is_said_once(place: str, caplog: pytest.LogCaptureFixture) -> None:
    directory = runtime.RuntimeDirectory.claim("shop")
    shutil.rmtree(directory.path)
    for now in (1.0, 2.0):
        directory.tend(now)
    assert len([r for r in caplog.records if "stop it and start it anew" in r.getMessage()]) == 1
    directory.release()


# -- rights ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mask", [0o000, 0o777])
def test_whatever_a_node_writes_is_this_users_alone_under_any_umask(place: str, mask: int) -> None:
    log = os.path.join(place, "elsewhere.log")
    old = os.umask(mask)
    try:
        system = actorpool.start("shop", log_file=log)
    finally:
        os.umask(old)
    with system:
        assert system.actor_system
        modes = {
            entry.name: stat.S_IMODE(entry.stat(follow_symlinks=False).st_mode)
            for entry in os.scandir(str(system.directory))
            if entry.name in ("cookie", "node.json", "node.log") or entry.name.startswith("@")
        }
        assert set(modes.values()) == {0o600}
        assert stat.S_IMODE(os.stat(log).st_mode) == 0o600
        assert stat.S_IMODE(os.stat(str(system.directory)).st_mode) == 0o700


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user for a while")
def test_another_user_of_the_machine_reaches_no_socket_of_a_node(place: str) -> None:
    os.chmod(place, 0o711)
    with actorpool.start("shop") as system:
        system.start_pool("db", worker=EchoWorker, size=1)
        found = [entry.path for entry in os.scandir(str(system.directory)) if stat.S_ISSOCK(entry.stat().st_mode)]
        assert len(found) >= 8
        program = f"""
import os, socket
os.setuid(65534)
for path in {found!r}:
    try:
        socket.socket(socket.AF_UNIX).connect(path)
    except OSError as error:
        print(type(error).__name__)
    else:
        print("reached", path)
"""
        done = run(program)  # a process of its own: all threads of a process change their user together
        assert done.stdout.split("\n") == ["PermissionError"] * len(found) + [""], done.stderr


def test_the_log_of_a_node_is_this_users_alone_also_what_thespian_remarks(place: str) -> None:
    with actorpool.start("shop") as system:
        assert stat.S_IMODE(os.stat(f"{system.directory}/node.log").st_mode) == 0o600
    program = f"""
import os, stat
from actorpool.node import server
from thespian.system.utilis import thesplog
server._thespian_log_to({place!r} + "/thespian.log")
os.umask(0)
thesplog("a remark", level=40)
print(oct(stat.S_IMODE(os.stat({place!r} + "/thespian.log").st_mode)))
"""
    assert run(program).stdout.strip() == "0o600"


def test_a_runtime_directory_that_cannot_be_made_is_an_error_with_advice(
    place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path(place, "file").touch()
    monkeypatch.setenv("ACTORPOOL_RUNTIME_DIR", f"{place}/file/below")
    with pytest.raises(SystemDown, match="set ACTORPOOL_RUNTIME_DIR to a directory that you may write to"):
        actorpool.start()


# -- the log ---------------------------------------------------------------------------------------------------------


def test_lines_with_any_letters_arrive_in_the_log_under_any_locale(place: str) -> None:
    program = """
import logging, actorpool
from actorpool.workers import EchoWorker
def note(worker):
    logging.getLogger("actorpool").warning("\\u0416 \\u6f22 \\udcff")
with actorpool.start("shop") as system:
    system.start_pool("db", worker=EchoWorker, size=1).run(note)
"""
    done = run(program, env={**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"})
    assert done.returncode == 0, done.stderr
    text = Path(place, f"actorpool-{os.geteuid()}", "shop", "node.log").read_text(encoding="utf-8")
    assert "\u0416 \u6f22 \\udcff" in text


def test_a_log_that_is_moved_or_cannot_be_written_harms_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import logging

    monkeypatch.setattr(logging, "raiseExceptions", False)
    folder = tmp_path / "logs"
    folder.mkdir()
    handler = LogFile(str(folder / "log"))

    def write(text: str) -> None:
        handler.handle(logging.LogRecord("actorpool", 30, "", 0, text, (), None))

    write("one")
    (folder / "log").rename(folder / "log.1")
    write("two")
    assert (folder / "log.1").read_text() == "one\n"
    assert (folder / "log").read_text() == "two\n"
    shutil.rmtree(folder)
    write("lost")
    folder.mkdir()
    write("three")
    assert (folder / "log").read_text() == "three\n"
    handler.close()


# -- the program that starts it ----------------------------------------------------------------------------------------


def test_a_node_finds_packages_where_its_owner_found_them(place: str, tmp_path: Path) -> None:
    program = f"""
import sys
import thespian, cloudpickle, psutil
homes = {{module.__name__: __import__("os").path.dirname(module.__path__[0] if hasattr(module, "__path__") else "")
          for module in (thespian, cloudpickle, psutil)}}
import os
for name in homes:
    folder = {str(tmp_path)!r} + "/" + name
    os.mkdir(folder)
    os.symlink(os.path.join(homes[name], name), os.path.join(folder, name))
"""
    assert run(program).returncode == 0
    root = str(Path(__file__).resolve().parent.parent.parent)
    program = f"""
import sys
sys.path[:0] = [{root!r}, *({str(tmp_path)!r} + "/" + name for name in ("thespian", "cloudpickle", "psutil"))]
import actorpool
if __name__ == "__main__":
    with actorpool.start() as system:
        print(system.pools())
"""
    bare = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = run(program, "-S", env={**bare, "PYTHONNOUSERSITE": "1"})
    assert done.stdout.strip() == "[]", done.stderr


def test_signals_that_the_owner_has_blocked_are_not_blocked_in_the_node_or_its_workers(place: str) -> None:
    program = """
import signal, actorpool
from actorpool.workers import EchoWorker
def blocked(worker):
    return sorted(signal.pthread_sigmask(signal.SIG_BLOCK, ()))
signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
with actorpool.start() as system:
    status = open(f"/proc/{system._node_client.facts.pid}/status").read()
    db = system.start_pool("db", worker=EchoWorker)
    print(status[status.index("SigBlk"):].split()[1].strip("0"), db.run(blocked))
"""
    done = run(program)
    assert done.stdout.strip() == "[]", done.stderr


@pytest.mark.parametrize("closed", [(0,), (1, 2), (0, 1, 2)])
def test_a_daemon_without_standard_descriptors_runs_workers_that_print(
    place: str, tmp_path: Path, closed: tuple[int, ...]
) -> None:
    program = f"""
import os, sys
for descriptor in {closed!r}:
    os.close(descriptor)
import actorpool
from actorpool.workers import EchoWorker
def say(worker):
    print("hello", flush=True)
    print("hello", file=sys.stderr, flush=True)
    return [os.readlink(f"/proc/self/fd/{{number}}") for number in {closed!r}]
with actorpool.start() as system:
    found = system.start_pool("db", worker=EchoWorker).run(say)
open({str(tmp_path / "found")!r}, "w").write(repr(found))
"""
    done = run(program)
    assert done.returncode == 0, done.stderr
    found = dict(zip(closed, ast.literal_eval((tmp_path / "found").read_text()), strict=True))
    if 2 in closed:
        assert found.pop(2).startswith("pipe:")  # to the pool, which keeps a worker's last words
    assert set(found.values()) <= {"/dev/null"}
    assert not [text for number, text in ((1, done.stdout), (2, done.stderr)) if number in closed and text]


# -- limits ----------------------------------------------------------------------------------------------------------


def test_too_few_open_files_for_a_node_are_said_with_the_numbers(place: str) -> None:
    done = run("""
import resource, actorpool
resource.setrlimit(resource.RLIMIT_NOFILE, (32, 32))
actorpool.start()
""")
    assert "this process may have 32 files open (ulimit -Hn): a node needs 64 at least" in done.stderr
    assert "thespian" not in done.stderr


def test_a_pool_that_needs_more_files_than_there_are_is_refused_with_the_cause_and_others_live(place: str) -> None:
    done = run("""
import resource, actorpool
from actorpool.workers import EchoWorker
resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))
with actorpool.start() as system:
    small = system.start_pool("small", worker=EchoWorker, size=2)
    try:
        system.start_pool("large", worker=EchoWorker, size=80)
    except actorpool.ActorPoolError as error:
        print(error)
    print(small.echo("lives"))
""")
    assert "no process could be started for it: [Errno 24] Too many open files" in done.stdout
    assert "see ulimit -Hn" in done.stdout
    assert done.stdout.strip().endswith("lives")
    assert "thespian" not in done.stderr


def test_why_the_system_starts_no_process_is_told(place: str) -> None:
    with actorpool.start() as system:
        thespian = system.actor_system
        status, ending = thespian.ask(thespian.createActor(Crowded), "start a child", 10)
        assert status is None
        assert ending.startswith("no process could be started for it: [Errno 11] Resource temporarily unavailable")
        assert "see ulimit -u, and pids.max of the container" in ending
        assert ending in Path(str(system.directory), "node.log").read_text()


def test_the_facts_of_a_node_name_no_port(place: str) -> None:
    with actorpool.start("shop") as system:
        facts = json.loads(Path(str(system.directory), "node.json").read_text())
        assert facts["protocol"] == runtime.PROTOCOL
        assert not [name for name in facts if "port" in name]
