"""What becomes of the connections of a shared pool: added, expired, closed, revived, popped."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from actorpool import SharedPool
from actorpool.errors import (
    InvalidConfig,
    NoResource,
    PermanentError,
    UnknownConnection,
    WorkerUnavailable,
)
from actorpool.workers import EchoWorker, method
from tests.shared.conftest import Library
from tests.shared.kit import BadResource, Book, BrokenInit, Door, Stuck, Unloadable, WithoutResource

Eventually = Callable[..., Any]


def attempts(gate: Path) -> list[float]:
    """When `Door.open` was tried."""
    file = Path(f"{gate}.attempts")
    return [float(line) for line in file.read_text().split()] if file.exists() else []


# -- adding ------------------------------------------------------------------------------------------------------------


def test_a_connection_is_told_in_full(shared: SharedPool) -> None:
    before = time.time()
    id = shared.add(EchoWorker, {"delay": 0.01}, resource="echo", extra={"a": 1}, ttl=60, revive="force")
    info = shared.info(id)
    assert (info.id, info.resource, info.extra, info.ttl, info.revive) == (id, "echo", {"a": 1}, 60, "force")
    assert info.methods == ("echo", "add", "pid", "sleep", "fail", "crash")
    assert (info.closed, info.waiting, info.cooldown, info.last_call) == (False, 0, 0.0, None)
    assert before <= (info.connected_at or 0) <= time.time()
    assert psutil.pid_exists(info.pid or 0)
    shared.call("echo", "sleep", 0.02)
    shared.call("echo", "sleep", 0.02)
    stats = shared.info(id).stats["sleep"]
    assert (stats.count, stats.errors) == (2, 0)
    assert 0.02 <= stats.mean < 0.2
    assert before <= (shared.info(id).last_call or 0) <= time.time()


def test_the_resource_is_the_workers_own_unless_one_is_given(shared: SharedPool) -> None:
    assert shared.info(shared.add(Book)).resource == "book"
    assert shared.info(shared.add(Book, resource=("a", "pair"))).resource == ("a", "pair")
    assert shared.info(shared.add("tests.shared.kit:Book", {"resource": "given"})).resource == "given"
    assert shared.resources() == ["book", ("a", "pair"), "given"]
    with pytest.raises(InvalidConfig, match="names one"):
        shared.add(WithoutResource)
    with pytest.raises(PermanentError, match="the resource of BadResource does not pickle"):
        shared.add(BadResource)


def test_bad_settings_are_all_named_and_nothing_is_started(shared: SharedPool) -> None:
    with pytest.raises(InvalidConfig) as refused:
        shared.add(dict, {"lock": __import__("threading").Lock()})
    assert sorted(refused.value.problems) == ["worker", "worker_args"]
    with pytest.raises(InvalidConfig) as refused:
        shared.add(Book, resource=["a"], ttl=-1, revive="perhaps")
    assert sorted(refused.value.problems) == ["resource", "revive", "ttl"]
    with pytest.raises(LookupError, match="can only be rebuilt"):
        shared.add(Book, extra=Unloadable())
    assert shared.resources() == []


def test_a_worker_whose_init_fails_is_not_added(shared: SharedPool) -> None:
    with pytest.raises(ValueError, match="no such option"):
        shared.add(BrokenInit, resource="broken")
    with pytest.raises(TypeError, match="unexpected keyword"):
        shared.add(Book, {"colour": "red"})
    assert shared.resources() == []


def test_not_now_is_tried_again_within_the_timeout(shared: SharedPool, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    began = time.monotonic()
    with pytest.raises(WorkerUnavailable, match="ConnectionError: the door is shut") as away:
        shared.add(Door, {"gate": str(gate)}, timeout=0.4)
    assert 0.2 < time.monotonic() - began < 3.0
    assert isinstance(away.value.cause, ConnectionError)
    assert len(attempts(gate)) > 2
    assert shared.resources() == []
    left = shared.map("door", "pid")
    assert left == {}


def test_an_open_that_hangs_is_interrupted_once_its_connection_is_given_up(
    shared: SharedPool, tmp_path: Path, eventually: Eventually
) -> None:
    with pytest.raises(WorkerUnavailable):
        shared.add(Stuck, {"file": str(tmp_path / "end")}, timeout=1.0)
    eventually(lambda: (tmp_path / "end").exists() and (tmp_path / "end").read_text() == "interrupted")


def test_a_worker_says_when_it_wants_to_be_tried_again(shared: SharedPool, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    Path(f"{gate}.later").write_text("0.3")
    with pytest.raises(WorkerUnavailable):
        shared.add(Door, {"gate": str(gate)}, timeout=0.5)
    first, second = attempts(gate)
    assert 0.29 < second - first < 0.6
    Path(f"{gate}.later").write_text("60")
    began = time.monotonic()
    with pytest.raises(WorkerUnavailable, match="retry after 60"):
        shared.add(Door, {"gate": str(gate)}, timeout=5.0)
    assert time.monotonic() - began < 3.0, "there is no use in waiting for what cannot come in time"


def test_what_can_never_be_opened_is_refused_at_once(shared: SharedPool, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    Path(f"{gate}.never").touch()
    for revive in (False, True, "force"):
        with pytest.raises(PermanentError, match="the house is gone"):
            shared.add(Door, {"gate": str(gate)}, revive=revive)
    assert len(attempts(gate)) == 3


def test_a_forced_connection_joins_as_soon_as_it_can_be_opened(
    shared: SharedPool, tmp_path: Path, eventually: Eventually
) -> None:
    gate = tmp_path / "gate"
    id = shared.add(Door, {"gate": str(gate)}, resource="door", revive="force")
    assert shared.info(id).closed
    assert shared.is_empty("door")
    with pytest.raises(NoResource, match="the last problem was ConnectionError: the door is shut"):
        shared.call("door", "pid")
    gate.touch()
    assert eventually(lambda: shared.call("door", "pid")) == shared.info(id).pid


# -- ending ------------------------------------------------------------------------------------------------------------


def test_a_connection_that_is_not_revived_is_dropped_when_it_closes(shared: SharedPool, eventually: Eventually) -> None:
    id = shared.add(Book)
    pid = shared.info(id).pid
    assert shared.call("book", "shut", "goodbye") == "goodbye"
    with pytest.raises(NoResource):
        shared.call("book", "pid")
    with pytest.raises(UnknownConnection, match=f"no connection {id}; it was popped, dropped, or never there") as gone:
        shared.info(id)
    assert isinstance(gone.value, LookupError)
    eventually(lambda: not psutil.pid_exists(pid or 0))


def test_a_revived_connection_keeps_its_id_its_process_and_its_figures(
    shared: SharedPool, eventually: Eventually
) -> None:
    id = shared.add(Book, extra={"a": 1}, revive=True)
    before = shared.info(id)
    shared.call("book", "write", "x")
    shared.call("book", "shut")
    eventually(lambda: not shared.info(id).closed)
    after = shared.info(id)
    assert (after.pid, after.extra, after.stats["write"].count) == (before.pid, {"a": 1}, 1)
    assert (after.connected_at or 0) > (before.connected_at or 0)


def test_a_killed_connection_is_revived_in_a_new_process(shared: SharedPool, eventually: Eventually) -> None:
    id = shared.add(Book, revive=True)
    pid = shared.info(id).pid
    os.kill(pid or 0, signal.SIGKILL)
    assert eventually(lambda: shared.call("book", "pid")) != pid


def test_a_lost_connection_moves_its_waiting_calls(library: Library, eventually: Eventually) -> None:
    first, second = library.add(), library.add(revive=True)
    library.occupy(first)
    library.occupy(second)
    lost = [library.queue("lose", where={"number": number}) for number in range(2)]
    waited = [library.queue("write", f"call{number}", where={"number": 0}) for number in range(2)]
    library.shared.update("book", extra={"number": 0})  # now either will do
    library.go_on(first)
    with pytest.raises(ConnectionResetError, match="the line broke"):
        lost[0].result(5)
    eventually(lambda: library.shared.info(second).waiting == 3)
    library.go_on(second)
    with pytest.raises(ConnectionResetError):
        lost[1].result(5)
    for call in waited:
        with pytest.raises(NoResource, match="the line broke"):
            call.result(5)
    assert eventually(lambda: library.shared.call("book", "write", "again")) == "again"


def test_calls_that_move_stay_before_those_that_came_later(library: Library, eventually: Eventually) -> None:
    first, second = library.add(), library.add()
    library.occupy(first)
    library.occupy(second)
    early = [library.queue("write", f"early{number}", where={"number": 0}) for number in range(3)]
    late = [library.queue("write", f"late{number}", where={"number": 1}) for number in range(3)]
    library.shared.update("book", extra={"number": 0})
    os.kill(library.shared.info(first).pid or 0, signal.SIGKILL)
    eventually(lambda: library.shared.info(second).waiting == 6)
    library.go_on(second)
    for call in early + late:
        call.result(5)
    assert library.begun == ["early0", "early1", "early2", "late0", "late1", "late2"]


# -- time to live ------------------------------------------------------------------------------------------------------


def test_an_expired_connection_is_dropped_on_time(shared: SharedPool, eventually: Eventually) -> None:
    id = shared.add(Book, ttl=0.2)
    assert shared.call("book", "write", 1) == 1
    eventually(lambda: shared.resources() == [], timeout=2)
    with pytest.raises(NoResource):
        shared.call("book", "write", 2)
    with pytest.raises(UnknownConnection):
        shared.info(id)


def test_the_call_that_meets_an_expired_connection_fails_and_has_it_revived(
    shared: SharedPool, eventually: Eventually
) -> None:
    id = shared.add(Book, ttl=0.1, revive=True)
    connected = shared.info(id).connected_at or 0
    eventually(lambda: shared.info(id).closed)
    assert shared.info(id).connected_at == connected, "nobody has asked for it yet"
    with pytest.raises(NoResource):
        shared.call("book", "pid")
    eventually(lambda: shared.call("book", "pid"))
    assert (shared.info(id).connected_at or 0) > connected


def test_a_new_time_to_live_counts_from_connecting(shared: SharedPool, eventually: Eventually) -> None:
    id = shared.add(Book)
    eventually(lambda: time.time() - (shared.info(id).connected_at or 0) > 0.1)
    assert shared.update("book", ttl=0.05) == 1
    with pytest.raises(NoResource):
        shared.call("book", "pid")


def test_waiting_calls_of_a_connection_that_expires_move(library: Library, eventually: Eventually) -> None:
    first, second = library.add(), library.add()
    library.occupy(first)
    library.occupy(second)
    waited = [library.queue("write", f"call{number}", where={"number": 0}) for number in range(3)]
    library.shared.update("book", {"number": 0}, extra={"number": 1}, ttl=0.001)
    eventually(lambda: library.shared.info(second).waiting == 0 and library.shared.info(first).closed)
    for call in waited:
        with pytest.raises(NoResource):  # `where` does not accept the other one
            call.result(5)
    assert library.begun == []


# -- managing ----------------------------------------------------------------------------------------------------------


def test_extra_is_exchanged_for_what_was_there_before(shared: SharedPool) -> None:
    id = shared.add(Book)
    assert shared.extra(id, {"type": "agent"}) is None
    assert shared.extra(id, 7) == {"type": "agent"}
    assert shared.info(id).extra == 7
    with pytest.raises(UnknownConnection):
        shared.extra(id + 1, 7)
    with pytest.raises(UnknownConnection, match="ids are the numbers"):
        shared.info("first")  # type: ignore[arg-type]


def test_update_changes_those_that_match_and_counts_them(shared: SharedPool) -> None:
    ids = [shared.add(Book, extra={"floor": floor}) for floor in (1, 1, 2)]
    assert shared.update("book", {"floor": 1}, ttl=60, revive=True) == 2
    assert [(shared.info(id).ttl, shared.info(id).revive) for id in ids] == [(60, True), (60, True), (None, False)]
    assert shared.update("book", lambda info: info.ttl is None, extra="top") == 1
    assert shared.info(ids[2]).extra == "top"
    assert shared.update("elsewhere", ttl=1) == 0
    with pytest.raises(InvalidConfig) as refused:
        shared.update("book", ttl=0, colour="red")
    assert "colour" in refused.value.problems


def test_pop_returns_once_the_queued_calls_are_done(library: Library) -> None:
    only = library.add(revive=True)
    library.occupy(only)
    waited = [library.queue("write", f"call{number}") for number in range(3)]
    popped = library.later(library.shared.pop, only)
    library.wait_until_closed(only)
    with pytest.raises(NoResource):
        library.shared.call("book", "write", "too late")
    assert not popped.done()
    library.go_on(only)
    info = popped.result(5)
    assert [call.result(5) for call in waited] == library.begun == ["call0", "call1", "call2"]
    assert (info.id, info.stats["write"].count, info.closed) == (only, 3, True)
    with pytest.raises(UnknownConnection):
        library.shared.info(only)
    with pytest.raises(UnknownConnection):
        library.shared.pop(only)


def test_pop_all_takes_those_that_match(shared: SharedPool) -> None:
    ids = [shared.add(Book, extra={"floor": floor}) for floor in (1, 1, 2)]
    assert [info.id for info in shared.pop_all("book", {"floor": 1})] == ids[:2]
    assert not shared.is_empty("book")
    assert [info.id for info in shared.pop_all("book")] == ids[2:]
    assert shared.pop_all("book") == []
    assert shared.is_empty("book")


def test_ids_are_never_used_again(shared: SharedPool) -> None:
    first = shared.add(Book)
    shared.pop(first)
    assert shared.add(Book) > first


def test_methods_are_in_the_order_of_their_definition_even_if_the_class_travels_as_a_value(shared: SharedPool) -> None:
    class Local(Book):
        @method
        def zebra(self) -> str:
            return "z"

        @method
        def ape(self) -> str:
            return "a"

        write = None  # type: ignore[assignment]  # taken away

    methods = shared.info(shared.add(Local)).methods
    assert methods[-2:] == ("zebra", "ape")
    assert methods[:2] == ("pid", "wait")
    assert "write" not in methods
