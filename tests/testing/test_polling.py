"""`eventually`: as long as it takes, and no longer."""

from __future__ import annotations

import time

import pytest

from actorpool.testing import eventually


def test_the_first_true_value_is_returned() -> None:
    values = iter([0, "", None, "here", "later"])
    assert eventually(lambda: next(values)) == "here"


def test_an_exception_is_not_yet() -> None:
    answers = iter([KeyError("no"), AssertionError("not yet"), 7])

    def ask() -> int:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    assert eventually(ask) == 7


def test_in_the_end_it_tells_what_came_last() -> None:
    with pytest.raises(AssertionError, match=r"not within 0.05 s; the last time it returned \[\]"):
        eventually(list, timeout=0.05)

    def ask() -> None:
        raise KeyError("nowhere")

    with pytest.raises(AssertionError, match="raised KeyError") as caught:
        eventually(ask, timeout=0.05)
    assert isinstance(caught.value.__cause__, KeyError)


def test_it_asks_at_least_once_and_not_all_the_time() -> None:
    asked = []
    with pytest.raises(AssertionError):
        eventually(lambda: asked.append(1), timeout=-1)
    assert asked == [1]
    began = time.monotonic()
    with pytest.raises(AssertionError):
        eventually(lambda: asked.append(1), timeout=0.1, every=0.04)
    assert len(asked) <= 5
    assert time.monotonic() - began < 5


def test_what_is_no_exception_of_a_test_goes_through() -> None:
    def ask() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        eventually(ask)
