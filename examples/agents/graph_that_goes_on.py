"""An agent's graph that goes on where it died: a step that crashes costs that step, not the run.

The graph runs in a supervised worker. Each step that is done is written down, so a run that is asked for again begins
with the step that was not. Nothing repeats it behind the agent's back: the step may have sent a mail before it died,
and only the agent knows whether to send it again. (LangGraph does the same with a checkpointer and `thread_id`.)

Without it: the agent's process dies with the step, and so do all other conversations in it. What noticed that is the
user; what starts it again is a unit of systemd, with the queue of requests lost.

    for step in (research, write, check):
        state = step(state)              # a crash in a C library: everything is gone

Run it: python examples/agents/graph_that_goes_on.py
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
import tempfile
from collections.abc import Callable
from pathlib import Path

from actorpool import WorkerDied
from actorpool.agents import Tools

State = dict[str, str]

tools = Tools(size=2)


def research(state: State) -> State:
    """The first step, which costs much and must not be repeated."""
    return {**state, "facts": f"what is known of {state['question']}"}


def write(state: State) -> State:
    """The second step: the first time, the kernel ends its process because the machine is out of memory."""
    mark = Path(state["directory"], f"died of {state['question']}")
    if not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return {**state, "text": f"an article about {state['facts']}"}


def check(state: State) -> State:
    """The last step."""
    return {**state, "answer": f"{state['text']}, checked"}


GRAPH: dict[str, Callable[[State], State]] = {"research": research, "write": write, "check": check}


@tools
def answer(directory: str, question: str) -> str:
    """Run the graph for a question, from where it was left."""
    with sqlite3.connect(Path(directory, "steps.db")) as book:
        book.execute("create table if not exists steps (question, step, state)")
        done = dict(book.execute("select step, state from steps where question = ?", [question]))
        state: State = {"question": question, "directory": directory}
        for name, step in GRAPH.items():
            if name in done:
                state = json.loads(done[name])
                continue
            print(f"{question}: {name}", flush=True)
            state = step(state)
            book.execute("insert into steps values (?, ?, ?)", [question, name, json.dumps(state)])
            book.commit()
    return state["answer"]


async def ask(directory: str, question: str) -> str:
    """What a service does: ask, and ask again for what died."""
    while True:
        try:
            return await answer(directory, question)
        except WorkerDied:
            print(f"{question}: died; it goes on with the step that was not done")


async def main() -> None:
    """Two questions at once; each dies once."""
    with tempfile.TemporaryDirectory() as directory:
        for text in await asyncio.gather(ask(directory, "ants"), ask(directory, "bees")):
            print(text)


if __name__ == "__main__":
    with tools:
        asyncio.run(main())
