"""What an executor adds to the standard library's: a death costs one future, and nobody is held up by a batch."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, CancelledError, as_completed, wait
from pathlib import Path
from typing import Any

import pytest

import actorpool
from actorpool import CallTimeout, InvalidConfig, WorkerDied
from actorpool.errors import MessageTooBig
from actorpool.workers import EchoWorker
from tests.executor import jobs

Eventually = Callable[..., Any]
Make = Callable[..., actorpool.Executor]


@pytest.fixture(scope="module")
def node() -> Iterator[actorpool.System]:
    with actorpool.start() as system:
        yield system


@pytest.fixture
def make(node: actorpool.System) -> Iterator[Make]:
    """Make an executor in the module's node; it is shut down after the test."""
    made: list[actorpool.Executor] = []

    def maker(workers: int = 2, **fields: Any) -> actorpool.Executor:
        made.append(actorpool.Executor(workers, system=node, **fields))
        return made[-1]

    yield maker
    for executor in made:
        executor.shutdown(cancel_futures=True)


def warmed(executor: actorpool.Executor) -> actorpool.Executor:
    """The same, after it has seen that calls are quick, so that it sends several at once."""
    wait([executor.submit(int) for _ in range(300)])
    return executor


def run(text: str, *args: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", "-c", text, *args]
    return subprocess.run(command, capture_output=True, text=True, timeout=50)


# -- deaths --------------------------------------------------------------------------------------------------


def test_a_worker_that_dies_fails_the_one_future_that_it_ran(make: Make, tmp_path: Path) -> None:
    executor, log = warmed(make(2)), str(tmp_path / "log")
    futures = [executor.submit(jobs.note_then_exit if n == 500 else jobs.note, log, n) for n in range(1000)]
    with pytest.raises(WorkerDied, match="died during note_then_exit, which may"):
        futures[500].result(30)
    assert [future.result(30) for future in futures[:500] + futures[501:]] == [n for n in range(1000) if n != 500]
    assert Counter(jobs.noted(log)) == Counter(map(str, range(1000)))
    assert executor.submit(pow, 2, 5).result(30) == 32


def test_whoever_is_killed_no_call_is_lost_or_run_twice(make: Make, tmp_path: Path, node: actorpool.System) -> None:
    executor, log, kills = warmed(make(3)), str(tmp_path / "log"), 12
    (name,) = [pool for pool in node.pools() if pool.startswith("executor_")]
    futures = [executor.submit(jobs.note, log, n) for n in range(4000)]
    dice = random.Random(7)
    for _ in range(kills):
        time.sleep(dice.uniform(0.0, 0.03))
        victims = [worker.pid for worker in node.pool(name).workers() if worker.pid]
        if victims:
            try:
                os.kill(dice.choice(victims), signal.SIGKILL)
            except ProcessLookupError:
                pass
    failed = [future for future in futures if future.exception(60) is not None]
    assert all(isinstance(future.exception(), WorkerDied) for future in failed)
    assert len(failed) <= kills
    counts = Counter(jobs.noted(log))
    assert max(counts.values()) == 1
    assert all(str(future.result()) in counts for future in futures if future not in failed)


def test_a_worker_that_is_killed_between_two_calls_costs_none(make: Make) -> None:
    executor = make(1)
    for _ in range(3):
        os.kill(executor.submit(os.getpid).result(30), signal.SIGKILL)
        assert executor.submit(pow, 2, 3).result(30) == 8


def test_more_deaths_than_max_restarts_do_not_end_an_executor(make: Make) -> None:
    for executor, deaths in ((make(1), 12), (make(1, max_restarts=1), 5)):
        for _ in range(deaths):
            assert isinstance(executor.submit(os._exit, 1).exception(30), WorkerDied)
            assert executor.submit(pow, 2, 3).result(30) == 8


def test_a_chunk_is_one_call(make: Make) -> None:
    executor = warmed(make(2))
    chunks = executor.map(lambda n: os._exit(1) if n == 25 else n, range(100), chunksize=10)
    assert [next(chunks) for _ in range(20)] == list(range(20))
    with pytest.raises(WorkerDied):
        next(chunks)


# -- nobody is held up -----------------------------------------------------------------------------------------


def test_a_call_that_waits_for_one_behind_it_does_not_wait_for_ever(make: Make, tmp_path: Path) -> None:
    executor = warmed(make(2))
    for number in range(10):
        path = str(tmp_path / str(number))
        futures = [executor.submit(int) for _ in range(60)]
        futures.insert(30, executor.submit(jobs.wait_for, path))
        futures.insert(31, executor.submit(jobs.touch, path))
        assert [future.result(30) for future in futures if future.result(30)] == ["found", "made"]


def test_the_next_future_too_can_be_cancelled_until_it_begins(make: Make, tmp_path: Path) -> None:
    log = str(tmp_path / "log")
    executor = make(1)
    first = executor.submit(jobs.note_then_sleep, log, "first", 0.3)
    second, third = executor.submit(jobs.note, log, "second"), executor.submit(jobs.note, log, "third")
    jobs.wait_for(log)
    assert first.running()
    assert not first.cancel()
    assert not second.running()
    assert second.cancel()
    assert third.result(30) == "third"
    assert jobs.noted(log) == ["first", "third"]


def test_what_was_sent_to_a_worker_with_others_can_be_cancelled_until_it_begins(make: Make, tmp_path: Path) -> None:
    log = str(tmp_path / "log")
    executor = warmed(make(1))
    futures = [
        executor.submit(jobs.note_then_sleep, log, 0, 0.5),
        *(executor.submit(jobs.note, log, n) for n in range(1, 50)),
    ]
    jobs.wait_for(log)
    cancelled = [number for number, future in enumerate(futures) if future.cancel()]
    assert len(cancelled) >= 40  # some may have been before the sleeper
    executor.shutdown()
    assert sorted(map(int, jobs.noted(log))) == sorted(set(range(50)) - set(cancelled))


def test_cancelling_while_they_run_is_true_only_for_what_never_runs(make: Make, tmp_path: Path) -> None:
    log = str(tmp_path / "log")
    executor = warmed(make(2))
    futures = [executor.submit(jobs.note, log, n) for n in range(3000)]
    cancelled = {n for n in random.Random(3).sample(range(3000), 1500) if futures[n].cancel()}
    done = wait(futures, 60).done
    assert len(done) == 3000
    assert Counter(jobs.noted(log)) == Counter(str(n) for n in range(3000) if n not in cancelled)


def test_ten_thousand_futures_need_no_thread_each(make: Make) -> None:
    executor = make(2)
    executor.submit(int).result(30)
    before = threading.active_count()
    futures = [executor.submit(abs, -n) for n in range(10_000)]
    assert threading.active_count() <= before + 1
    assert [future.result(60) for future in futures] == list(range(10_000))


def test_call_timeout_bounds_each_function(make: Make) -> None:
    executor = make(1, call_timeout=0.3)
    assert [future.result(30) for future in [executor.submit(time.sleep, 0.1) for _ in range(5)]] == [None] * 5
    with pytest.raises(CallTimeout):
        executor.submit(time.sleep, 30).result(30)
    assert executor.submit(pow, 2, 3).result(30) == 8


# -- values ----------------------------------------------------------------------------------------------------


def test_what_cannot_travel_fails_its_own_future(make: Make) -> None:
    executor = warmed(make(1))
    lock = threading.Lock()
    quick = [executor.submit(abs, -n) for n in range(50)]
    away, back = executor.submit(str, lock), executor.submit(threading.Lock)
    stuck, thrown = executor.submit(jobs.Unloadable), executor.submit(str, jobs.Unloadable())
    quick += [executor.submit(abs, -n) for n in range(50)]
    with pytest.raises(TypeError, match="pickle"):
        away.result(30)
    with pytest.raises(TypeError, match="it ran, but its result cannot be sent back"):
        back.result(30)
    for future in (stuck, thrown):
        with pytest.raises(RuntimeError, match="not to be loaded"):
            future.result(30)
    assert [future.result(30) for future in quick] == [*range(50), *range(50)]


def test_values_of_any_size_come_back(make: Make) -> None:
    executor = warmed(make(2))
    sizes = [0, 10, 4000, 4091, 4092, 4097, 70_000, 3_000_000] * 4
    assert [len(future.result(30)) for future in [executor.submit(bytes, size) for size in sizes]] == sizes
    assert [future.result(30) for future in [executor.submit(len, b"x" * size) for size in sizes]] == sizes


def test_arguments_that_are_too_big_fail_their_own_future() -> None:
    with actorpool.start(max_message=10_000) as system, actorpool.Executor(1, system=system) as executor:
        futures = [executor.submit(len, b"x" * size) for size in (10, 300_000, 20)]
        assert futures[0].result(30) == 10
        assert isinstance(futures[1].exception(30), MessageTooBig)
        assert futures[2].result(30) == 20


def test_an_exception_comes_with_its_type_and_its_traceback(make: Make) -> None:
    for executor in (make(1), warmed(make(1))):
        with pytest.raises(ZeroDivisionError) as caught:
            executor.submit(divmod, 1, 0).result(30)
        assert "outcome_of" in str(caught.value.__cause__)
        assert isinstance(executor.submit(sys.exit, 3).exception(30), SystemExit)


def test_a_forked_copy_that_leaves_its_function_runs_no_other(make: Make, tmp_path: Path) -> None:
    log = str(tmp_path / "log")
    executor = warmed(make(1))
    futures = [executor.submit(jobs.fork_and_leave, 1), *(executor.submit(jobs.note, log, n) for n in range(30))]
    assert [future.result(30) for future in futures] == [1, *range(30)]
    assert sorted(map(int, jobs.noted(log))) == list(range(30))


def test_what_is_submitted_is_not_kept(make: Make) -> None:
    executor = make(1)
    future: Any = executor.submit(len, b"x" * 100_000)
    future.result(30)
    assert future.call is None
    assert future.payload == b""


# -- initializers ------------------------------------------------------------------------------------------------


def test_each_process_is_initialized_once(make: Make) -> None:
    executor = make(1, initializer=jobs.prepare, initargs=("ready",))
    pid, prepared = executor.submit(jobs.prepared).result(30)
    assert prepared == ["ready"]
    assert executor.submit(jobs.prepared).result(30) == (pid, ["ready"])
    os.kill(pid, signal.SIGKILL)
    successor, prepared = executor.submit(jobs.prepared).result(30)
    assert successor != pid
    assert prepared == ["ready"]


def test_an_initializer_that_raises_breaks_the_executor_with_that_cause(make: Make) -> None:
    executor = make(2, initializer=jobs.fail_to_prepare)
    futures = [executor.submit(int)]
    with contextlib.suppress(BrokenExecutor):  # it may be known by then
        futures += [executor.submit(int) for _ in range(2)]
    for future in futures:
        with pytest.raises(BrokenExecutor) as caught:
            future.result(30)
        assert "no licence" in repr(caught.value.__cause__)
    with pytest.raises(BrokenExecutor):
        executor.submit(int)


def test_what_is_wrong_is_refused_before_anything_starts(node: actorpool.System) -> None:
    for fields, error in (
        ({"max_workers": 0}, ValueError),
        ({"max_workers": -1}, ValueError),
        ({"max_workers": "2"}, TypeError),
        ({"max_workers": 2.5}, TypeError),
        ({"max_workers": True}, TypeError),
        ({"initializer": 7}, TypeError),
        ({"size": 3}, InvalidConfig),
        ({"call_timeout": -1}, InvalidConfig),
        ({"colour": "red"}, InvalidConfig),
        ({"worker": "no.such:Worker"}, InvalidConfig),
    ):
        with pytest.raises(error):
            actorpool.Executor(**fields, system=node)


def test_the_worker_that_is_named_lives_in_the_process(make: Make) -> None:
    executor = make(1, worker=EchoWorker, worker_args={"resource": "x"})
    assert executor.submit(pow, 2, 4).result(30) == 16


# -- with the rest of the standard library ---------------------------------------------------------------------------


def test_it_serves_an_event_loop(make: Make) -> None:
    executor = make(2)

    async def main() -> list[int]:
        loop = asyncio.get_running_loop()
        return await asyncio.gather(*(loop.run_in_executor(executor, pow, 2, n) for n in range(20)))

    assert asyncio.run(main()) == [2**n for n in range(20)]


def test_results_come_as_they_are_completed(make: Make) -> None:
    executor = make(2)
    slow, quick = executor.submit(time.sleep, 0.5), executor.submit(int)
    assert list(as_completed([slow, quick], 30)) == [quick, slow]


def test_a_closed_iterator_cancels_what_has_not_begun(make: Make, tmp_path: Path) -> None:
    log = str(tmp_path / "log")
    executor = make(1)
    results = executor.map(functools.partial(jobs.note_then_sleep, log, seconds=0.2), range(20))
    assert next(results) == 0
    results.close()
    assert list(results) == []
    executor.shutdown()
    assert len(jobs.noted(log)) <= 3


def test_a_map_in_chunks_takes_several_iterables_up_to_the_shortest(make: Make) -> None:
    executor = make(2)
    assert list(executor.map(pow, range(10), [2] * 7, chunksize=3)) == [n * n for n in range(7)]
    assert list(executor.map(pow, [], [], chunksize=3)) == []
    with pytest.raises(ValueError, match="chunksize"):
        executor.map(pow, [1], [1], chunksize=0)


# -- ends ----------------------------------------------------------------------------------------------------------


def test_an_executor_ends_its_pool_and_its_own_node(node: actorpool.System) -> None:
    with actorpool.Executor(1, system=node) as executor:
        executor.submit(int).result(30)
        assert len(node.pools()) == 1
    assert node.pools() == []
    with actorpool.Executor(1) as executor:
        pid = executor.submit(os.getppid).result(30)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    executor.shutdown()


def test_an_executor_that_nobody_has_any_more_finishes_and_ends(node: actorpool.System, eventually: Eventually) -> None:
    executor = actorpool.Executor(1, system=node)
    future = executor.submit(jobs.fork_and_leave, 5)
    del executor
    gc.collect()
    assert future.result(30) == 5
    eventually(lambda: node.pools() == [], timeout=20)


def test_shutdown_without_waiting_lets_what_was_submitted_finish(make: Make) -> None:
    executor = make(1)
    futures = [executor.submit(time.sleep, 0.1) for _ in range(3)]
    executor.shutdown(wait=False)
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.submit(int)
    assert [future.result(30) for future in futures] == [None] * 3


def test_a_cancelled_future_says_so_to_who_waits(make: Make) -> None:
    executor = make(1)
    executor.submit(time.sleep, 0.3)
    future = executor.submit(int)
    future.cancel()
    with pytest.raises(CancelledError):
        future.result(30)


ENDINGS = {
    "left open": "e.submit(jobs.note_then_sleep, log, 'done', 0.5)",
    "shut down without waiting": "e.submit(jobs.note_then_sleep, log, 'done', 0.5); e.shutdown(wait=False)",
    "several": "fs = [e.submit(jobs.note, log, 'done') for _ in range(1)]",
    "cancelled": "e.submit(jobs.note, log, 'done').result(); e.submit(int).cancel(); e.shutdown(wait=False)",
}


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.slow
def test_what_was_submitted_is_finished_before_the_interpreter_ends(ending: str, tmp_path: Path) -> None:
    text = "import sys, actorpool; from tests.executor import jobs; log = sys.argv[1]; e = actorpool.Executor(2)\n"
    done = run(text + ENDINGS[ending], str(tmp_path / "log"))
    assert (done.returncode, done.stderr) == (0, "")
    assert jobs.noted(tmp_path / "log") == ["done"]


def test_nothing_new_is_taken_once_the_interpreter_is_ending() -> None:
    done = run("""if True:
        import atexit, actorpool
        @atexit.register
        def late():
            for submit in (executor.submit, pool.submit):
                try:
                    submit(id, None)
                except RuntimeError as error:
                    print(error)
        executor = actorpool.Executor(1)
        pool = actorpool.LocalPool(actorpool.PoolConfig(worker="actorpool.workers:EchoWorker"))
    """)
    assert done.stderr == ""
    assert done.stdout.splitlines() == ["cannot schedule new futures after interpreter shutdown"] * 2


def test_a_forked_child_may_submit_and_its_end_changes_nothing(make: Make, node: actorpool.System) -> None:
    executor = warmed(make(1))
    mine = [executor.submit(time.sleep, 0.3), *(executor.submit(abs, -n) for n in range(100))]
    child = os.fork()
    if child == 0:
        code = 1
        try:
            signal.alarm(40)
            assert not any(future.cancel() for future in mine if future.running())
            assert executor.submit(pow, 2, 5).result(30) == 32
            executor.shutdown()
            code = 0
        finally:
            os._exit(code)
    assert [future.result(30) for future in mine] == [None, *range(100)]
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert executor.submit(pow, 2, 6).result(30) == 64
    assert len(node.pools()) == 1
