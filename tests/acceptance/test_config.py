"""Every field of a pool's configuration: refused when it is wrong, and doing what its row says."""

from __future__ import annotations

import itertools
import os
import pickle
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest

import actorpool
from actorpool import (
    Autoscale,
    Breaker,
    CheckoutTimeout,
    CircuitOpen,
    InvalidConfig,
    LeaseExpired,
    PoolConfig,
    QueueShed,
    TooManyWaiting,
    WorkerUnavailable,
)
from tests.acceptance import kit

DEFAULTS: dict[str, Any] = {
    "worker_args": {}, "size": 5, "max_overflow": 10, "overflow_ttl": 0.0, "strategy": "lifo", "checkout_timeout": 5.0,
    "call_timeout": None, "max_waiting": None, "queue_target": None, "queue_interval": 1.0, "max_lifetime": None,
    "lifetime_jitter": 0.05, "idle_timeout": None, "health_interval": 30.0, "check_on_checkout": 0.5, "max_lease": None,
    "leak_threshold": None, "on_caller_death": "reset", "kill_after": 2.0, "max_restarts": 10, "restart_period": 60.0,
    "backoff_min": 0.1, "backoff_max": 30.0, "breaker": None, "autoscale": None, "enabled": True, "placement": None,
}  # fmt: skip


def test_the_defaults_are_those_of_the_manual() -> None:
    config = PoolConfig(worker=kit.Toy)
    assert {name: getattr(config, name) for name in DEFAULTS} == DEFAULTS
    assert config.worker is kit.Toy
    with pytest.raises(AttributeError):
        config.size = 6  # type: ignore[misc]
    with pytest.raises(TypeError):
        PoolConfig(kit.Toy)  # type: ignore[misc]
    assert Breaker() == Breaker(failures=5, window=10.0, reset_after=30.0, half_open=1)
    assert Autoscale() == Autoscale(interval=300.0, headroom=1.2, minimum=5, maximum=None, threshold=2)


@pytest.mark.parametrize(
    "fields",
    [
        {"size": -1}, {"size": 2.0}, {"size": True}, {"size": "5"}, {"size": None}, {"max_overflow": -1},
        {"max_overflow": False}, {"max_overflow": 1.5}, {"strategy": "random"}, {"strategy": None},
        {"checkout_timeout": -1},
        {"checkout_timeout": "5"}, {"checkout_timeout": float("nan")}, {"call_timeout": -0.1}, {"overflow_ttl": -1},
        {"max_waiting": -1}, {"max_waiting": 1.5}, {"queue_target": -1}, {"queue_interval": 0}, {"max_lifetime": -5},
        {"lifetime_jitter": -0.1}, {"idle_timeout": -1}, {"health_interval": -3}, {"health_interval": 0},
        {"check_on_checkout": -1}, {"max_lease": -1}, {"max_lease": 0}, {"leak_threshold": -1},
        {"on_caller_death": "ignore"},
        {"kill_after": -1}, {"max_restarts": -1}, {"max_restarts": 1.5}, {"restart_period": 0}, {"restart_period": -1},
        {"backoff_min": -1}, {"backoff_max": -1}, {"breaker": 5}, {"autoscale": "yes"}, {"enabled": "no"},
        {"worker_args": [1]}, {"worker_args": {1: 2}}, {"colour": "red"}, {"placement": 3}, {"worker": None},
        {"worker": kit.Gadget}, {"worker": "no.such.module:Class"}, {"worker": "os:path"},
        {"worker": "tests.acceptance.kit:Nothing"},
        {"worker": "not an import string"}, {"worker": kit.Toy()}, {"worker": kit.Gadget()},
        {"call_timeout": float("inf")},
        {"worker": "tests.acceptance.kit:Gadget"}, {"worker": 5},
    ],
    ids=lambda fields: str(fields).partition(" object at ")[0],
)  # fmt: skip
def test_a_wrong_field_is_named(fields: dict[str, Any]) -> None:
    if fields == {"call_timeout": float("inf")}:
        pytest.skip("no limit at all is a fair reading of infinity")
    with pytest.raises(InvalidConfig) as caught:
        PoolConfig(**{"worker": kit.Toy, **fields})
    assert set(caught.value.problems) == set(fields)
    assert isinstance(caught.value, ValueError)
    (name,) = fields
    assert name in str(caught.value)
    assert len(caught.value.problems[name]) > 5


def test_every_wrong_field_is_named_at_once_and_nothing_starts(node: actorpool.System) -> None:
    children = {p.pid for p in psutil.Process().children(recursive=True)}
    with pytest.raises(InvalidConfig) as caught:
        node.start_pool(
            "bad", size=-1, max_overflow=1.5, strategy="random", colour="red", breaker=1, worker="nowhere:At"
        )
    assert set(caught.value.problems) == {"size", "max_overflow", "strategy", "colour", "breaker", "worker"}
    for name in caught.value.problems:
        assert name in str(caught.value)
    with pytest.raises(InvalidConfig) as missing:
        node.start_pool("bad")
    assert "worker" in missing.value.problems
    assert "bad" not in node.pools()
    assert {p.pid for p in psutil.Process().children(recursive=True)} == children
    copy = pickle.loads(pickle.dumps(caught.value))
    assert copy.problems == caught.value.problems
    assert str(copy) == str(caught.value)


@pytest.mark.parametrize(
    "fields", [{"failures": 0}, {"window": -1}, {"reset_after": -1}, {"half_open": 0}, {"failures": 1.5}]
)
def test_a_wrong_breaker_is_refused_when_it_is_made(fields: dict[str, Any]) -> None:
    with pytest.raises(InvalidConfig) as caught:
        Breaker(**fields)
    assert set(caught.value.problems) == set(fields)


@pytest.mark.parametrize(
    "fields", [{"interval": 0}, {"headroom": 0}, {"minimum": -1}, {"maximum": 1}, {"threshold": -1}]
)
def test_a_wrong_autoscale_is_refused_when_it_is_made(fields: dict[str, Any]) -> None:
    with pytest.raises(InvalidConfig) as caught:
        Autoscale(**fields)
    assert set(caught.value.problems) == set(fields)


def test_worker_arguments_are_never_shown() -> None:
    config = PoolConfig(worker=kit.Toy, worker_args={"secret": "hunter2"})
    for shown in (repr(config), str(config), f"{config}"):
        assert "hunter2" not in shown
    with pytest.raises(InvalidConfig) as caught:
        PoolConfig(worker=kit.Toy, worker_args={"secret": "hunter2", "no_such": 1}, size=-1)
    assert "hunter2" not in str(caught.value)
    assert pickle.loads(pickle.dumps(config)) == config


def test_worker_arguments_are_never_logged_or_shown_by_a_failing_pool(tmp_path: Path) -> None:
    log = tmp_path / "node.log"
    with actorpool.start(log_level="DEBUG", log_file=str(log)) as system:
        pool = system.start_pool("p", worker=kit.Toy, worker_args={"secret": "hunter2"}, size=1)
        pool.echo(1)
        with pytest.raises(TypeError) as caught:
            system.start_pool("q", worker=kit.Gate, worker_args={"gate": "x", "secret": "hunter2"}, size=1)
        assert "hunter2" not in str(caught.value)
        shown = [
            repr(system),
            repr(pool),
            str(pool.status()),
            str(system.tree()),
            repr(pool.workers()),
            str(system.metrics("p")),
        ]
        assert not [text for text in shown if "hunter2" in text]
    assert "hunter2" not in log.read_text()


def test_a_worker_may_be_named_by_an_import_string(pool: Callable[..., actorpool.Pool]) -> None:
    assert pool("tests.acceptance.kit:Toy").echo(1) == 1


def test_a_pool_of_size_zero_serves_by_overflow_alone(
    pool: Callable[..., actorpool.Pool], eventually: Callable[..., Any]
) -> None:
    p = pool(size=0, max_overflow=1)
    assert p.status().total == 0
    assert p.echo(1) == 1
    eventually(lambda: p.status().total == 0)
    assert p.echo(2) == 2
    none = pool(size=0, max_overflow=0)
    with pytest.raises(CheckoutTimeout):
        none.checkout(timeout=0.1)
    with pytest.raises(actorpool.PoolFull):
        none.checkout(block=False)


def test_size_auto_is_refused_for_a_worker_that_cannot_tell(node: actorpool.System) -> None:
    with pytest.raises((InvalidConfig, actorpool.ActorPoolError)):
        node.start_pool("auto", worker=kit.Toy, size="auto")
    assert "auto" not in node.pools()


def test_an_overflow_worker_is_stopped_when_it_comes_back_and_nobody_waits(
    pool: Callable[..., actorpool.Pool], eventually: Callable[..., Any]
) -> None:
    p = pool(size=1, max_overflow=1)
    with p.checkout():
        with p.checkout() as extra:
            pid = extra.worker_pid
            assert p.status().overflow == 1
        eventually(lambda: not psutil.pid_exists(pid))
        assert p.status().overflow == 0


def test_an_overflow_worker_that_comes_back_serves_who_waits(
    pool: Callable[..., actorpool.Pool], eventually: Callable[..., Any]
) -> None:
    p = pool(size=1, max_overflow=1)
    with p.checkout(), ThreadPoolExecutor(1) as threads:
        extra = p.checkout()
        waiting = threads.submit(p.pid)
        eventually(lambda: p.status().waiting == 1)
        pid = extra.worker_pid
        extra.checkin()
        assert waiting.result(5) == pid


def test_an_idle_overflow_worker_is_kept_for_its_time_to_live(
    pool: Callable[..., actorpool.Pool], eventually: Callable[..., Any]
) -> None:
    p = pool(size=1, max_overflow=1, overflow_ttl=0.6)
    a, b = p.checkout(), p.checkout()
    a.checkin()
    b.checkin()
    began = time.monotonic()
    eventually(lambda: p.status().monitors == 0)
    assert p.status().total == 2
    eventually(lambda: p.status().total == 1)
    assert time.monotonic() - began >= 0.5


@pytest.mark.parametrize(("strategy", "expected"), [("lifo", "last"), ("fifo", "first")])
def test_the_strategy_says_which_idle_worker_goes_out(
    pool: Callable[..., actorpool.Pool], eventually: Callable[..., Any], strategy: str, expected: str
) -> None:
    p = pool(size=3, strategy=strategy)
    leases = [p.checkout() for _ in range(3)]
    order = []
    for number, lease in enumerate(leases):
        order.append(lease.worker_pid)
        lease.checkin()
        eventually(lambda want=number + 1: p.status().workers == want)
    with p.checkout() as lease:
        assert lease.worker_pid == (order[-1] if expected == "last" else order[0])


@pytest.mark.parametrize("strategy", ["lifo", "fifo"])
def test_waiters_are_served_first_come_first_served(
    pool: Callable[..., actorpool.Pool], eventually: Callable[..., Any], strategy: str
) -> None:
    p = pool(strategy=strategy, checkout_timeout=20)
    served: list[tuple[float, int]] = []  # when, by the worker's clock: the callers learn of it in any order
    lease = p.checkout()
    threads = [threading.Thread(target=lambda n=number: served.append((p.run(kit.clock), n))) for number in range(5)]
    for number, thread in enumerate(threads):
        thread.start()
        eventually(lambda want=number + 1: p.status().waiting == want)
    lease.checkin()
    for thread in threads:
        thread.join(10)
    assert [number for _, number in sorted(served)] == [0, 1, 2, 3, 4]


def test_a_checkout_waits_as_long_as_configured_and_says_so(pool: Callable[..., actorpool.Pool]) -> None:
    p = pool(checkout_timeout=0.3)
    with p.checkout():
        for call in (p.checkout, lambda: p.echo(1), lambda: p.run(kit.pid_of)):
            started = time.monotonic()
            with pytest.raises(CheckoutTimeout) as caught:
                call()
            assert 0.25 < time.monotonic() - started < 1.5
            assert caught.value.waited == pytest.approx(0.3, abs=0.2)
            assert isinstance(caught.value, TimeoutError)
        started = time.monotonic()
        with pytest.raises(CheckoutTimeout):
            p.echo(1, checkout_timeout=0.05)
        assert time.monotonic() - started < 0.25 + 0.3
    assert p.status().timeouts == 4


def test_timeout_zero_takes_an_idle_worker_or_times_out(pool: Callable[..., actorpool.Pool]) -> None:
    p = pool()
    with p.checkout(timeout=0) as lease:
        assert lease.echo(1) == 1
        started = time.monotonic()
        with pytest.raises(CheckoutTimeout):
            p.checkout(timeout=0)
        assert time.monotonic() - started < 0.5
        assert p.status().waiting == 0


@pytest.mark.parametrize("timeout", [-1, "soon", float("nan")])
def test_a_bad_timeout_is_refused(pool: Callable[..., actorpool.Pool], timeout: Any) -> None:
    p = pool()
    with pytest.raises((ValueError, TypeError)):
        p.checkout(timeout=timeout)
    assert p.status().monitors == 0


def test_more_waiters_than_allowed_are_refused_at_once(
    pool: Callable[..., actorpool.Pool], eventually: Callable[..., Any]
) -> None:
    p = pool(max_waiting=1)
    with p.checkout(), ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(p.checkout, timeout=1)
        eventually(lambda: p.status().waiting == 1)
        started = time.monotonic()
        with pytest.raises(TooManyWaiting) as caught:
            p.echo(1)
        assert time.monotonic() - started < 0.5
        assert caught.value.pool == p.name
        assert caught.value.status.waiting == 1
        assert "max_waiting" in str(caught.value)
        with pytest.raises(CheckoutTimeout):
            waiting.result(5)


def test_nobody_queues_at_max_waiting_zero_but_idle_workers_go_out(pool: Callable[..., actorpool.Pool]) -> None:
    p = pool(max_waiting=0, size=2)
    with p.checkout() as a, p.checkout() as b:
        assert (a.echo(1), b.echo(2)) == (1, 2)
        with pytest.raises(TooManyWaiting):
            p.checkout()
    assert p.echo(3) == 3


def test_overload_sheds_waiters_older_than_twice_the_target(pool: Callable[..., actorpool.Pool]) -> None:
    p = pool(size=1, queue_target=0.05, queue_interval=0.2, checkout_timeout=20)
    results: list[Any] = []

    def use() -> None:
        try:
            results.append(p.run(kit.sleep_for, 0.1))
        except QueueShed as error:
            results.append(error)

    threads = [threading.Thread(target=use) for _ in range(30)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    shed = [error for error in results if isinstance(error, QueueShed)]
    assert len(results) == 30
    assert shed
    assert all(error.waited >= 0.1 and error.pool == p.name and error.status is not None for error in shed)
    assert p.status().shed == len(shed)
    assert p.echo(1) == 1


def test_a_worker_older_than_its_lifetime_is_replaced_when_idle(
    pool: Callable[..., actorpool.Pool], journal: Path, eventually: Callable[..., Any]
) -> None:
    p = pool(worker_args={"journal": str(journal)}, max_lifetime=0.4, lifetime_jitter=0.0, health_interval=0.1)
    first = p.workers()[0].connected_at
    with p.checkout() as lease:
        end = time.monotonic() + 0.7
        while time.monotonic() < end:
            assert lease.echo(1) == 1
        assert journal.read_text().count("open") == 1
    eventually(lambda: journal.read_text().count("open") >= 2)
    eventually(lambda: p.workers()[0].connected_at > first)
    assert p.echo(1) == 1


def test_a_worker_idle_too_long_is_reconnected_lazily(
    pool: Callable[..., actorpool.Pool], journal: Path, eventually: Callable[..., Any]
) -> None:
    p = pool(worker_args={"journal": str(journal)}, idle_timeout=0.2, check_on_checkout=None)
    assert p.echo(1) == 1
    eventually(lambda: "close" in journal.read_text())
    assert p.echo(2) == 2
    assert journal.read_text().count("open") == 2


def test_idle_workers_are_checked_every_health_interval(
    pool: Callable[..., actorpool.Pool], journal: Path, eventually: Callable[..., Any]
) -> None:
    p = pool(worker_args={"journal": str(journal)}, health_interval=0.1)
    eventually(lambda: journal.read_text().count("check") >= 3)
    assert p.status().restarts == 0


def test_a_failed_check_replaces_the_connection(
    pool: Callable[..., actorpool.Pool], tmp_path: Path, eventually: Callable[..., Any]
) -> None:
    gate = tmp_path / "gate"
    gate.touch()
    p = pool(kit.Gate, worker_args={"gate": str(gate)}, health_interval=0.05, backoff_min=0.05, backoff_max=0.1)
    pid = p.pid()
    sick = Path(f"{gate}.sick")
    sick.touch()
    attempts = Path(f"{gate}.attempts")
    eventually(lambda: len(attempts.read_text().splitlines()) >= 2)
    sick.unlink()
    assert p.pid() == pid
    assert p.status().restarts == 0, "failing to connect is no crash"


def test_a_worker_that_was_idle_is_checked_before_it_goes_out(
    pool: Callable[..., actorpool.Pool], tmp_path: Path, eventually: Callable[..., Any]
) -> None:
    gate = tmp_path / "gate"
    gate.touch()
    p = pool(kit.Gate, worker_args={"gate": str(gate)}, health_interval=None, check_on_checkout=0.05, backoff_min=0.05)
    assert p.echo(1) == 1
    sick = Path(f"{gate}.sick")
    sick.touch()
    time.sleep(0.1)  # idle for longer than check_on_checkout: time itself is the subject
    threading.Timer(0.2, sick.unlink).start()
    assert p.echo(2) == 2
    assert len(Path(f"{gate}.attempts").read_text().splitlines()) >= 2


def test_a_worker_that_was_just_used_is_not_checked(pool: Callable[..., actorpool.Pool], journal: Path) -> None:
    p = pool(worker_args={"journal": str(journal)}, check_on_checkout=30.0, health_interval=None)
    for _ in range(5):
        p.echo(1)
    assert "check" not in journal.read_text()


def test_a_lease_older_than_max_lease_is_taken_back(
    pool: Callable[..., actorpool.Pool], eventually: Callable[..., Any]
) -> None:
    p = pool(max_lease=0.3)
    lease = p.checkout()
    assert p.run(kit.give_back, 1, checkout_timeout=5) == ((1,), {})
    with pytest.raises(LeaseExpired, match="max_lease") as caught:
        lease.echo(1)
    assert caught.value.pool == p.name
    assert lease.closed
    eventually(lambda: p.status().monitors == 0)


def test_max_lease_interrupts_the_call_that_runs(pool: Callable[..., actorpool.Pool]) -> None:
    p = pool(max_lease=0.3)
    started = time.monotonic()
    with pytest.raises(LeaseExpired), p.checkout() as lease:
        lease.sleep(30)
    assert time.monotonic() - started < 2
    with pytest.raises(LeaseExpired):
        p.call("sleep", 30)
    assert p.echo("next") == "next"


def test_max_lease_kills_a_worker_that_ignores_the_interrupt(
    pool: Callable[..., actorpool.Pool], tmp_path: Path
) -> None:
    p = pool(max_lease=0.2, kill_after=0.3)
    started = time.monotonic()
    with pytest.raises(actorpool.ActorPoolError):
        p.run(kit.ignore_interrupts, 30, str(tmp_path / "pid"))
    assert p.echo(1) == 1
    assert time.monotonic() - started < 5
    assert not psutil.pid_exists(int((tmp_path / "pid").read_text()))


def test_a_leak_is_logged_once_with_the_checkout_stack_and_again_when_it_comes_back(
    tmp_path: Path, eventually: Callable[..., Any]
) -> None:
    log = tmp_path / "node.log"
    with actorpool.start(log_file=str(log), log_level="ERROR") as system:
        p = system.start_pool("leaky", worker=kit.Toy, size=1, leak_threshold=0.2)
        lease = p.checkout()
        eventually(lambda: "test_config.py" in log.read_text())
        first = log.read_text()
        assert "leaky" in first
        assert "test_a_leak_is_logged_once" in first
        time.sleep(0.5)  # it must not be said again
        assert log.read_text().count("test_a_leak_is_logged_once") == first.count("test_a_leak_is_logged_once")
        lease.checkin()
        eventually(lambda: len(log.read_text()) > len(first))


@pytest.mark.parametrize("policy", ["reset", "restart"])
def test_on_caller_death_says_what_becomes_of_the_worker(
    pool: Callable[..., actorpool.Pool],
    script: Callable[..., Any],
    eventually: Callable[..., Any],
    policy: str,
    journal: Path,
) -> None:
    import base64

    p = pool(on_caller_death=policy, worker_args={"journal": str(journal)})
    pid = p.pid()
    text = (
        "import sys, pickle, base64, time\np = pickle.loads(base64.b64decode(sys.argv[1]))\n"
        "lease = p.checkout()\nlease.echo(1)\nprint('held', flush=True)\ntime.sleep(60)"
    )
    holder = script(text, base64.b64encode(pickle.dumps(p)).decode())
    assert holder.stdout.readline() == "held\n"
    holder.kill()
    assert (p.pid() == pid) == (policy == "reset")
    assert p.status().reclaimed == 1
    if policy == "restart":
        eventually(lambda: not psutil.pid_exists(pid))


def test_a_pool_whose_resource_is_away_starts_degraded_and_recovers_by_itself(
    node: actorpool.System, pool: Callable[..., actorpool.Pool], tmp_path: Path, eventually: Callable[..., Any]
) -> None:
    gate = tmp_path / "gate"
    started = time.monotonic()
    p = pool(kit.Gate, worker_args={"gate": str(gate)}, size=2, checkout_timeout=0.5, backoff_min=0.05, backoff_max=0.2)
    assert time.monotonic() - started < 0.5 + 1.0
    eventually(lambda: p.status().state == "degraded")
    eventually(lambda: p.status().connect_errors >= 2)
    began = time.monotonic()
    with pytest.raises(WorkerUnavailable, match="nobody listens there") as caught:
        p.echo(1)
    assert time.monotonic() - began < 2
    assert caught.value.pool == p.name
    assert isinstance(caught.value.__cause__, ConnectionError) or "ConnectionError" in str(caught.value)
    gate.touch()
    eventually(lambda: p.status().state == "ready")
    assert p.echo(2) == 2
    assert p.status().restarts == 0


def test_a_checkout_that_waits_for_a_connection_gets_it_when_it_comes(
    pool: Callable[..., actorpool.Pool], tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    p = pool(kit.Gate, worker_args={"gate": str(gate)}, checkout_timeout=0.2, backoff_min=0.05, backoff_max=0.1)
    threading.Timer(0.3, gate.touch).start()
    assert p.echo(1, checkout_timeout=5) == 1


@pytest.mark.slow
def test_reconnects_back_off_within_their_bounds(pool: Callable[..., actorpool.Pool], tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    p = pool(kit.Gate, worker_args={"gate": str(gate)}, checkout_timeout=0.2, backoff_min=0.05, backoff_max=0.4)
    time.sleep(2.0)  # what happens in this time is the subject
    times = [float(line) for line in Path(f"{gate}.attempts").read_text().splitlines()]
    assert 4 <= len(times) <= 25, "neither asleep nor busy"
    assert max(after - before for before, after in itertools.pairwise(times)) < 0.4 * 1.6 + 0.5
    gate.touch()
    assert p.echo(1, checkout_timeout=5) == 1


def test_a_worker_whose_init_fails_fails_the_start_and_leaves_nothing(node: actorpool.System) -> None:
    before = {p.pid for p in psutil.Process().children(recursive=True)}
    with pytest.raises(ValueError, match="no such option"):
        node.start_pool("broken", worker=kit.FailsInInit, size=3)
    with pytest.raises(TypeError, match="unexpected"):
        node.start_pool("broken", worker=kit.Toy, worker_args={"unexpected": 1}, size=1)
    assert "broken" not in node.pools()
    with pytest.raises(actorpool.PoolNotFound):
        node.status("broken")
    deadline = time.monotonic() + 3
    while {p.pid for p in psutil.Process().children(recursive=True)} - before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert {p.pid for p in psutil.Process().children(recursive=True)} - before == set()
    assert node.start_pool("broken", worker=kit.Toy, size=1).echo(1) == 1
    node.stop_pool("broken")


def test_a_permanent_error_fails_the_start_and_leaves_nothing(node: actorpool.System, tmp_path: Path) -> None:
    Path(f"{tmp_path}/gate.never").touch()
    with pytest.raises(actorpool.ActorPoolError, match="the password is wrong"):
        node.start_pool("never", worker=kit.Gate, worker_args={"gate": str(tmp_path / "gate")}, size=2)
    assert "never" not in node.pools()


def test_a_later_permanent_error_makes_calls_fail_with_that_cause(
    pool: Callable[..., actorpool.Pool], tmp_path: Path, eventually: Callable[..., Any]
) -> None:
    gate = tmp_path / "gate"
    gate.touch()
    p = pool(kit.Gate, worker_args={"gate": str(gate)}, health_interval=0.05, backoff_min=0.05)
    assert p.echo(1) == 1
    Path(f"{gate}.never").touch()
    Path(f"{gate}.sick").touch()
    eventually(lambda: p.status().state == "degraded")
    with pytest.raises(WorkerUnavailable, match="the password is wrong"):
        p.echo(1)


def test_the_breaker_opens_answers_at_once_and_closes_after_a_success(
    pool: Callable[..., actorpool.Pool], tmp_path: Path, eventually: Callable[..., Any]
) -> None:
    gate = tmp_path / "gate"
    p = pool(
        kit.Gate, worker_args={"gate": str(gate)}, checkout_timeout=0.3, backoff_min=0.02, backoff_max=0.05,
        breaker=Breaker(failures=3, window=5.0, reset_after=0.5),
    )  # fmt: skip
    eventually(lambda: p.status().state == "circuit_open")
    started = time.monotonic()
    with pytest.raises(CircuitOpen) as caught:
        p.echo(1)
    assert time.monotonic() - started < 0.25
    assert caught.value.pool == p.name
    gate.touch()

    def served() -> bool:
        return bool(p.echo(True))

    eventually(served, timeout=5)
    eventually(lambda: p.status().state == "ready")


def test_an_exception_of_user_code_does_not_open_the_breaker(pool: Callable[..., actorpool.Pool]) -> None:
    p = pool(breaker=Breaker(failures=2, window=10.0))
    for _ in range(5):
        with pytest.raises(LookupError):
            p.boom("mine")
    assert p.echo(1) == 1


def test_more_crashes_than_tolerated_restart_the_pool_and_no_other_notices(
    node: actorpool.System, pool: Callable[..., actorpool.Pool], eventually: Callable[..., Any]
) -> None:
    p, q = pool(size=1, max_restarts=2, restart_period=60), pool(size=1)
    untouched = q.pid()
    for _ in range(3):

        def killed() -> bool:
            (worker,) = p.workers()
            os.kill(worker.pid, 9)
            return True

        eventually(killed)
        eventually(lambda: p.status().workers == 1)
    eventually(lambda: p.echo("again") == "again")
    assert q.pid() == untouched
    assert p.name in node.pools()


def test_timeouts_of_callers_do_not_count_as_crashes(pool: Callable[..., actorpool.Pool]) -> None:
    p = pool(max_restarts=1)
    for _ in range(4):
        with pytest.raises(actorpool.CallTimeout):
            p.call("sleep", 5, call_timeout=0.05)
    assert p.echo(1) == 1
    assert p.status().restarts == 0


def test_autoscale_grows_in_place(node: actorpool.System) -> None:
    with actorpool.start(metrics_interval=0.05) as system:
        p = system.start_pool(
            "auto", worker=kit.Toy, size=2, max_overflow=6,
            autoscale=Autoscale(interval=0.3, headroom=1.0, minimum=1, maximum=8, threshold=1),
        )  # fmt: skip
        leases = [p.checkout() for _ in range(6)]
        deadline = time.monotonic() + 5
        while p.status().size < 4 and time.monotonic() < deadline:
            time.sleep(0.02)
        assert p.status().size >= 4, "it follows the average, from 2 to more than the threshold above"
        assert all(lease.echo(1) == 1 for lease in leases)
        for lease in leases:
            lease.checkin()
