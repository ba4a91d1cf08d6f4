"""The blocking client over the channel, against a stand-in: leases, failures, restarts, threads, forks."""

from __future__ import annotations

import gc
import os
import pickle
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from actorpool import process
from actorpool._protocol.requests import HandleFacts
from actorpool.client._blocking import THREADS, drive
from actorpool.client._channel import ManagerAsker
from actorpool.client.lease import Lease
from actorpool.client.pool import Pool
from actorpool.errors import (
    CallTimeout,
    CheckoutTimeout,
    LeaseExpired,
    MessageTooBig,
    MethodNotFound,
    PoolDown,
    PoolFull,
    PoolNotFound,
    RemoteTraceback,
    SystemDown,
    WorkerDied,
)
from actorpool.messages import ListPools
from actorpool.transport import client as lines
from tests.client.standin import Standin, add

Eventually = Callable[..., Any]


@pytest.fixture(scope="module")
def running() -> Iterator[Standin]:
    with Standin(size=2) as standin:
        yield standin


@pytest.fixture
def pool(running: Standin, eventually: Eventually) -> Iterator[Pool]:
    """A pool of two workers that every test shares; each has to leave it as it was."""
    pool = Pool(running.endpoint, "db")
    yield pool
    gc.collect()
    eventually(lambda: (pool.status().workers, pool.status().monitors) == (2, 0))


@pytest.fixture
def own(eventually: Eventually) -> Iterator[Standin]:
    """A system that the test may break."""
    with Standin(size=2) as standin:
        yield standin


def idle(pool: Pool, count: int) -> bool:
    status = pool.status()
    return (status.workers, status.monitors) == (count, 0)


# -- calls --------------------------------------------------------------------------------------------------


def test_a_function_runs_in_a_worker(pool: Pool) -> None:
    assert pool.run(add, 1, 2) == 3
    assert pool.with_connection(lambda _connection, x: x * 2, 21) == 42
    assert pool.run(lambda _: os.getpid()) != os.getpid()


def test_a_method_is_called_by_name_or_as_an_attribute(pool: Pool) -> None:
    assert pool.call("echo", [1, 2]) == [1, 2]
    assert pool.echo(value="x") == "x"


def test_an_unknown_method_is_said_to_be_missing(pool: Pool) -> None:
    with pytest.raises(MethodNotFound, match="nothing"):
        pool.nothing()


def test_an_exception_arrives_with_its_type_and_the_worker_is_back(pool: Pool, eventually: Eventually) -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        pool.run(lambda _: 1 / 0)
    assert isinstance(caught.value.__cause__, RemoteTraceback)
    assert "1 / 0" in str(caught.value.__cause__) or "lambda" in str(caught.value.__cause__)
    eventually(lambda: idle(pool, 2))


@pytest.mark.parametrize("size", [0, 1, 1000, 65536, 5_000_000])
def test_values_of_any_size_cross_intact(pool: Pool, size: int) -> None:
    value = os.urandom(size)
    assert pool.echo(value) == value


def test_arguments_that_are_too_big_are_refused_before_a_worker_is_asked_for(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    from actorpool.transport import frames

    monkeypatch.setattr(frames, "LONGEST", 1000)
    checkouts = pool.status().checkouts
    with pytest.raises(MessageTooBig, match="1000"):
        pool.echo(b"x" * 2000)
    with pool.checkout() as lease:
        with pytest.raises(MessageTooBig):
            lease.echo(b"x" * 2000)
        assert lease.echo(1) == 1
    assert pool.status().checkouts == checkouts


def test_arguments_that_do_not_pickle_fail_before_a_worker_is_asked_for(pool: Pool) -> None:
    with pytest.raises(TypeError, match="pickle"):
        pool.echo(threading.Lock())
    with pool.checkout() as lease:
        with pytest.raises(TypeError, match="pickle"):
            lease.echo(threading.Lock())
        assert lease.echo(1) == 1


def test_a_name_with_an_underscore_is_no_method_of_a_worker(pool: Pool) -> None:
    with pytest.raises(AttributeError):
        _ = pool._nothing


# -- leases -------------------------------------------------------------------------------------------------


def test_a_lease_is_the_same_worker_until_it_is_checked_in(pool: Pool) -> None:
    with pool.checkout() as lease:
        pids = {lease.pid() for _ in range(5)}
        assert pids == {lease.worker_pid}
        assert lease.run(add, 1, 2) == lease.with_connection(add, 2, 1) == 3
        assert not lease.closed
        assert pool.status().monitors == 1
        assert pool.leases()[0].id == lease.id
        assert pool.leases()[0].caller_pid == os.getpid()
    assert lease.closed


def test_use_after_the_end_is_refused(pool: Pool) -> None:
    lease = pool.checkout()
    lease.echo(1)
    pool.checkin(lease)
    with pytest.raises(LeaseExpired, match="over"):
        lease.echo(1)
    with pytest.raises(LeaseExpired), lease:
        pass
    lease.checkin()


def test_checking_in_what_is_no_lease_of_the_pool_is_a_value_error(pool: Pool, running: Standin) -> None:
    with pytest.raises(ValueError, match="no lease"):
        pool.checkin("lease")  # type: ignore[arg-type]
    with Standin(size=1) as other:
        foreign = Pool(other.endpoint, "db").checkout()
        with pytest.raises(ValueError, match="no lease"):
            pool.checkin(foreign)
        assert not foreign.closed
        foreign.checkin()
    lease = pool.checkout()
    pool.checkin(lease)
    with pytest.raises(ValueError, match="ended"):
        pool.checkin(lease)


def test_the_end_of_a_used_lease_resets_its_worker(pool: Pool) -> None:
    with pool.checkout() as lease:
        before = lease.reset_count()
        pid = lease.worker_pid
    counts = []
    leases = [pool.checkout() for _ in range(2)]
    for lease in leases:
        if lease.worker_pid == pid:
            counts.append(lease.reset_count())
        lease.checkin()
    assert counts == [before + 1]


def test_a_full_pool_refuses_at_once_or_after_the_timeout(pool: Pool) -> None:
    leases = [pool.checkout() for _ in range(2)]
    with pytest.raises(PoolFull):
        pool.checkout(block=False)
    began = time.perf_counter()
    with pytest.raises(CheckoutTimeout):
        pool.checkout(timeout=0.05)
    assert time.perf_counter() - began < 1.0
    with pytest.raises(CheckoutTimeout):
        pool.run(add, 1, 2, checkout_timeout=0.0)
    for lease in leases:
        lease.checkin()


def test_a_pool_that_does_not_answer_is_given_up_after_a_grace(own: Standin) -> None:
    pool = Pool(own.endpoint, "db", HandleFacts())
    pid = own.manager("pid")
    os.kill(pid, signal.SIGSTOP)
    began = time.perf_counter()
    with pytest.raises(CheckoutTimeout, match="did not answer"):
        pool.checkout(timeout=0.1)
    assert 0.5 < time.perf_counter() - began < 2.0  # its own verdict would have won
    with pytest.raises(PoolDown, match="has not answered"):
        pool._ask("anything", timeout=0.05)
    os.kill(pid, signal.SIGCONT)
    for _ in range(2):  # what was granted meanwhile was for nobody
        pool.checkout().checkin()


def test_a_dropped_lease_is_checked_in_with_a_warning(pool: Pool, eventually: Eventually) -> None:
    lease = pool.checkout()
    lease.echo(1)
    with pytest.warns(ResourceWarning, match="'db' was dropped while open"):
        del lease
    eventually(lambda: idle(pool, 2))


def test_a_lease_that_is_dropped_during_another_call_disturbs_nothing(pool: Pool, eventually: Eventually) -> None:
    class Cycle:
        def __init__(self, lease: Lease) -> None:
            self.lease, self.me = lease, self

    Cycle(pool.checkout())

    def collect(*_: object) -> None:
        gc.collect()

    before = signal.signal(signal.SIGALRM, collect)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.02)
        with pytest.warns(ResourceWarning):
            assert pool.sleep(0.1) == 0.1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    eventually(lambda: idle(pool, 2))


def test_a_signal_handler_may_use_the_pool_in_the_middle_of_a_call(pool: Pool) -> None:
    answers: list[Any] = []
    before = signal.signal(signal.SIGALRM, lambda *_: answers.append(pool.echo("inner")))
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.02)
        assert pool.sleep(0.1) == 0.1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert answers == ["inner"]


# -- timeouts and interruptions --------------------------------------------------------------------------------


def test_a_call_that_takes_too_long_ends_at_once_and_its_lease_with_it(pool: Pool, eventually: Eventually) -> None:
    began = time.perf_counter()
    with pytest.raises(CallTimeout, match=r"call timeout of 0\.05 s"):
        pool.call("sleep", 5, call_timeout=0.05)
    with pool.checkout() as lease:
        with pytest.raises(CallTimeout):
            lease.call("sleep", 5, call_timeout=0.05)
        assert lease.closed
        with pytest.raises(LeaseExpired):
            lease.echo(1)
    assert time.perf_counter() - began < 2.0
    eventually(lambda: idle(pool, 2))
    assert [pool.echo(n) for n in range(10)] == list(range(10))  # no stale answer


def test_the_pools_call_timeout_is_the_default(running: Standin, pool: Pool, eventually: Eventually) -> None:
    strict = Pool(running.endpoint, "db", HandleFacts(call_timeout=0.05))
    with pytest.raises(CallTimeout):
        strict.sleep(5)
    with strict.checkout() as lease, pytest.raises(CallTimeout):
        lease.sleep(5)
    assert strict.call("sleep", 0.1, call_timeout=5) == 0.1


class Alarm(BaseException):
    pass


@pytest.fixture
def alarm() -> Iterator[Callable[[float], None]]:
    """Raise `Alarm` in this thread after some seconds."""

    def ring(*_: object) -> None:
        raise Alarm

    before = signal.signal(signal.SIGALRM, ring)
    yield lambda seconds: signal.setitimer(signal.ITIMER_REAL, seconds) and None
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def test_an_interrupted_call_gives_its_worker_back(
    pool: Pool, alarm: Callable[[float], None], eventually: Eventually
) -> None:
    alarm(0.05)
    with pytest.raises(Alarm):
        pool.sleep(5)
    eventually(lambda: idle(pool, 2))
    assert [pool.echo(n) for n in range(10)] == list(range(10))


def test_an_interrupted_wait_leaves_no_worker_out(
    pool: Pool, alarm: Callable[[float], None], eventually: Eventually
) -> None:
    leases = [pool.checkout() for _ in range(2)]
    alarm(0.05)
    with pytest.raises(Alarm):
        pool.checkout(timeout=5)
    eventually(lambda: pool.status().waiting == 0)
    assert [lease.echo(1) for lease in leases] == [1, 1]  # an interruption ends no other lease
    for lease in leases:
        lease.checkin()
    eventually(lambda: idle(pool, 2))


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_interruptions_at_any_moment_lose_no_worker(
    pool: Pool, alarm: Callable[[float], None], eventually: Eventually
) -> None:
    rung = done = 0
    for step in range(150):
        try:
            alarm(1e-5 + step * 2e-6)
            for _ in range(100):
                assert pool.run(add, step, 1) == step + 1
                done += 1
        except Alarm:
            rung += 1
    assert rung > 140  # one that falls into a finalizer is swallowed by the interpreter
    gc.collect()
    eventually(lambda: idle(pool, 2))
    assert [pool.echo(n) for n in range(10)] == list(range(10))


# -- deaths -----------------------------------------------------------------------------------------------------


def test_a_worker_that_dies_during_a_call_is_told_and_nothing_is_repeated(own: Standin, eventually: Eventually) -> None:
    pool = Pool(own.endpoint, "db")
    with pytest.raises(WorkerDied, match="may or may not") as caught:
        pool.die()
    assert caught.value.pool == "db"
    with pool.checkout() as lease:
        with pytest.raises(WorkerDied):
            lease.die()
        assert lease.closed
    eventually(lambda: idle(pool, 2))


def test_a_call_after_the_death_of_an_idle_worker_never_fails(own: Standin) -> None:
    pool = Pool(own.endpoint, "db")
    for _ in range(20):
        pid = pool.pid()
        os.kill(pid, signal.SIGKILL)
        assert pool.pid() != pid


def test_a_lease_that_has_run_nothing_moves_to_another_worker(own: Standin) -> None:
    pool = Pool(own.endpoint, "db")
    lease = pool.checkout()
    os.kill(lease.worker_pid, signal.SIGKILL)
    dead = lease.worker_pid
    assert lease.pid() == lease.worker_pid != dead
    lease.checkin()


def test_a_lease_that_has_run_something_does_not_move(own: Standin) -> None:
    pool = Pool(own.endpoint, "db")
    lease = pool.checkout()
    lease.echo(1)
    os.kill(lease.worker_pid, signal.SIGKILL)
    with pytest.raises(WorkerDied):
        lease.echo(2)
    with pytest.raises(LeaseExpired):
        lease.echo(3)


def test_a_disconnected_worker_is_passed_over_unseen(own: Standin) -> None:
    pool = Pool(own.endpoint, "db")
    for lease in [pool.checkout() for _ in range(2)]:
        lease.be_unavailable(1)
        lease.checkin()
    assert pool.echo(1) == 1
    with pool.checkout() as lease:
        assert lease.echo(2) == 2


def test_the_end_of_a_process_ends_its_leases(running: Standin, pool: Pool, eventually: Eventually) -> None:
    child = os.fork()
    if child == 0:
        mine = Pool(running.endpoint, "db").checkout()
        mine.echo(1)
        signal.pause()
        os._exit(0)
    eventually(lambda: pool.status().monitors == 1)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    eventually(lambda: idle(pool, 2), 0.5)


# -- restarts ---------------------------------------------------------------------------------------------------


def test_a_restarted_pool_is_found_again(own: Standin) -> None:
    pool = Pool(own.endpoint, "db")
    assert pool.echo(1) == 1
    for _ in range(3):
        own.kill_pool()
        assert pool.echo(2) == 2
        own.kill_pool()
        assert pool.status().size == 2


def test_a_lease_of_a_former_pool_is_not_checked_in_at_the_new_one(own: Standin, eventually: Eventually) -> None:
    pool = Pool(own.endpoint, "db")
    old = pool.checkout()
    own.kill_pool()
    new = pool.checkout()
    assert new.id == old.id  # a new pool counts anew
    old.checkin()
    assert new.echo(1) == 1
    assert pool.status().monitors == 1
    new.checkin()
    eventually(lambda: idle(pool, 2))


def test_a_lease_of_a_former_pool_is_over_whether_it_was_used_or_not(own: Standin, eventually: Eventually) -> None:
    pool = Pool(own.endpoint, "db")
    used, unused = pool.checkout(), pool.checkout()
    used.echo(1)
    own.kill_pool()
    eventually(lambda: not process.alive(used.worker_pid) and not process.alive(unused.worker_pid))
    with pytest.raises((LeaseExpired, WorkerDied)):
        used.echo(2)
    with pytest.raises(LeaseExpired):
        unused.echo(2)
    assert pool.echo(3) == 3


def test_a_waiter_outlives_a_restart_of_the_pool(own: Standin) -> None:
    pool = Pool(own.endpoint, "db")
    leases = [pool.checkout() for _ in range(2)]
    answers: list[int] = []
    waiter = threading.Thread(target=lambda: answers.append(pool.echo(5)))
    waiter.start()
    while pool.status().waiting == 0:
        pass
    own.kill_pool()
    waiter.join(5)
    assert answers == [5]
    for lease in leases:
        lease.checkin()


def test_a_pool_that_stays_away_is_down_when_time_is_up(own: Standin) -> None:
    pool = Pool(own.endpoint, "db", HandleFacts())
    pool.echo(1)
    own.manager(30.0)  # seconds until the manager starts it again
    own.kill_pool()
    began = time.perf_counter()
    with pytest.raises(PoolDown, match="not serving") as caught:
        pool.checkout(timeout=0.2)
    assert caught.value.pool == "db"
    assert 0.2 <= time.perf_counter() - began < 3.0


def test_an_unknown_pool_is_not_found_at_once(running: Standin) -> None:
    began = time.perf_counter()
    for verb in (lambda pool: pool.echo(1), lambda pool: pool.status(), lambda pool: pool.checkout()):
        with pytest.raises(PoolNotFound, match="running: db"):
            verb(Pool(running.endpoint, "other"))
    assert time.perf_counter() - began < 1.0


def test_a_stopped_pool_is_not_found(own: Standin) -> None:
    pool = Pool(own.endpoint, "db")
    pool.echo(1)
    own.manager("stop")
    own.kill_pool()
    with pytest.raises(PoolNotFound, match="running: none"):
        pool.echo(1)


def test_a_node_that_has_ended_is_down_at_once(own: Standin, eventually: Eventually) -> None:
    pool = Pool(own.endpoint, "db")
    lease = pool.checkout()
    own.kill()
    eventually(lambda: not process.alive(lease.worker_pid))
    began = time.perf_counter()
    for verb in (lambda: pool.echo(1), pool.status, lambda: pool.checkout(), lambda: own.manager("pid")):
        with pytest.raises(SystemDown, match="has ended"):
            verb()
    with pytest.raises((SystemDown, WorkerDied)):
        lease.echo(1)
    lease.checkin()
    assert time.perf_counter() - began < 1.0


def test_the_manager_is_asked_by_its_own_link(running: Standin) -> None:
    assert drive(ManagerAsker(running.endpoint).ask(THREADS, ListPools())) == ["db"]
    assert drive(ManagerAsker(running.directory).ask(THREADS, ListPools(), 1.0)) == ["db"]


# -- threads, forks, pickles ------------------------------------------------------------------------------------


def test_threads_share_a_handle_and_get_their_own_answers(pool: Pool) -> None:
    wrong: list[Any] = []

    def work(number: int) -> None:
        for step in range(100):
            value = (number, step)
            if pool.echo(value) != value:
                wrong.append(value)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_call_of_one_thread_does_not_hold_up_another(pool: Pool) -> None:
    slow = threading.Thread(target=pool.sleep, args=(0.3,))
    slow.start()
    began = time.perf_counter()
    assert pool.echo(1) == 1
    assert time.perf_counter() - began < 0.25
    slow.join()


def test_a_lease_can_be_used_by_other_threads(pool: Pool) -> None:
    lease = pool.checkout()
    answers: list[int] = []
    threads = [threading.Thread(target=lambda n=n: answers.append(lease.echo(n))) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == [0, 1, 2, 3]
    threading.Thread(target=lease.checkin).start()


def test_a_lease_outlives_the_thread_that_got_it(pool: Pool) -> None:
    found: list[Lease] = []
    thread = threading.Thread(target=lambda: found.append(pool.checkout()))
    thread.start()
    thread.join()
    gc.collect()
    assert found[0].echo(1) == 1
    found[0].checkin()


def test_a_pickled_handle_works(pool: Pool) -> None:
    copy = pickle.loads(pickle.dumps(pool))
    assert copy.echo(1) == 1
    assert copy.name == "db"
    assert pool.run(lambda _, handle: handle.name, pool) == "db"


def test_a_forked_child_makes_connections_of_its_own(pool: Pool) -> None:
    pool.echo(1)
    with pool.checkout() as lease:
        lease.echo(1)
        child = os.fork()
        if child == 0:
            code = 1
            try:
                expired = False
                try:
                    lease.echo(1)
                except LeaseExpired:
                    expired = True
                lease.checkin()  # its parent's: nothing happens
                ok = expired and lease.closed and pool.echo("child") == "child"
                del lease
                gc.collect()
                code = 0 if ok else 2
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert lease.echo("parent") == "parent"
        assert pool.status().monitors == 1


def test_a_lease_does_not_travel(pool: Pool) -> None:
    with pool.checkout() as lease, pytest.raises(TypeError, match="lease"):
        pickle.dumps(lease)


def test_a_handle_keeps_few_descriptors_and_gives_them_back(
    own: Standin, open_descriptors: Callable[[], dict[int, str]]
) -> None:
    before = len(open_descriptors())
    pool = Pool(own.endpoint, "db")
    for _ in range(50):
        pool.echo(1)
    assert len(open_descriptors()) <= before + 4
    lines.forget(own.directory)
    assert len(open_descriptors()) == before


def test_stacks_are_taken_only_where_leaks_are_watched(running: Standin, pool: Pool) -> None:
    watched = Pool(running.endpoint, "db", HandleFacts(stacks=True))
    with watched.checkout() as lease:
        assert lease.echo(1) == 1
    assert watched.echo(1) == 1


def test_a_handle_and_a_lease_can_be_read_by_a_human(pool: Pool) -> None:
    assert "'db'" in repr(pool)
    with pool.checkout() as lease:
        assert f"pid {lease.worker_pid}, open" in repr(lease)
    assert "ended" in repr(lease)
