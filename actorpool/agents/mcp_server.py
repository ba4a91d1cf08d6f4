"""`Tools` as a server of the Model Context Protocol: what `actorpool mcp` runs. Needs the extra `mcp`."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

from actorpool.agents.sessions import Sessions
from actorpool.agents.tools import Tools
from actorpool.errors import InvalidConfig


def find(target: str) -> Tools | Sessions:
    """What `MODULE:NAME` names; the module is looked for in the working directory as well.

    Raises:
        InvalidConfig: there is no such thing; says why.
    """
    module, colon, name = target.partition(":")
    if not (module and colon and name):
        raise InvalidConfig("mcp", {"target": f"must be MODULE:TOOLS, for instance my.tools:tools, not {target!r}"})
    if os.getcwd() not in sys.path and "" not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        found: Any = importlib.import_module(module)
        for step in name.split("."):
            found = getattr(found, step)
    except Exception as error:  # a user's module may raise anything
        raise InvalidConfig(
            "mcp", {"target": f"{target!r} cannot be loaded: {type(error).__name__}: {error}"}
        ) from None
    if not isinstance(found, (Tools, Sessions)):
        text = f"{target!r} is no actorpool.agents.Tools or Sessions, but {type(found).__name__}"
        raise InvalidConfig("mcp", {"target": text})
    return found


def functions_of(tools: Tools | Sessions) -> list[Callable[..., Any]]:
    """The tools of either kind."""
    return tools.functions if isinstance(tools, Tools) else tools.tools


def serve(tools: Tools | Sessions, name: str, port: int | None = None) -> None:
    """Serve the tools until the client ends, or over HTTP until this process is interrupted; then end their workers.

    Args:
        tools: what to serve; their pool is started first.
        name: how the server calls itself.
        port: of 127.0.0.1, path `/mcp`; None: over standard input and output.

    Raises:
        InvalidConfig: the package `mcp` is not installed.
    """
    try:
        from mcp.server import MCPServer
        from mcp.server.mcpserver.exceptions import ToolError
    except ImportError as error:
        text = f"needs mcp 2 or later ({error}): pip install 'actorpool[mcp]'"
        raise InvalidConfig("mcp", {"mcp": text}) from None
    if tools.failure is None:
        tools.failure = ToolError  # of other errors the model is not told the text
    server = MCPServer(name, log_level="WARNING")
    for function in functions_of(tools):
        server.add_tool(function)
    with tools:
        if port is None:
            server.run("stdio")
        else:
            server.run("streamable-http", port=port)


@contextlib.contextmanager
def nothing_on_stdout() -> Iterator[None]:
    """What is printed meanwhile, by whomever, goes to standard error: standard output is the protocol's."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)
