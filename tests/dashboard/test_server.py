"""The dashboard of a real node over HTTP: what it answers, what it refuses, and what its end and its load touch."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import time

import httpx
import psutil
import pytest

import actorpool
from actorpool import process
from actorpool.workers import EchoWorker, HttpWorker

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")
parser = pytest.importorskip("prometheus_client.parser")

ROUTES = (
    "/",
    "/page/page.js",
    "/api/tree",
    "/api/pools",
    "/api/pools/write",
    "/api/events",
    "/metrics",
    "/healthz",
    "/readyz",
)
ASSETS = ("page.js", "dom.js", "live.js", "pools.js", "charts.js", "tree.js", "events.js", "page.css", "icon.svg")


@pytest.fixture(scope="module")
def node():
    with actorpool.start(dashboard=0, telemetry=actorpool.StatsdSink("127.0.0.1", 9)) as system:
        system.start_pool("write", worker=EchoWorker, size=2, max_overflow=1)
        system.start_pool("read", worker=EchoWorker, size=1)
        system.start_shared_pool("feeds")
        yield system


@pytest.fixture(scope="module")
def web(node):
    with httpx.Client(base_url=node.dashboard, timeout=10) as client:
        yield client


def address(node):
    url = httpx.URL(node.dashboard)
    return url.host, url.port


def server_of(node):
    """The process that serves: the only child of the keeper."""
    keeper = next(child for child in node.tree().children[0].children if child.id == "dashboard").children[0]
    (server,) = psutil.Process(keeper.pid).children()
    return server


def test_each_pool_is_told_with_the_keys_of_its_status(node, web):
    found = web.get("/api/pools").json()
    assert {pool["name"] for pool in found["pools"]} == {"write", "read", "feeds"}
    assert set(found["pools"][0]) >= set(node.status("write").as_dict())
    assert set(found) >= {"node", "host", "time", "attention", "samples"}
    assert found["attention"] == []


def test_one_pool_is_told_without_its_neighbours(web):
    answer = web.get("/api/pools/write")
    assert set(answer.json()) >= {"status", "workers", "leases", "samples", "attention"}
    assert len(answer.json()["workers"]) == 2
    assert "read" not in answer.text.replace("ready", "")


def test_a_lease_is_told_with_who_holds_it(node, web, eventually):
    with node.pool("write").checkout() as lease:
        lease.run(bool)
        told = eventually(lambda: web.get("/api/pools/write").json()["leases"])[0]
    assert told["caller_pid"] == os.getpid()
    assert f"pid {os.getpid()}" in told["holder"]


def test_the_tree_is_told_as_it_is(web):
    tree = web.get("/api/tree").json()
    assert (tree["id"], tree["kind"]) == ("root", "supervisor")
    assert {child["id"] for child in tree["children"][0]["children"]} >= {"write", "read", "dashboard"}


def test_a_shared_pool_is_told_without_workers_and_leases(web):
    found = web.get("/api/pools/feeds").json()
    assert (found["status"]["name"], found["workers"], found["leases"]) == ("feeds", [], [])


@pytest.mark.parametrize("name", ["nope", "%3Cscript%3E"])
def test_an_unknown_pool_is_not_found(web, name):
    answer = web.get(f"/api/pools/{name}")
    assert answer.status_code == 404
    assert set(answer.json()) == {"error"}
    assert answer.headers["content-type"] == "application/json"


def test_metrics_have_the_type_and_the_figures(web):
    answer = web.get("/metrics")
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert 'actorpool_limit{pool="write"} 3' in answer.text.splitlines()
    assert 'actorpool_events_dropped_total{sink="statsd"} 0' in answer.text.splitlines()


@pytest.mark.slow
def test_metrics_count_each_lease_in_the_histograms(node, web, eventually):
    families = {}

    def count(name):
        families.update((one.name, one) for one in parser.text_string_to_metric_families(web.get("/metrics").text))
        return {
            sample.labels["pool"]: sample.value
            for sample in families[f"actorpool_{name}_seconds"].samples
            if sample.name.endswith("_count")
        }

    before = count("hold")
    assert set(before) == {"write", "read"}  # a shared pool lends nothing
    for _ in range(3):
        node.pool("read").run(bool)
    eventually(lambda: count("hold")["read"] >= before["read"] + 3, timeout=20, every=0.2)
    assert count("wait")["read"] >= 3
    assert families["actorpool_wait_seconds"].type == "histogram"


def test_one_pool_is_told_with_its_settings_and_no_secret(node, web):
    settings = {"base_url": "http://127.0.0.1:9/", "headers": {"authorization": "Bearer open-sesame"}}
    node.start_pool("upstream", worker=HttpWorker, worker_args=settings, size=1)
    answer = web.get("/api/pools/upstream")
    node.stop_pool("upstream")
    config = answer.json()["config"]
    assert (config["worker"], config["size"]) == ("actorpool.workers.http:HttpWorker", "1")
    assert config["worker_args.base_url"] == "http://127.0.0.1:9/"
    assert config["worker_args.headers"] == "***"
    assert "sesame" not in answer.text


def test_the_memory_of_each_worker_is_told(web):
    workers = web.get("/api/pools/write").json()["workers"]
    assert all(worker["memory_bytes"] is None or worker["memory_bytes"] > 100_000 for worker in workers)
    assert process.LINUX is False or all(worker["memory_bytes"] for worker in workers)


def test_a_node_that_serves_is_healthy_and_ready(web):
    assert web.get("/healthz").status_code == 200
    assert web.get("/readyz").json() == {"ready": True, "reasons": []}


def test_a_full_pool_leaves_the_node_ready_and_needs_attention(node, web, eventually):
    node.pool("read").resize(1, 0)
    with node.pool("read").checkout() as lease:
        lease.run(bool)
        need = eventually(lambda: web.get("/api/pools").json()["attention"], every=0.1)[0]
        assert web.get("/readyz").status_code == 200
    assert need["pool"] == "read"
    assert f"actorpool status {node.name} read" in need["commands"]


def test_the_page_has_a_table_of_the_pools_without_scripts(web):
    text = web.get("/").text
    assert '<th scope="row">write</th>' in text
    assert "{{" not in text
    assert "<script>" not in text
    assert "style=" not in text
    assert "://" not in text


@pytest.mark.parametrize("name", ASSETS)
def test_no_asset_needs_another_server(web, name):
    answer = web.get(f"/page/{name}")
    assert answer.status_code == 200
    assert "://" not in answer.text.replace("http://www.w3.org/2000/svg", "")


def test_no_other_file_is_served(web):
    for name in ("page.html", "..%2f__init__.py", "%2e%2e/__init__.py"):
        assert web.get(f"/page/{name}").status_code == 404


# -- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"])
def test_no_route_has_another_method_than_get_and_head(web, path, method):
    assert web.request(method, path).status_code == 405


@pytest.mark.parametrize("path", ROUTES)
def test_each_route_answers_head_as_get_and_with_the_headers_of_safety(web, path):
    answer = web.head(path)
    assert answer.status_code == 200
    assert answer.content == b""
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert not {"set-cookie", "access-control-allow-origin"} & set(answer.headers)


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example:80", "127.0.0.2"])
@pytest.mark.parametrize("path", ["/", "/api/pools", "/metrics", "/healthz"])
def test_a_host_that_is_not_listed_is_refused(web, path, host):
    answer = web.get(path, headers={"host": host})
    assert answer.status_code == 421
    assert len(answer.text.splitlines()) == 1


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:9", "127.0.0.1:22", "[::1]:8420", "[::1]"])
def test_names_of_loopback_are_answered_with_any_port(web, host):
    assert web.get("/healthz", headers={"host": host}).status_code == 200


@pytest.mark.parametrize("site", ["cross-site", "same-site", "none, cross-site"])
def test_pages_of_other_sites_get_nothing(web, site):
    assert web.get("/api/pools", headers={"sec-fetch-site": site}).status_code == 403
    assert web.get("/api/pools", headers={"sec-fetch-site": "same-origin"}).status_code == 200


def raw(node, data):
    """What the server sends until it closes, and after how many seconds it does."""
    began = time.monotonic()
    got = b""
    with socket.create_connection(address(node)) as line:
        line.settimeout(20)
        with contextlib.suppress(ConnectionError):
            line.sendall(data)
            while chunk := line.recv(65536):
                got += chunk
    return got, time.monotonic() - began


@pytest.mark.parametrize("hosts", [b"Host: localhost\r\nHost: localhost\r\n", b"", b"Host:\r\n"])
def test_a_request_with_no_host_or_several_is_refused(node, hosts):
    got, _ = raw(node, b"GET / HTTP/1.1\r\n" + hosts + b"Connection: close\r\n\r\n")
    assert got.split()[1] in (b"400", b"421")


def test_a_body_is_refused(web):
    assert web.request("GET", "/api/pools", content=b"x").status_code == 413


def test_a_long_head_is_refused(node):
    got, _ = raw(node, b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 20000 + b"\r\n\r\n")
    assert got == b"" or got.split()[1] in (b"400", b"431")


@pytest.mark.slow
def test_a_request_that_is_not_complete_within_ten_seconds_is_cut_off(node):
    got, took = raw(node, b"GET / HTTP/1.1\r\nHost: loc")
    assert got == b""
    assert 9 < took < 14


def test_more_clients_than_there_may_be_are_cut_off_and_the_others_served(node, web, eventually):
    with contextlib.ExitStack() as stack:
        lines = [stack.enter_context(socket.create_connection(address(node))) for _ in range(150)]
        lines[-1].settimeout(5)
        with contextlib.suppress(ConnectionError):
            assert lines[-1].recv(1) == b""
        lines[0].sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert lines[0].recv(4096).startswith(b"HTTP/1.1 200")
    eventually(lambda: web.get("/healthz").status_code == 200)


# -- the stream -----------------------------------------------------------------------------------------------------


def test_the_stream_with_state_begins_with_all_of_it(web):
    kinds = []
    with web.stream("GET", "/api/events?state=1") as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        for line in answer.iter_lines():
            if line.startswith("event: "):
                kinds.append(line.removeprefix("event: "))
            if len(kinds) == 3:
                break
    assert kinds == ["tree", "samples", "state"]


def test_a_bad_number_of_an_event_is_refused(web):
    assert web.get("/api/events", headers={"last-event-id": "x"}).status_code == 400


def test_it_ends_within_two_seconds_with_twenty_streams_open(eventually):
    def end_took():
        with contextlib.ExitStack() as stack:
            system = stack.enter_context(actorpool.start(dashboard=0))
            for _ in range(20):
                line = stack.enter_context(socket.create_connection(address(system)))
                line.sendall(b"GET /api/events?state=1 HTTP/1.1\r\nHost: localhost\r\n\r\n")
                assert line.recv(4096).startswith(b"HTTP/1.1 200")
            server = server_of(system)
            began = time.monotonic()
            server.send_signal(signal.SIGTERM)
            eventually(lambda: not process.alive(server.pid), timeout=10)
            return time.monotonic() - began

    assert any(end_took() < 2 for _ in range(3))  # the machine may be busy meanwhile


# -- its life -------------------------------------------------------------------------------------------------------


def test_a_killed_server_comes_back_at_the_same_address_and_no_pool_notices(eventually):
    with actorpool.start(dashboard=0) as node:
        pool = node.start_pool("write", worker=EchoWorker, size=2)
        pids = [worker.pid for worker in pool.workers()]
        url, before = node.dashboard, server_of(node)
        before.kill()
        assert pool.run(lambda connection: 7) == 7
        eventually(lambda: server_of(node) != before and httpx.get(f"{url}healthz").status_code == 200, timeout=20)
        assert [worker.pid for worker in pool.workers()] == pids


def test_a_taken_port_is_told_at_the_start_and_nothing_is_left():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(actorpool.SystemDown, match=f"cannot listen on 127.0.0.1:{port}"):
            actorpool.start(dashboard=port)


@pytest.mark.parametrize("wanted", [-1, 70000, "8420", True, {"port": 1, "colour": 2}, {"hosts": "a"}])
def test_a_bad_option_is_refused_before_anything_starts(wanted):
    with pytest.raises(actorpool.InvalidConfig) as caught:
        actorpool.start(dashboard=wanted)
    assert set(caught.value.problems) == {"dashboard"}


def events_of(web, wanted, **options):
    """The first `wanted` events of the history that a stream sends: what was their id, and what their data."""
    found, number = [], None
    with web.stream("GET", "/api/events", **options) as answer:
        for line in answer.iter_lines():
            if line.startswith("id: "):
                number = int(line.removeprefix("id: "))
            elif line.startswith("data: ") and number is not None:
                found.append((number, json.loads(line.removeprefix("data: "))))
                number = None
            if len(found) == wanted:
                return found
    raise AssertionError(f"the stream ended after {found}")


def test_the_whole_history_is_sent_after_number_zero_in_order_with_its_numbers(node, web):
    kept = node.events()
    found = events_of(web, len(kept), headers={"last-event-id": "0"})
    assert [number for number, _ in found] == [event.number for event in kept]
    assert [data["name"] for _, data in found] == [event.name for event in kept]
    assert set(found[0][1]) == {"number", "time", "name", "pool", "measurements", "metadata"}


def test_a_stream_goes_on_after_the_number_that_was_seen_last(node, web):
    kept = node.events()
    (found,) = events_of(web, 1, headers={"last-event-id": str(kept[-2].number)})
    assert found[0] == kept[-1].number


def test_an_event_is_sent_as_it_happens(node, web):
    seen = node.events()[-1].number
    node.start_pool("later", worker=EchoWorker, size=1)
    found = events_of(web, 3, params={"after": seen})
    node.stop_pool("later")
    assert all(number > seen for number, _ in found)
    assert {data["pool"] for _, data in found} == {"later"}
