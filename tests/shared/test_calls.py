"""Where a call to a shared pool goes, and how it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import psutil
import pytest

import actorpool
from actorpool import SharedPool
from actorpool.errors import (
    CallTimeout,
    InvalidConfig,
    MethodNotFound,
    NoMatch,
    NoResource,
    RemoteError,
    WorkerDied,
)
from tests.shared.conftest import Library
from tests.shared.kit import Book, Desk, Other, Unloadable, in_the_south, raises

Eventually = Callable[..., Any]


# -- where it goes -----------------------------------------------------------------------------------------------------


def test_a_call_gets_the_result_of_a_method(shared: SharedPool) -> None:
    id = shared.add(Book)
    assert shared.call("book", "write", "one") == "one"
    assert shared.call("book", "wait", seconds=0.0, token={"a": [1]}) == {"a": [1]}
    assert shared.call("book", "pid") == shared.info(id).pid != os.getpid()


def test_what_is_missing_is_looked_for_in_the_order_resource_method_filter(shared: SharedPool) -> None:
    with pytest.raises(NoResource, match=r"no live connection to 'book'; add\(\) one") as missing:
        shared.call("book", "nothing", where={"zone": "south"})
    assert missing.value.reason == "resource"
    assert isinstance(missing.value, LookupError)
    shared.add(Book, extra={"zone": "north"})
    with pytest.raises(MethodNotFound, match="has the method 'nothing'; they have write, pid") as missing_method:
        shared.call("book", "nothing", where={"zone": "south"})
    assert missing_method.value.reason == "method"
    with pytest.raises(MethodNotFound):
        shared.call("book", "private")
    with pytest.raises(NoMatch, match="rejected all 1 live connection") as unfit:
        shared.call("book", "pid", where={"zone": "south"})
    assert unfit.value.reason == "filter"


def test_where_is_a_mapping_that_extra_contains_or_a_function_of_the_connection(shared: SharedPool) -> None:
    north = shared.add(Book, extra={"zone": "north", "floor": 1})
    south = shared.add(Book, extra={"zone": "south", "floor": 1})
    pids = {id: shared.info(id).pid for id in (north, south)}
    assert shared.call("book", "pid", where={"zone": "south"}) == pids[south]
    assert shared.call("book", "pid", where={"zone": "north", "floor": 1}) == pids[north]
    assert shared.call("book", "pid", where=in_the_south) == pids[south]
    wanted = north
    assert shared.call("book", "pid", where=lambda info: info.id == wanted) == pids[north]
    with pytest.raises(NoMatch):
        shared.call("book", "pid", where=raises)
    with pytest.raises(InvalidConfig, match="where"):
        shared.call("book", "pid", where="south")
    assert shared.call("book", "pid") in pids.values()


def test_a_method_that_only_one_of_two_connections_has_finds_that_one(shared: SharedPool) -> None:
    shared.add(Book)
    other = shared.add(Other, resource="book")
    assert shared.call("book", "read") == "read"
    assert shared.info(other).methods == ("read",)


def test_resources_of_any_hashable_kind_are_told_apart(shared: SharedPool) -> None:
    for resource in ("a", 7, ("a", 7), frozenset({1}), b"a"):
        shared.add(Book, resource=resource)
    pids = {resource: shared.call(resource, "pid") for resource in shared.resources()}
    assert len(set(pids.values())) == len(pids) == 5
    with pytest.raises(NoResource):
        shared.call(["a"], "pid")  # not hashable: nothing can be filed under it


def test_an_idle_connection_comes_before_a_busy_one(library: Library) -> None:
    first, second = library.add(), library.add()
    library.occupy(first)
    assert library.shared.call("book", "pid") == library.shared.info(second).pid


def test_calls_begin_in_the_order_in_which_they_came(library: Library) -> None:
    only = library.add()
    library.occupy(only)
    calls = [library.queue("write", f"call{number}") for number in range(10)]
    assert library.shared.info(only).waiting == 10
    library.go_on(only)
    assert [call.result(5) for call in calls] == library.begun == [f"call{number}" for number in range(10)]


# -- results and errors ------------------------------------------------------------------------------------------------


def test_an_exception_of_the_method_reaches_the_caller_with_its_type_and_traceback(shared: SharedPool) -> None:
    id = shared.add(Book)
    with pytest.raises(LookupError, match="not on this page") as raised:
        shared.call("book", "fail", LookupError("not on this page"))
    assert "in fail" in raised.value.remote_traceback  # type: ignore[attr-defined]
    with pytest.raises(SystemExit):
        shared.call("book", "fail", SystemExit(3))
    assert shared.info(id).stats["fail"].errors == 2
    assert shared.info(id).closed is False


def test_a_value_that_cannot_be_rebuilt_fails_that_call_and_no_other(shared: SharedPool) -> None:
    id = shared.add(Book)
    with pytest.raises(LookupError, match="can only be rebuilt in"):
        shared.call("book", "write", Unloadable())  # in the worker
    with pytest.raises(LookupError, match="can only be rebuilt in"):
        shared.call(Unloadable(), "write")  # in the pool
    with pytest.raises(LookupError, match="can only be rebuilt in"):
        shared.extra(id, Unloadable())
    with pytest.raises(TypeError, match="pickle"):
        shared.call("book", "write", threading.Lock())
    assert shared.call("book", "write", "fine") == "fine"


def test_a_result_that_cannot_travel_is_an_error_of_that_call_only(shared: SharedPool) -> None:
    shared.add(Book)
    with pytest.raises(TypeError, match="pickle"):
        shared.call("book", "raw")
    with pytest.raises(RemoteError):
        shared.call("book", "homely")
    assert shared.call("book", "write", "fine") == "fine"


def test_long_arguments_and_results_pass(shared: SharedPool) -> None:
    shared.add(Book)
    blob = os.urandom(3_000_000)
    assert shared.call("book", "write", blob) == blob


def test_a_cooldown_keeps_the_connection_from_beginning_a_call(shared: SharedPool) -> None:
    id = shared.add(Book)
    assert shared.call("book", "pause", 0.3) == "paused"
    began = time.monotonic()
    assert 0.2 < shared.info(id).cooldown <= 0.3
    assert shared.call("book", "write", "later") == "later"
    assert 0.25 < time.monotonic() - began < 1.0


def test_a_connection_that_pauses_leaves_its_calls_to_one_that_does_not(library: Library) -> None:
    first, second = library.add(), library.add()
    library.shared.call("book", "pause", 5.0, where={"number": 0})
    began = time.monotonic()
    assert {library.shared.call("book", "pid") for _ in range(3)} == {library.shared.info(second).pid}
    assert time.monotonic() - began < 2.0
    assert library.shared.info(first).cooldown > 2.0


# -- time --------------------------------------------------------------------------------------------------------------


def test_a_call_that_times_out_while_it_waits_is_never_run(library: Library) -> None:
    only = library.add()
    library.occupy(only)
    with pytest.raises(CallTimeout, match="waited 0.1.. s and was not run") as late:
        library.shared.call("book", "write", "late", timeout=0.1)
    assert late.value.started is False
    library.go_on(only)
    assert library.shared.call("book", "write", "in time") == "in time"
    assert library.begun == ["in time"]


def test_a_call_that_runs_too_long_is_interrupted_and_the_connection_goes_on(shared: SharedPool) -> None:
    id = shared.add(Book)
    pid = shared.info(id).pid
    began = time.monotonic()
    with pytest.raises(CallTimeout, match="is being interrupted") as late:
        shared.call("book", "wait", 20.0, timeout=0.1)
    assert late.value.started is True
    assert time.monotonic() - began < 2.0
    assert shared.call("book", "pid", timeout=5.0) == pid
    assert time.monotonic() - began < 5.0


def test_what_ignores_its_interrupt_is_killed_and_revived(shared: SharedPool, eventually: Eventually) -> None:
    id = shared.add(Book, revive=True)
    pid = shared.info(id).pid
    with pytest.raises(CallTimeout):
        shared.call("book", "stubborn", 30.0, timeout=0.05)
    eventually(lambda: shared.info(id).pid not in (pid, None))
    assert not psutil.pid_exists(pid or 0)


def test_a_conversation_that_was_broken_into_is_put_in_order_by_reset(shared: SharedPool) -> None:
    shared.add(Desk)
    with pytest.raises(CallTimeout):
        shared.call("desk", "talk", 20.0, timeout=0.05)
    assert shared.call("desk", "left") == []


@pytest.mark.parametrize("timeout", [-1.0, "soon", float("nan")])
def test_a_timeout_that_makes_no_sense_is_refused_where_it_is_given(shared: SharedPool, timeout: Any) -> None:
    with pytest.raises(InvalidConfig, match="timeout"):
        shared.call("book", "pid", timeout=timeout)


# -- processes that die ------------------------------------------------------------------------------------------------


def test_the_call_that_ran_gets_worker_died_and_those_that_waited_move(library: Library) -> None:
    first, second = library.add(), library.add()
    ran = library.occupy(first)
    other = library.occupy(second)
    waited = [library.queue("write", f"call{number}") for number in range(6)]
    assert [library.shared.info(id).waiting for id in (first, second)] == [3, 3]
    os.kill(library.shared.info(first).pid or 0, signal.SIGKILL)
    with pytest.raises(WorkerDied, match="may have taken effect and was not repeated"):
        ran.result(5)
    assert library.shared.info(second).waiting == 6
    library.go_on(second)
    other.result(5)
    assert [call.result(5) for call in waited] == library.begun == [f"call{number}" for number in range(6)]


def test_without_another_connection_waiting_calls_fail_and_are_not_run(library: Library) -> None:
    only = library.add(revive=True)
    ran = library.occupy(only)
    waited = [library.queue("write", f"call{number}") for number in range(3)]
    os.kill(library.shared.info(only).pid or 0, signal.SIGKILL)
    with pytest.raises(WorkerDied):
        ran.result(5)
    for call in waited:
        with pytest.raises(NoResource, match="no other live one can take"):
            call.result(5)
    assert library.begun == []


def test_a_call_to_a_connection_that_was_killed_while_idle_goes_to_another_one_unseen(library: Library) -> None:
    for _ in range(5):
        first, second = library.add(), library.add()
        os.kill(library.shared.info(first).pid or 0, signal.SIGKILL)
        assert library.shared.call("book", "pid") == library.shared.info(second).pid
        library.shared.pop(second)


def test_an_answer_that_was_sent_before_the_process_died_arrives(
    node: actorpool.System, library: Library, eventually: Eventually
) -> None:
    only = library.add()
    call = library.occupy(only)
    worker = psutil.Process(library.shared.info(only).pid)
    pool = worker.parent()
    assert pool is not None
    pool.suspend()
    try:
        library.go_on(only)
        eventually(lambda: library.over(only) and worker.status() == psutil.STATUS_SLEEPING)
        worker.kill()
        eventually(lambda: worker.status() == psutil.STATUS_ZOMBIE)
    finally:
        pool.resume()
    assert call.result(5) == f"busy{only}"


def test_the_waiting_calls_of_a_dead_caller_are_removed(library: Library, eventually: Eventually) -> None:
    only = library.add()
    library.occupy(only)
    script = f"""
import threading
from actorpool.client.shared import SharedPool
pool = SharedPool({str(library.shared._transport.endpoint.directory)!r}, {library.shared.name!r})
for number in range(3):
    threading.Thread(target=pool.call, args=("book", "write", f"dead{{number}}")).start()
"""
    with subprocess.Popen([sys.executable, "-c", script]) as caller:
        eventually(lambda: library.waiting() == 3)
        caller.kill()
    eventually(lambda: library.waiting() == 0, timeout=1.0)
    library.go_on(only)
    assert library.shared.call("book", "write", "alive") == "alive"
    assert library.begun == ["alive"]


def test_the_running_call_of_a_dead_caller_is_left_to_end(library: Library, eventually: Eventually) -> None:
    only = library.add()
    pid = library.shared.info(only).pid
    script = f"""
from actorpool.client.shared import SharedPool
pool = SharedPool({str(library.shared._transport.endpoint.directory)!r}, {library.shared.name!r})
pool.call("book", "wait", 0.5, "orphan")
"""
    with subprocess.Popen([sys.executable, "-c", script]) as caller:
        eventually(lambda: library.begun == ["orphan"])
        caller.kill()
    assert library.shared.call("book", "pid") == pid


# -- the share that speed earns ----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_fast_mirror_gets_the_share_that_its_speed_earns(shared: SharedPool) -> None:
    fast = shared.add(Book, {"pace": 0.002})
    slow = shared.add(Book, {"pace": 0.02})
    end = time.monotonic() + 1.5

    def caller() -> None:
        while time.monotonic() < end:
            shared.call("book", "write", "x")

    callers = [threading.Thread(target=caller) for _ in range(8)]
    for each in callers:
        each.start()
    for each in callers:
        each.join()
    stats = {id: shared.info(id).stats["write"] for id in (fast, slow)}
    earned = stats[slow].mean / stats[fast].mean
    share = stats[fast].count / stats[slow].count
    assert earned > 2, stats
    assert 0.5 * earned < share < 2 * earned, stats


# -- all at once -------------------------------------------------------------------------------------------------------


def test_map_calls_every_open_connection(shared: SharedPool) -> None:
    books = [shared.add(Book, extra=number) for number in range(3)]
    other = shared.add(Other, resource="book")
    answers = shared.map("book", "pid")
    assert {id: answers[id] for id in books} == {id: shared.info(id).pid for id in books}
    assert isinstance(answers[other], MethodNotFound)
    failed = shared.map("book", "fail", LookupError("no"))
    assert [type(failed[id]) for id in books] == [LookupError] * 3
    assert shared.map("elsewhere", "pid") == {}


def test_a_map_that_meets_a_death_tells_it_for_that_connection(shared: SharedPool) -> None:
    first, second = shared.add(Book, extra="dies"), shared.add(Other, resource="book")
    answers = shared.map("book", "die")
    assert isinstance(answers[first], WorkerDied)
    assert isinstance(answers[second], MethodNotFound)


def test_many_threads_and_processes_share_one_connection(shared: SharedPool) -> None:
    shared.add(Book)
    results: list[Any] = []

    def caller(name: int) -> None:
        results.extend(shared.call("book", "write", (name, number)) for number in range(20))

    callers = [threading.Thread(target=caller, args=(name,)) for name in range(10)]
    for each in callers:
        each.start()
    for each in callers:
        each.join()
    assert sorted(results) == [(name, number) for name in range(10) for number in range(20)]


def test_a_handle_works_in_another_process(shared: SharedPool) -> None:
    shared.add(Book)
    import pickle

    script = """
import pickle, sys
pool = pickle.load(sys.stdin.buffer)
print(pool.call("book", "write", 42), repr(pool))
"""
    done = subprocess.run(
        [sys.executable, "-c", script], input=pickle.dumps(shared), capture_output=True, timeout=30, check=True
    )
    assert done.stdout.decode().startswith(f"42 <shared pool {shared.name!r}")


def test_a_method_named_as_a_verb_of_the_handle_is_called_like_any_other(shared: SharedPool) -> None:
    class Named(actorpool.workers.Worker):  # type: ignore[name-defined,misc]
        @actorpool.workers.method  # type: ignore[attr-defined,misc]
        def info(self) -> str:
            return "the worker's own"

    shared.add(Named, resource="named")
    assert shared.call("named", "info") == "the worker's own"


def _loops(_info: object) -> bool:
    while True:
        try:
            time.sleep(10)
        except Exception:  # whatever interrupts it
            pass


class Sleepy:
    """A key whose hash takes for ever, in any process but the one that has made it."""

    def __init__(self) -> None:
        self.home = os.getpid()

    def __hash__(self) -> int:
        if os.getpid() != self.home:
            time.sleep(3600)
        return 0


def test_no_code_of_a_caller_holds_up_the_pool_that_serves_all(shared: SharedPool) -> None:
    shared.add(Book)
    for _ in range(2):
        shared.add(Book)
    began = time.monotonic()
    with pytest.raises(actorpool.errors.NoMatch):
        shared.call("book", "write", 1, where=_loops)
    with pytest.raises(actorpool.errors.NoResource):
        shared.call(Sleepy(), "write", 1)
    with pytest.raises(InvalidConfig):
        shared.add(Book, resource=Sleepy())
    assert shared.call("book", "write", 2) == 2
    assert time.monotonic() - began < 10.0
