"""A pool of HTTP clients: the same answers and errors through a node, by messages and directly; and calls that end."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

import actorpool
from actorpool import CallTimeout, LocalPool, MethodNotFound, PoolConfig
from tests.pools.conftest import StartPool
from tests.workers.webserver import WebServer

KEY = "s3cr3t-of-the-shop"


@pytest.fixture(params=["node", "messages", "local"])
def shop(
    request: pytest.FixtureRequest, node: actorpool.System, web: WebServer, tmp_path: Path
) -> Iterator[actorpool.Pool]:
    """A pool of one client of the web server."""
    args = {"base_url": f"{web.url}/v1/", "headers": {"X-Api-Key": KEY}, "timeout": 5.0, "max_redirects": 2}
    config = PoolConfig(worker="actorpool.workers:HttpWorker", worker_args=args, size=1, max_overflow=0)
    if request.param == "local":
        with LocalPool(config, "shop") as pool:
            yield pool
    elif request.param == "messages":
        with actorpool.start(base="simpleSystemBase") as inside:
            yield inside.start_pool("shop", config)
    else:
        yield node.start_pool("shop", config)
        node.stop_pool("shop")


def test_the_verbs_of_a_client(shop: actorpool.Pool, web: WebServer) -> None:
    answer = shop.get("/items?page=1", params={"size": 2}, headers={"X-Trace": "7"})
    seen = answer.json()
    assert (answer.status_code, answer.ok, seen["path"]) == (200, True, "/v1/items")
    assert seen["query"] == {"page": "1", "size": "2"}
    assert (seen["headers"]["x-trace"], seen["headers"]["x-api-key"]) == ("7", KEY)
    assert shop.post("items", {"name": "tea"}).json()["body"] == '{"name":"tea"}'
    assert shop.request("PUT", "items/1", content=b"raw").json()["method"] == "PUT"
    status = shop.get_status()
    assert status["base_url"] == f"{web.url}/v1"
    assert {"timeout", "headers", "stats", "uptime"} <= set(status)
    assert KEY not in str(status)


def test_a_function_gets_the_client(shop: actorpool.Pool, web: WebServer) -> None:
    assert shop.run(lambda client, url: client.get(url).status_code, f"{web.url}/status?code=418") == 418


def test_any_status_is_an_answer_and_a_failure_is_httpxs_own(
    shop: actorpool.Pool, web: WebServer, free_port: int
) -> None:
    def ask(client: httpx.Client, url: str) -> int:
        return client.get(url).status_code

    assert shop.run(ask, f"{web.url}/status?code=503") == 503
    failures = {
        httpx.RemoteProtocolError: f"{web.url}/broken",
        httpx.TooManyRedirects: f"{web.url}/redirect?times=3",
        httpx.ConnectError: f"http://127.0.0.1:{free_port}/",
    }
    for kind, url in failures.items():
        with pytest.raises(kind) as caught:
            shop.run(ask, url)
        assert KEY not in f"{caught.value!r} {vars(caught.value)}"
    with pytest.raises(MethodNotFound):
        shop.open()
    assert shop.get("items").ok
    assert shop.status().monitors == 0


def test_a_server_that_is_too_slow_is_a_call_timeout_with_httpxs_error_as_its_cause(
    shop: actorpool.Pool, web: WebServer
) -> None:
    with pytest.raises(CallTimeout) as caught:
        shop.request("GET", "../slow?seconds=5", timeout=0.1)
    assert isinstance(caught.value.cause, httpx.TimeoutException)
    assert caught.value.pool == "shop"


def test_coroutines_ask_side_by_side(node: actorpool.System, start: StartPool, web: WebServer) -> None:
    pool = start("actorpool.workers:HttpWorker", worker_args={"base_url": web.url}, size=3)

    async def main() -> list[Any]:
        return await asyncio.gather(*(pool.aio.get(f"/items/{number}") for number in range(9)))

    answers = asyncio.run(main())
    assert [answer.json()["path"] for answer in answers] == [f"/items/{number}" for number in range(9)]
    assert web.connections <= 3, "each client keeps its connection"


def test_a_call_is_interrupted_at_its_timeout_and_the_client_goes_on(start: StartPool, web: WebServer) -> None:
    pool = start("actorpool.workers:HttpWorker", worker_args={"base_url": web.url}, size=1)
    pid = pool.workers()[0].pid
    begun = time.monotonic()
    with pytest.raises(CallTimeout):
        pool.call("get", "/slow?seconds=5", call_timeout=0.2)
    assert pool.get("/items").status_code == 200
    assert time.monotonic() - begun < 3
    assert pool.workers()[0].pid == pid


def test_cookies_stay_within_their_lease(start: StartPool, web: WebServer) -> None:
    pool = start("actorpool.workers:HttpWorker", worker_args={"base_url": web.url}, size=1)
    with pool.checkout() as lease:
        lease.get("/cookie")
        assert lease.get("/items").json()["headers"]["cookie"] == "session=of-this-lease"
    assert "cookie" not in pool.get("/items").json()["headers"]


def test_a_download_goes_to_a_file_without_passing_through_the_caller(
    start: StartPool, web: WebServer, tmp_path: Path
) -> None:
    pool = start("actorpool.workers:HttpWorker", worker_args={"base_url": web.url}, size=1)
    answer = pool.download(f"/big?bytes={1 << 22}", str(tmp_path / "big"))
    assert (answer.status_code, answer.body) == (200, b"")
    assert (tmp_path / "big").stat().st_size == 1 << 22


def test_a_server_that_comes_back_is_asked_again(
    start: StartPool, web: WebServer, proxy_to: Callable[[Any], Any]
) -> None:
    proxy = proxy_to(("127.0.0.1", web.port))
    args = {"base_url": f"http://127.0.0.1:{proxy.port}", "timeout": 0.5}
    pool = start("actorpool.workers:HttpWorker", worker_args=args, size=1)
    assert pool.get("/items").ok
    proxy.stop()
    for _ in range(2):
        with pytest.raises(httpx.TransportError):
            pool.get("/items")
    proxy.start()
    assert pool.get("/items").ok
    timer = threading.Timer(0.3, proxy.cut)
    timer.start()
    with pytest.raises(httpx.TransportError):
        pool.request("GET", "/slow?seconds=5", timeout=10.0)
    timer.join()
    assert pool.get("/items").ok
    assert pool.status().restarts == 0
