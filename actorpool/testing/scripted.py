"""`ScriptedWorker`: a worker that answers calls with what a script has for them, in that order."""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from actorpool.workers.base import Worker, method

if TYPE_CHECKING:
    from actorpool.client.pool import Pool


class ScriptedWorker(Worker):
    """Answers each call, whatever its method, with the next item of a script; for tests of code that uses a pool.

    An item that is an exception (or a class of one) is raised; a function is called with the call's own arguments, in
    the worker's process, and its result is the answer; anything else is the answer. `run(fn)` gives `fn` an object
    with methods that answer in the same way. A call beyond the script's end raises `AssertionError`.

    Each worker process has a script of its own, and begins it anew when it is restarted; so take `size=1,
    max_overflow=0`, unless it does not matter which one answers. `assert_drained(pool)` looks at all of them.

    Args:
        script: the answers, in order.
        opens: what becomes of the attempts to connect, in order: an exception is raised ("not now", or
            `PermanentError`), anything else is a success; beyond its end all succeed.
    """

    def __init__(self, script: Iterable[Any] = (), opens: Iterable[Any] = ()) -> None:
        self._answers = deque(script)
        self._opens = deque(opens)
        self._calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []
        self._unexpected: list[str] = []

    def open(self) -> None:
        """Connect, as the script has it."""
        if self._opens:
            _raise_if_error(self._opens.popleft())

    @property
    def connection(self) -> Any:
        """What `fn` gets: each of its methods takes the next answer."""
        return _Connection(self)

    def find_method(self, name: str) -> Callable[..., Any]:
        """Every name is a method."""
        return functools.partial(self.answer, name)

    def answer(self, name: str, /, *args: Any, **kwargs: Any) -> Any:
        """Take the next answer."""
        call = f"{name}({', '.join([*map(repr, args), *(f'{key}={value!r}' for key, value in kwargs.items())])})"
        if not self._answers:
            self._unexpected.append(call)
            raise AssertionError(f"the script is at its end after {len(self._calls)} answers, and has none for {call}")
        self._calls.append((name, args, kwargs))
        answer = self._answers.popleft()
        _raise_if_error(answer)
        return answer(*args, **kwargs) if callable(answer) else answer

    @method
    def stats(self) -> dict[str, Any]:
        """What has happened: `calls` that were answered, as (method, args, kwargs); answers `left`; `unexpected` calls.

        `pool.worker_stats()` has it for all workers.
        """
        return {"calls": list(self._calls), "left": len(self._answers), "unexpected": list(self._unexpected)}


class _Connection:
    def __init__(self, worker: ScriptedWorker) -> None:
        self._worker = worker

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("_"):
            raise AttributeError(name)
        return functools.partial(self._worker.answer, name)


def _raise_if_error(item: Any) -> None:
    if isinstance(item, BaseException) or (isinstance(item, type) and issubclass(item, BaseException)):
        raise item


def assert_drained(pool: Pool) -> list[tuple[str, tuple[Any, ...], dict[str, Any]]]:
    """Assert that every `ScriptedWorker` of a pool has given all its answers, and met no call beyond them.

    Returns:
        The calls that were answered, as (method, args, kwargs), worker by worker.

    Raises:
        AssertionError: answers are left, calls were not expected, or a worker is busy.
    """
    reports = pool.worker_stats()
    total = pool.status().total
    assert len(reports) == total, f"{total - len(reports)} of {total} workers are busy and cannot be asked"
    left = {id: report["left"] for id, report in reports.items() if report["left"]}
    unexpected = [call for report in reports.values() for call in report["unexpected"]]
    assert not left, f"answers are left (by worker: {left}); the calls were {[r['calls'] for r in reports.values()]}"
    assert not unexpected, f"calls beyond the script's end: {', '.join(unexpected)}"
    return [call for report in reports.values() for call in report["calls"]]
