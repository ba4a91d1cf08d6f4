"""`actorpool dashboard`: the page of a node that was started without one, from another process."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess

import httpx
import pytest

from tests.cli.running import ACTORPOOL, clean_environment, run, up, write

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")


@contextlib.contextmanager
def dashboard(*arguments):
    """The command while it serves, and the address it has told."""
    process = subprocess.Popen(
        [*ACTORPOOL, "dashboard", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=clean_environment(),
    )
    try:
        told = process.stdout.readline()
        yield process, re.search(r"http://\S+", told)[0]
    finally:
        process.kill()
        process.communicate()


@pytest.fixture
def node(tmp_path):
    with up(write(tmp_path)) as node:
        node.wait_for("serves")
        yield node


def test_a_node_that_was_started_without_a_page_gets_one_until_it_is_interrupted(node):
    with dashboard("shop", "--port", "0") as (process, url):
        (pool,) = httpx.get(f"{url}api/pools").json()["pools"]
        assert (pool["name"], pool["size"]) == ("echo", 2)
        assert '<th scope="row">echo</th>' in httpx.get(url).text
        same = [
            text
            for text in (httpx.get(f"{url}metrics").text, run("metrics", "shop").stdout)
            if "_seconds_count" in text
        ]
        names = [{line.split("{")[0] for line in text.splitlines()} for text in same]
        assert len(names) == 2
        assert names[0] == names[1]
        process.send_signal(signal.SIGINT)
        assert process.wait(10) in (130, -signal.SIGINT)
    assert run("status", "shop", "--check").returncode == 0  # the node has not noticed


def test_a_page_tells_that_its_node_has_ended(node):
    with dashboard("shop", "--port", "0") as (process, url):
        assert httpx.get(f"{url}healthz").status_code == 200
        node.process.send_signal(signal.SIGTERM)
        node.process.wait(20)
        answer = httpx.get(f"{url}healthz")
        assert answer.status_code == 503
        assert "shop" in answer.json()["error"]
        assert "shop" in httpx.get(url).text
        process.send_signal(signal.SIGTERM)
        process.wait(10)


def test_what_cannot_be_served_is_refused_in_words(node):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = run("dashboard", "shop", "--port", port)
    assert done.returncode == 1
    assert f"cannot listen on 127.0.0.1:{port}" in done.stderr
    absent = run("dashboard", f"nobody-{os.getpid()}")
    assert absent.returncode == 1
    assert "Traceback" not in absent.stderr + done.stderr


def test_who_can_read_an_address_that_is_not_loopback_is_said(node):
    with dashboard("shop", "--port", "0", "--host", "0.0.0.0", "--allow-host", "ops.example") as (process, url):
        port = url.rsplit(":", 1)[1]
        assert "nobody is asked for a password" in httpx.get(f"http://127.0.0.1:{port}").text
        assert httpx.get(f"http://127.0.0.1:{port}", headers={"host": "ops.example"}).status_code == 200
        assert httpx.get(f"http://127.0.0.1:{port}", headers={"host": "ops.example.org"}).status_code == 421
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=10)
    assert "nobody is asked for a password" in said
