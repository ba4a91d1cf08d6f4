"""The same tools in real agent frameworks, offline: the same schema, result, cancel, timeout, crash and words.

Each framework needs its package (`pip install 'actorpool[agents-test]'`) and is skipped without it. A driver says how
that framework describes a tool and how it calls it; everything else is the same for all.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import actorpool
from actorpool.agents import PythonWorker, Sessions, conversation, explain
from actorpool.testing import eventually
from tests.agents import toolbox

Driver = tuple[Callable[[Any], dict[str, Any]], Callable[[Any, dict[str, Any]], Any]]
"""The JSON schema of a tool's parameters, and a coroutine that has the framework call it: the text of its result."""


def pydantic_ai() -> Driver:
    """Its agent, with a model that calls the tool once and answers with what that returned."""
    from pydantic_ai import Agent, Tool
    from pydantic_ai.messages import ModelResponse, TextPart, ToolCallPart, ToolReturnPart
    from pydantic_ai.models.function import FunctionModel

    async def call(function: Any, arguments: dict[str, Any]) -> str:
        def model(messages: list[Any], _info: Any) -> Any:
            parts = [part for part in messages[-1].parts if isinstance(part, ToolReturnPart)]
            if parts:
                return ModelResponse(parts=[TextPart(str(parts[0].content) or "nothing")])
            return ModelResponse(parts=[ToolCallPart(function.__name__, arguments)])

        result = await Agent(FunctionModel(model), tools=[function]).run("go")
        return result.output

    return lambda function: Tool(function).function_schema.json_schema, call


def openai_agents() -> Driver:
    """Its tool, called as its runner does."""
    from agents import function_tool
    from agents.tool_context import ToolContext

    def tool(function: Any) -> Any:
        return function_tool(function, strict_mode=False, failure_error_function=None)

    async def call(function: Any, arguments: dict[str, Any]) -> str:
        text = json.dumps(arguments)
        context: Any = ToolContext(None, tool_name=function.__name__, tool_call_id="1", tool_arguments=text)
        return str(await tool(function).on_invoke_tool(context, text))

    return lambda function: tool(function).params_json_schema, call


def langgraph() -> Driver:
    """Its tool node."""
    from langchain_core.messages import AIMessage
    from langchain_core.tools import StructuredTool
    from langgraph.graph import END, START, MessagesState, StateGraph
    from langgraph.prebuilt import ToolNode

    def tool(function: Any) -> Any:
        return StructuredTool.from_function(coroutine=function)

    async def call(function: Any, arguments: dict[str, Any]) -> str:
        graph = StateGraph(MessagesState)
        graph.add_node("tools", ToolNode([tool(function)], handle_tool_errors=False))
        graph.add_edge(START, "tools")
        graph.add_edge("tools", END)
        request = AIMessage("", tool_calls=[{"name": function.__name__, "args": arguments, "id": "1"}])
        state = await graph.compile().ainvoke({"messages": [request]})
        return str(state["messages"][-1].content)

    return lambda function: tool(function).tool_call_schema.model_json_schema(), call


def mcp() -> Driver:
    """Its server and its client, in memory."""
    from mcp import Client
    from mcp.server import MCPServer

    async def call(function: Any, arguments: dict[str, Any]) -> str:
        server = MCPServer("test", log_level="CRITICAL")
        server.add_tool(function)
        async with Client(server, raise_exceptions=True) as client:
            result = await client.call_tool(function.__name__, arguments)
        if result.is_error:
            raise RuntimeError(result.content[0].text)  # type: ignore[union-attr]
        return result.content[0].text if result.content else "None"  # type: ignore[union-attr]

    def schema(function: Any) -> Any:
        server = MCPServer("test")
        server.add_tool(function)
        return asyncio.run(server.list_tools())[0].input_schema

    return schema, call


def fastmcp() -> Driver:
    """Its server and its client, in memory."""
    from fastmcp import Client, FastMCP

    def served(function: Any) -> Any:
        server = FastMCP("test")
        server.tool(function)
        return server

    async def call(function: Any, arguments: dict[str, Any]) -> str:
        async with Client(served(function)) as client:
            result = await client.call_tool(function.__name__, arguments)
        return result.content[0].text if result.content else "None"

    def schema(function: Any) -> Any:
        return asyncio.run(served(function).list_tools())[0].parameters

    return schema, call


FRAMEWORKS = {
    "pydantic_ai": pydantic_ai, "agents": openai_agents, "langgraph": langgraph, "mcp": mcp, "fastmcp": fastmcp,
}  # fmt: skip

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::PendingDeprecationWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]


@pytest.fixture(params=FRAMEWORKS)
def driver(request: pytest.FixtureRequest) -> Driver:
    if importlib.util.find_spec(request.param) is None:
        pytest.skip(f"{request.param} is not installed: pip install 'actorpool[agents-test]'")
    return FRAMEWORKS[request.param]()


@pytest.fixture(scope="module")
def node() -> Iterator[actorpool.System]:
    with actorpool.start(log_level="CRITICAL") as system:
        yield system


@pytest.fixture(autouse=True)
def _tools(node: actorpool.System) -> Iterator[None]:
    toolbox.tools.start(node)
    yield
    toolbox.tools.failure = None
    toolbox.tools.stop()


def test_the_schema_is_that_of_the_function(driver: Driver) -> None:
    schema, _ = driver
    assert schema(toolbox.multiply) == schema(toolbox.multiply.__wrapped__)  # type: ignore[attr-defined]
    assert set(schema(toolbox.multiply)["properties"]) == {"a", "b", "unit"}


def test_the_result_is_that_of_the_function(driver: Driver) -> None:
    _, call = driver
    assert asyncio.run(call(toolbox.multiply, {"a": 3, "b": 4, "unit": "m"})) == "12 m"


def stands_still(path: Path) -> bool:
    size = path.stat().st_size
    time.sleep(0.1)
    return path.stat().st_size == size


def test_a_run_that_is_cancelled_stops_the_work(driver: Driver, tmp_path: Path) -> None:
    _, call = driver
    path = tmp_path / "endless"

    async def cancel() -> None:
        task = asyncio.ensure_future(call(toolbox.endless, {"path": str(path)}))
        while not path.exists():
            await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(cancel())
    eventually(lambda: stands_still(path))


def test_a_timeout_stops_the_work_and_a_crash_costs_one_call(driver: Driver, tmp_path: Path) -> None:
    _, call = driver
    with pytest.raises(Exception):  # noqa: B017, PT011  (each framework has its own around ours)
        asyncio.run(call(toolbox.slow, {"path": str(tmp_path / "slow")}))
    eventually(lambda: stands_still(tmp_path / "slow"))
    with pytest.raises(Exception):  # noqa: B017, PT011
        asyncio.run(call(toolbox.crash, {}))
    assert asyncio.run(call(toolbox.multiply, {"a": 1})) == "2 kg"


def test_a_model_reads_what_became_of_a_call_that_crashed(driver: Driver) -> None:
    _, call = driver
    toolbox.tools.failure = explain
    assert "may have taken effect" in asyncio.run(call(toolbox.crash, {}))


def test_three_conversations_at_once_have_three_states(driver: Driver, node: actorpool.System) -> None:
    _, call = driver
    sessions = Sessions(PythonWorker, size=3)
    sessions.start(node)
    run_python = sessions.tools[0]

    async def talk(name: str) -> str:
        with conversation(name):
            await call(run_python, {"code": f"x = {name!r}"})
            return await call(run_python, {"code": "x * 2"})

    async def all_talk() -> list[str]:
        return await asyncio.gather(*map(talk, "abc"))

    try:
        for name, text in zip("abc", asyncio.run(all_talk()), strict=True):
            assert name * 2 in text
    finally:
        sessions.stop()
