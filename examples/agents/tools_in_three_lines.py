"""Tools of an agent that cannot take the agent along: each call runs in a supervised worker process.

Without it: a synchronous tool runs in a thread of the agent's process. A timeout or a cancel leaves the thread running,
what holds the interpreter's lock delays the event loop, and a crash in a C library ends the agent.

    tool = asyncio.to_thread(count_primes, 50_000)   # cannot be stopped, and takes the loop's processor

Run it: python examples/agents/tools_in_three_lines.py
"""

from __future__ import annotations

import asyncio
import ctypes

from actorpool.agents import Tools, explain

tools = Tools(size=2, timeout=2.0, failure=explain)  # 1


@tools  # 2: give `tools.functions` (3) to any framework: each is a plain `async def` with the same signature
def count_primes(limit: int) -> str:
    """How many primes there are below a limit."""
    return str(sum(all(number % other for other in range(2, int(number**0.5) + 1)) for number in range(2, limit)))


@tools
def crash() -> str:
    """Read an address that nobody may read, as a bug in a C library does."""
    return str(ctypes.string_at(0))


async def agent() -> None:
    """What a framework does with the tools of a model's turn."""
    results = await asyncio.gather(count_primes(20_000), crash(), count_primes(10**9))
    for question, answer in zip(("primes below 20000", "a crash", "too many primes"), results, strict=True):
        print(f"{question}: {answer}")


if __name__ == "__main__":
    with tools:
        asyncio.run(agent())
