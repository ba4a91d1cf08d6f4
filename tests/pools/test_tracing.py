"""A span of the caller is the parent of those in the worker, by whatever verb and whatever way."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

import actorpool
from actorpool import PoolConfig
from actorpool.agents import Sessions
from actorpool.workers import Worker, method

trace = pytest.importorskip("opentelemetry.trace", reason="needs opentelemetry-api")


class Traced(Worker):
    @method
    def where(self, **kwargs: Any) -> tuple[str, dict[str, Any]]:
        """The trace that a span would belong to here, and what was given."""
        return trace_here(self), kwargs


def trace_here(_: Any) -> str:
    from opentelemetry import trace

    return f"{trace.get_current_span().get_span_context().trace_id:x}"


@pytest.fixture(scope="module", params=["channel", "messages", "local"])
def pool(request: pytest.FixtureRequest) -> Iterator[Any]:
    if request.param == "local":
        with actorpool.LocalPool(PoolConfig(worker=Traced)) as local:
            yield local
        return
    base = "multiprocTCPBase" if request.param == "channel" else "simpleSystemBase"
    with actorpool.start(base=base, log_level="CRITICAL") as system:
        yield system.start_pool("traced", worker=Traced, size=1)


def in_span() -> Any:
    context = trace.SpanContext(0xABC, 0xDEF, False, trace.TraceFlags(1))
    return trace.use_span(trace.NonRecordingSpan(context))


def test_every_verb_carries_the_span_of_its_caller(pool: Any) -> None:
    with in_span():
        assert pool.run(trace_here) == "abc"
        assert pool.where(a=1) == ("abc", {"a": 1})
        with pool.checkout() as lease:
            assert lease.run(trace_here) == "abc"
            assert lease.where() == ("abc", {})
    assert pool.run(trace_here) == "0"
    assert pool.where(a=1) == ("0", {"a": 1})


def test_so_do_coroutines(pool: Any) -> None:
    async def ask() -> list[str]:
        async with pool.aio.checkout() as lease:
            held = await lease.run(trace_here)
        return [held, await pool.aio.run(trace_here)]

    with in_span():
        assert asyncio.run(ask()) == ["abc", "abc"]


def test_so_do_the_tools_of_a_session() -> None:
    with Sessions(Traced, size=1, key=lambda: "a") as sessions:
        where = sessions.tools[0]
        with in_span():
            assert where.sync()[0] == asyncio.run(where())[0] == "abc"
        assert where.sync()[0] == "0"


def trace_of_a_function() -> str:
    return trace_here(None)


def test_what_is_submitted_carries_the_span_of_who_submits_it() -> None:
    with actorpool.start(log_level="CRITICAL") as system:
        pool = system.start_pool("traced", worker=Traced, size=1)
        with actorpool.Executor(1, system=system) as executor:
            with in_span():
                submitted, run = pool.submit(trace_here), executor.submit(trace_of_a_function)
            assert (submitted.result(10), run.result(10)) == ("abc", "abc")
            assert (pool.submit(trace_here).result(10), executor.submit(trace_of_a_function).result(10)) == ("0", "0")


@pytest.mark.parametrize("base", ["multiprocTCPBase", "simpleSystemBase"])
def test_a_call_of_a_shared_connection_carries_the_span_of_its_caller(base: str) -> None:
    with actorpool.start(base=base, log_level="CRITICAL") as system:
        shared = system.start_shared_pool("shared")
        shared.add(Traced, resource="r")
        for _ in range(3):  # by the pool, and under a loan
            with in_span():
                assert shared.call("r", "where", a=1) == ("abc", {"a": 1})
            assert shared.call("r", "where", a=1) == ("0", {"a": 1})
        with in_span():
            assert list(shared.map("r", "where").values()) == [("abc", {})]
