"""Messages alone, without any client: from programs with a plain Thespian system, and from inside actors."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import psutil
import pytest
from thespian.actors import Actor, ActorAddress, ActorExitRequest, ActorSystem

import actorpool
from actorpool import (
    Call,
    CallTimeout,
    Checkin,
    Checkout,
    CheckoutTimeout,
    ConnectionManager,
    Err,
    Event,
    GetPoolStatus,
    Grant,
    InvalidConfig,
    ListPools,
    MethodNotFound,
    Ok,
    PoolAlreadyExists,
    PoolConfig,
    PoolFull,
    PoolNotFound,
    PoolStopped,
    StartPool,
    StopPool,
    Subscribe,
    WithConnection,
    WorkerDied,
)
from tests.acceptance import kit

pytestmark = [  # Thespian forgets sockets of private contexts, and warns of it whenever they are collected
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
BASES = ["simpleSystemBase", "multiprocTCPBase", "multiprocUDPBase"]
PROCESSES = ["multiprocTCPBase", pytest.param("multiprocUDPBase", marks=pytest.mark.slow)]


class Site:
    """A plain Thespian system with a manager of ours in it."""

    def __init__(self, base: str, port: int) -> None:
        self.base = base
        capabilities = {} if base == "simpleSystemBase" else {"Admin Port": port}
        self.system = ActorSystem(base, capabilities, transientUnique=True)
        self.manager = self.system.createActor(ConnectionManager)

    def ask(self, message: Any, to: Any = None, timeout: float = 15) -> Any:
        answer = self.system.ask(to or self.manager, message, timeout)
        assert isinstance(answer, Ok | Err), answer
        assert answer.ref == message.ref
        return answer


@pytest.fixture(scope="module", params=BASES)
def site(request: pytest.FixtureRequest) -> Iterator[Site]:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    found = Site(request.param, port)
    yield found
    found.system.shutdown()


@pytest.fixture
def name(site: Site) -> Iterator[str]:
    site.ask(StartPool("p", PoolConfig(worker=kit.Toy, size=1, max_overflow=0, max_restarts=1000))).unwrap()
    yield "p"
    answer = site.ask(StopPool("p", 0.2))
    assert isinstance(answer, Ok) or isinstance(answer.error, PoolNotFound)


def test_pools_are_started_listed_and_stopped(site: Site) -> None:
    address = site.ask(StartPool("b", PoolConfig(worker=kit.Toy, size=2))).unwrap()
    assert isinstance(address, ActorAddress)
    status = site.ask(GetPoolStatus("b")).unwrap()
    assert isinstance(status, actorpool.PoolStatus)
    assert (status.workers, status.size, status.state) == (2, 2, "ready"), "all are started when the answer comes"
    site.ask(StartPool("a", PoolConfig(worker=kit.Toy, size=0))).unwrap()
    assert site.ask(ListPools()).unwrap() == ["a", "b"]
    again = site.ask(StartPool("a", PoolConfig(worker=kit.Toy, size=3)))
    assert isinstance(again, Err)
    assert isinstance(again.error, PoolAlreadyExists)
    assert site.ask(GetPoolStatus("a")).unwrap().size == 0
    for name in ("a", "b"):
        assert site.ask(StopPool(name)).unwrap() is None
    assert site.ask(ListPools()).unwrap() == []


@pytest.mark.parametrize(
    "message",
    [GetPoolStatus("none"), StopPool("none"), WithConnection("none", kit.pid_of), Checkout("none")],
    ids=lambda m: type(m).__name__,
)
def test_an_unknown_pool_is_pool_not_found_for_every_request(site: Site, message: Any) -> None:
    answer = site.ask(message)
    assert isinstance(answer, Err)
    assert isinstance(answer.error, PoolNotFound)
    assert answer.error.pool == "none"
    with pytest.raises(PoolNotFound, match="none"):
        answer.unwrap()


def test_a_function_is_shipped_with_its_arguments(site: Site, name: str) -> None:
    assert site.ask(WithConnection(name, kit.give_back, (1, "b"), {"c": 3})).unwrap() == ((1, "b"), {"c": 3})
    extra = 5
    assert site.ask(WithConnection(name, lambda worker, x: x + extra, (1,))).unwrap() == 6
    pid = site.ask(WithConnection(name, kit.pid_of)).unwrap()
    assert (pid == os.getpid()) == (site.base == "simpleSystemBase")


def test_an_exception_of_the_function_is_an_err_with_its_type(
    site: Site, name: str, eventually: Callable[..., Any]
) -> None:
    answer = site.ask(WithConnection(name, kit.raise_problem))
    assert isinstance(answer, Err)
    with pytest.raises(kit.LocalProblem, match="the answer"):
        answer.unwrap()
    for fn in (kit.raise_unpicklable, kit.give_unpicklable, kit.raise_exit, kit.raise_interrupt):
        if site.base == "simpleSystemBase" and fn is kit.give_unpicklable:
            continue  # nothing travels there
        assert isinstance(site.ask(WithConnection(name, fn)), Err)
    assert site.ask(WithConnection(name, kit.give_back)).unwrap() == ((), {})
    eventually(lambda: site.ask(GetPoolStatus(name)).unwrap().monitors == 0)


def test_a_function_runs_once_even_when_it_fails(site: Site, name: str, tmp_path: Any) -> None:
    mark = tmp_path / "mark"
    assert isinstance(site.ask(WithConnection(name, note_and_fail, (str(mark),))), Err)
    assert mark.read_text() == "x"


def note_and_fail(_connection: Any, path: str) -> None:
    with open(path, "a") as out:
        out.write("x")
    raise RuntimeError("once")


def test_a_worker_is_checked_out_called_and_checked_in(site: Site, name: str, eventually: Callable[..., Any]) -> None:
    grant = site.ask(Checkout(name)).unwrap()
    assert isinstance(grant, Grant)
    assert grant.pool == name
    assert isinstance(grant.worker, ActorAddress)
    assert site.ask(Call(grant, "echo", ("hi",)), grant.worker).unwrap() == "hi"
    assert site.ask(Call(grant, "add", (1,), {"b": 2}), grant.worker).unwrap() == 3
    missing = site.ask(Call(grant, "private"), grant.worker)
    assert isinstance(missing.error, MethodNotFound)
    assert isinstance(site.ask(Call(grant, "boom", ("bang",)), grant.worker).error, LookupError)
    status = site.ask(GetPoolStatus(name)).unwrap()
    assert (status.monitors, status.workers, status.state) == (1, 0, "full")

    full = site.ask(Checkout(name, block=False))
    assert isinstance(full.error, PoolFull)

    site.system.tell(site.manager, Checkin(grant))
    eventually(lambda: site.ask(GetPoolStatus(name)).unwrap().monitors == 0)
    late = site.ask(Call(grant, "echo", ("late",)), grant.worker)
    assert isinstance(late.error, actorpool.LeaseExpired)
    site.system.tell(site.manager, Checkin(grant))
    assert site.ask(WithConnection(name, kit.give_back, (1,))).unwrap() == ((1,), {})


def test_a_message_that_is_none_of_ours_is_answered_by_an_err_and_harms_nothing(site: Site, name: str) -> None:
    for nonsense in ("hello", {"a": 1}, 42, Event("x", "y", 0.0, {}, {}), Call(None, "echo")):
        answer = site.system.ask(site.manager, nonsense, 5)
        assert isinstance(answer, Err), (nonsense, answer)
    grant = site.ask(Checkout(name)).unwrap()
    answer = site.system.ask(grant.worker, "hello", 5)
    assert isinstance(answer, Err)
    site.system.tell(site.manager, Checkin(grant))
    assert site.ask(WithConnection(name, kit.give_back, (1,))).unwrap() == ((1,), {})


def test_a_bad_request_is_answered_and_starts_nothing(site: Site) -> None:
    assert isinstance(site.ask(StartPool("9bad", PoolConfig(worker=kit.Toy))).error, InvalidConfig)
    answer = site.ask(StartPool("q", PoolConfig(worker=kit.FailsInInit, size=2)))
    assert isinstance(answer, Err)
    assert "no such option" in str(answer.error)
    assert site.ask(ListPools()).unwrap() == []


def test_waiting_ends_with_checkout_timeout(site: Site, name: str, eventually: Callable[..., Any]) -> None:
    if site.base == "simpleSystemBase":
        pytest.skip("timers are only served inside later requests there")
    grant = site.ask(Checkout(name)).unwrap()
    started = time.monotonic()
    answer = site.ask(Checkout(name, timeout=0.2))
    assert isinstance(answer.error, CheckoutTimeout)
    assert 0.15 < time.monotonic() - started < 2
    assert answer.error.waited == pytest.approx(0.2, abs=0.2)
    assert isinstance(site.ask(WithConnection(name, kit.pid_of, timeout=0.1)).error, CheckoutTimeout)
    site.system.tell(site.manager, Checkin(grant))
    assert site.ask(WithConnection(name, kit.give_back)).unwrap() == ((), {})


@pytest.fixture(scope="module", params=PROCESSES)
def busy_site(request: pytest.FixtureRequest) -> Iterator[Site]:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    found = Site(request.param, port)
    yield found
    found.system.shutdown()


@pytest.fixture
def p(busy_site: Site) -> Iterator[Callable[..., str]]:
    """A function that starts a pool of one worker and gives its name; it is stopped after the test."""
    names: list[str] = []

    def start(**fields: Any) -> str:
        names.append(f"p{time.monotonic_ns()}")
        config = PoolConfig(**{"worker": kit.Toy, "size": 1, "max_overflow": 0, **fields})
        busy_site.ask(StartPool(names[-1], config)).unwrap()
        return names[-1]

    yield start
    for name in names:
        busy_site.system.ask(busy_site.manager, StopPool(name, 0.1), 10)


@pytest.mark.slow
def test_the_status_answers_while_the_pool_is_saturated_and_other_pools_are_not_delayed(busy_site: Site) -> None:
    busy_site.ask(StartPool("slow", PoolConfig(worker=kit.Toy, size=1, max_overflow=0))).unwrap()
    busy_site.ask(StartPool("quick", PoolConfig(worker=kit.Toy, size=1))).unwrap()
    with busy_site.system.private() as private:
        private.tell(busy_site.manager, WithConnection("slow", kit.sleep_for, (2.0,)))
        private.tell(busy_site.manager, WithConnection("slow", kit.sleep_for, (0.0,)))
        started = time.monotonic()
        deadline = started + 1
        while (status := busy_site.ask(GetPoolStatus("slow")).unwrap()).waiting != 1 and time.monotonic() < deadline:
            pass
        assert (status.state, status.waiting, status.monitors) == ("full", 1, 1)
        for number in range(5):
            assert busy_site.ask(WithConnection("quick", kit.give_back, (number,))).unwrap() == ((number,), {})
        assert time.monotonic() - started < 1.5
        assert private.listen(10).unwrap() > 0
        assert private.listen(10).unwrap() > 0
    for name in ("slow", "quick"):
        busy_site.ask(StopPool(name, 1)).unwrap()


def test_a_slow_start_of_one_pool_does_not_keep_the_manager_from_answering(busy_site: Site, tmp_path: Any) -> None:
    config = PoolConfig(worker=kit.Gate, worker_args={"gate": str(tmp_path / "closed")}, size=1, checkout_timeout=1.5)
    with busy_site.system.private() as private:
        started = time.monotonic()
        private.tell(busy_site.manager, StartPool("away", config))
        assert isinstance(busy_site.ask(ListPools()), Ok)
        assert time.monotonic() - started < 1
        assert isinstance(private.listen(10), Ok)
        assert time.monotonic() - started < 3.5
    assert busy_site.ask(GetPoolStatus("away")).unwrap().state == "degraded"
    busy_site.ask(StopPool("away", 0.1)).unwrap()


def test_a_worker_killed_during_a_call_is_worker_died(
    busy_site: Site, p: Callable[..., str], eventually: Callable[..., Any], tmp_path: Any
) -> None:
    name = p(max_restarts=100)
    mark = tmp_path / "mark"
    with busy_site.system.private() as private:
        private.tell(busy_site.manager, WithConnection(name, kit.touch_then_sleep, (str(mark), 30)))
        os.kill(int(eventually(lambda: mark.read_text().strip())), signal.SIGKILL)
        answer = private.listen(5)
    assert isinstance(answer, Err)
    assert isinstance(answer.error, WorkerDied)
    assert answer.error.pool == name


def test_a_worker_killed_during_a_call_under_a_grant_is_worker_died(
    busy_site: Site, p: Callable[..., str], eventually: Callable[..., Any]
) -> None:
    name = p(max_restarts=100)
    grant = busy_site.ask(Checkout(name)).unwrap()
    pid = busy_site.ask(Call(grant, "pid"), grant.worker).unwrap()
    call = Call(grant, "sleep", (30,))
    with busy_site.system.private() as private:
        private.tell(grant.worker, call)
        worker = psutil.Process(pid)
        eventually(lambda: worker.status() == psutil.STATUS_SLEEPING)
        time.sleep(0.2)  # whether it sleeps in its call or for want of one cannot be seen
        worker.kill()
        answer = private.listen(5)
    assert isinstance(answer, Err)
    assert isinstance(answer.error, WorkerDied)
    assert (answer.ref, answer.error.pool) == (call.ref, name)
    eventually(lambda: busy_site.ask(GetPoolStatus(name)).unwrap().monitors == 0)


def test_an_idle_worker_killed_between_calls_fails_none_and_every_request_has_one_reply(
    busy_site: Site, p: Callable[..., str]
) -> None:
    name = p(max_restarts=1000)
    for number in range(30):
        os.kill(busy_site.ask(WithConnection(name, kit.pid_of)).unwrap(), signal.SIGKILL)
        assert busy_site.ask(WithConnection(name, kit.give_back, (number,))).unwrap() == ((number,), {})


def test_a_function_that_kills_its_worker_is_run_once(busy_site: Site, p: Callable[..., str], tmp_path: Any) -> None:
    name = p(max_restarts=100)
    for number in range(8):
        mark = tmp_path / str(number)
        answer = busy_site.ask(WithConnection(name, note_and_die, (str(mark),)))
        assert isinstance(answer, Err)
        assert isinstance(answer.error, WorkerDied)
        assert mark.read_text() == "x"


def note_and_die(_connection: Any, path: str) -> None:
    with open(path, "a") as out:
        out.write("x")
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_lease_of_the_pools_own_that_is_too_old_is_lease_expired(busy_site: Site, p: Callable[..., str]) -> None:
    name = p(max_lease=0.2)
    started = time.monotonic()
    answer = busy_site.ask(WithConnection(name, kit.sleep_for, (30,)))
    assert isinstance(answer, Err)
    assert isinstance(answer.error, actorpool.LeaseExpired)
    assert time.monotonic() - started < 2
    grant = busy_site.ask(Checkout(name)).unwrap()
    late = busy_site.ask(Call(grant, "sleep", (30,)), grant.worker)
    assert isinstance(late, Err)
    assert isinstance(late.error, actorpool.LeaseExpired)


def test_stopping_a_pool_answers_its_waiters(
    busy_site: Site, p: Callable[..., str], eventually: Callable[..., Any]
) -> None:
    name = p()
    grant = busy_site.ask(Checkout(name)).unwrap()
    with busy_site.system.private() as private:
        private.tell(busy_site.manager, Checkout(name, timeout=30))
        eventually(lambda: busy_site.ask(GetPoolStatus(name)).unwrap().waiting == 1)
        busy_site.ask(StopPool(name, 0.2)).unwrap()
        answer = private.listen(5)
    assert isinstance(answer.error, PoolStopped)
    assert grant is not None


class Client(Actor):
    """Checks a worker out by message, calls it, checks it in, and says what came back."""

    def receiveMessage(self, message: Any, sender: Any) -> None:  # noqa: N802 - Thespian's name
        if isinstance(message, tuple) and message[0] == "work":
            self.asker, self.manager, self.pool = sender, message[1], message[2]
            self.keep = message[3] if len(message) > 3 else False
            self.stage = "checkout"
            self.send(self.manager, Checkout(self.pool))
        elif isinstance(message, Ok) and self.stage == "checkout":
            self.grant, self.stage = message.value, "call"
            if self.keep:
                self.send(self.asker, "holding")
            else:
                self.send(self.grant.worker, Call(self.grant, "add", (40,), {"b": 2}))
        elif isinstance(message, Ok) and self.stage == "call":
            self.answer, self.stage = message.value, "with"
            self.send(self.manager, Checkin(self.grant))
            self.send(self.manager, WithConnection(self.pool, kit.give_back, ("shipped",)))
        elif isinstance(message, Ok) and self.stage == "with":
            self.stage = "done"
            self.send(self.asker, (self.answer, message.value))
        elif isinstance(message, Err):
            self.send(self.asker, ("failed", repr(message.error)))
        elif isinstance(message, Event):
            self.send(self.asker, message)
        elif isinstance(message, tuple) and message[0] == "subscribe":
            self.asker, self.stage = sender, "subscribed"
            self.send(message[1], Subscribe(message[2]))
        elif message == "pid":
            self.send(sender, os.getpid())


def test_an_actor_checks_out_calls_and_checks_in_by_messages(
    site: Site, name: str, eventually: Callable[..., Any]
) -> None:
    client = site.system.createActor(Client)
    assert site.system.ask(client, ("work", site.manager, name), 15) == (42, (("shipped",), {}))
    eventually(lambda: site.ask(GetPoolStatus(name)).unwrap().monitors == 0)
    site.system.tell(client, ActorExitRequest())


@pytest.mark.parametrize("end", ["kill", "exit"])
def test_the_lease_of_a_dead_actor_is_reclaimed(busy_site: Site, p: Callable[..., str], end: str) -> None:
    name = p()
    client = busy_site.system.createActor(Client)
    pid = busy_site.system.ask(client, "pid", 5)
    assert busy_site.system.ask(client, ("work", busy_site.manager, name, True), 10) == "holding"
    assert busy_site.ask(GetPoolStatus(name)).unwrap().monitors == 1
    if end == "kill":
        os.kill(pid, signal.SIGKILL)
    else:
        busy_site.system.tell(client, ActorExitRequest())
    died = time.monotonic()
    assert busy_site.ask(WithConnection(name, kit.give_back, (1,))).unwrap() == ((1,), {})
    assert time.monotonic() - died < 1
    assert busy_site.ask(GetPoolStatus(name)).unwrap().reclaimed == 1


def test_any_actor_may_subscribe_to_events(busy_site: Site) -> None:
    client = busy_site.system.createActor(Client)
    with busy_site.system.private() as private:
        private.tell(client, ("subscribe", busy_site.manager, "pool.started"))
        deadline = time.monotonic() + 10
        event = None
        number = 0
        while event is None and time.monotonic() < deadline:
            number += 1
            busy_site.ask(StartPool(f"s{number}", PoolConfig(worker=kit.Toy, size=0))).unwrap()
            event = private.listen(0.5)
        assert isinstance(event, Event)
        assert event.name == "pool.started"
        assert event.pool.startswith("s")
        assert abs(event.time - time.time()) < 60
        assert isinstance(event.measurements, dict)
        assert isinstance(event.metadata, dict)
    busy_site.system.tell(client, ActorExitRequest())
    for n in range(number):
        busy_site.ask(StopPool(f"s{n + 1}", 0.1)).unwrap()


def test_a_second_program_attaches_to_the_plain_system_and_its_death_gives_back_its_lease(
    script: Callable[..., Any], free_port: int
) -> None:
    owner = script(
        "import sys\nfrom thespian.actors import ActorSystem\n"
        "from actorpool import ConnectionManager, GetPoolStatus, PoolConfig, StartPool\n"
        "from tests.acceptance.kit import Toy\n"
        "system = ActorSystem('multiprocTCPBase', {'Admin Port': int(sys.argv[1])})\n"
        "manager = system.createActor(ConnectionManager, globalName='manager')\n"
        "system.ask(manager, StartPool('p', PoolConfig(worker=Toy, size=1, max_overflow=0)), 15).unwrap()\n"
        "print('up', flush=True)\n"
        "for line in sys.stdin:\n"
        "    if line == 'end\\n': break\n"
        "    print(system.ask(manager, GetPoolStatus('p'), 5).unwrap().monitors, flush=True)\n"
        "system.shutdown()\nprint('down', flush=True)",
        str(free_port),
    )
    assert owner.stdout.readline() == "up\n"
    holder = script(
        "import sys, time\nfrom thespian.actors import ActorSystem\n"
        "from actorpool import Call, Checkout, ConnectionManager\n"
        "system = ActorSystem('multiprocTCPBase', {'Admin Port': int(sys.argv[1])})\n"
        "manager = system.createActor(ConnectionManager, globalName='manager')\n"
        "grant = system.ask(manager, Checkout('p'), 10).unwrap()\n"
        "print(system.ask(grant.worker, Call(grant, 'echo', (5,)), 10).unwrap(), flush=True)\ntime.sleep(60)",
        str(free_port),
    )
    assert holder.stdout.readline() == "5\n"

    def monitors() -> str:
        owner.stdin.write("?\n")
        return str(owner.stdout.readline())

    assert monitors() == "1\n"
    holder.kill()
    died = time.monotonic()
    while monitors() != "0\n":
        assert time.monotonic() - died < 2
    print(f"lease of a killed program back after {(time.monotonic() - died) * 1000:.0f} ms")
    owner.stdin.write("end\n")
    assert owner.stdout.readline() == "down\n"


def test_a_call_timeout_of_the_pool_holds_for_messages_too(busy_site: Site, p: Callable[..., str]) -> None:
    name = p(call_timeout=0.2)
    for number in range(3):
        started = time.monotonic()
        answer = busy_site.ask(WithConnection(name, kit.sleep_for, (30,)))
        assert isinstance(answer.error, CallTimeout)
        assert answer.error.pool == name
        assert time.monotonic() - started < 2
        assert busy_site.ask(WithConnection(name, kit.give_back, (number,))).unwrap() == ((number,), {})


@pytest.mark.parametrize("end", ["exit", "kill"])
def test_the_end_of_the_manager_is_the_end_of_its_pools_and_workers(
    busy_site: Site, eventually: Callable[..., Any], end: str
) -> None:
    manager = busy_site.system.createActor(ConnectionManager)
    busy_site.ask(StartPool("p", PoolConfig(worker=kit.Toy, size=3)), manager).unwrap()
    worker = psutil.Process(busy_site.ask(WithConnection("p", kit.pid_of), manager).unwrap())
    top = worker.parents()[1]
    started = [top, *top.children(recursive=True)]
    assert len(started) == 5
    if end == "exit":
        busy_site.system.tell(manager, ActorExitRequest())
    else:
        top.kill()
    eventually(lambda: not [process for process in started if process.is_running() and process.status() != "zombie"])


def test_many_threads_with_a_private_context_each_get_their_own_answers(busy_site: Site, p: Callable[..., str]) -> None:
    name = p(size=2)
    wrong: list[Any] = []

    def use(number: int) -> None:
        with busy_site.system.private() as private:
            for turn in range(20):
                answer = private.ask(busy_site.manager, WithConnection(name, kit.give_back, (number, turn)), 15)
                if answer.unwrap() != ((number, turn), {}):
                    wrong.append(answer)

    threads = [threading.Thread(target=use, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert wrong == []
