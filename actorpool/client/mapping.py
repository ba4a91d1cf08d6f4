"""`map` on futures: chunks in, results in order out, and nothing left behind when it ends early."""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from typing import Any


class Results(Iterator[Any]):
    """The results of `map`, in order; closing it, or dropping it, cancels what has not begun.

    Args:
        futures: one for each chunk.
        timeout: seconds from now until the last result is there; None is no limit.
        chunked: whether each future's result is a list of results.
    """

    def __init__(self, futures: Iterable[Future[Any]], timeout: float | None, chunked: bool) -> None:
        self._ready: deque[Any] = deque()
        self._futures = deque(futures)
        self._deadline = None if timeout is None else time.monotonic() + timeout
        self._chunked = chunked

    def __iter__(self) -> Iterator[Any]:
        # A loop over chunks goes on in C; one over single results keeps none of them after it was given out.
        return itertools.chain.from_iterable(self._lists()) if self._chunked else self._each()

    def _lists(self) -> Iterator[list[Any]]:
        while self._ready or self._futures:
            values = list(self._ready)
            self._ready.clear()
            yield values
            del values
            self._wait()

    def _each(self) -> Iterator[Any]:
        while self._ready or self._futures:
            if self._ready:
                yield self._ready.popleft()
            else:
                self._wait()

    def __next__(self) -> Any:
        while not self._ready:
            if not self._futures:
                raise StopIteration
            self._wait()
        return self._ready.popleft()

    def _wait(self) -> None:
        """Have the next chunk's results ready."""
        if not self._futures:
            return
        try:
            left = None if self._deadline is None else self._deadline - time.monotonic()
            value = self._futures[0].result(left)
            self._futures.popleft()
        except BaseException:
            self.close()
            raise
        if self._chunked:
            self._ready.extend(value)
        else:
            self._ready.append(value)

    def close(self) -> None:
        """Cancel what has not begun; there are no further results."""
        while self._futures:
            self._futures.pop().cancel()
        self._ready.clear()

    def __del__(self) -> None:
        self.close()


def chunks_of(iterables: tuple[Iterable[Any], ...], size: int) -> Iterator[list[tuple[Any, ...]]]:
    """The rows of `zip(*iterables)` in chunks, each as its columns."""
    if len(iterables) == 1:
        values = iter(iterables[0])
        while column := tuple(itertools.islice(values, size)):
            yield [column]
        return
    rows = zip(*iterables, strict=False)
    while chunk := list(itertools.islice(rows, size)):
        yield list(zip(*chunk, strict=False))


def mapped(
    submit: Callable[..., Future[Any]],
    run_chunk: Callable[..., Any],
    fn: Callable[..., Any],
    iterables: tuple[Iterable[Any], ...],
    timeout: float | None,
    chunksize: int,
) -> Results:
    """The results of `fn` of each row of the iterables, which are taken at once.

    Args:
        submit: makes a future of a function and its arguments.
        run_chunk: what is submitted for a chunk, with the function and the chunk's columns.
        timeout, chunksize: as of `Pool.map`.

    Raises:
        ValueError: `chunksize` is below 1.
    """
    if chunksize < 1:
        raise ValueError(f"chunksize must be at least 1, not {chunksize!r}")
    if chunksize == 1:
        return Results([submit(fn, *row) for row in zip(*iterables, strict=False)], timeout, False)
    chunks = chunks_of(iterables, chunksize)
    return Results([submit(run_chunk, fn, columns) for columns in chunks], timeout, True)
