"""The hardened base: this user only, nothing unsigned is read, and nothing of Thespian's is missing."""

from __future__ import annotations

import contextlib
import errno
import os
import pickle
import random
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import psutil
import pytest
from thespian.actors import ActorExitRequest, ActorSystem, ActorSystemException

from actorpool import process
from actorpool.errors import SystemDown
from actorpool.node import launch, runtime
from actorpool.node.runtime import NodeFacts
from actorpool.thespian_adapter import base, unix
from actorpool.thespian_adapter.seal import ForgedMessageError, Seal
from actorpool.thespian_adapter.transport import place_of
from actorpool.transport import paths
from tests.node.node_actors import Plain
from tests.places import SHORT

Eventually = Callable[..., Any]
TCP, UDP = "multiprocTCPBase", "multiprocUDPBase"


class Started:
    """A node and this process's endpoint of it."""

    def __init__(self, kind: str) -> None:
        self.node = launch.launch(None, kind)
        self.facts: NodeFacts
        self.directory, self.facts, self.cookie = runtime.find(self.node.name)
        self.system = base.attach(kind, self.facts.admin, self.cookie)
        self.actor = self.system.createActor(Plain)

    def ask(self, word: str, value: Any = None, timeout: float = 5.0) -> Any:
        return self.system.ask(self.actor, (word, value), timeout)

    def log(self) -> str:
        return Path(self.directory, "node.log").read_text()

    def close(self) -> None:
        base.detach(self.system)
        self.node.stop(5.0)


@pytest.fixture(params=[TCP, UDP])
def started(request: pytest.FixtureRequest) -> Iterator[Started]:
    node = Started(request.param)
    yield node
    node.close()


@pytest.fixture
def tcp() -> Iterator[Started]:
    node = Started(TCP)
    yield node
    node.close()


@pytest.fixture
def udp() -> Iterator[Started]:
    node = Started(UDP)
    yield node
    node.close()


class Exploit:
    """Unpickling it makes a directory."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (self.path,))


def send_raw(path: str | int, data: bytes) -> bytes:
    """Send bytes to an actor's socket without its node's cookie; what comes back until the other side closes."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(5)
        connection.connect(str(path))
        answer = b""
        with contextlib.suppress(ConnectionResetError, BrokenPipeError):
            connection.sendall(data)
            while part := connection.recv(4096):
                answer += part
    return answer


def framed(data: bytes) -> bytes:
    return b"%d>" % len(data) + data


def addresses(started: Started) -> list[str]:
    """What the processes of a node listen at on the network."""
    family = [psutil.Process(started.node.pid), *psutil.Process(started.node.pid).children(recursive=True)]
    assert len(family) >= 5
    return [c.laddr.ip for running in family for c in running.net_connections("inet") if c.laddr]


def test_a_node_has_no_port_that_others_of_the_machine_could_reach(tcp: Started) -> None:
    tcp.ask("child")
    assert addresses(tcp) == []


def test_over_udp_nothing_listens_on_anything_but_loopback(udp: Started) -> None:
    udp.ask("child")
    assert set(addresses(udp)) == {"127.0.0.1"}


def test_every_socket_of_a_node_is_this_users_alone(tcp: Started) -> None:
    tcp.ask("child")
    found = [entry for entry in os.scandir(tcp.directory) if stat.S_ISSOCK(entry.stat(follow_symlinks=False).st_mode)]
    assert len([entry for entry in found if entry.name.startswith("@")]) >= 6
    for entry in found:
        if entry.name.startswith("@"):
            assert stat.S_IMODE(entry.stat().st_mode) == 0o600
    assert stat.S_IMODE(os.stat(tcp.directory).st_mode) == 0o700


def test_a_forged_packet_to_any_socket_is_not_unpickled_not_answered_and_counted(
    tcp: Started, tmp_path: Path, eventually: Eventually
) -> None:
    stock = pickle.dumps((None, Exploit(tmp_path / "taken")))
    wrongly_signed = Seal(b"w" * 32).close((None, Exploit(tmp_path / "taken")))
    for path in (tcp.facts.admin, tcp.facts.root, place_of(tcp.actor)):
        for data in (stock, wrongly_signed):
            assert send_raw(path, framed(data)) == b""
    assert not (tmp_path / "taken").exists()
    assert tcp.ask("echo", "still there") == "still there"
    eventually(lambda: tcp.log().count("dropped 1 message(s) that were not signed with this node's cookie") == 3)


@pytest.mark.parametrize(
    "data",
    [b"x" * 5000, b"99999999999>", b"5>", b"0>", b"-7>abc", b"12x>abc", framed(bytes(500))],
    ids=["endless", "giant", "unfinished", "empty", "negative", "no number", "noise"],
)
def test_what_is_no_message_at_all_harms_nothing(tcp: Started, data: bytes) -> None:
    for path in (tcp.facts.admin, place_of(tcp.actor)):
        if data == b"5>":  # may still become one: only the connection stays
            with socket.socket(socket.AF_UNIX) as connection:
                connection.connect(str(path))
                connection.send(data)
        else:
            assert send_raw(path, data) == b""
    assert tcp.ask("echo", 1) == 1
    assert tcp.ask("child")[1] > 0


def test_a_replayed_acknowledgement_word_is_no_message(tcp: Started) -> None:
    data = Seal(tcp.cookie).close("ACK")
    answer = send_raw(place_of(tcp.actor), framed(data))
    assert answer != b""  # signed by us, so it is told that it made no sense, as Thespian does
    assert tcp.ask("echo", 1) == 1


def test_forged_datagrams_are_as_if_they_had_never_come(udp: Started, tmp_path: Path, eventually: Eventually) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        stranger.bind(("127.0.0.1", 0))
        stranger.settimeout(0.2)
        for port in (udp.facts.admin, place_of(udp.actor)):
            for data in (pickle.dumps(Exploit(tmp_path / "taken")), b"BuMP", b"", os.urandom(200)):
                stranger.sendto(data, ("127.0.0.1", port))
        with pytest.raises(TimeoutError):
            stranger.recv(1)
    assert not (tmp_path / "taken").exists()
    assert udp.ask("echo", 1) == 1
    eventually(lambda: udp.log().count("dropped 1 message(s)") == 2)


def test_nobody_else_can_have_the_port_of_an_actor_or_an_endpoint(udp: Started) -> None:
    with udp.system.private() as context:
        endpoint = context._systemBase.transport.myAddress
        for address in (udp.actor, endpoint, base.address_at(udp.facts.admin)):
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
                other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                with pytest.raises(OSError, match="in use"):
                    other.bind(("127.0.0.1", int(place_of(address))))


def test_connections_of_another_user_are_closed_before_anything_is_read(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can be another user for a while")
    place = tempfile.mkdtemp(prefix="apt-", dir=SHORT)
    try:
        os.chmod(place, 0o755)  # as if the directory had been opened by mistake
        listener, path = unix.listen(place, None)
        os.chmod(path, 0o666)
        # A process of its own: all threads of a process change their user together.
        program = f"""
import os, socket
os.setuid(65534)
with socket.socket(socket.AF_UNIX) as stranger:
    stranger.settimeout(5)
    stranger.connect({path!r})
    print(stranger.recv(1))
"""
        argv = [sys.executable, "-c", program]
        listener.settimeout(30)
        with listener, subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as stranger:
            with pytest.raises(PermissionError, match="a connection of uid 65534 was refused"):
                listener.accept()
            assert stranger.communicate(timeout=10)[0] == "b''\n"
    finally:
        shutil.rmtree(place)


def test_a_full_queue_of_connections_is_waited_for_and_a_missing_actor_is_a_refusal(tmp_path: Path) -> None:
    place = tempfile.mkdtemp(prefix="apt-", dir=SHORT)
    try:
        with contextlib.ExitStack() as waiting:
            listener = waiting.enter_context(unix.UnixSocket(*unix.UnixAddress.socketArgs))
            listener.bind(path := f"{place}/full")
            listener.listen(0)

            def connection() -> unix.UnixSocket:
                sock = waiting.enter_context(unix.UnixSocket(*unix.UnixAddress.socketArgs))
                sock.setblocking(False)
                return sock

            connection().connect(path)
            late, never = connection(), connection()
            for sock in (late, never):
                with pytest.raises(BlockingIOError) as raised:
                    sock.connect(path)
                assert raised.value.errno == errno.EINPROGRESS
            with pytest.raises(BlockingIOError):
                late.send(b"hello")
            assert paths.is_served(path)
            waiting.enter_context(listener.accept()[0])
            assert late.send(b"hello") == 5
            accepted = waiting.enter_context(listener.accept()[0])
            assert accepted.recv(9) == b"hello"
            accepted.close()
            with pytest.raises(ConnectionResetError):  # Thespian makes the connection again
                late.send(b"again")
            listener.close()
            with pytest.raises(ConnectionRefusedError):
                never.send(b"hello")
            os.unlink(path)
            with pytest.raises(ConnectionRefusedError):
                never.send(b"hello")
            assert not paths.is_served(path)
    finally:
        shutil.rmtree(place)


def test_every_message_is_signed_with_this_nodes_cookie(tcp: Started) -> None:
    seal = Seal(tcp.cookie)
    data = seal.close(("who", "what"))
    assert seal.open(data) == ("who", "what")
    for broken in (data[:-1] + b"x", b"x" + data[1:], data[:10], b""):
        with pytest.raises(ForgedMessageError):
            seal.open(broken)
    assert tcp.cookie not in data


@pytest.mark.slow
def test_large_and_many_messages_arrive_whole(tcp: Started) -> None:
    for size in (0, 1, 65_536, 1_000_000, 20_000_000):
        value = random.randbytes(size)
        assert tcp.ask("echo", value, 20) == value


@pytest.mark.slow
def test_messages_that_cross_on_one_connection_all_arrive(tcp: Started, eventually: Eventually) -> None:
    other = tcp.system.createActor(Plain)
    count = 500  # below Thespian's own limit for one sender's queue
    with tcp.system.private() as one, tcp.system.private() as two:
        threads = [
            threading.Thread(target=one.ask, args=(tcp.actor, ("volley", (other, count)), 20)),
            threading.Thread(target=two.ask, args=(other, ("volley", (tcp.actor, count)), 20)),
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for actor in (tcp.actor, other):
        eventually(lambda actor=actor: tcp.system.ask(actor, ("caught", None), 5) == count, 20.0)


def test_a_message_of_a_class_the_other_side_cannot_import_harms_nothing(
    tcp: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Nowhere:
        pass

    Nowhere.__qualname__ = "Nowhere"
    Nowhere.__module__ = "no_such_module_anywhere"
    module = ModuleType("no_such_module_anywhere")
    vars(module)["Nowhere"] = Nowhere
    monkeypatch.setitem(sys.modules, "no_such_module_anywhere", module)
    with pytest.raises(ActorSystemException, match="BadPacket"):
        tcp.ask("echo", Nowhere(), 2)
    assert tcp.ask("echo", 1) == 1


def test_two_nodes_in_one_process_keep_their_keys_apart() -> None:
    first, second = Started(TCP), Started(TCP)
    try:
        assert first.cookie != second.cookie
        assert first.ask("pid") != second.ask("pid")
        for _ in range(3):
            assert first.ask("echo", 1) == 1
            assert second.ask("echo", 2) == 2
    finally:
        second.close()
        assert first.ask("echo", 3) == 3
        first.close()


def test_a_plain_actor_system_afterwards_is_the_first_one() -> None:
    first, second = Started(TCP), Started(TCP)
    try:
        assert ActorSystem().ask(first.actor, ("pid", None), 5) == first.ask("pid")
    finally:
        first.close()
        second.close()
    assert getattr(ActorSystem, "systemBase", None) is None


def test_threads_with_private_contexts_never_get_each_others_answers(started: Started) -> None:
    wrong: list[Any] = []

    def converse(number: int) -> None:
        with started.system.private() as context:
            for turn in range(50):
                answer = context.ask(started.actor, ("echo", (number, turn)), 10)
                if answer != (number, turn):
                    wrong.append((number, turn, answer))

    threads = [threading.Thread(target=converse, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_plain_actor_dies_with_its_parent(started: Started, eventually: Eventually) -> None:
    _, child = started.ask("child")
    os.kill(started.ask("pid"), signal.SIGKILL)
    eventually(lambda: not process.alive(child), 1.0)


def test_an_actor_holds_no_socket_or_pipe_of_the_node(tcp: Started) -> None:
    child, _ = tcp.ask("child")
    held = tcp.system.ask(child, ("descriptors", None), 5)
    assert not [name for name in held if name.startswith(tcp.directory) and not name.endswith("node.log")]
    pid = tcp.system.ask(child, ("pid", None), 5)
    bound = {c.laddr for c in psutil.Process(pid).net_connections("unix") if c.laddr.startswith(tcp.directory)}
    assert place_of(child) in bound
    assert tcp.facts.admin not in bound
    assert place_of(tcp.actor) not in bound


def test_attaching_to_a_node_that_has_ended_starts_none(tcp: Started) -> None:
    other = Started(TCP)
    other.close()
    with pytest.raises(SystemDown, match="the node has ended"):
        base.attach(TCP, other.facts.admin, other.cookie)


def test_an_endpoint_leaves_no_descriptor(tcp: Started, open_descriptors: Callable[[], dict[int, str]]) -> None:
    before = set(open_descriptors())
    for _ in range(5):
        system = base.attach(TCP, tcp.facts.admin, tcp.cookie)
        with system.private() as context:
            assert context.ask(tcp.actor, ("echo", 1), 5) == 1
        assert system.ask(tcp.actor, ("echo", 2), 5) == 2
        base.detach(system)
    assert set(open_descriptors()) <= before


def test_the_socket_of_an_actor_or_an_endpoint_goes_with_it(tcp: Started, eventually: Eventually) -> None:
    def sockets() -> set[str]:
        return {name for name in os.listdir(tcp.directory) if name.startswith("@")}

    before = sockets()
    with tcp.system.private() as context:
        endpoint = context._systemBase.transport.myAddress
        assert os.path.basename(str(place_of(endpoint))) in sockets()
    assert sockets() == before
    child, pid = tcp.ask("child")
    assert sockets() == before | {os.path.basename(str(place_of(child)))}
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: sockets() == before)
    _, pid = tcp.ask("child")
    tcp.system.tell(tcp.actor, ActorExitRequest())
    eventually(lambda: not process.alive(pid))
    eventually(lambda: sockets() < before)


def test_an_address_is_good_in_every_process_and_names_no_other_actor_later(tcp: Started) -> None:
    address = pickle.loads(pickle.dumps(tcp.actor))
    assert address == tcp.actor
    assert hash(address.addressDetails) == hash(tcp.actor.addressDetails)
    assert tcp.system.ask(address, ("echo", 1), 5) == 1
    child, pid = tcp.ask("child")
    os.kill(pid, signal.SIGKILL)
    assert tcp.system.ask(child, ("echo", 1), 5) is None
    assert tcp.ask("child")[0] != child
