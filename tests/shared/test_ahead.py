"""Quick calls are sent to a worker while it runs another one; no death, pause or full buffer shows it to anybody."""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from actorpool import SharedPool
from actorpool._protocol.orders import Recall
from actorpool.errors import WorkerDied
from actorpool.serialization import pickling
from actorpool.transport import frames
from actorpool.workers import EchoWorker, Reply, Worker, method
from actorpool.workers.shared import SharedWorkerActor
from tests.shared.conftest import Library
from tests.shared.kit import tokens
from tests.shared.test_loans import alone, lent

Eventually = Callable[..., Any]
BULK = 1 << 20


class Press(Worker):
    """Quick; writes a line into `log` for each call, and can answer with more than a socket takes at once."""

    def __init__(self, log: str) -> None:
        self.log = log

    def open(self) -> None:
        self.lines = os.open(self.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        self.sheet = bytes(BULK)

    def close(self) -> None:
        os.close(self.lines)

    @method
    def print(self, token: str, bulky: bool = False, halt_pool: bool = False, pause: float = 0.0) -> Any:
        os.write(self.lines, f"{token}\n".encode())
        if halt_pool:
            os.kill(os.getppid(), signal.SIGSTOP)
        return Reply((token, self.sheet if bulky else b""), cooldown=pause)

    @method
    def pid(self) -> int:
        return os.getpid()


async def practised(shared: SharedPool) -> None:
    """Call so often that the method is known to be quick."""
    for _ in range(40):
        await shared.aio.call("press", "print", "practice")


def halted(pid: int) -> bool:
    return bool(psutil.Process(pid).status() == psutil.STATUS_STOPPED)


async def until(condition: Callable[[], bool]) -> None:
    """Poll, without keeping the loop from its work."""
    for _ in range(2000):
        if condition():
            return
        await asyncio.sleep(0.002)
    raise AssertionError("not within four seconds")


async def outcomes(*calls: Any) -> list[Any]:
    return await asyncio.gather(*calls, return_exceptions=True)


def test_calls_that_were_sent_ahead_run_in_the_order_in_which_they_came(shared: SharedPool, tmp_path: Path) -> None:
    shared.add(Press, {"log": str(tmp_path / "log")}, resource="press")

    async def main() -> None:
        await practised(shared)
        calls = [shared.aio.call("press", "print", f"{n}", pause=0.001 * (n % 20 == 7)) for n in range(300)]
        assert [token for token, _ in await asyncio.gather(*calls)] == [f"{n}" for n in range(300)]

    asyncio.run(main())
    assert tokens(tmp_path / "log")[40:] == [f"{n}" for n in range(300)]


def test_a_pause_holds_for_what_was_sent_ahead(shared: SharedPool, tmp_path: Path) -> None:
    id = shared.add(Press, {"log": str(tmp_path / "log")}, resource="press")

    async def main() -> None:
        await practised(shared)
        loop = asyncio.get_running_loop()
        began = loop.time()
        await asyncio.gather(*(shared.aio.call("press", "print", f"{n}", pause=0.2) for n in range(3)))
        assert loop.time() - began > 0.4  # a pause between the first and the second, and between that and the third

    asyncio.run(main())
    assert shared.info(id).stats["print"].count == 43


def test_no_call_is_begun_while_the_answer_before_it_may_still_be_lost(shared: SharedPool, tmp_path: Path) -> None:
    """The pool stands still, so the long answer does not leave the worker, which is killed then."""
    log = tmp_path / "log"
    first = shared.add(Press, {"log": str(log)}, resource="press", extra={"n": 1})
    worker = shared.info(first).pid
    assert worker is not None
    pool = psutil.Process(worker).ppid()

    async def main() -> list[Any]:
        await practised(shared)
        shared.add(Press, {"log": str(log)}, resource="press", extra={"n": 2})
        shared.info(first)  # calls back what was lent to us, who were alone
        os.kill(worker, signal.SIGSTOP)
        here = {"n": 1}
        calls = [asyncio.create_task(shared.aio.call("press", "print", "0", where=here))]
        calls += [
            asyncio.create_task(shared.aio.call("press", "print", f"{n}", bulky=True, halt_pool=n == 1, where=here))
            for n in range(1, 6)
        ]
        await until(lambda: shared.info(first).waiting == 5)
        shared.update("press", extra=here)  # now those that move may go to the other one
        os.kill(worker, signal.SIGCONT)
        await until(lambda: halted(pool))
        await until(lambda: psutil.Process(worker).status() == psutil.STATUS_SLEEPING)
        begun = tokens(log)
        os.kill(worker, signal.SIGKILL)
        os.kill(pool, signal.SIGCONT)
        assert begun[-1] == "1", "the worker waits until its answer is out"
        return await outcomes(*calls)

    done = asyncio.run(main())
    counted = Counter(tokens(log))
    assert done[0][0] == "0"
    assert isinstance(done[1], WorkerDied)
    assert [outcome[0] for outcome in done[2:]] == ["2", "3", "4", "5"]
    assert all(counted[f"{n}"] == 1 for n in range(6))


def test_calls_in_a_crowd_to_a_connection_that_died_while_idle_all_go_elsewhere(
    shared: SharedPool, tmp_path: Path
) -> None:
    first = shared.add(Press, {"log": str(tmp_path / "log")}, resource="press")
    worker = shared.info(first).pid
    assert worker is not None
    pool = psutil.Process(worker).ppid()

    async def main() -> None:
        await practised(shared)
        await shared.aio.add(Press, {"log": str(tmp_path / "log")}, resource="press")
        await asyncio.gather(
            *(shared.aio.call("press", "print", f"first {n}") for n in range(4))
        )  # nothing is lent
        os.kill(pool, signal.SIGSTOP)
        try:
            calls = [asyncio.create_task(shared.aio.call("press", "print", f"{n}")) for n in range(50)]
            for _ in range(50):
                await asyncio.sleep(0)  # they are on their way before the death is told
            os.kill(worker, signal.SIGKILL)
        finally:
            os.kill(pool, signal.SIGCONT)
        assert [token for token, _ in await asyncio.gather(*calls)] == [f"{n}" for n in range(50)]

    asyncio.run(main())
    counted = Counter(tokens(tmp_path / "log"))
    assert all(counted[f"{n}"] == 1 for n in range(50))


def test_an_older_call_that_moves_here_does_not_bring_an_ended_loan_back(
    library: Library, shared: SharedPool, eventually: Eventually
) -> None:
    """A worker refuses every loan that is older than anything it has heard of, and a call that moves is older still."""
    first, second = library.add(), library.add()
    library.occupy(first)
    moving = library.queue("write", "older", where={"number": 0})
    shared.extra(second, {"number": 0})
    alone(shared)
    assert lent(shared)
    before = shared.info(second).stats["write"].count  # calls it back
    os.kill(shared.info(first).pid or 0, signal.SIGKILL)
    eventually(lambda: "older" in library.begun)
    moving.result()
    for number in range(3):
        shared.call("book", "write", f"by the pool {number}")
    assert shared.info(second).stats["write"].count == before + 4


@pytest.mark.parametrize("subscribed", [False, True], ids=["unheard", "heard"])
def test_figures_count_every_call_once(shared: SharedPool, tmp_path: Path, subscribed: bool) -> None:
    id = shared.add(Press, {"log": str(tmp_path / "log")}, resource="press")
    shared.info(id)

    async def main() -> None:
        await asyncio.gather(*(shared.aio.call("press", "print", f"{n}") for n in range(200)))

    asyncio.run(main())
    assert shared.info(id).stats["print"].count == 200


class Sent:
    """What a worker has sent to one peer."""

    def __init__(self) -> None:
        self.kinds: list[int] = []
        self.unsent = False
        self.open = False

    def send(self, kind: int, *_: Any) -> None:
        self.kinds.append(kind)


def test_a_loan_that_is_over_stays_over_whatever_older_call_is_run_after_it() -> None:
    worker, client, pool = SharedWorkerActor(), Sent(), Sent()
    worker.host_worker(EchoWorker)
    assert worker.session is not None
    worker.session.open(0.0)
    worker.pool = pool  # type: ignore[assignment]
    call = pickling.dumps(("echo", (1,), {}))

    def lent(loan: int) -> int:
        worker.on_frame(client, frames.CALL, 1, frames.CALL_HEAD.pack(loan, 0, 0) + call)  # type: ignore[arg-type]
        return client.kinds[-1]

    assert lent(9) == frames.RESULT
    worker._on_control(Recall(9))
    assert lent(9) == frames.NOT_STARTED
    worker.on_frame(pool, frames.PERFORM, 5, frames.AT_ONCE + call)  # type: ignore[arg-type]
    assert pool.kinds == [frames.PERFORMED]
    assert lent(9) == frames.NOT_STARTED
    assert lent(10) == frames.RESULT
