"""The blocking caller's side: who was reached, who was not, and whose answer it is."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from actorpool.transport import client as lines
from actorpool.transport import frames, paths
from actorpool.transport.client import ClientConn, Gone, NotDelivered, TimedOut


@pytest.fixture
def path() -> Iterator[str]:
    yield os.path.join(os.environ["ACTORPOOL_RUNTIME_DIR"], f"line{os.getpid()}")
    lines.forget(os.environ["ACTORPOOL_RUNTIME_DIR"])


@pytest.fixture
def server(path: str) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        yield listener
    os.unlink(path)


def read_frame(sock: socket.socket) -> tuple[int, int, bytes]:
    head = sock.recv(frames.HEADER.size, socket.MSG_WAITALL)
    length, kind, ref = frames.HEADER.unpack(head)
    return kind, ref, sock.recv(length, socket.MSG_WAITALL) if length else b""


@pytest.mark.parametrize("spin", [0.0, 50e-6])
def test_an_answer_is_found_behind_answers_nobody_waits_for(server: socket.socket, path: str, spin: float) -> None:
    line = ClientConn(path, spin=spin)
    peer, _ = server.accept()
    line.send(frames.CHECKOUT, 7)
    peer.sendall(
        b"".join(frames.frame(frames.GRANT, ref, body) for ref, body in ((5, b"late"), (6, b""), (7, b"mine")))
    )
    assert line.receive(7, time.perf_counter() + 5) == (frames.GRANT, b"mine")
    peer.close()


def test_nobody_listening_is_not_delivered(path: str) -> None:
    with pytest.raises(NotDelivered):
        ClientConn(path)


def test_a_socket_file_without_a_process_is_not_delivered(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(path)
    with pytest.raises(NotDelivered):
        ClientConn(path)
    os.unlink(path)


def test_a_frame_that_was_not_read_is_not_delivered(server: socket.socket, path: str) -> None:
    line = ClientConn(path)
    peer, _ = server.accept()
    line.send(frames.CALL, 1, b"unread")
    peer.close()
    with pytest.raises(NotDelivered):
        line.receive(1, time.perf_counter() + 5)


def test_a_long_frame_that_was_read_in_part_is_not_delivered(server: socket.socket, path: str) -> None:
    line = ClientConn(path)
    peer, _ = server.accept()

    def read_a_bit() -> None:
        peer.recv(100_000)
        peer.close()

    thread = threading.Thread(target=read_a_bit)
    thread.start()

    def ask() -> None:
        line.send(frames.CALL, 1, b"x" * 10_000_000)
        line.receive(1, time.perf_counter() + 5)

    with pytest.raises(NotDelivered):
        ask()
    thread.join()


def test_a_frame_that_was_read_may_have_been_run(server: socket.socket, path: str) -> None:
    line = ClientConn(path)
    peer, _ = server.accept()
    line.send(frames.CALL, 1, b"read")
    assert read_frame(peer) == (frames.CALL, 1, b"read")
    peer.close()
    with pytest.raises(Gone):
        line.receive(1, time.perf_counter() + 5)


def test_an_answer_that_breaks_off_is_gone(server: socket.socket, path: str) -> None:
    for size in (100, 1_000_000):
        line = ClientConn(path)
        peer, _ = server.accept()
        line.send(frames.CALL, 1)
        read_frame(peer)
        peer.sendall(frames.HEADER.pack(size, frames.RESULT, 1) + b"only a part")
        peer.close()
        with pytest.raises(Gone):
            line.receive(1, time.perf_counter() + 5)


@pytest.mark.parametrize("spin", [0.0, 50e-6])
@pytest.mark.parametrize("size", [4, 100_000])
def test_no_answer_within_the_time_is_given_up(server: socket.socket, path: str, spin: float, size: int) -> None:
    line = ClientConn(path, spin=spin)
    peer, _ = server.accept()
    line.send(frames.CHECKOUT, 1)
    peer.sendall(frames.frame(frames.REPLY, 1, bytes(size))[: size // 2 + 9])  # a frame that has only begun
    began = time.perf_counter()
    with pytest.raises(TimedOut):
        line.receive(1, began + 0.05)
    assert 0.04 < time.perf_counter() - began < 1.0
    peer.close()


def test_a_peer_that_does_not_read_is_given_up_in_time(server: socket.socket, path: str) -> None:
    line = ClientConn(path)
    peer, _ = server.accept()
    began = time.perf_counter()
    with pytest.raises(TimedOut):
        line.send(frames.CALL, 1, b"x" * 50_000_000, deadline=began + 0.05)
    assert time.perf_counter() - began < 1.0
    peer.close()


def test_a_lane_whose_queue_is_full_is_given_up_in_time(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(0)
        waiting = ClientConn(path)
        began = time.perf_counter()
        with pytest.raises(TimedOut):
            ClientConn(path, deadline=began + 0.05)
        assert time.perf_counter() - began < 1.0
        waiting.close()
    os.unlink(path)


def test_a_free_line_is_used_again(server: socket.socket, path: str) -> None:
    line = lines.take(path)
    lines.give(line)
    assert lines.take(path) is line


def test_a_line_in_use_is_nobody_elses(server: socket.socket, path: str) -> None:
    first = lines.take(path)
    second = lines.take(path)  # a signal handler, a finalizer, another thread
    assert first is not second
    lines.give(first)
    lines.give(second)


def test_free_lines_are_kept_to_a_bounded_number_of_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "MAX_PATHS", 3)
    top = os.environ["ACTORPOOL_RUNTIME_DIR"]
    lines.forget(top)
    listeners = []
    for number in range(5):
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(f"{top}/many{number}")
        listener.listen()
        listeners.append(listener)
    first = lines.take(f"{top}/many0")
    sock = first.sock
    lines.give(first)
    del first
    for number in range(1, 5):
        last = lines.take(f"{top}/many{number}")
        lines.give(last)
    assert len(lines._free) <= 3
    assert sock.fileno() == -1
    assert lines.take(f"{top}/many4") is last
    for number, listener in enumerate(listeners):
        listener.close()
        os.unlink(f"{top}/many{number}")


def test_forgetting_a_directory_closes_its_free_lines(server: socket.socket, path: str) -> None:
    line = lines.take(path)
    sock = line.sock
    lines.give(line)
    del line
    lines.forget(os.path.dirname(path))
    assert sock.fileno() == -1


def test_a_forked_child_has_none_of_its_parents_lines(server: socket.socket, path: str) -> None:
    line = lines.take(path)
    lines.give(line)
    busy = lines.take(path + "")
    descriptor = busy.sock.fileno()
    generation = lines.generation
    child = os.fork()
    if child == 0:
        try:
            os.fstat(descriptor)
            os._exit(1)
        except OSError:
            os._exit(0 if not lines._free and lines.generation == generation + 1 else 2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert busy.sock.fileno() == descriptor
    busy.close()


def test_a_signal_that_raises_ends_the_wait_at_once(server: socket.socket, path: str) -> None:
    class Alarm(Exception):
        pass

    def ring(*_: object) -> None:
        raise Alarm

    line = ClientConn(path)
    peer, _ = server.accept()
    before = signal.signal(signal.SIGALRM, ring)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        with pytest.raises(Alarm):
            line.receive(1, time.perf_counter() + 10)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        peer.close()


def test_signals_that_raise_nothing_do_not_stretch_the_wait(server: socket.socket, path: str) -> None:
    line = ClientConn(path)
    peer, _ = server.accept()
    rung: list[int] = []
    before = signal.signal(signal.SIGALRM, lambda *_: rung.append(1))
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.02, 0.02)
        began = time.perf_counter()
        with pytest.raises(TimedOut):
            line.receive(1, began + 0.2)
        assert time.perf_counter() - began < 1.0
        assert rung
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        peer.close()


def test_a_pools_line_is_kept_when_there_are_too_many_to_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "MAX_PATHS", 3)
    top = os.environ["ACTORPOOL_RUNTIME_DIR"]
    lines.forget(top)
    names = [paths.pool(top, "kept"), *(paths.worker(top, pid) for pid in range(5))]
    listeners = [socket.socket(socket.AF_UNIX) for _ in names]
    for name, listener in zip(names, listeners, strict=True):
        listener.bind(name)
        listener.listen()
        lines.give(lines.take(name))
    assert list(lines._free) == [names[0], *names[-2:]], "the workers known longest went"
    for name, listener in zip(names, listeners, strict=True):
        listener.close()
        os.unlink(name)
