"""The serving side: frames of every size, many peers, nothing that blocks, nothing that a fork drags along."""

from __future__ import annotations

import contextlib
import errno
import math
import os
import pickle
import socket
import stat
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from actorpool.errors import MessageTooBig
from actorpool.transport import frames
from actorpool.transport.client import ClientConn, Gone, NotDelivered, TimedOut
from actorpool.transport.server import ChannelServer, ServerConn


class Echo:
    """Answers each call with its own body, and notes what happens."""

    def __init__(self) -> None:
        self.frames: list[tuple[int, int, int]] = []
        self.gone: list[ServerConn] = []

    def on_frame(self, peer: ServerConn, kind: int, ref: int, body: bytes | memoryview) -> None:
        self.frames.append((kind, ref, len(body)))
        if kind == frames.CALL:
            peer.send(frames.RESULT, ref, body)

    def on_gone(self, peer: ServerConn) -> None:
        self.gone.append(peer)


@contextmanager
def served(path: Path | str, handler: Any, **options: Any) -> Iterator[ChannelServer]:
    """A lane served by a thread of this process."""
    server = ChannelServer(str(path), handler, spin=0.0, **options)
    over = threading.Event()

    def serve() -> None:
        while not over.is_set():
            server.serve(idle=0.005)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield server
    finally:
        over.set()
        thread.join()
        server.close()


@pytest.fixture
def path() -> str:
    directory = os.path.join(os.environ["ACTORPOOL_RUNTIME_DIR"], f"lane{os.getpid()}")
    os.makedirs(directory, exist_ok=True)
    return os.path.join(directory, "x.w")


@pytest.mark.parametrize("size", [0, 1, 17, 4096, 65523, 65535, 65536, 65537, 100_000, 3_000_000])
def test_a_body_of_any_size_comes_back_intact(path: str, size: int) -> None:
    body = os.urandom(size)
    with served(path, Echo()):
        line = ClientConn(path, spin=0.0)
        for ref in (1, 2):
            line.send(frames.CALL, ref, body)
            kind, answer = line.receive(ref)
            assert (kind, bytes(answer)) == (frames.RESULT, body)


def test_a_body_may_be_sent_in_two_parts(path: str) -> None:
    with served(path, Echo()):
        line = ClientConn(path, spin=0.0)
        for size in (10, 200_000):
            line.send(frames.CALL, 1, b"b" * size, b"lead")
            assert bytes(line.receive(1)[1]) == b"lead" + b"b" * size


def test_frames_that_arrive_together_are_told_apart_and_kept_in_order(path: str) -> None:
    handler = Echo()
    with served(path, handler):
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(path)
            bodies = [b"x" * (n % 97) for n in range(2000)]
            data = b"".join(frames.frame(frames.CALL, n, body) for n, body in enumerate(bodies))
            answers = b""

            def read() -> None:  # meanwhile: a peer that does not read its answers is not read from
                nonlocal answers
                while len(answers) < len(data):
                    answers += sock.recv(65536)

            reader = threading.Thread(target=read)
            reader.start()
            for start in range(0, len(data), 1013):  # cut where no frame ends
                sock.sendall(data[start : start + 1013])
            reader.join()
        assert [ref for _, ref, _ in handler.frames] == list(range(2000))


def test_what_one_peer_has_sent_goes_before_what_another_sent_later(path: str) -> None:
    class Busy(Echo):
        def on_frame(self, peer: ServerConn, kind: int, ref: int, body: bytes | memoryview) -> None:
            super().on_frame(peer, kind, ref, body)
            if kind == frames.CONTROL:
                server.first = peer.fd
            elif ref == 1:  # while this is handled, the kernel keeps its sender on the list of those who have sent
                first.send(frames.CONTROL, 2)
                other.send(frames.END, 3)

    handler = Busy()
    server = ChannelServer(path, handler, spin=0.0)
    other, first = ClientConn(path, spin=0.0), ClientConn(path, spin=0.0)
    first.send(frames.CONTROL, 0)
    server.serve(idle=0.001)
    other.send(frames.END, 1)
    server.serve(idle=0.001)
    assert [ref for _, ref, _ in handler.frames] == [0, 1, 2, 3]
    server.close()


def test_a_frame_in_single_bytes_is_put_together(path: str) -> None:
    with served(path, Echo()), socket.socket(socket.AF_UNIX) as sock:
        sock.connect(path)
        for byte in frames.frame(frames.CALL, 5, b"slow"):
            sock.sendall(bytes([byte]))
        assert sock.recv(100) == frames.frame(frames.RESULT, 5, b"slow")


def test_arguments_beyond_the_limit_are_an_error_of_that_call_only(path: str) -> None:
    with served(path, Echo(), max_message=1_000_000):
        line = ClientConn(path, spin=0.0)
        line.send(frames.CALL, 1, b"x" * 3_000_000)
        kind, body = line.receive(1)
        assert kind == frames.ERROR
        error = frames.load_error(body)
        assert isinstance(error, MessageTooBig)
        assert "3000000" in str(error)
        line.send(frames.CALL, 2, b"small")
        assert line.receive(2) == (frames.RESULT, b"small")


def test_a_result_beyond_the_limit_is_an_error_of_that_call_only(path: str) -> None:
    class Big(Echo):
        def on_frame(self, peer: ServerConn, kind: int, ref: int, body: bytes | memoryview) -> None:
            peer.send(frames.RESULT, ref, b"x" * int(bytes(body)))

    with served(path, Big(), max_message=1_000_000):
        line = ClientConn(path, spin=0.0)
        line.send(frames.CALL, 1, b"1000001")
        kind, body = line.receive(1)
        assert isinstance(frames.load_error(body), MessageTooBig)
        line.send(frames.CALL, 2, b"1000000")
        assert len(line.receive(2)[1]) == 1_000_000
        assert kind == frames.ERROR


def test_a_peer_that_does_not_read_delays_nobody(path: str) -> None:
    with served(path, Echo()):
        deaf = ClientConn(path, spin=0.0)
        body = b"x" * 5_000_000
        deaf.send(frames.CALL, 1, body)
        other = ClientConn(path, spin=0.0)
        began = time.perf_counter()
        other.send(frames.CALL, 1, b"quick")
        assert other.receive(1)[1] == b"quick"
        assert time.perf_counter() - began < 1.0
        deaf.send(frames.CALL, 2, b"after")
        assert bytes(deaf.receive(1)[1]) == body
        assert deaf.receive(2)[1] == b"after"


def test_the_end_of_a_peer_is_told_once_after_its_last_frame(path: str, eventually: Callable[..., Any]) -> None:
    handler = Echo()
    with served(path, handler):
        line = ClientConn(path, spin=0.0)
        line.send(frames.CHECKIN, 9)
        line.close()
        eventually(lambda: handler.gone)
        assert handler.frames == [(frames.CHECKIN, 9, 0)]
        assert len(handler.gone) == 1
        assert not handler.gone[0].open
        assert handler.gone[0].pid == os.getpid()


def test_a_peer_that_the_handler_closes_is_not_told_gone(path: str, eventually: Callable[..., Any]) -> None:
    class Closing(Echo):
        def on_frame(self, peer: ServerConn, kind: int, ref: int, body: bytes | memoryview) -> None:
            super().on_frame(peer, kind, ref, body)
            peer.close()

    handler = Closing()
    with served(path, handler):
        line = ClientConn(path, spin=0.0)
        line.sock.sendall(frames.frame(frames.CHECKIN, 1) + frames.frame(frames.CHECKIN, 2))
        with pytest.raises((Gone, NotDelivered)):
            line.receive(1)
        assert handler.frames == [(frames.CHECKIN, 1, 0)]
        assert handler.gone == []


def test_a_lane_connects_to_another_and_both_speak(path: str, eventually: Callable[..., Any]) -> None:
    caller = Echo()
    with served(path, Echo()), served(path + "2", caller) as server:
        peer = server.connect(path)
        assert peer.pid == os.getpid()
        peer.send(frames.CALL, 3, b"hello")
        eventually(lambda: caller.frames == [(frames.RESULT, 3, 5)])


def test_connecting_where_nobody_listens_fails_at_once(path: str) -> None:
    server = ChannelServer(None, Echo())
    with pytest.raises(FileNotFoundError):
        server.connect(path + ".nobody")
    server.close()


def test_a_watched_descriptor_calls_back_until_it_is_unwatched(path: str) -> None:
    server = ChannelServer(None, Echo(), spin=0.0)
    inside, outside = os.pipe()
    seen: list[int] = []
    server.watch(inside, seen.append)
    server.serve(idle=0.001)
    assert seen == []
    os.write(outside, b"x")
    server._round(server._epoll.poll(0))
    assert seen == [inside]
    server.unwatch(inside)
    server.serve(idle=0.001)
    assert seen == [inside]
    server.close()
    os.close(inside)
    os.close(outside)


def test_a_stale_event_does_not_reach_the_new_owner_of_a_descriptor() -> None:
    server = ChannelServer(None, Echo(), spin=0.0)
    pipes = [os.pipe(), os.pipe()]
    late: list[int] = []
    first, second = pipes[0][0], pipes[1][0]

    def replace(fd: int) -> None:
        other = second if fd == first else first
        server.unwatch(fd)
        server.unwatch(other)
        server.watch(other, late.append)

    server.watch(first, replace)
    server.watch(second, replace)
    for _, outside in pipes:
        os.write(outside, b"x")
    server._round(server._epoll.poll(0))
    assert late == []  # the event was for the watch that is gone; the new one has its own round
    server.close()
    for inside, outside in pipes:
        os.close(inside)
        os.close(outside)


def test_a_new_lane_takes_the_path_of_a_dead_one_and_the_old_one_leaves_it_alone(path: str) -> None:
    old = ChannelServer(path, Echo())
    new = ChannelServer(path, Echo())
    old.close()
    assert os.path.exists(path)
    new.close()
    assert not os.path.exists(path)


def test_closing_a_lane_leaves_no_descriptor(path: str, open_descriptors: Callable[[], dict[int, str]]) -> None:
    before = open_descriptors()
    with served(path, Echo()):
        lines = [ClientConn(path, spin=0.0) for _ in range(5)]
        for line in lines:
            line.send(frames.CALL, 1, b"x")
            line.receive(1)
            line.close()
    assert open_descriptors() == before


def test_a_forked_child_holds_nothing_of_the_lane_and_disturbs_nothing(path: str) -> None:
    server = ChannelServer(path, Echo(), spin=0.0)
    line = ClientConn(path, spin=0.0)
    line.send(frames.CALL, 1, b"x")
    server.serve(idle=0.001)
    line.receive(1)
    mine = [server.descriptor, server._listener.fileno(), *server._peers]  # type: ignore[union-attr]
    child = os.fork()
    if child == 0:
        closed = 0
        for fd in mine:
            try:
                os.fstat(fd)
            except OSError:
                closed += 1
        os._exit(0 if closed == len(mine) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert os.path.exists(path)
    line.send(frames.CALL, 2, b"still there")
    server.serve(idle=0.001)
    assert line.receive(2)[1] == b"still there"
    server.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_another_user_is_not_served(path: str) -> None:
    handler = Echo()
    server = ChannelServer(path, handler, spin=0.0)
    for place in (path, os.path.dirname(path), os.environ["ACTORPOOL_RUNTIME_DIR"]):
        os.chmod(place, 0o777)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.setuid(65534)
            with socket.socket(socket.AF_UNIX) as sock:
                sock.connect(path)
                try:
                    sock.sendall(frames.frame(frames.CALL, 1, b"let me in"))
                    code = 0 if sock.recv(100) == b"" else 2
                except OSError:
                    code = 0
        finally:
            os._exit(code)
    pid, status = 0, 0
    while not pid:
        server.serve(idle=0.001)
        pid, status = os.waitpid(child, os.WNOHANG)
    assert os.waitstatus_to_exitcode(status) == 0
    assert handler.frames == []
    server.close()


def test_what_a_handler_raises_comes_out_and_the_frames_behind_it_are_kept(path: str) -> None:
    class Picky(Echo):
        def on_frame(self, peer: ServerConn, kind: int, ref: int, body: bytes | memoryview) -> None:
            if body == b"bad":
                raise ValueError("bad")
            super().on_frame(peer, kind, ref, body)

    handler = Picky()
    server = ChannelServer(path, handler, spin=0.0)
    line = ClientConn(path, spin=0.0)
    line.sock.sendall(frames.frame(frames.CALL, 1, b"bad") + frames.frame(frames.CALL, 2, b"good"))
    with pytest.raises(ValueError, match="bad"):
        server.serve(idle=0.001)
    line.send(frames.CALL, 3, b"next")
    server.serve(idle=0.001)
    assert [ref for _, ref, _ in handler.frames] == [2, 3]
    server.close()


def test_serve_returns_when_nothing_arrives_and_when_its_budget_is_over(path: str) -> None:
    server = ChannelServer(path, Echo(), spin=0.0)
    began = time.perf_counter()
    server.serve(idle=0.001)
    assert time.perf_counter() - began < 0.5
    over = threading.Event()
    lines = [ClientConn(path, spin=0.0) for _ in range(2)]

    def flood(line: ClientConn) -> None:
        ref = 0
        while not over.is_set():
            ref += 1
            line.send(frames.CALL, ref, b"x")
            line.receive(ref, time.perf_counter() + 5)

    threads = [threading.Thread(target=flood, args=(line,), daemon=True) for line in lines]
    for thread in threads:
        thread.start()
    slowest = 0.0
    for _ in range(20):
        began = time.perf_counter()
        server.serve(budget=0.005, idle=1.0)
        slowest = max(slowest, time.perf_counter() - began)
    over.set()
    while any(thread.is_alive() for thread in threads):
        server.serve(idle=0.001)
    server.close()
    assert slowest < 0.5


class Outside:
    """Somebody who waits for what comes out of a pipe."""

    def __init__(self) -> None:
        self.ends = os.pipe()

    def renew(self) -> None:
        """Another pipe with the descriptors of the one before."""
        before = self.ends
        self.close()
        self.ends = os.pipe()
        assert self.ends == before

    def close(self) -> None:
        for end in self.ends:
            os.close(end)

    def pending(self) -> bool:
        return False

    def patience(self) -> float:
        return math.inf

    def descriptors(self) -> list[int]:
        return [self.ends[0]]


@pytest.mark.parametrize("busy", [False, True])
def test_serve_is_called_away_also_by_a_descriptor_whose_number_was_used_before(path: str, busy: bool) -> None:
    outside = Outside()
    server = ChannelServer(path, Echo(), spin=0.0, outside=outside)
    server.serve(idle=0.001)
    outside.renew()
    over = threading.Event()

    def flood() -> None:
        line, ref = ClientConn(path, spin=0.0), 0
        while not over.is_set():
            ref += 1
            with contextlib.suppress(NotDelivered):
                line.send(frames.CALL, ref, b"x")
            with contextlib.suppress(TimedOut, Gone, NotDelivered):  # nobody serves any more
                line.receive(ref, time.perf_counter() + 0.1)

    flooding = threading.Thread(target=flood, daemon=True)
    if busy:
        flooding.start()
    threading.Timer(0.05, os.write, (outside.ends[1], b"come")).start()
    began = time.perf_counter()
    server.serve(idle=5.0)
    assert time.perf_counter() - began < 2.0
    over.set()
    if busy:
        flooding.join()
    server.close()
    outside.close()


def test_a_body_that_the_handler_releases_gives_its_memory_back(path: str) -> None:
    class Releasing(Echo):
        def on_frame(self, peer: ServerConn, kind: int, ref: int, body: bytes | memoryview) -> None:
            size = len(pickle.loads(body))
            if isinstance(body, memoryview):
                body.release()
            peer.send(frames.RESULT, ref, str(size).encode())

    with served(path, Releasing()):
        line = ClientConn(path, spin=0.0)
        line.send(frames.CALL, 1, pickle.dumps(b"x" * 1_000_000, 5))
        assert line.receive(1)[1] == b"1000000"


def test_memory_is_taken_for_what_has_arrived_and_not_for_what_is_announced(path: str) -> None:
    with served(path, Echo()) as server:
        lines = [ClientConn(path) for _ in range(20)]
        tracemalloc.start()
        for line in lines:
            line.sock.sendall(frames.HEADER.pack(server.max_message, frames.CALL, 1) + b"so much is to follow")
        began = time.perf_counter()
        other = ClientConn(path)
        other.send(frames.CALL, 1, b"x" * 1_000_000)
        assert other.receive(1, began + 5) == (frames.RESULT, b"x" * 1_000_000)
        assert time.perf_counter() - began < 1.0
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 20_000_000
        for line in lines:
            line.close()


@pytest.mark.parametrize("size", [65_537, 131_072, 131_073, 3_000_000])
def test_a_long_body_that_comes_in_pieces_is_put_together(path: str, size: int) -> None:
    data = frames.frame(frames.CALL, 7, os.urandom(size))
    with served(path, Echo()):
        line = ClientConn(path)
        for at in range(0, len(data), 100_003):
            line.sock.sendall(data[at : at + 100_003])
            time.sleep(0.001)
        assert line.receive(7, time.perf_counter() + 5) == (frames.RESULT, data[frames.HEADER.size :])


def test_a_socket_can_be_reached_whatever_the_umask(path: str) -> None:
    before = os.umask(0o777)
    try:
        server = ChannelServer(path, Echo(), spin=0.0)
    finally:
        os.umask(before)
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    server.close()


def test_where_the_whole_machine_is_out_of_descriptors_a_lane_goes_on(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = ChannelServer(path, Echo(), spin=0.0)
    known = ClientConn(path)
    server.serve(idle=0.001)

    def refuse(*_: object) -> None:
        raise OSError(errno.ENFILE, "too many open files in system")

    listener = server._listener
    with monkeypatch.context() as patch:
        patch.setattr(server, "_listener", type("Full", (), {"accept": refuse, "close": lambda _: None})())
        patch.setattr(os, "open", refuse)
        late = ClientConn(path)
        for _ in range(3):
            server.serve(idle=0.001)
    assert server._listener is listener
    for line in (known, late):
        line.send(frames.CALL, 1, b"still there")
    server.serve(idle=0.01)
    assert [line.receive(1)[1] for line in (known, late)] == [b"still there"] * 2
    server.close()


def test_a_peer_that_sends_a_bad_frame_is_hung_up_on_and_the_others_are_served(path: str) -> None:
    class Strict(Echo):
        def on_frame(self, peer: ServerConn, kind: int, ref: int, body: bytes | memoryview) -> None:
            if kind == frames.CONTROL:
                raise frames.BadFrame("not yours to send")
            super().on_frame(peer, kind, ref, body)

    handler = Strict()
    with served(path, handler):
        bad, good = ClientConn(path), ClientConn(path)
        good.send(frames.CALL, 1, b"x")
        assert good.receive(1, time.perf_counter() + 5)[1] == b"x"
        bad.sock.sendall(frames.frame(frames.CONTROL, 1) + frames.frame(frames.CALL, 2, b"y"))
        with pytest.raises((Gone, NotDelivered)):
            bad.receive(2, time.perf_counter() + 5)
        good.send(frames.CALL, 3, b"z")
        assert good.receive(3, time.perf_counter() + 5)[1] == b"z"
    assert len(handler.gone) == 1
    assert (frames.CALL, 2, 1) not in handler.frames


def test_who_does_not_fetch_answers_is_read_no_further_until_he_does(path: str, eventually: Callable[..., Any]) -> None:
    handler = Echo()
    with served(path, handler) as server:
        line = ClientConn(path)
        line.sock.settimeout(0.3)
        sent = 0
        with pytest.raises(TimeoutError):
            while True:
                line.sock.sendall(frames.frame(frames.CALL, sent + 1, bytes(10_000)))
                sent += 1
        (peer,) = server.peers
        assert sum(len(part) for frame in peer._out for part in frame.parts) < 1_000_000
        for ref in range(1, sent + 1):
            assert len(line.receive(ref, time.perf_counter() + 5)[1]) == 10_000
        eventually(lambda: not peer.unsent)
