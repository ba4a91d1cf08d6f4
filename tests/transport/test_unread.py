"""Callers of a pool that reads nothing: whatever must not wait does not wait, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import gc
import os
import shutil
import signal
import socket
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from actorpool._protocol.requests import HandleFacts
from actorpool.client import client_errors
from actorpool.client._asyncio import TASKS
from actorpool.client._blocking import THREADS, drive
from actorpool.client._channel import ChannelTransport
from actorpool.client.pool import Pool
from actorpool.client.shared import SharedPool
from actorpool.errors import CallTimeout, CheckoutTimeout
from actorpool.transport import client as lines
from actorpool.transport import frames
from actorpool.transport.aio import AioConn, conns_of
from actorpool.transport.client import ClientConn, Gone, NotDelivered
from tests.client.standin import Standin, add

Eventually = Callable[..., Any]
ATTEMPTS = 1500
"""More than the connections that may wait for a pool (1 024), and many more than the frames that may wait in one."""
FULL = 0.5
"""Seconds that a process whose own verdict does not come is waited for beyond a timeout of 0."""


@pytest.fixture
def standin() -> Iterator[Standin]:
    with Standin(size=2) as own:
        yield own


@pytest.fixture
def stopped(standin: Standin) -> Iterator[Standin]:
    """A system whose pool stands still; it goes on at the end, and has lost nothing."""
    pid = standin.manager("pid")
    pool = Pool(standin.endpoint, "db")
    pool.echo(1)
    os.kill(pid, signal.SIGSTOP)
    yield standin
    os.kill(pid, signal.SIGCONT)
    with pool.checkout(), pool.checkout():
        assert pool.status().waiting == 0


@pytest.fixture
def deaf() -> Iterator[str]:
    """A directory where pool `x` listens, and neither takes connections nor reads."""
    directory = tempfile.mkdtemp(prefix="deaf-", dir=os.environ["ACTORPOOL_RUNTIME_DIR"])
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{directory}/x.pool")
        listener.listen(1024)
        yield directory
    lines.forget(directory)
    shutil.rmtree(directory)


def took(call: Callable[[], Any], error: type[BaseException]) -> float:
    """How long it takes to raise that."""
    began = time.perf_counter()
    with pytest.raises(error):
        call()
    return time.perf_counter() - began


def in_loop(call: Callable[[], Any]) -> Callable[[], Any]:
    """An asynchronous call as a blocking one, in a loop of its own."""

    async def main() -> Any:
        return await call()

    return lambda: asyncio.run(main())


# -- asking --------------------------------------------------------------------------------------------------------


def test_a_checkout_that_may_not_wait_returns_however_often_a_stopped_pool_is_asked(
    stopped: Standin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_errors, "grace", lambda _timeout: 0.0)
    pool = Pool(stopped.endpoint, "db", HandleFacts())
    assert max(took(lambda: pool.checkout(timeout=0), CheckoutTimeout) for _ in range(ATTEMPTS)) < 1.0


def test_the_same_holds_for_a_loop_and_nothing_is_kept_for_a_pool_that_does_not_read(
    stopped: Standin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_errors, "grace", lambda _timeout: 0.0)
    pool = Pool(stopped.endpoint, "db", HandleFacts()).aio

    async def main() -> None:
        for _ in range(ATTEMPTS):
            began = time.perf_counter()
            with pytest.raises(CheckoutTimeout):
                await pool.checkout(timeout=0)
            assert time.perf_counter() - began < 1.0
        line = conns_of(asyncio.get_running_loop()).known(stopped.endpoint.pool("db"))
        assert line is not None
        assert len(line._out) < ATTEMPTS / 3  # to cancel what has left

    asyncio.run(main())


@pytest.mark.parametrize("style", ["blocking", "asyncio"])
def test_a_handle_that_knows_nothing_of_its_pool_yet_returns_as_soon(stopped: Standin, style: str) -> None:
    pool = Pool(stopped.endpoint, "db")
    calls: list[Callable[[], Any]] = [lambda: pool.checkout(timeout=0), lambda: pool.run(add, 1, 2, checkout_timeout=0)]
    if style == "asyncio":
        calls = [
            in_loop(lambda: pool.aio.checkout(timeout=0)), in_loop(lambda: pool.aio.run(add, 1, 2, checkout_timeout=0))
        ]  # fmt: skip
    for call in calls:
        assert took(call, CheckoutTimeout) < FULL + 0.5


@pytest.mark.parametrize("style", ["blocking", "asyncio"])
@pytest.mark.slow
def test_a_checkout_whose_stack_does_not_fit_into_the_socket_is_given_up_in_time(deaf: str, style: str) -> None:
    link, stack = ChannelTransport(deaf, "x"), "a line of a stack\n" * 100_000
    call: Callable[[], Any] = lambda: drive(link.checkout(THREADS, 0.1, True, stack))  # noqa: E731
    if style == "asyncio":
        call = in_loop(lambda: link.checkout(TASKS, 0.1, True, stack))
    for _ in range(3):
        assert took(call, CheckoutTimeout) < FULL + 1.0


@pytest.mark.parametrize("style", ["blocking", "asyncio"])
@pytest.mark.slow
def test_a_shared_call_that_does_not_fit_into_the_socket_is_given_up_in_time(deaf: str, style: str) -> None:
    pool, big = SharedPool(deaf, "x"), b"x" * 2_000_000
    call: Callable[[], Any] = lambda: pool.call("r", "m", big, timeout=0.2)  # noqa: E731
    if style == "asyncio":
        call = in_loop(lambda: pool.aio.call("r", "m", big, timeout=0.2))
    for _ in range(3):
        assert took(call, CallTimeout) < FULL + 1.2


def test_a_request_that_was_given_up_half_sent_leaves_no_line_to_others(deaf: str) -> None:
    link = ChannelTransport(deaf, "x")
    with pytest.raises(CheckoutTimeout):
        drive(link.checkout(THREADS, 0.0, True, "stack" * 100_000))
    assert lines.take_free(link.path) is None


def test_a_call_that_was_not_sent_yet_when_it_is_given_up_is_never_sent(deaf: str) -> None:
    async def main() -> None:
        line = AioConn(asyncio.get_running_loop(), f"{deaf}/x.pool")
        first, _ = line.request(frames.CALL, b"x" * 1_000_000)
        second, _ = line.request(frames.CALL, b"y" * 1_000_000)
        assert not line.give_up(frames.CALL, second)
        assert line.give_up(frames.CALL, first)  # a part of it has left: the rest has to follow
        assert len(line._out) == 1
        line.close()

    asyncio.run(main())


def test_tasks_that_meet_a_full_queue_share_one_line() -> None:
    directory = tempfile.mkdtemp(prefix="full-", dir=os.environ["ACTORPOOL_RUNTIME_DIR"])
    path = f"{directory}/x.pool"

    async def main(listener: socket.socket) -> None:
        here = conns_of(asyncio.get_running_loop())
        tasks = [asyncio.ensure_future(here.connect(path)) for _ in range(3)]
        await asyncio.sleep(0.02)
        accepted = []
        while not all(task.done() for task in tasks):
            try:
                accepted.append(listener.accept()[0])
            except BlockingIOError:
                await asyncio.sleep(0.001)
        listener.setblocking(True)
        listener.settimeout(0.1)
        while len(accepted) < 4:
            accepted.append(listener.accept()[0])
        assert len({id(task.result()) for task in tasks}) == 1
        for sock in accepted:
            sock.setblocking(False)
        ended = [sock for sock in accepted if _has_ended(sock)]
        assert len(ended) == 2  # of the four, one is the test's own and one is in use
        for sock in accepted:
            sock.close()
        here.close()

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(0)
        listener.setblocking(False)
        waiting = ClientConn(path)
        asyncio.run(main(listener))
        waiting.close()
    shutil.rmtree(directory)


def _has_ended(sock: socket.socket) -> bool:
    try:
        return sock.recv(1) == b""
    except BlockingIOError:
        return False


# -- telling -------------------------------------------------------------------------------------------------------


def test_giving_back_never_waits_for_a_pool_that_does_not_read(deaf: str) -> None:
    link = ChannelTransport(deaf, "x")
    began = time.perf_counter()
    told = [THREADS.tell(link.path, 0.0, os.getpid(), frames.CHECKIN, number) for number in range(1000)]
    assert all(told)  # what had no room in one line had it in another
    assert time.perf_counter() - began < 2.0


def test_a_pool_that_takes_nothing_at_all_is_hung_up_on_which_ends_the_lease(standin: Standin) -> None:
    pool = Pool(standin.endpoint, "db")
    lease = pool.checkout()
    pid = standin.manager("pid")
    lines.forget(standin.endpoint.pool("db"))
    os.kill(pid, signal.SIGSTOP)
    waiting = []
    with pytest.raises(BlockingIOError):  # its queue is full
        while True:
            sock = socket.socket(socket.AF_UNIX)
            waiting.append(sock)
            sock.setblocking(False)
            sock.connect(standin.endpoint.pool("db"))
    began = time.perf_counter()
    lease.checkin()
    assert lease.closed
    assert time.perf_counter() - began < 0.5
    os.kill(pid, signal.SIGCONT)
    for sock in waiting:
        sock.close()
    assert pool.status().monitors == 0


def test_a_lease_that_is_dropped_is_given_back_without_waiting(standin: Standin, eventually: Eventually) -> None:
    pool = Pool(standin.endpoint, "db")
    leases = [pool.checkout(), pool.checkout()]
    pid = standin.manager("pid")
    os.kill(pid, signal.SIGSTOP)
    line = lines.take(standin.endpoint.pool("db"))
    while line.tell(frames.CHECKIN, 10**9):  # no room is left in it
        pass
    lines.give(line)
    began = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        leases.clear()
    took = time.perf_counter() - began
    gc.collect()  # not measured: it looks at all that the tests before have left
    assert took < 0.5
    os.kill(pid, signal.SIGCONT)
    eventually(lambda: pool.status().monitors == 0)


def test_hanging_up_ends_the_wait_of_whoever_has_the_line(deaf: str) -> None:
    line = ClientConn(f"{deaf}/x.pool")
    line.send(frames.ASK, 1)
    threading.Timer(0.05, line.hang_up).start()
    with pytest.raises((Gone, NotDelivered)):
        line.receive(1, time.perf_counter() + 5)
