"""`McpWorker`: a client's session with a server of the Model Context Protocol, held by a worker process."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from actorpool.errors import InvalidConfig, PermanentError
from actorpool.workers.base import Worker, method

OPENING = 30.0
"""Seconds for a server to start and to answer for the first time."""


class McpWorker(Worker):
    """A session with an MCP server (extra `mcp`); one call at a time, and reopened with backoff when it is lost.

    Args:
        server: `{"command": ..., "args": [...], "env": {...}}` of a program that speaks over its standard streams (it
            ends with the worker, whatever ends that), or the URL of a server that speaks HTTP.

    Raises:
        InvalidConfig: `server` is neither.
    """

    def __init__(self, server: Mapping[str, Any] | str) -> None:
        known = {"command", "args", "env", "cwd"}
        if isinstance(server, str):
            good = server.startswith(("http://", "https://"))
        else:
            good = isinstance(server, Mapping) and bool(server.get("command")) and not server.keys() - known
        if not good:
            text = f'must be a URL, or a dict of "command", "args", "env" and "cwd", not {server!r}'
            raise InvalidConfig("McpWorker", {"server": text})
        self._server = server
        self._portal: Any = None
        self._client: Any = None
        self._open: list[Any] = []

    def open(self) -> None:
        """Start the server, or connect to it.

        Raises:
            PermanentError: the package `mcp` is not installed.
        """
        try:
            from anyio.from_thread import start_blocking_portal
            from mcp import Client, StdioServerParameters
        except ImportError as error:
            raise PermanentError("McpWorker needs mcp: pip install 'actorpool[mcp]'", cause=error) from error
        if isinstance(self._server, str):
            client = Client(self._server)
        else:
            from mcp.client.stdio import stdio_client

            client = Client(stdio_client(StdioServerParameters(**self._server)))
        self._enter(start_blocking_portal())
        self._portal = self._open[0][1]
        self._client = self._enter(self._portal.wrap_async_context_manager(client))

    def _enter(self, context: Any) -> Any:
        value = context.__enter__()
        self._open.append((context, value))
        return value

    def close(self) -> None:
        """End the session, and the server if it is a program."""
        while self._open:
            context, _ = self._open.pop()
            try:
                context.__exit__(None, None, None)
            except Exception:  # a session that is lost cannot say goodbye
                pass
        self._portal = self._client = None

    def check(self) -> None:
        """Raise if the server does not answer."""
        self._call("list_tools")

    def is_disconnect(self, error: BaseException) -> bool:
        """Whether the session is gone: the transport said so, or the server does not answer any more."""
        names = {cls.__name__ for cls in type(error).__mro__}
        if names & {"ClosedResourceError", "BrokenResourceError", "EndOfStream", "ConnectionError", "TransportError"}:
            return True
        return bool(names & {"McpError", "MCPError"}) and "closed" in str(error).lower()

    def _call(self, name: str, *args: Any) -> Any:
        future = self._portal.start_task_soon(getattr(self._client, name), *args)
        try:
            return future.result()
        except BaseException:
            future.cancel()  # interrupted: the server is told that nobody waits
            raise

    @method
    def list_tools(self) -> list[Any]:
        """The server's tools, as `mcp.types.Tool`."""
        return list(self._call("list_tools").tools)

    @method
    def call_tool(self, name: str, arguments: dict[str, Any] | None = None) -> Any:
        """Call a tool: its `mcp.types.CallToolResult`.

        Args:
            name: of the tool.
            arguments: by name.
        """
        return self._call("call_tool", name, dict(arguments or {}))

    @method
    def read_resource(self, uri: str) -> Any:
        """Read a resource: its `mcp.types.ReadResourceResult`."""
        return self._call("read_resource", uri)
