"""The table of routes: all that can be asked for. Every answer is made of what the collector has seen."""

from __future__ import annotations

import asyncio
import html
import importlib.resources
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from actorpool import __version__
from actorpool.attention import seconds
from actorpool.dashboard import metrics
from actorpool.dashboard.collector import Collector, NoAnswer
from actorpool.dashboard.guard import App, Guard
from actorpool.dashboard.readiness import unready
from actorpool.dashboard.streams import Stream, as_json, frame
from actorpool.errors import PoolNotFound

_ASSETS = {
    **dict.fromkeys(
        ("page.js", "dom.js", "live.js", "pools.js", "charts.js", "tree.js", "events.js"),
        "text/javascript; charset=utf-8",
    ),
    "page.css": "text/css; charset=utf-8",
    "icon.svg": "image/svg+xml",
}
Handler = Callable[[Collector, Request], Awaitable[Response]]


def application(collector: Collector, hosts: tuple[str, ...] = (), warning: str = "") -> App:
    """The whole server as an ASGI application.

    Args:
        collector: what looks at the node.
        hosts: names besides those of loopback under which it may be asked for.
        warning: shown on the page.
    """

    def bound(handler: Handler) -> Callable[[Request], Awaitable[Response]]:
        async def answer(request: Request) -> Response:
            try:
                return await handler(collector, request)
            except NoAnswer as error:
                return _json({"error": str(error)}, 503)
            except PoolNotFound as error:
                return _json({"error": str(error)}, 404)
            except asyncio.CancelledError:  # the server ends meanwhile
                return _json({"error": "this server has been told to end"}, 503)

        return answer

    async def page(collector: Collector, request: Request) -> Response:
        return await _page(collector, warning)

    table: dict[str, Handler] = {"/": page, **ROUTES}
    routes = [Route(path, bound(handler), methods=["GET"]) for path, handler in table.items()]  # HEAD comes with GET
    return Guard(Starlette(routes=routes), hosts)


def _json(document: Any, status: int = 200) -> Response:
    return Response(as_json(document), status, media_type="application/json")


async def _page(collector: Collector, warning: str) -> Response:
    """The page with a table of the pools in it, for whoever runs no scripts."""
    problem, rows, node = "", "", ""
    try:
        sight = await collector.fresh()
        node = sight.node
        rows = "".join(_row(pool) for pool in collector.state["pools"])
    except NoAnswer as error:
        problem = str(error)
    text = _asset("page.html").decode()
    for mark, value in (
        ("{{node}}", html.escape(node or "actorpool")),
        ("{{version}}", html.escape(__version__)),
        ("{{problem}}", html.escape(problem)),
        ("{{warning}}", html.escape(warning)),
        ("{{rows}}", rows),
    ):
        text = text.replace(mark, value)
    return Response(text, media_type="text/html; charset=utf-8")


def _row(pool: dict[str, Any]) -> str:
    memory = pool["memory_bytes"]
    cells = (
        ("states", pool["state"]),
        ("workers", f"{pool['monitors']} of {pool['size'] + pool['max_overflow']} out"),
        ("waiting", f"{pool['waiting']}, the oldest {seconds(pool['oldest_wait'])}" if pool["waiting"] else "0"),
        ("num wide", f"{pool['wait_ms_p50']:.1f}, {pool['wait_ms_p99']:.1f} ms"),
        ("num wide", f"{pool['hold_ms_p50']:.1f}, {pool['hold_ms_p99']:.1f} ms"),
        ("num wide", str(pool["restarts"])),
        ("num wide", "-" if memory is None else f"{memory / 2**20:.0f} MiB"),
    )
    name = html.escape(pool["name"])
    told = "".join(f'<td class="{kind}">{html.escape(cell)}</td>' for kind, cell in cells)
    return f'<tr><th scope="row">{name}</th>{told}</tr>'


def _asset(name: str) -> bytes:
    return importlib.resources.files("actorpool.dashboard").joinpath("page").joinpath(name).read_bytes()


async def _static(collector: Collector, request: Request) -> Response:
    name = request.path_params["name"]
    if name not in _ASSETS:
        return _json({"error": "no such file"}, 404)
    return Response(_asset(name), media_type=_ASSETS[name])


async def _tree(collector: Collector, request: Request) -> Response:
    return _json(await collector.fresh_tree())


async def _pools(collector: Collector, request: Request) -> Response:
    await collector.fresh()
    return _json({**collector.state, "samples": collector.samples})


async def _pool(collector: Collector, request: Request) -> Response:
    return _json(await collector.detail(request.path_params["name"]))


async def _events(collector: Collector, request: Request) -> Response:
    """The history's events from a number on, and those to come; with `state=1` also what the page shows."""
    try:
        given = request.headers.get("last-event-id") or request.query_params.get("after")
        after = -1 if given is None else int(given)
    except ValueError:
        return _json({"error": "Last-Event-ID is the number of an event"}, 400)
    await collector.fresh()
    headers = {"x-accel-buffering": "no"}
    if request.method == "HEAD":
        return Response(None, headers=headers, media_type="text/event-stream")
    stream = collector.streams.open(state=request.query_params.get("state") == "1")
    if stream is None:
        return _json({"error": "too many streams are open"}, 503)
    told = [event for event in collector.history if 0 <= after < event["number"]]
    if told:
        stream.put(b"".join(frame(event, number=event["number"]) for event in told), len(told))
    if stream.state:
        shown = {"tree": collector.tree, "samples": collector.samples, "state": collector.state}
        stream.put(b"".join(frame(document, kind) for kind, document in shown.items()), len(shown))
    collector.watch()
    return StreamingResponse(_frames(collector, stream), headers=headers, media_type="text/event-stream")


async def _frames(collector: Collector, stream: Stream) -> AsyncIterator[bytes]:
    try:
        async for data in stream.frames():
            yield data
    finally:
        collector.streams.drop(stream)


async def _metrics(collector: Collector, request: Request) -> Response:
    counted = await collector.tally()
    assert collector.sight is not None
    text = metrics.text_of(collector.sight, collector.seen_tree, counted)
    return Response(text, headers={"content-type": metrics.CONTENT_TYPE})


async def _health(collector: Collector, request: Request) -> Response:
    await collector.alive()
    return _json({"healthy": True})


async def _readiness(collector: Collector, request: Request) -> Response:
    sight = await collector.fresh()
    reasons = unready(sight.pools, collector.seen_tree, list(collector.history))
    return _json({"ready": not reasons, "reasons": reasons}, 503 if reasons else 200)


ROUTES: dict[str, Handler] = {
    "/page/{name}": _static,
    "/api/tree": _tree,
    "/api/pools": _pools,
    "/api/pools/{name}": _pool,
    "/api/events": _events,
    "/metrics": _metrics,
    "/healthz": _health,
    "/readyz": _readiness,
}
"""Every path besides the page's; each with GET and HEAD."""
