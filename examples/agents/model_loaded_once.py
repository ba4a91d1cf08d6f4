"""A model that is loaded once: four workers use it, and each has hardly more memory of its own than without it.

`preload` names modules that the pool's process imports before its first worker; workers are forked from it and share
what it has loaded. A worker that died is replaced as quickly as one without a model.

Without it: each process loads the model for itself, at its start or in its first call, and again after each crash.

    with ProcessPoolExecutor(4) as pool:     # spawned: four models in memory, four times the wait
        pool.map(embed, texts)               # one crash: BrokenProcessPool, and all of it again

Run it: python examples/agents/model_loaded_once.py
"""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

from actorpool.agents import Tools

tools = Tools(size=4, preload=["small_model"])


@tools
def embed(text: str) -> tuple[int, int, int]:
    """Embed a text; also which process did it, and which one has loaded the model."""
    import small_model  # in the function: the agent's own process needs no model

    time.sleep(0.05)
    return small_model.embed(text), os.getpid(), small_model.LOADED_BY


@tools
def own_memory() -> int:
    """Megabytes that this worker shares with no other."""
    time.sleep(0.05)
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private")) // 1024


async def main() -> None:
    """What an agent does with a turn that asks for many texts."""
    results = await asyncio.gather(*(embed(text) for text in ["tea", "jam", "bread", "honey"] * 3))
    print(f"workers that have embedded texts: {len({pid for _, pid, _ in results})}")
    print(f"processes that have loaded the model: {len({loader for _, _, loader in results})}")
    sizes = await asyncio.gather(*(own_memory() for _ in range(4)))
    print(f"memory of a worker, besides 64 MB of the model: {max(sizes)} MB")


if __name__ == "__main__":
    with tools:
        asyncio.run(main())
