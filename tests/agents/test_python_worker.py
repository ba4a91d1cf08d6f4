"""Code in a process of its own: what it printed, what it is, how it failed, what stays."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import actorpool
from actorpool import LocalPool, Pool, PoolConfig
from actorpool.agents import Output, PythonWorker
from actorpool.errors import CallTimeout, PermanentError, WorkerDied


@pytest.fixture(scope="module")
def node() -> Iterator[actorpool.System]:
    with actorpool.start(log_level="CRITICAL") as system:
        yield system


@pytest.fixture
def start(node: actorpool.System) -> Iterator[Callable[..., Pool]]:
    """Start an interpreter with these arguments."""

    def make(**arguments: Any) -> Pool:
        fields = {"size": 1, "max_overflow": 0, "kill_after": 0.5}
        return node.start_pool("python", worker=PythonWorker, worker_args=arguments, **fields)

    yield make
    if "python" in node.pools():
        node.stop_pool("python", timeout=0.5)


@pytest.fixture
def python(start: Callable[..., Pool]) -> Pool:
    return start(timeout=0.5, max_output=100)


def test_text_value_and_error_are_told_apart(python: Pool) -> None:
    out = python.run_python("import sys\nprint('a')\nprint('b', file=sys.stderr)\n6 * 7")
    assert isinstance(out, Output)
    assert (out.text, out.value, out.error) == ("a\nb\n", "42", None)
    assert 0 <= out.seconds < 5
    assert python.run_python("x = 1").value is None
    assert python.run_python("None").value is None


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("1 / 0", "ZeroDivisionError"),
        ("def f(:", "SyntaxError"),
        ("import sys; sys.exit(3)", "SystemExit: 3"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt"),
        ("while True: pass", "TimeoutError: stopped after 0.5 s"),
        ("import time; time.sleep(60)", "TimeoutError"),
        ("class R:\n  def __repr__(self): raise ValueError('odd')\nR()", "odd"),
    ],
)
def test_no_exception_of_the_code_is_raised(python: Pool, code: str, error: str) -> None:
    out = python.run_python(code)
    assert error in out.error
    assert "actorpool" not in out.error
    assert python.run_python("2").value == "2"


def test_a_traceback_shows_the_lines_of_the_code(python: Pool) -> None:
    assert "oops = unknown" in python.run_python("a = 1\noops = unknown").error


def test_names_stay_within_a_lease_also_after_a_timeout_and_a_reset_clears_them(python: Pool) -> None:
    with python.checkout() as lease:
        lease.run_python("import dataclasses\n@dataclasses.dataclass\nclass P:\n    x: int\np = P(3)")
        assert lease.run_python("while True: pass").error
        assert lease.run_python("p.x").value == "3"
        assert lease.run(lambda names: names["p"].x) == 3
        lease.run(lambda names: names.update(given=5))
        assert lease.run_python("given").value == "5"
    assert "NameError" in python.run_python("p").error


def test_long_texts_are_cut_with_a_word_about_it(python: Pool) -> None:
    out = python.run_python("print('x' * 1000)\n'y' * 1000")
    assert out.text.startswith("x" * 100)
    assert "901 more characters" in out.text
    assert len(out.value) < 150


def test_what_ignores_its_timeout_is_ended_by_the_call_timeout(python: Pool) -> None:
    code = "import time\nwhile True:\n    try:\n        time.sleep(0.01)\n    except BaseException: pass"
    with pytest.raises((CallTimeout, WorkerDied)):
        python.call("run_python", code, call_timeout=1.0)
    assert python.run_python("1").value == "1"


def test_memory_is_limited_and_names_stay(start: Callable[..., Pool]) -> None:
    pool = start(memory="1G")
    with pool.checkout() as lease:
        lease.run_python("x = 1")
        assert "MemoryError" in lease.run_python("bytearray(2**30)").error
        assert lease.run_python("x").value == "1"


def test_code_runs_in_its_directory_with_what_was_preloaded(start: Callable[..., Pool], tmp_path: Path) -> None:
    pool = start(workdir=tmp_path / "work", preload=["colorsys"])
    out = pool.run_python("import os, sys\n(os.getcwd(), 'colorsys' in sys.modules)")
    assert out.value == repr((str(tmp_path / "work"), True))


def lower_rights() -> None:
    os.environ["CONFINED"] = "yes"


def fail_to_confine() -> None:
    raise OSError("no such kernel")


def test_rights_are_taken_before_any_code_runs(start: Callable[..., Pool]) -> None:
    pool = start(confine=lower_rights)
    assert pool.run_python("import os; os.environ['CONFINED']").value == "'yes'"


def test_no_code_runs_where_rights_cannot_be_taken(start: Callable[..., Pool]) -> None:
    with pytest.raises(PermanentError, match="no such kernel"):
        start(confine=fail_to_confine)


def test_it_runs_without_a_node_as_well() -> None:
    with LocalPool(PoolConfig(worker=PythonWorker)) as pool, pool.checkout() as lease:
        lease.run_python("x = 20")
        assert lease.run_python("x + 1").value == "21"
