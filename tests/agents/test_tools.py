"""Functions that run in workers look, and behave, like the functions that they are made of."""

from __future__ import annotations

import asyncio
import inspect
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import actorpool
from actorpool.agents import Tools, explain
from actorpool.errors import CallTimeout, CheckoutTimeout, InvalidConfig, WorkerDied
from actorpool.testing import eventually
from tests.agents import toolbox


@pytest.fixture(scope="module")
def node() -> Iterator[actorpool.System]:
    with actorpool.start(log_level="CRITICAL") as system:
        yield system


@pytest.fixture(autouse=True)
def _started(node: actorpool.System) -> Iterator[None]:
    toolbox.tools.start(node)
    yield
    toolbox.tools.stop()


def test_a_tool_looks_like_its_function() -> None:
    original = toolbox.multiply.__wrapped__  # type: ignore[attr-defined]
    for function in (toolbox.multiply, toolbox.multiply.sync):  # type: ignore[attr-defined]
        assert inspect.signature(function) == inspect.signature(original)
        assert (function.__name__, function.__doc__) == ("multiply", original.__doc__)
    assert inspect.iscoroutinefunction(toolbox.multiply)
    assert not inspect.iscoroutinefunction(toolbox.multiply.sync)  # type: ignore[attr-defined]
    assert toolbox.tools.functions[0] is toolbox.multiply


def test_a_tool_runs_in_another_process_awaited_or_not() -> None:
    async def call() -> tuple[str, int]:
        return await toolbox.multiply(3, unit="m"), await toolbox.where()  # type: ignore[misc]

    text, pid = asyncio.run(call())
    assert text == "6 m"
    assert pid != os.getpid()
    assert toolbox.multiply.sync(3, 3) == "9 kg"  # type: ignore[attr-defined]


def test_coroutines_run_on_a_loop_that_the_worker_keeps() -> None:
    async def call() -> list[int]:
        return list(await asyncio.gather(*(toolbox.later(0.01) for _ in range(4))))

    assert os.getpid() not in asyncio.run(call())


def test_exceptions_of_the_tool_pass_unchanged() -> None:
    with pytest.raises(ValueError, match="too heavy"):
        asyncio.run(toolbox.refuse("too heavy"))  # type: ignore[arg-type]


def stands_still(path: Path) -> bool:
    size = path.stat().st_size
    time.sleep(0.1)
    return path.stat().st_size == size


def test_the_timeout_of_a_tool_stops_its_work(tmp_path: Path) -> None:
    with pytest.raises(CallTimeout):
        asyncio.run(toolbox.slow(str(tmp_path / "slow")))  # type: ignore[arg-type]
    eventually(lambda: stands_still(tmp_path / "slow"))


def test_cancelling_the_task_stops_the_work(tmp_path: Path) -> None:
    path = tmp_path / "endless"

    async def cancel() -> None:
        task = asyncio.ensure_future(toolbox.endless(str(path)))  # type: ignore[arg-type]
        while not path.exists():
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancel())
    eventually(lambda: stands_still(path))


def test_a_crash_is_one_failed_call() -> None:
    async def calls() -> list[object]:
        return await asyncio.gather(
            toolbox.crash(),
            toolbox.multiply(2, 2),
            toolbox.multiply(2, 3),
            return_exceptions=True,  # type: ignore[arg-type]
        )

    crash, *others = asyncio.run(calls())
    assert isinstance(crash, WorkerDied)
    assert others == ["4 kg", "6 kg"]


def test_a_tool_called_in_a_worker_of_its_own_pool_runs_right_there() -> None:
    for pair in (toolbox.nested.sync(), toolbox.nested_async.sync()):  # type: ignore[attr-defined]
        assert pair[0] == pair[1] != os.getpid()


def test_a_tool_that_no_module_has_travels_by_value() -> None:
    with Tools(size=1) as tools:
        step = 3

        @tools
        def add(number: int) -> tuple[int, int]:
            return number + step, os.getpid()

        assert add.sync(4)[0] == 7  # type: ignore[attr-defined]
        assert add.sync(4)[1] != os.getpid()  # type: ignore[attr-defined]


def test_tools_that_are_not_enabled_run_here() -> None:
    tools = Tools(enabled=False)

    @tools
    def where() -> int:
        return os.getpid()

    assert asyncio.run(where()) == where.sync() == os.getpid()  # type: ignore[arg-type, attr-defined]


class Told(Exception):
    """What an agent framework wants to see."""


@pytest.mark.parametrize("failure", [explain, Told])
def test_failures_become_what_the_user_wants(failure: object) -> None:
    with Tools(size=1, failure=failure) as tools:  # type: ignore[arg-type]

        @tools
        def crash() -> None:
            os._exit(3)

        @tools
        def own() -> None:
            raise KeyError("own")

        with pytest.raises(KeyError, match="own"):
            own.sync()  # type: ignore[attr-defined]
        if failure is explain:
            assert "may have taken effect" in asyncio.run(crash())  # type: ignore[arg-type]
        else:
            with pytest.raises(Told, match="may have taken effect"):
                crash.sync()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (CheckoutTimeout("x"), "not run"),
        (actorpool.CircuitOpen("x"), "not run"),
        (CallTimeout("x"), "may have taken effect"),
        (WorkerDied("x"), "may have taken effect"),
        (WorkerDied("x", started=False), "not run"),
        (actorpool.SessionLost("x", key="k", reason="died"), "begin anew"),
        (ValueError("bad\nline"), "ValueError: bad."),
    ],
)
def test_a_model_is_told_whether_it_may_try_again(error: Exception, words: str) -> None:
    text = explain(error)
    assert words in text
    assert "\n" not in text


class RunContext:
    """Stands for a framework's."""


RunContext.__module__ = "pydantic_ai.tools"


def test_what_cannot_be_a_tool_is_refused_at_its_decoration() -> None:
    tools = Tools()

    def with_context(ctx: RunContext, city: str) -> None: ...

    def generates() -> Iterator[int]:
        yield 1

    with pytest.raises(TypeError, match="plain values"):
        tools(with_context)
    with pytest.raises(TypeError, match="generator"):
        tools(generates)
    with pytest.raises(TypeError, match="a tool is a function"):
        tools(RunContext)
    assert tools.functions == []
    with pytest.raises(InvalidConfig) as caught:
        Tools(worker=int, failure=3)  # type: ignore[arg-type]
    assert set(caught.value.problems) == {"worker", "failure"}


def test_a_span_of_the_caller_is_the_parent_of_those_in_the_worker() -> None:
    trace = pytest.importorskip("opentelemetry.trace", reason="needs opentelemetry-api")
    context = trace.SpanContext(0xABC, 0xDEF, False, trace.TraceFlags(1))
    with trace.use_span(trace.NonRecordingSpan(context)):
        assert toolbox.traced.sync() == "abc"  # type: ignore[attr-defined]
    assert toolbox.traced.sync() == "0"  # type: ignore[attr-defined]


def test_importing_the_agents_imports_no_framework() -> None:
    code = (
        "import sys, actorpool.agents\n"
        "frameworks = {'mcp', 'fastmcp', 'pydantic', 'pydantic_ai', 'agents', 'langgraph', 'langchain_core', 'anyio'}\n"
        "assert not frameworks & set(sys.modules), frameworks & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30)
