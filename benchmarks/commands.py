"""What a person waits for at the command line."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from statistics import median

import actorpool
from actorpool.benchmarks.meter import Figures, Measure
from actorpool.errors import ActorPoolError
from actorpool.workers import EchoWorker

ACTORPOOL = [sys.executable, "-m", "actorpool"]
FILE = '[system]\nname = "{name}"\n[pools.bench]\nworker = "actorpool.workers:EchoWorker"\nsize = 2\n'


@contextmanager
def tab() -> Iterator[Measure]:
    """Contender: what bash runs at a Tab, here for the ids of workers."""
    name = _name()
    with actorpool.start(name) as system:
        system.start_pool("bench", worker=EchoWorker, size=2)
        words = f"actorpool stack {name} bench "
        asked = {"_ACTORPOOL_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}

        def measure(seconds: float) -> Figures:
            taken: list[float] = []
            end = time.perf_counter() + seconds
            while not taken or time.perf_counter() < end:
                begun = time.perf_counter()
                done = subprocess.run(ACTORPOOL, capture_output=True, text=True, env={**os.environ, **asked})
                taken.append(time.perf_counter() - begun)
                if done.stdout.split() != ["plain,1", "plain,2"]:
                    raise RuntimeError(f"completed {done.stdout!r}: {done.stderr}")
            return {"ms": median(taken) * 1e3}

        yield measure


@contextmanager
def second_signal() -> Iterator[Measure]:
    """Contender: Ctrl-C twice at `actorpool up` while a call of a minute runs, until it has ended."""
    with tempfile.TemporaryDirectory() as folder:
        yield lambda seconds: {"ms": _interrupted_twice(folder) * 1e3}


def _interrupted_twice(folder: str) -> float:
    name = _name()
    file = os.path.join(folder, f"{name}.toml")
    with open(file, "w") as out:
        out.write(FILE.format(name=name))
    up = subprocess.Popen([*ACTORPOOL, "up", file], stderr=subprocess.PIPE, text=True)
    assert up.stderr is not None
    try:
        _read_until(up, "serves")
        pool = actorpool.connect(name).pool("bench")
        lease = pool.checkout()
        threading.Thread(target=_call, args=(lease,), daemon=True).start()
        up.send_signal(signal.SIGINT)
        _read_until(up, "draining: 1 leases out")
        begun = time.perf_counter()
        up.send_signal(signal.SIGINT)
        up.wait(30)
        return time.perf_counter() - begun
    finally:
        up.kill()
        up.communicate()


def _call(lease: actorpool.Lease) -> None:
    with suppress(ActorPoolError):  # its node has gone
        lease.run(_minute)


def _minute(_: object) -> None:
    time.sleep(60)


def _read_until(process: subprocess.Popen[str], wanted: str) -> None:
    assert process.stderr is not None
    for line in process.stderr:
        if wanted in line:
            return
    raise RuntimeError(f"it ended before it said {wanted!r}")


def _name() -> str:
    return f"bench-{secrets.token_hex(4)}"
