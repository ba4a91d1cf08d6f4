"""Supervisors from outside: OTP's words and OTP's behaviour, with actors that know nothing of us but `Supervised`."""

from __future__ import annotations

import os
import pickle
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from thespian.actors import ActorAddress, ActorExitRequest, ActorSystem, ActorSystemFailure

import actorpool
from actorpool import Call, Err, Ok
from actorpool.supervisors import (
    Backoff,
    ChildInfo,
    ChildSpec,
    CountChildren,
    DeleteChild,
    GetChildSpec,
    RestartChild,
    StartChild,
    Supervisor,
    SupervisorError,
    SupervisorSpec,
    TerminateChild,
    WhereIs,
    WhichChildren,
    start_supervisor,
)
from tests.acceptance import kit
from tests.acceptance.family import Child, Dispatching, Plain, SlowToEnd, Watcher

pytestmark = [  # Thespian forgets sockets of plain systems, and warns of it whenever they are collected
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


class Site:
    def __init__(self, system: Any) -> None:
        self.system = system

    def ask(self, to: Any, message: Any, timeout: float = 2) -> Any:
        answer = self.system.ask(to, message, timeout)
        assert isinstance(answer, Ok | Err), answer
        assert answer.ref == message.ref
        return answer

    def said(self, to: Any, message: Any) -> Any:
        return self.system.ask(to, message, 2)

    def children(self, supervisor: Any) -> list[ChildInfo]:
        found = self.ask(supervisor, WhichChildren()).unwrap()
        assert all(isinstance(info, ChildInfo) for info in found)
        return list(found)

    def pids(self, supervisor: Any) -> dict[Any, int | None]:
        return {info.id: info.pid for info in self.children(supervisor)}


PLAIN = [pytest.param(base, marks=pytest.mark.slow) for base in ("multiprocTCPBase", "multiprocUDPBase")]


@pytest.fixture(scope="module", params=["node", *PLAIN])
def site(request: pytest.FixtureRequest) -> Iterator[Site]:
    if request.param == "node":
        with actorpool.start(log_level="CRITICAL") as running:
            yield Site(running.actor_system)
        return
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    system = ActorSystem(request.param, {"Admin Port": port}, transientUnique=True)
    yield Site(system)
    system.shutdown()


@pytest.fixture
def family(site: Site) -> Iterator[Callable[..., ActorAddress]]:
    """A function that starts a supervisor of these children; it and all below it are gone after the test."""
    started: list[tuple[ActorAddress, list[Any]]] = []

    def start(*children: ChildSpec, **fields: Any) -> ActorAddress:
        address = start_supervisor(site.system, SupervisorSpec(children=children, **fields))
        started.append((address, []))
        return address

    yield start
    for address, _ in started:
        answer = site.system.ask(address, WhichChildren(), 2)
        pids = [info.pid for info in answer.value if info.pid] if isinstance(answer, Ok) else []
        with suppress(ActorSystemFailure):  # it has ended by itself
            site.system.tell(address, ActorExitRequest())
        deadline = time.monotonic() + 5
        while any(_lives(pid) for pid in pids) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert not [pid for pid in pids if _lives(pid)], "no child outlives its supervisor"


def _lives(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def spec(name: str, **fields: Any) -> ChildSpec:
    args = {"name": name, **fields.pop("args", {})}
    return ChildSpec(name, fields.pop("actor", Child), args=args, **fields)


def test_children_start_in_order_and_are_listed_latest_first(
    site: Site, family: Callable[..., Any], journal: Path
) -> None:
    top = family(*(spec(name, args={"journal": str(journal)}) for name in "abc"))
    assert isinstance(top, ActorAddress)
    assert [line.split()[1] for line in journal.read_text().splitlines()] == ["a", "b", "c"]
    infos = site.children(top)
    assert [info.id for info in infos] == ["c", "b", "a"]
    for info in infos:
        assert (info.type, info.state, info.restarts) == ("worker", "running", 0)
        assert site.said(info.address, "pid") == info.pid
        assert site.said(info.address, "name") == info.id


def test_they_end_in_reverse_order(
    site: Site, family: Callable[..., Any], journal: Path, eventually: Callable[..., Any]
) -> None:
    top = family(*(spec(name, args={"journal": str(journal)}) for name in "abc"))
    site.system.tell(top, ActorExitRequest())
    eventually(lambda: journal.read_text().count("end") == 3)
    assert [line.split()[1] for line in journal.read_text().splitlines()[3:]] == ["c", "b", "a"]


@pytest.mark.parametrize(
    ("strategy", "restarted"), [("one_for_one", "b"), ("rest_for_one", "bc"), ("one_for_all", "abc")]
)
def test_a_death_restarts_whom_the_strategy_says(
    site: Site, family: Callable[..., Any], eventually: Callable[..., Any], strategy: str, restarted: str
) -> None:
    top = family(*(spec(name) for name in "abc"), strategy=strategy)
    before = site.pids(top)
    os.kill(before["b"], signal.SIGKILL)

    def changed() -> Any:
        now = site.pids(top)
        return all(now.values()) and {name for name in "abc" if now[name] != before[name]} == set(restarted) and now

    now = eventually(changed)
    assert all(_lives(pid) for pid in now.values())
    assert not _lives(before["b"])
    infos = {info.id: info for info in site.children(top)}
    assert infos["b"].restarts == 1
    assert [info.id for info in site.children(top)] == ["c", "b", "a"]


@pytest.mark.parametrize(
    ("restart", "end", "again"),
    [
        ("permanent", "normal", True), ("permanent", "shutdown", True), ("permanent", "trouble", True),
        ("permanent", "kill", True),
        ("transient", "normal", False), ("transient", "shutdown", False), ("transient", "trouble", True),
        ("transient", "kill", True),
        ("transient", "raise", True), ("transient", "exit", True), ("temporary", "normal", False),
        ("temporary", "kill", False),
        ("temporary", "trouble", False),
    ],
)  # fmt: skip
def test_restart_says_after_which_ends_a_child_comes_back(
    site: Site, family: Callable[..., Any], eventually: Callable[..., Any], restart: str, end: str, again: bool
) -> None:
    top = family(spec("a", restart=restart), spec("b"))
    (info,) = [info for info in site.children(top) if info.id == "a"]
    if end == "kill":
        os.kill(info.pid, signal.SIGKILL)
    elif end == "raise":
        site.system.tell(info.address, "raise")
    elif end == "exit":
        site.system.tell(info.address, ActorExitRequest())
    else:
        site.system.tell(info.address, ("stop", end))
    eventually(lambda: not _lives(info.pid))

    def settled() -> bool:
        found = {child.id: child for child in site.children(top)}
        if again:
            return found["a"].state == "running" and found["a"].pid != info.pid
        if restart == "temporary":
            return "a" not in found
        return found["a"].state == "stopped" and found["a"].address is None and found["a"].pid is None

    eventually(settled)
    assert site.said(next(c.address for c in site.children(top) if c.id == "b"), "name") == "b"


def test_more_restarts_than_the_intensity_end_the_supervisor_and_all_below(
    site: Site, family: Callable[..., Any], eventually: Callable[..., Any]
) -> None:
    top = family(spec("a"), spec("b"), max_restarts=2, max_seconds=30)
    bystander = site.pids(top)["b"]
    for _ in range(2):
        pid = site.pids(top)["a"]
        os.kill(pid, signal.SIGKILL)
        eventually(lambda old=pid: site.pids(top)["a"] not in (old, None))
    os.kill(site.pids(top)["a"], signal.SIGKILL)
    eventually(lambda: not _lives(bystander))


def test_a_supervisor_that_gives_up_is_restarted_by_its_own_supervisor(
    site: Site, family: Callable[..., Any], eventually: Callable[..., Any]
) -> None:
    inner = SupervisorSpec(children=(spec("leaf"),), max_restarts=0)
    top = family(ChildSpec("inner", inner, type="supervisor", shutdown="infinity"), spec("other"), max_restarts=3)
    infos = {info.id: info for info in site.children(top)}
    assert infos["inner"].type == "supervisor"
    leaf = site.pids(infos["inner"].address)["leaf"]
    os.kill(leaf, signal.SIGKILL)

    def again() -> Any:
        now = {info.id: info for info in site.children(top)}["inner"]
        return now.state == "running" and now.pid != infos["inner"].pid and site.pids(now.address)["leaf"] != leaf

    eventually(again)
    assert {info.id: info.pid for info in site.children(top)}["other"] == infos["other"].pid


def test_a_killed_supervisor_takes_everything_below_it_along(
    site: Site, family: Callable[..., Any], eventually: Callable[..., Any]
) -> None:
    inner = SupervisorSpec(children=(spec("leaf"),))
    top = family(ChildSpec("inner", inner, type="supervisor"), spec("other"))
    infos = {info.id: info for info in site.children(top)}
    leaf = site.pids(infos["inner"].address)["leaf"]
    os.kill(infos["inner"].pid, signal.SIGKILL)
    eventually(lambda: not _lives(leaf), timeout=2)
    eventually(lambda: site.pids(site.ask(top, WhereIs("inner")).unwrap())["leaf"] not in (leaf, None))


@pytest.mark.parametrize("number", [signal.SIGTERM, None])
def test_sigterm_and_an_exit_request_end_a_supervisor_in_an_orderly_way(
    site: Site, family: Callable[..., Any], eventually: Callable[..., Any], journal: Path, number: Any
) -> None:
    inner = SupervisorSpec(children=tuple(spec(name, args={"journal": str(journal)}) for name in "ab"))
    top = family(ChildSpec("inner", inner, type="supervisor", shutdown="infinity", restart="temporary"))
    (info,) = site.children(top)
    if number is not None:
        os.kill(info.pid, number)
    else:
        site.system.tell(info.address, ActorExitRequest())
    eventually(lambda: not _lives(info.pid))
    assert [line.split()[:2] for line in journal.read_text().splitlines()[2:]] == [["end", "b"], ["end", "a"]]


def test_administration_answers_otps_words(
    site: Site, family: Callable[..., Any], eventually: Callable[..., Any]
) -> None:
    top = family(spec("a"))

    def reason(message: Any) -> Any:
        answer = site.ask(top, message)
        assert isinstance(answer, Err), answer
        assert isinstance(answer.error, SupervisorError)
        assert isinstance(pickle.loads(pickle.dumps(answer.error)), SupervisorError)
        return answer.error.reason

    address = site.ask(top, WhereIs("a")).unwrap()
    assert reason(StartChild(spec("a"))) == ("already_started", address)
    assert reason(RestartChild("a")) == "running"
    assert reason(DeleteChild("a")) == "running"
    for message in (TerminateChild("z"), RestartChild("z"), DeleteChild("z"), GetChildSpec("z"), WhereIs("z")):
        assert reason(message) == "not_found"

    added = site.ask(top, StartChild(spec("b"))).unwrap()
    assert site.said(added, "name") == "b"
    assert site.ask(top, TerminateChild("b")).unwrap() is None
    (info,) = [info for info in site.children(top) if info.id == "b"]
    assert (info.state, info.address, info.pid) == ("stopped", None, None)
    assert site.ask(top, TerminateChild("b")).unwrap() is None, "already stopped is fine"
    assert reason(StartChild(spec("b"))) == "already_present"
    again = site.ask(top, RestartChild("b")).unwrap()
    assert site.said(again, "name") == "b"
    site.ask(top, TerminateChild("b")).unwrap()
    assert site.ask(top, DeleteChild("b")).unwrap() is None
    assert [info.id for info in site.children(top)] == ["a"]

    counts = site.ask(top, CountChildren()).unwrap()
    assert (counts.specs, counts.active, counts.supervisors, counts.workers) == (1, 1, 0, 1)
    found = site.ask(top, GetChildSpec("a")).unwrap()
    assert (found.id, found.restart, found.shutdown) == ("a", "permanent", 5.0)
    assert site.ask(top, GetChildSpec(address)).unwrap() == found


def test_a_temporary_child_that_is_terminated_is_forgotten(site: Site, family: Callable[..., Any]) -> None:
    top = family(spec("a", restart="temporary"))
    site.ask(top, TerminateChild("a")).unwrap()
    assert site.children(top) == []


def test_a_child_that_fails_to_start_is_named_with_its_reason_and_leaves_nothing(
    site: Site, family: Callable[..., Any], tmp_path: Path, journal: Path
) -> None:
    bad = tmp_path / "bad"
    bad.touch()
    with pytest.raises(SupervisorError, match=r"(?s)b.*b cannot start") as caught:
        start_supervisor(
            site.system,
            SupervisorSpec(
                children=(
                    spec("a", args={"journal": str(journal)}),
                    spec("b", args={"fail": str(bad)}),
                    spec("c", args={"journal": str(journal)}),
                )
            ),
        )
    assert "b" in str(caught.value)
    lines = journal.read_text().splitlines()
    assert [line.split()[:2] for line in lines] == [["start", "a"], ["end", "a"]]
    assert not _lives(int(lines[0].split()[2]))

    top = family(spec("x"))
    answer = site.ask(top, StartChild(spec("y", args={"fail": str(bad)})))
    assert isinstance(answer, Err)
    assert "y cannot start" in str(answer.error)
    assert "'y'" in str(answer.error)
    assert [info.id for info in site.children(top)] == ["x"], "its spec is discarded"


def test_an_ignored_child_is_stopped_and_its_start_answers_none(site: Site, family: Callable[..., Any]) -> None:
    top = family(spec("a", args={"ignore": True}), spec("b"))
    infos = {info.id: info for info in site.children(top)}
    assert (infos["a"].state, infos["a"].address) == ("stopped", None)
    assert infos["b"].state == "running"
    assert site.ask(top, StartChild(spec("c", args={"ignore": True}))).unwrap() is None
    assert site.ask(top, RestartChild("a")).unwrap() is None


def test_a_restart_that_fails_is_tried_again_and_counts(
    site: Site, family: Callable[..., Any], tmp_path: Path, eventually: Callable[..., Any]
) -> None:
    bad = tmp_path / "bad"
    top = family(spec("a", args={"fail": str(bad)}), max_restarts=1000, max_seconds=60, backoff=Backoff(0.05, 0.1))
    pid = site.pids(top)["a"]
    bad.touch()
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: site.children(top)[0].state == "restarting")
    assert site.children(top)[0].address is None
    assert isinstance(site.ask(top, RestartChild("a")).error, SupervisorError)
    bad.unlink()
    eventually(lambda: site.children(top)[0].state == "running")


def test_without_backoff_a_start_that_keeps_failing_ends_the_supervisor(
    site: Site, family: Callable[..., Any], tmp_path: Path, eventually: Callable[..., Any]
) -> None:
    bad = tmp_path / "bad"
    top = family(spec("a", args={"fail": str(bad)}), spec("b"), max_restarts=3)
    pids = site.pids(top)
    bad.touch()
    os.kill(pids["a"], signal.SIGKILL)
    eventually(lambda: not _lives(pids["b"]))


def test_simple_one_for_one_starts_children_of_one_template(
    site: Site, family: Callable[..., Any], eventually: Callable[..., Any]
) -> None:
    top = family(spec("template"), strategy="simple_one_for_one")
    assert site.children(top) == []
    first = site.ask(top, StartChild({"name": "one"})).unwrap()
    second = site.ask(top, StartChild({})).unwrap()
    assert site.said(first, "name") == "one"
    assert site.said(second, "name") == "template"
    assert sorted(info.address == first for info in site.children(top)) == [False, True]
    assert sorted(info.address == second for info in site.children(top)) == [False, True]
    counts = site.ask(top, CountChildren()).unwrap()
    assert (counts.specs, counts.active, counts.workers) == (1, 2, 2)
    pid = site.said(first, "pid")
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: pid not in (pids := [info.pid for info in site.children(top)]) and None not in pids)
    assert {site.said(info.address, "name") for info in site.children(top)} == {"one", "template"}
    assert site.ask(top, TerminateChild(second)).unwrap() is None
    assert len(site.children(top)) == 1
    assert site.ask(top, TerminateChild("template")).error.reason == "simple_one_for_one"


def test_auto_shutdown_follows_the_significant_children(
    site: Site, family: Callable[..., Any], eventually: Callable[..., Any]
) -> None:
    top = family(
        spec("a", restart="transient", significant=True), spec("b", restart="temporary", significant=True), spec("c"),
        auto_shutdown="all_significant",
    )  # fmt: skip
    infos = {info.id: info for info in site.children(top)}
    site.system.tell(infos["a"].address, ("stop", "normal"))
    eventually(lambda: not _lives(infos["a"].pid))
    assert site.pids(top)["c"] == infos["c"].pid
    site.system.tell(infos["b"].address, ("stop", "normal"))
    eventually(lambda: not _lives(infos["c"].pid))

    other = family(spec("a", restart="transient", significant=True), spec("c"), auto_shutdown="any_significant")
    infos = {info.id: info for info in site.children(other)}
    site.system.tell(infos["a"].address, ("stop", "shutdown"))
    eventually(lambda: not _lives(infos["c"].pid))


def test_a_child_that_does_not_end_in_its_shutdown_time_is_killed(site: Site, family: Callable[..., Any]) -> None:
    top = family(spec("slow", actor=SlowToEnd, shutdown=0.4), spec("brutal", actor=SlowToEnd, shutdown="brutal_kill"))
    infos = {info.id: info for info in site.children(top)}
    for info in infos.values():
        site.system.tell(info.address, "busy")
    time.sleep(0.2)  # they must have begun
    started = time.monotonic()
    site.ask(top, TerminateChild("brutal")).unwrap()
    assert time.monotonic() - started < 0.4
    started = time.monotonic()
    site.ask(top, TerminateChild("slow")).unwrap()
    assert 0.3 < time.monotonic() - started < 2
    assert not _lives(infos["slow"].pid)


def test_any_thespian_actor_and_any_worker_can_be_a_child(
    site: Site, family: Callable[..., Any], eventually: Callable[..., Any]
) -> None:
    top = family(
        ChildSpec("plain", Plain, args={"a": 1}),
        ChildSpec("bare", Plain),
        ChildSpec("dispatching", Dispatching, args={"word": "w"}, restart="transient"),
        ChildSpec("worker", kit.Toy),
        ChildSpec("named", "tests.acceptance.family:Child", args={"name": "by name"}),
    )
    at = {info.id: info.address for info in site.children(top)}
    assert site.said(at["plain"], "first")[0] == {"a": 1}
    assert site.said(at["bare"], "first")[0] is None
    assert site.said(at["dispatching"], "what")[0] == "w"
    assert site.said(at["named"], "name") == "by name"
    assert site.ask(at["worker"], Call(None, "echo", (5,))).unwrap() == 5
    os.kill(site.said(at["plain"], "first")[1], signal.SIGKILL)
    eventually(lambda: site.said(site.ask(top, WhereIs("plain")).unwrap(), "first")[0] == {"a": 1})
    site.system.tell(at["dispatching"], "stop")
    eventually(lambda: {info.id: info.state for info in site.children(top)}["dispatching"] == "stopped")


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"strategy": "one_for_none"}, "strategy"), ({"max_restarts": -1}, "max_restarts"),
        ({"max_restarts": 1.5}, "max_restarts"),
        ({"max_seconds": 0}, "max_seconds"), ({"auto_shutdown": "sometimes"}, "auto_shutdown"),
        ({"backoff": 5}, "backoff"),
        ({"children": (ChildSpec("a", Child), ChildSpec("a", Child))}, "a"), ({"children": ("a",)}, "children"),
        ({"strategy": "simple_one_for_one"}, "simple_one_for_one"),
        ({"children": (ChildSpec("a", Child, restart="transient", significant=True),)}, "significant"),
    ],
)  # fmt: skip
def test_a_bad_supervisor_spec_is_refused_when_it_is_made(fields: dict[str, Any], name: str) -> None:
    with pytest.raises((ValueError, TypeError, SupervisorError), match=name):
        SupervisorSpec(**fields)


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"restart": "always"}, "restart"), ({"shutdown": -1}, "shutdown"), ({"shutdown": "never"}, "shutdown"),
        ({"type": "boss"}, "type"),
        ({"actor": object}, "actor"), ({"actor": "no.such:Thing"}, "actor"), ({"args": [1]}, "args"),
        ({"significant": 1}, "significant"),
        ({"significant": True}, "significant"),
    ],
)  # fmt: skip
def test_a_bad_child_spec_is_refused_when_it_is_made(fields: dict[str, Any], name: str) -> None:
    with pytest.raises((ValueError, TypeError, SupervisorError), match=name):
        ChildSpec(**{"id": "a", "actor": Child, **fields})


def test_the_defaults_are_those_of_the_manual() -> None:
    top = SupervisorSpec()
    assert (top.children, top.strategy, top.max_restarts, top.max_seconds, top.auto_shutdown, top.backoff) == (
        (), "one_for_one", 1, 5, "never", None,
    )  # fmt: skip
    child = ChildSpec("a", Child)
    assert (child.args, child.restart, child.shutdown, child.significant, child.type) == (
        {},
        "permanent",
        5.0,
        False,
        "worker",
    )
    assert pickle.loads(pickle.dumps(child)) == child


def test_supervisor_is_an_actor_that_can_be_a_child_of_anybody(site: Site) -> None:
    from thespian.actors import Actor

    assert issubclass(Supervisor, Actor)


def test_a_monitor_tells_a_death_once_and_at_once_for_a_process_that_is_gone(
    site: Site, eventually: Callable[..., Any]
) -> None:
    watcher = site.system.createActor(Watcher)
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as process:
        kind, ref = site.said(watcher, ("monitor", process.pid))
        assert kind == "ref"
        process.kill()
        killed = time.monotonic()
        down = site.system.listen(5)
        took = time.monotonic() - killed
        assert (down.ref, down.pid) == (ref, process.pid)
        assert took < 1
        assert site.system.listen(0.3) is None, "once"
    site.system.tell(watcher, ("monitor", process.pid))
    said = [site.system.listen(5), site.system.listen(5)]
    assert sorted(type(message).__name__ for message in said) == ["Down", "tuple"]
    (gone,) = [message for message in said if not isinstance(message, tuple)]
    assert gone.pid == process.pid
    assert isinstance(gone.reason, str)
    site.system.tell(watcher, ActorExitRequest())


def test_the_system_supervises_actors_of_the_user_beside_its_pools(eventually: Callable[..., Any]) -> None:
    with actorpool.start(log_level="CRITICAL") as system:
        pool = system.start_pool("db", worker=kit.Toy, size=1)
        address = system.supervise(SupervisorSpec(children=(spec("a"),), max_restarts=5))
        site = Site(system.actor_system)
        (info,) = site.children(address)
        os.kill(info.pid, signal.SIGKILL)
        eventually(lambda: site.children(address)[0].pid not in (None, info.pid))
        lone = system.supervise(ChildSpec("lone", Child, args={"name": "alone"}))
        assert site.said(lone, "name") == "alone"
        drawn = str(system.tree())
        assert "lone" in drawn
        assert "db" in drawn
        with pytest.raises(SupervisorError, match="lone"):
            system.supervise(ChildSpec("lone", Child))
        with pytest.raises((TypeError, ValueError)):
            system.supervise("nothing")
        assert pool.echo(1) == 1
        kinds = {node.id: node.kind for node in _walk(system.tree())}
        assert kinds["lone"] == "actor"


def _walk(node: Any) -> list[Any]:
    return [node, *(below for child in node.children for below in _walk(child))]
