"""Pooled tools as a server of the Model Context Protocol: a tool that crashes or hangs takes no session along.

    actorpool mcp mcp_server:tools                  # over standard streams, for a client that starts it
    actorpool mcp mcp_server:tools --http 8765      # at http://127.0.0.1:8765/mcp

Without it: `FastMCP` runs a synchronous tool in a thread of the server. A timeout is told when the thread has ended, a
cancel does not stop it, and a crash in a C library ends the server, with the sessions of all its clients.

Run it (it starts the server as a client does): python examples/agents/mcp_server.py
It needs the package mcp: pip install 'actorpool[mcp]'
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import sys
from pathlib import Path

from actorpool.agents import Tools

tools = Tools(size=2, timeout=2.0)


@tools
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@tools
def crash() -> str:
    """Read an address that nobody may read, as a bug in a C library does."""
    return str(ctypes.string_at(0))


@tools
def hang() -> None:
    """Never end."""
    while True:
        pass


async def client() -> None:
    """What an editor or an agent does."""
    from mcp import Client, StdioServerParameters
    from mcp.client.stdio import stdio_client

    arguments = ["-m", "actorpool", "mcp", "mcp_server:tools"]
    directory = str(Path(__file__).parent)
    server = StdioServerParameters(command=sys.executable, args=arguments, cwd=directory, env=dict(os.environ))
    async with Client(stdio_client(server)) as session:
        print("tools:", ", ".join(tool.name for tool in (await session.list_tools()).tools))
        for name, values in (("crash", {}), ("hang", {}), ("add", {"a": 40, "b": 2})):
            result = await session.call_tool(name, values)
            print(f"{name}: {result.content[0].text}")  # type: ignore[union-attr]


if __name__ == "__main__":
    try:
        asyncio.run(client())
    except ModuleNotFoundError as error:
        sys.exit(f"this example needs mcp ({error}): pip install 'actorpool[mcp]'")
