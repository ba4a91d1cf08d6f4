"""A handle of a pool that was stopped and started anew with other settings."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import actorpool
from actorpool import CallTimeout, CheckoutTimeout, LeaseExpired
from actorpool.client._messages import MessageTransport
from actorpool.client.pool import Pool
from actorpool.workers import EchoWorker

Handle = Callable[[actorpool.System], Any]


class Blocking:
    """The verbs of `Pool.aio`, blocking: so that every way is tried alike."""

    def __init__(self, pool: Any) -> None:
        self._aio = pool.aio

    def sleep(self, seconds: float) -> Any:
        return asyncio.run(self._aio.call("sleep", seconds))

    def echo(self, value: Any) -> Any:
        return asyncio.run(self._aio.call("echo", value))

    def lease_and_sleep(self, seconds: float) -> Any:
        async def main() -> Any:
            async with self._aio.checkout() as lease:
                return await lease.sleep(seconds)

        return asyncio.run(main())


def lease_and_sleep(pool: Any, seconds: float) -> Any:
    """Sleep under a lease."""
    if isinstance(pool, Blocking):
        return pool.lease_and_sleep(seconds)
    with pool.checkout() as lease:
        return lease.sleep(seconds)


WAYS: dict[str, Handle] = {
    "channel": lambda node: node.pool("db"),
    "asyncio": lambda node: Blocking(node.pool("db")),
    "messages": lambda node: Pool(MessageTransport(node._node_client, "db"), "db"),
    "messages, asyncio": lambda node: Blocking(Pool(MessageTransport(node._node_client, "db"), "db")),
}


@pytest.fixture(scope="module")
def node() -> Iterator[actorpool.System]:
    with actorpool.start(log_level="CRITICAL") as running:
        yield running


@pytest.fixture
def replace(node: actorpool.System) -> Iterator[Callable[..., None]]:
    """Start pool `db`, in the place of one that is there."""

    def start(**settings: Any) -> None:
        if "db" in node.pools():
            node.stop_pool("db")
        node.start_pool("db", worker=EchoWorker, size=1, max_overflow=0, **settings)

    yield start
    node.stop_pool("db")


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.slow
def test_calls_go_by_the_settings_of_the_pool_that_is_there(
    node: actorpool.System, replace: Callable[..., None], way: str
) -> None:
    replace(call_timeout=0.2)
    pool = WAYS[way](node)
    with pytest.raises(CallTimeout):
        pool.sleep(5)
    replace(call_timeout=30.0)
    assert pool.sleep(0.5) is None
    replace(call_timeout=0.2)
    assert pool.echo(1) == 1
    with pytest.raises(CallTimeout):
        pool.sleep(5)
    replace(call_timeout=30.0)
    assert lease_and_sleep(pool, 0.5) is None


@pytest.mark.parametrize("way", ["channel", "asyncio"])
def test_so_do_waits(node: actorpool.System, replace: Callable[..., None], way: str) -> None:
    replace(checkout_timeout=30.0)
    pool = WAYS[way](node)
    pool.echo(1)
    replace(checkout_timeout=0.1)
    with node.pool("db").checkout(), pytest.raises(CheckoutTimeout, match=r"0\.1"):
        pool.echo(2)


def test_so_does_a_handle_that_was_pickled_before(node: actorpool.System, replace: Callable[..., None]) -> None:
    replace(call_timeout=0.2)
    pool = node.pool("db")
    pool.echo(1)
    data = pickle.dumps(pool)
    replace(call_timeout=30.0)
    assert pickle.loads(data).sleep(0.5) is None


def test_a_handle_that_is_current_does_not_ask_again(
    node: actorpool.System, replace: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    replace()
    pool = node.pool("db")
    pool.echo(1)
    copy = pickle.loads(pickle.dumps(pool))
    monkeypatch.setattr(copy._transport, "facts", None)
    assert copy.echo(2) == 2
    with copy.checkout() as lease:
        assert lease.echo(3) == 3


@pytest.mark.slow
def test_a_lease_of_the_former_pool_is_over(node: actorpool.System, replace: Callable[..., None]) -> None:
    replace()
    lease = node.pool("db").checkout()
    replace(call_timeout=30.0)
    with pytest.raises(LeaseExpired):
        lease.echo(1)
