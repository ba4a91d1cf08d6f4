"""What cannot work as it is written is refused with advice, or told as what it is."""

from __future__ import annotations

import array
import asyncio
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import actorpool
from actorpool import CheckoutTimeout
from actorpool.workers import EchoWorker
from tests.pools.conftest import StartPool


async def later(_: Any) -> int:
    return 1


def kind(_: Any, value: Any) -> tuple[str, Any]:
    return type(value).__name__, value


def opened(_: Any, path: str) -> Any:
    return open(path)


def run_again(_: Any, pool: actorpool.Pool) -> Any:
    return pool.run(kind, 1, checkout_timeout=0.2)


def test_an_async_function_is_refused_before_anything_is_sent(start: StartPool) -> None:
    pool = start(EchoWorker, size=1)
    for call in (lambda: pool.run(later), lambda: asyncio.run(pool.aio.run(later))):
        with pytest.raises(TypeError, match="later is an `async def`.*asyncio.run"):
            call()
    assert pool.status().checkouts == 0


def test_the_name_of_a_method_is_no_function_and_is_refused_with_what_to_write(start: StartPool) -> None:
    pool = start(EchoWorker, size=1)
    lease = pool.checkout()
    wrong: list[Any] = [pool.run, lease.run, pool.submit, lambda name: asyncio.run(pool.aio.run(name))]
    for run in wrong:
        with pytest.raises(TypeError, match=r"takes a function.* by call\('echo'\) or \.echo\(\)"):
            run("echo")
        with pytest.raises(TypeError, match="takes a function, which gets the connection first, not 5"):
            run(5)
    lease.checkin()
    assert pool.status().checkouts == 1


def test_whether_to_block_is_true_or_false(start: StartPool) -> None:
    pool = start(EchoWorker, size=1)
    wrong: list[Any] = [pool.checkout, lambda **given: asyncio.run(_entered(pool.aio.checkout(**given)))]
    for checkout in wrong:
        with pytest.raises(actorpool.InvalidConfig, match="block: must be a bool, not 'no'"):
            checkout(block="no")
        with pytest.raises(actorpool.InvalidConfig) as caught:
            checkout(block=None, timeout=-1)
        assert set(caught.value.problems) == {"block", "timeout"}


async def _entered(checkout: Any) -> Any:
    return await checkout


MAIN_KEY = """
import dataclasses, actorpool
from actorpool.workers import EchoWorker

@dataclasses.dataclass(frozen=True)
class Key:
    name: str

if __name__ == "__main__":
    with actorpool.start() as system:
        pool = system.start_pool("db", worker=EchoWorker, size=1)
        for key in (Key("a"), ("a", Key("b"))):
            for ask in (lambda: pool.checkout(key=key), lambda: pool.end_session(key)):
                try:
                    ask()
                except actorpool.InvalidConfig as error:
                    print(error.problems["key"])
        with pool.checkout(key="__main__"):
            print("served")
"""


def test_a_key_of_a_class_of_the_script_is_refused_with_what_to_do(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(MAIN_KEY)
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=60)
    lines = done.stdout.splitlines()
    assert lines[-1] == "served", done.stderr
    assert len(lines) == 5
    assert all("Key is a class of __main__" in line and "move it into a module" in line for line in lines[:-1])


def test_an_option_that_is_misspelt_is_told_with_the_nearest() -> None:
    with pytest.raises(actorpool.InvalidConfig) as caught:
        actorpool.start(nam="x", log_levl="INFO", frobnicate=3)
    assert caught.value.problems == {
        "nam": "is no option of start(): did you mean 'name'?",
        "log_levl": "is no option of start(): did you mean 'log_level'?",
        "frobnicate": "is no option of start()",
    }


def test_an_open_file_is_refused_as_an_argument_and_as_a_result(start: StartPool, tmp_path: Path) -> None:
    pool = start(EchoWorker, size=1)
    path = tmp_path / "book"
    path.write_text("text")
    for mode in ("r", "rb"):
        with open(path, mode) as file, pytest.raises(TypeError, match="pass its path"):
            pool.run(kind, file)
    with pytest.raises(TypeError, match="pass its path"):
        pool.run(opened, str(path))


@pytest.mark.parametrize(
    "view", [memoryview(b"abc"), memoryview(bytearray(b"abc")), memoryview(array.array("d", [1.0, 2.0]))]
)
def test_a_memoryview_arrives_and_comes_back_as_one(start: StartPool, view: memoryview) -> None:
    name, back = start(EchoWorker, size=1).run(kind, view)
    assert name == "memoryview"
    assert (back, back.format, back.readonly) == (view, view.format, view.readonly)


def test_a_module_that_came_upon_the_path_later_is_told_so(
    start: StartPool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = start(EchoWorker, size=1)
    (tmp_path / "came_later.py").write_text("def function(_):\n    return 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    module = __import__("came_later")
    try:
        with pytest.raises(ModuleNotFoundError, match=r"came_later.*sys.path.*start\(\)"):
            pool.run(module.function)
    finally:
        del sys.modules["came_later"]


def test_a_pool_that_is_used_in_its_own_worker_says_so_when_it_is_exhausted(start: StartPool) -> None:
    pool = start(EchoWorker, size=1)
    with pytest.raises(CheckoutTimeout, match="by a worker of this very pool"):
        pool.run(run_again, pool)
