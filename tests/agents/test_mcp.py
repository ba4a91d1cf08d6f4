"""The Model Context Protocol: a session held by a worker, and tools served by `actorpool mcp`."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import actorpool
from actorpool import Pool
from actorpool.agents import McpWorker
from actorpool.errors import CallTimeout, InvalidConfig
from actorpool.testing import eventually

pytest.importorskip("mcp.server", reason="needs mcp: pip install 'actorpool[mcp]'")
mcp = pytest.importorskip("mcp")
if not hasattr(mcp, "Client"):
    pytest.skip("needs mcp 2 or later", allow_module_level=True)

ROOT = Path(__file__).resolve().parents[2]
SERVER = """
import os, sys, time
from mcp.server import MCPServer

server = MCPServer("small", log_level="ERROR")

@server.tool()
def add(a: int, b: int) -> int:
    return a + b

@server.tool()
def pid() -> int:
    return os.getpid()

@server.tool()
async def linger(path: str) -> None:
    import anyio
    while True:
        open(path, "a").write("x")
        await anyio.sleep(0.01)

@server.resource("memo://one")
def memo() -> str:
    return "remember"

server.run("stdio")
"""


@pytest.fixture(scope="module")
def node() -> Iterator[actorpool.System]:
    with actorpool.start(log_level="CRITICAL") as system:
        yield system


@pytest.fixture
def session(node: actorpool.System, tmp_path: Path) -> Iterator[Pool]:
    """A pool of one session with a small server."""
    file = tmp_path / "server.py"
    file.write_text(SERVER)
    server = {"command": sys.executable, "args": [str(file)], "env": dict(os.environ)}
    fields: dict[str, Any] = {"size": 1, "max_overflow": 0, "backoff_min": 0.05, "preload": ["mcp", "anyio"]}
    yield node.start_pool("session", worker=McpWorker, worker_args={"server": server}, checkout_timeout=20.0, **fields)
    node.stop_pool("session")


def test_a_worker_holds_a_session_with_a_server(session: Pool) -> None:
    assert [tool.name for tool in session.list_tools()] == ["add", "pid", "linger"]
    assert session.call_tool("add", {"a": 1, "b": 2}).content[0].text == "3"
    assert session.read_resource("memo://one").contents[0].text == "remember"
    assert session.call_tool("add", {"a": "one"}).is_error


@pytest.mark.slow
def test_a_session_whose_server_died_is_opened_anew(session: Pool) -> None:
    former = int(session.call_tool("pid").content[0].text)
    os.kill(former, signal.SIGKILL)

    def another() -> bool:
        try:
            return int(session.call("call_tool", "pid", call_timeout=10.0).content[0].text) != former
        except Exception:
            return False

    eventually(another, timeout=20.0)


@pytest.mark.slow
def test_a_call_that_takes_too_long_is_cancelled_in_the_server(session: Pool, tmp_path: Path) -> None:
    path = tmp_path / "linger"
    with pytest.raises(CallTimeout):
        session.call("call_tool", "linger", {"path": str(path)}, call_timeout=1.0)

    def stands_still() -> bool:
        size = path.stat().st_size if path.exists() else 0
        time.sleep(0.1)
        return (path.stat().st_size if path.exists() else 0) == size

    eventually(stands_still)
    assert session.call_tool("add", {"a": 1, "b": 2}).content[0].text == "3"


def test_a_server_that_is_none_is_refused() -> None:
    for server in ("localhost", {"args": []}, {"command": "x", "shell": True}, 5):
        with pytest.raises(InvalidConfig):
            McpWorker(server)  # type: ignore[arg-type]


def run(*arguments: str, **kwargs: Any) -> Any:
    return subprocess.Popen([sys.executable, "-m", "actorpool", "mcp", *arguments], cwd=ROOT, text=True, **kwargs)


def listens(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


async def use(client: Any) -> tuple[list[str], Any, Any]:
    async with client:
        names = [tool.name for tool in (await client.list_tools()).tools]
        return names, await client.call_tool("multiply", {"a": 3}), await client.call_tool("crash", {})


def check(told: tuple[list[str], Any, Any]) -> None:
    names, product, crash = told
    assert "multiply" in names
    assert product.content[0].text == "6 kg"
    assert crash.is_error
    assert "may have taken effect" in crash.content[0].text


@pytest.mark.slow
def test_the_tools_of_a_module_are_served_over_standard_streams_and_end_with_their_client() -> None:
    from mcp.client.stdio import stdio_client

    arguments = ["-m", "actorpool", "mcp", "tests.agents.toolbox:tools"]
    parameters = mcp.StdioServerParameters(command=sys.executable, args=arguments, cwd=str(ROOT), env=dict(os.environ))
    check(asyncio.run(use(mcp.Client(stdio_client(parameters)))))


@pytest.mark.slow
def test_the_tools_of_a_module_are_served_over_http() -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    server = run("tests.agents.toolbox:tools", "--http", str(port), stderr=subprocess.DEVNULL)
    try:
        eventually(lambda: listens(port), timeout=30.0)
        check(asyncio.run(use(mcp.Client(f"http://127.0.0.1:{port}/mcp"))))
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(20)


@pytest.mark.parametrize("target", ["nothing", "no.such:tools", "json:dumps", "tests.agents.toolbox:multiply"])
def test_a_bad_target_is_wrong_usage_and_prints_nothing(target: str) -> None:
    server = run(target, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL)
    out, err = server.communicate(timeout=30)
    assert server.returncode == 2
    assert out == ""
    assert target in err
    assert "Traceback" not in err
