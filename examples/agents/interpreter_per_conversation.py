"""A Python interpreter for each conversation: names stay, conversations do not see each other, loops are stopped.

Without it: `exec` in the agent's process shares everything between conversations and cannot be stopped; a process for
each piece of code forgets its names; a kernel for each conversation takes a second and 76 MB, and nobody ends it.

It is no sandbox: the code does whatever the worker's process may do.

Run it: python examples/agents/interpreter_per_conversation.py
"""

from __future__ import annotations

import asyncio

from actorpool.agents import PythonWorker, Sessions, conversation

sessions = Sessions(PythonWorker, {"timeout": 0.5, "memory": "2G"}, size=2)
(run_python,) = sessions.tools  # for any framework: `async def run_python(code: str) -> Output`


async def talk(name: str, *cells: str) -> None:
    """One conversation."""
    with conversation(name):
        for cell in cells:
            output = await run_python(cell)
            shown = output.value or output.text.strip() or (output.error or "done").splitlines()[-1]
            print(f"{name}: {cell!r}: {shown}")


async def main() -> None:
    """Two conversations at once."""
    await asyncio.gather(
        talk("anna", "total = 40", "while True: pass", "total + 2"),
        talk("bert", "total = 1", "print(total)", "total / 0"),
    )


if __name__ == "__main__":
    with sessions:
        asyncio.run(main())
