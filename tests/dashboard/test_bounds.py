"""What a client may do with the server: how many may come, how much they may send, and how slowly they may read."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time

import httpx
import pytest

import actorpool
from actorpool.workers import EchoWorker

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")

from actorpool.dashboard import collector, server, streams
from tests.dashboard.serving import serving

HEAD = b"Host: localhost\r\n"


@pytest.fixture(scope="module")
def node():
    with actorpool.start() as system:
        system.start_pool("write", worker=EchoWorker, size=1)
        yield system


@pytest.fixture
def served(node):
    with serving(lambda: actorpool.connect(node.name)) as served:
        yield served


def ask(served, request):
    """Send a request; the line, from which nothing was read yet."""
    line = socket.create_connection(served.address)
    line.settimeout(20)
    line.sendall(request)
    return line


def rest(line):
    """All that comes until the other end closes."""
    got = b""
    with contextlib.suppress(ConnectionError):
        while chunk := line.recv(1 << 20):
            got += chunk
    return got


STREAM = b"GET /api/events HTTP/1.1\r\n" + HEAD + b"\r\n"
LONG = [b"data: " + b"x" * (1 << 16) + b"\n\n"]


def test_more_streams_than_there_may_be_are_refused_and_the_others_go_on(served, monkeypatch):
    monkeypatch.setattr(streams, "MOST_STREAMS", 2)
    with contextlib.ExitStack() as stack:
        lines = [stack.enter_context(ask(served, STREAM)) for _ in range(2)]
        for line in lines:
            assert line.recv(1 << 16).startswith(b"HTTP/1.1 200")
        refused = httpx.get(f"{served.url}api/events")
        assert refused.status_code == 503
        assert refused.json() == {"error": "too many streams are open"}
        assert httpx.get(f"{served.url}healthz").status_code == 200
        served.send([b"data: 1\n\n"])
        for line in lines:
            heard = b""
            while b"data: 1\n\n" not in heard:
                more = line.recv(1 << 16)
                assert more, heard
                heard += more


def test_a_reader_that_stops_reading_for_a_while_is_told_of_a_gap(served, eventually):
    with ask(served, STREAM) as line:
        eventually(lambda: served.readers == 1)
        for _ in range(streams.MOST_FRAMES * 2):
            served.send(LONG)
        got = b""
        while b"event: gap" not in got[-(1 << 20) :]:
            got += line.recv(1 << 20)
            served.send([b": more\n\n"])
    assert b'event: gap\ndata: {"dropped":' in got


def test_a_reader_without_progress_is_cut_off_and_no_other_waits_for_it(served, eventually, monkeypatch):
    monkeypatch.setattr(server, "PROGRESS", 0.5)
    with ask(served, STREAM) as stuck, ask(served, STREAM) as sound:
        eventually(lambda: served.readers == 2)
        sound.recv(1 << 16)

        def flooded():
            served.send(LONG)
            sound.recv(1 << 20)
            return served.readers == 1

        eventually(flooded, timeout=20)
        served.send([b"data: still\n\n"])
        got = b""
        while b"data: still" not in got:
            got = got[-100:] + sound.recv(1 << 20)
        assert len(rest(stuck)) < 1 << 26


def test_a_head_of_more_than_eight_kilobytes_is_refused(served):
    with ask(served, b"GET / HTTP/1.1\r\n" + HEAD + b"X: " + b"x" * 8300 + b"\r\nConnection: close\r\n\r\n") as line:
        assert rest(line).split()[1] in (b"400", b"431")
    with ask(
        served, b"GET /healthz HTTP/1.1\r\n" + HEAD + b"X: " + b"x" * 7900 + b"\r\nConnection: close\r\n\r\n"
    ) as line:
        assert rest(line).split()[1] == b"200"


def test_a_head_that_comes_in_drops_is_cut_off_in_time(served, monkeypatch):
    monkeypatch.setattr(server, "COMPLETE", 0.5)
    began = time.monotonic()
    with ask(served, b"GET / HTTP/1.1\r\n") as line, contextlib.suppress(ConnectionError):
        for number in range(200):
            line.sendall(b"X-%d: 1\r\n" % number)
            time.sleep(0.05)
    assert time.monotonic() - began < 8


def test_a_connection_that_was_used_and_says_nothing_more_is_closed(node, monkeypatch):
    monkeypatch.setattr(server, "KEPT", 1)
    with (
        serving(lambda: actorpool.connect(node.name)) as served,
        ask(served, b"GET /healthz HTTP/1.1\r\n" + HEAD + b"\r\n") as line,
    ):
        began = time.monotonic()
        assert rest(line).startswith(b"HTTP/1.1 200")
        assert time.monotonic() - began < 15


@pytest.mark.slow
def test_a_node_that_does_not_answer_is_unhealthy_and_no_request_waits_long(node, served, monkeypatch, eventually):
    monkeypatch.setattr(collector, "ANSWER", 0.5)
    assert httpx.get(f"{served.url}healthz").status_code == 200
    manager = node.tree().children[0].pid
    os.kill(manager, signal.SIGSTOP)
    try:
        time.sleep(collector.EVERY)  # until what was seen is too old
        answers = [httpx.get(f"{served.url}{path}", timeout=10) for path in ("healthz", "api/pools", "readyz", "")]
    finally:
        os.kill(manager, signal.SIGCONT)
    assert [answer.status_code for answer in answers] == [503, 503, 503, 200]
    assert "has not answered" in answers[1].json()["error"]
    assert "has not answered" in answers[3].text
    eventually(lambda: httpx.get(f"{served.url}healthz").status_code == 200, timeout=15, every=0.1)
