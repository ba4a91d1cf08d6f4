"""What is refused before any route is looked at, and the headers that every answer has.

Methods that change something, hosts that are not ours (a foreign page whose name was made to mean this address),
requests that another site's page sends, and bodies.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, MutableMapping
from typing import Any

METHODS = ("GET", "HEAD")
MOST_HEAD = 8192
"""Bytes of a request's head."""
LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = (
    (b"content-security-policy", _POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
)
_OWN = ("same-origin", "none")
"""What `Sec-Fetch-Site` says of a page of this server, and of an address that a person typed."""

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]


class Guard:
    """An ASGI application around another.

    Args:
        app: what answers requests that are not refused.
        hosts: names, besides those of loopback, that a `Host` header may have.
    """

    def __init__(self, app: App, hosts: Collection[str] = ()) -> None:
        self._app = app
        self._hosts = {host.lower() for host in (*LOOPBACK, *hosts)}

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Answer one request."""

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *HEADERS]
            await send(message)

        if scope["type"] != "http":
            return
        status, text = self._refusal(scope)
        if not status:
            await self._app(scope, receive, send_with_headers)
            return
        body = f"{text}\n".encode()
        headers = [
            (b"content-type", b"text/plain; charset=utf-8"),
            (b"content-length", str(len(body)).encode()),
            (b"connection", b"close"),
            *([(b"allow", ", ".join(METHODS).encode())] if status == 405 else ()),
        ]
        await send_with_headers({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})

    def _refusal(self, scope: MutableMapping[str, Any]) -> tuple[int, str]:
        """The status and the text of a refusal; status 0: it is not refused."""
        if sum(len(name) + len(value) for name, value in scope["headers"]) + len(scope["raw_path"]) > MOST_HEAD:
            return 431, f"a head has at most {MOST_HEAD} bytes here"
        headers: dict[bytes, list[str]] = {}
        for name, value in scope["headers"]:
            headers.setdefault(name.lower(), []).append(value.decode("latin-1"))
        hosts = headers.get(b"host", [])
        if len(hosts) != 1 or _name(hosts[0]) not in self._hosts:
            return 421, "this server does not answer to that Host; list the name in [dashboard] hosts"
        if scope["method"] not in METHODS:
            return 405, "read-only: GET and HEAD"
        if headers.get(b"content-length", ["0"]) != ["0"] or b"transfer-encoding" in headers:
            return 413, "no request has a body here"
        site = headers.get(b"sec-fetch-site", ["none"])
        if scope["path"].startswith("/api/") and (len(site) != 1 or site[0] not in _OWN):
            return 403, "not for other sites"
        return 0, ""


def _name(host: str) -> str:
    """The name in a `Host` header, without the port."""
    name, colon, port = host.strip().lower().rpartition(":")
    return name if colon and port.isdigit() else host.strip().lower()
