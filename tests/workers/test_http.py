"""`HttpWorker` against a real HTTP server."""

from __future__ import annotations

import json
import os
import pickle
import resource
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from actorpool.errors import CallTimeout, InvalidConfig, MethodNotFound, PermanentError
from actorpool.workers import HttpWorker, Response
from tests.workers.proxy import Proxy
from tests.workers.webserver import WebServer


@pytest.fixture
def open_worker(web: WebServer) -> Iterator[Callable[..., HttpWorker]]:
    made = []

    def make(base_url: str = web.url, **more: Any) -> HttpWorker:
        worker = HttpWorker(base_url, **more)
        worker.open()
        made.append(worker)
        return worker

    yield make
    for worker in made:
        worker.close()


@pytest.fixture
def worker(open_worker: Callable[..., HttpWorker]) -> HttpWorker:
    return open_worker()


def seen(response: Response) -> dict[str, Any]:
    """What the server says it was asked."""
    return dict(response.json())


def test_a_verb_that_is_no_method_is_told_how_it_is_done(worker: HttpWorker) -> None:
    with pytest.raises(MethodNotFound, match=r"'put': call request\('PUT', path, json=...\)"):
        worker.find_method("put")
    with pytest.raises(MethodNotFound, match="HttpWorker knows no transactions"):
        worker.find_method("transact")
    assert worker.find_method("fetch") is None


# -- requests ----------------------------------------------------------------------------------------------


def test_get_joins_paths_and_appends_parameters(worker: HttpWorker, web: WebServer) -> None:
    assert seen(worker.get("/a/b?x=1", {"y": "2 3"}))["query"] == {"x": "1", "y": "2 3"}
    assert seen(worker.get("a/b", {"x": 1}))["path"] == "/a/b"
    assert seen(worker.get("///a"))["path"] == "/a"
    below = HttpWorker(web.url + "/api/")
    below.open()
    assert seen(below.get("/v1"))["path"] == "/api/v1"
    assert seen(below.get(""))["path"] == "/api"
    below.close()


def test_a_path_that_is_a_url_is_refused(worker: HttpWorker) -> None:
    with pytest.raises(ValueError, match="expected a path"):
        worker.get("http://elsewhere.example/")
    assert seen(worker.get("/login", {"next": "http://elsewhere.example/"}))["path"] == "/login"


def test_headers_of_a_call_override_those_of_the_worker(open_worker: Any) -> None:
    worker = open_worker(headers={"X-Team": "a", "X-Other": "b"})
    headers = seen(worker.get("/", headers={"x-team": "c"}))["headers"]
    assert (headers["x-team"], headers["x-other"], headers["user-agent"]) == ("c", "b", "actorpool")


@pytest.mark.parametrize(
    ("body", "sent", "kind"),
    [
        ({"a": [1, 2]}, '{"a":[1,2]}', "application/json"),
        ([1], "[1]", "application/json"),
        ("text", "text", None),
        (b"\x00\x01", "\x00\x01", None),
        (None, "", None),
    ],
)
def test_post_sends_text_and_bytes_as_they_are_and_the_rest_as_json(
    worker: HttpWorker, body: Any, sent: str, kind: str | None
) -> None:
    asked = seen(worker.post("/", body, {"q": 1}))
    assert (asked["method"], asked["query"]) == ("POST", {"q": "1"})
    assert asked["body"].replace(" ", "") == sent
    assert asked["headers"].get("content-type") == kind


def test_request_sends_any_method_and_kind_of_body(worker: HttpWorker) -> None:
    form = seen(worker.request("PUT", "/x", data={"a": "1", "b": "2"}, headers={"X-A": "1"}))
    assert (form["method"], form["body"], form["headers"]["x-a"]) == ("PUT", "a=1&b=2", "1")
    assert seen(worker.request("POST", "/x", content=b"raw"))["body"] == "raw"


@pytest.mark.parametrize("code", [201, 404, 500])
def test_any_status_is_an_answer(worker: HttpWorker, code: int) -> None:
    answer = worker.get("/status", {"code": code})
    assert (answer.status_code, answer.text, answer.ok) == (code, "as you wish", code == 201)


def test_a_response_travels_and_its_headers_are_found_in_any_case(worker: HttpWorker) -> None:
    answer = pickle.loads(pickle.dumps(worker.get("/x")))
    assert answer.headers["Content-Type"] == answer.headers["content-type"] == "application/json"
    assert "CONTENT-LENGTH" in answer.headers
    assert answer.headers.get("X-None", "none") == "none"
    assert answer.json()["path"] == "/x"
    assert isinstance(answer.body, bytes)


def test_text_follows_the_charset_of_the_answer() -> None:
    assert Response(200, {"content-type": "text/plain; charset=latin-1"}, b"caf\xe9").text == "café"
    assert Response(200, {}, "café".encode()).text == "café"
    assert Response(200, {"content-type": "text/plain; charset=no-such"}, b"x").text == "x"


def test_connections_are_reused(worker: HttpWorker, web: WebServer) -> None:
    for _ in range(5):
        worker.get("/")
        worker.reset()
    assert (len(web.requests), web.connections) == (5, 1)


def test_redirects_are_followed_up_to_the_limit(open_worker: Any) -> None:
    worker = open_worker()
    assert seen(worker.get("/redirect?times=5"))["path"] == "/landed"
    with pytest.raises(httpx.TooManyRedirects):
        worker.get("/redirect?times=6")
    assert open_worker(max_redirects=0).get("/redirect?times=1").status_code == 302


def test_a_redirect_to_another_host_gets_no_secrets(open_worker: Any, web: WebServer) -> None:
    worker = open_worker(headers={"X-Api-Key": "s3cret", "X-Team": "a"})
    for host, key in (("127.0.0.1", "s3cret"), ("localhost", None)):
        answer = worker.get("/elsewhere", {"to": f"http://{host}:{web.port}/landed"})
        headers = seen(answer)["headers"]
        assert (headers.get("x-api-key"), headers["x-team"]) == (key, "a")
    other = worker.connection.get(f"http://localhost:{web.port}/", headers={"X-Api-Key": "of the other host"})
    assert other.json()["headers"]["x-api-key"] == "of the other host"


def test_login_is_sent(open_worker: Any) -> None:
    headers = seen(open_worker(auth=("me", "s3cret")).get("/"))["headers"]
    assert headers["authorization"].startswith("Basic ")


def test_http2_needs_an_extra_and_speaks_http1_where_the_server_does(
    open_worker: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert open_worker(http2=True).get("/").ok
    monkeypatch.setitem(sys.modules, "h2", None)
    with pytest.raises(PermanentError, match=r"pip install 'actorpool\[http2\]'"):
        open_worker(http2=True)


def test_http2_is_spoken_with_a_server_that_does(open_worker: Any) -> None:
    pytest.importorskip("h2", reason="the extra http2 is not installed")
    from tests.workers.http2server import Http2Server

    server = Http2Server()
    worker = open_worker(server.url, http2=True, http1=False)
    assert [worker.get(f"/{number}").text for number in range(3)] == ["/0", "/1", "/2"]
    assert worker.connection.get("/version").http_version == "HTTP/2"
    assert server.connections == 1
    worker.close()
    server.close()


# -- failures ----------------------------------------------------------------------------------------------


def test_a_timeout_is_ours_with_httpxs_as_its_cause(open_worker: Any) -> None:
    worker = open_worker(timeout=0.1, headers={"Authorization": "s3cret"})
    with pytest.raises(CallTimeout, match=r"GET http://.*/slow: ReadTimeout after 0\.1 s") as caught:
        worker.get("/slow?seconds=2&key=s3cret")
    error = pickle.loads(pickle.dumps(caught.value))
    assert isinstance(error.cause, httpx.ReadTimeout)
    assert error.waited >= 0.1
    assert "s3cret" not in str(error) + repr(vars(error)) + repr(vars(error.cause))
    assert worker.request("GET", "/slow?seconds=0.2", timeout=5).text == "at last"


def test_other_failures_are_httpxs_own_and_carry_no_secrets(open_worker: Any, free_port: int) -> None:
    worker = open_worker(f"http://127.0.0.1:{free_port}", headers={"Authorization": "s3cret"})
    with pytest.raises(httpx.ConnectError, match=rf"GET http://127.0.0.1:{free_port}/a: .*refused") as caught:
        worker.get("/a?key=s3cret")
    assert b"s3cret" not in pickle.dumps(caught.value)
    assert type(pickle.loads(pickle.dumps(caught.value))) is httpx.ConnectError
    assert not worker.is_disconnect(caught.value)
    with pytest.raises(httpx.ConnectError) as raw:
        worker.connection.get(f"http://127.0.0.1:{free_port}/")
    assert b"s3cret" not in pickle.dumps(raw.value)


def test_the_worker_survives_network_errors(open_worker: Any, web: WebServer, proxy_to: Callable[[Any], Proxy]) -> None:
    proxy = proxy_to(("127.0.0.1", web.port))
    worker = open_worker(f"http://127.0.0.1:{proxy.port}")
    assert worker.get("/").ok
    proxy.stop()
    with pytest.raises(httpx.TransportError):
        worker.get("/")
    proxy.start()
    assert worker.get("/").ok
    with pytest.raises(httpx.RemoteProtocolError):
        worker.get("/broken")
    assert worker.get_status()["stats"]["errors"] == 2


def test_an_interrupt_ends_a_call_at_once(worker: HttpWorker, interrupting: Any) -> None:
    begun = time.monotonic()
    with interrupting(0.1), pytest.raises(KeyboardInterrupt):
        worker.get("/slow?seconds=1")
    assert time.monotonic() - begun < 0.9
    worker.reset()
    assert worker.get("/").ok


# -- between leases ----------------------------------------------------------------------------------------


def test_cookies_live_as_long_as_the_lease(open_worker: Any) -> None:
    worker = open_worker(cookies={"given": "always"})
    worker.get("/cookie")
    assert "of-this-lease" in seen(worker.get("/"))["headers"]["cookie"]
    worker.reset()
    assert seen(worker.get("/"))["headers"]["cookie"] == "given=always"


def test_a_function_may_give_the_client_a_path_too(open_worker: Any, web: WebServer) -> None:
    for base in (web.url, f"{web.url}/api", f"{web.url}/api/"):
        worker = open_worker(base_url=base)
        for path in ("/a?x=1", "a?x=1"):
            assert worker.connection.get(path).json()["path"] == seen(worker.get(path))["path"]


def test_what_a_function_changes_on_the_client_is_undone(open_worker: Any) -> None:
    worker = open_worker(headers={"X-Mine": "1"})
    worker.connection.base_url = "http://elsewhere.invalid"
    worker.connection.headers["X-Mine"] = "2"
    worker.connection.headers["X-More"] = "3"
    worker.connection.timeout = 0.001
    worker.connection.params = {"added": "1"}
    worker.reset()
    asked = seen(worker.get("/"))
    assert (asked["headers"]["x-mine"], asked["headers"].get("x-more"), asked["query"]) == ("1", None, {})


def test_a_health_path_makes_the_check(open_worker: Any, free_port: int) -> None:
    open_worker().check()
    open_worker(health_path="/status?code=404").check()
    with pytest.raises(ConnectionError, match="answered 503"):
        open_worker(health_path="/status?code=503").check()
    with pytest.raises(httpx.ConnectError):
        open_worker(f"http://127.0.0.1:{free_port}", health_path="/").check()


# -- downloads ---------------------------------------------------------------------------------------------


def test_a_download_goes_to_a_file_in_bounded_memory(worker: HttpWorker, tmp_path: Path) -> None:
    target = tmp_path / "big"
    size = 128 << 20
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    answer = worker.download("/big", target, {"bytes": size})
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert kilobytes < 32 << 10
    assert (answer.status_code, answer.body, answer.headers["x-kind"]) == (200, b"", "Big")
    assert target.stat().st_size == size
    assert os.listdir(tmp_path) == ["big"]


def test_a_download_that_fails_leaves_no_file(worker: HttpWorker, tmp_path: Path) -> None:
    answer = worker.download("/status?code=404", tmp_path / "x")
    assert (answer.status_code, answer.text) == (404, "as you wish")
    with pytest.raises(httpx.RemoteProtocolError):
        worker.download("/broken", tmp_path / "x")
    assert os.listdir(tmp_path) == []
    with pytest.raises(FileNotFoundError):
        worker.download("/", tmp_path / "missing" / "x")


# -- settings ----------------------------------------------------------------------------------------------


def test_get_status_has_settings_counters_and_a_real_uptime(open_worker: Any, eventually: Any) -> None:
    worker = open_worker(headers={"Authorization": "s3cret", "X-Api-Key": "s3cret", "X-Team": "a"})
    status = worker.get_status()
    assert status["stats"] == {"requests_made": 0, "last_request_at": None, "errors": 0}
    worker.get("/")
    status = worker.get_status()
    assert status.keys() == {"base_url", "timeout", "headers", "stats", "uptime"}
    assert status["headers"]["X-Team"] == "a"
    assert status["stats"]["requests_made"] == 1
    assert time.time() - status["stats"]["last_request_at"] < 5
    assert "s3cret" not in json.dumps(status)
    assert 0 <= status["uptime"] < 60
    eventually(lambda: worker.get_status()["uptime"] >= status["uptime"] + 0.05)


def test_a_login_in_the_url_is_not_shown(open_worker: Any, web: WebServer) -> None:
    worker = open_worker(f"http://me:s3cret@127.0.0.1:{web.port}")
    assert seen(worker.get("/"))["headers"]["authorization"].startswith("Basic ")
    assert "s3cret" not in repr(worker) + json.dumps(worker.get_status())
    assert f"***@127.0.0.1:{web.port}" in repr(worker)


@pytest.mark.parametrize(
    ("url", "says"),
    [
        (None, "is required"),
        ("", "is empty"),
        (5, "must be a string"),
        ("ftp://host", "must begin with http"),
        ("host/path", "must begin with http"),
        ("http://", "names no host"),
        ("http://host:abc", "is no URL: Port"),
        ("http://[::1", "is no URL: Invalid IPv6"),
        ("http://host/api?key=1", "give params"),
    ],
)
def test_a_bad_base_url_is_refused_by_name(url: Any, says: str) -> None:
    with pytest.raises(InvalidConfig) as caught:
        HttpWorker(url)
    assert caught.value.problems.keys() == {"base_url"}
    assert says in caught.value.problems["base_url"]


def test_bad_arguments_are_all_named() -> None:
    with pytest.raises(InvalidConfig) as caught:
        HttpWorker(timeout=0, max_redirects=-1, headers="x")  # type: ignore[arg-type]
    assert caught.value.problems.keys() == {"base_url", "timeout", "max_redirects", "headers"}


def test_an_option_that_httpx_does_not_know_is_said_for_good(web: WebServer) -> None:
    with pytest.raises(PermanentError, match=r"refuses an option: .*colour.*; correct worker_args"):
        HttpWorker(web.url, colour="red").open()
    with pytest.raises(PermanentError, match="refuses an option") as caught:
        HttpWorker(web.url, proxy="odd://me:hunter2@proxy").open()
    assert "hunter2" not in f"{caught.value} {caught.value.__cause__}"
