"""Exceptions cross processes with their own type wherever there is a way."""

from __future__ import annotations

import threading

import pytest

from actorpool.errors import CheckoutTimeout, RemoteError, RemoteTraceback, WorkerUnavailable
from actorpool.status import PoolStatus
from actorpool.transport import frames


class TwoArguments(Exception):
    """Pickles, and does not load again by itself: `args` is the text alone."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"{code}: {text}")
        self.code = code


class HoldsALock(Exception):
    """Cannot be pickled at all."""

    def __init__(self) -> None:
        super().__init__("locked")
        self.lock = threading.Lock()


def raised(error: BaseException) -> BaseException:
    try:
        raise error
    except BaseException as caught:
        return caught


def travelled(error: BaseException) -> BaseException:
    return frames.load_error(frames.dump_error(error))


def test_an_exception_arrives_with_its_type_arguments_and_remote_traceback() -> None:
    error = travelled(raised(KeyError("missing")))
    assert type(error) is KeyError
    assert error.args == ("missing",)
    assert "in raised" in error.remote_traceback  # type: ignore[attr-defined]
    assert isinstance(error.__cause__, RemoteTraceback)
    assert "in raised" in str(error.__cause__)


def test_an_exception_that_was_never_raised_has_no_traceback() -> None:
    error = travelled(ValueError(3))
    assert error.args == (3,)
    assert error.__cause__ is None


def test_a_class_whose_init_does_not_take_its_args_back_keeps_its_type() -> None:
    error = travelled(raised(TwoArguments(7, "seven")))
    assert type(error) is TwoArguments
    assert (str(error), error.code) == ("7: seven", 7)


def test_what_cannot_be_pickled_becomes_a_remote_error_that_names_the_type() -> None:
    error = travelled(raised(HoldsALock()))
    assert isinstance(error, RemoteError)
    assert error.type_name.endswith("HoldsALock")
    assert "locked" in str(error)
    assert "in raised" in (error.remote_traceback or "")


def test_our_errors_keep_their_facts() -> None:
    status = PoolStatus("db", "full", 1, 0, 0, 3, 1)
    error = travelled(CheckoutTimeout("too late", pool="db", waited=2.5, status=status))
    assert type(error) is CheckoutTimeout
    assert (error.pool, error.waited, error.status) == ("db", 2.5, status)


def test_a_cause_that_does_not_travel_is_told_by_its_name() -> None:
    error = travelled(WorkerUnavailable("away", pool="db", cause=HoldsALock()))
    assert type(error) is WorkerUnavailable
    assert isinstance(error.cause, RemoteError)
    assert error.cause.type_name.endswith("HoldsALock")


def test_an_exception_without_a_usable_text_still_arrives() -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no text")

    broken = Mute()
    broken.lock = threading.Lock()  # type: ignore[attr-defined]
    error = travelled(broken)
    assert isinstance(error, RemoteError)
    assert error.type_name.endswith("Mute")


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3), GeneratorExit()])
def test_exceptions_that_are_no_errors_travel_as_well(error: BaseException) -> None:
    assert type(travelled(error)) is type(error)
