"""A worker and its connection: which calls are let in, when it is checked, reset, opened; without process or pool."""

from __future__ import annotations

import pytest

from actorpool.errors import LeaseExpired, MethodNotFound
from actorpool.workers.base import Worker, method
from actorpool.workers.worker_session import Interrupted, Unavailable, WorkerSession

AWAY = ConnectionError("the server went away")


class Scripted(Worker):
    """Writes down what is asked of it; `broken` names the hooks that fail."""

    def __init__(self):
        self.log: list[str] = []
        self.broken: set[str] = set()

    def _note(self, what):
        self.log.append(what)
        if what in self.broken:
            raise AWAY

    def open(self):
        self._note("open")

    def check(self):
        self._note("check")

    def reset(self):
        self._note("reset")

    def close(self):
        self._note("close")

    @method
    def add(self, one, other=1):
        return one + other

    def hidden(self):
        return "never"


def opened(check_after=None, **state):
    session = WorkerSession(Scripted(), check_after)
    session.open(0.0)
    session.worker.log.clear()
    for name, value in state.items():
        setattr(session, name, value)
    return session


def call(session, lease, *, now=0.0, check_first=False):
    session.admit(lease, check_first, now)
    return session.run("add", (1,), None)


# -- leases -----------------------------------------------------------------------------------------------


def test_a_call_runs_a_method_by_name_or_a_function_with_the_connection():
    session = opened()
    session.admit(1, False, 0.0)
    assert session.run("add", (1,), {"other": 5}) == 6
    assert session.run(lambda connection, name: getattr(connection, name)(), ("hidden",), {}) == "never"
    with pytest.raises(MethodNotFound, match=r"Scripted has no method 'hidden' marked with @method; it has add"):
        session.run("hidden", (), None)


def test_calls_of_one_lease_are_let_in_and_the_worker_is_reset_once_at_its_end():
    session = opened()
    assert [call(session, 4) for _ in range(3)] == [2, 2, 2]
    session.end(4)
    session.end(4)
    assert session.worker.log == ["reset"]


def test_a_lease_that_ran_nothing_needs_no_reset():
    session = opened()
    session.admit(1, False, 0.0)
    session.end(1)
    session.end(2)
    assert session.worker.log == []


def test_a_lease_that_has_ended_runs_nothing_any_more():
    session = opened()
    call(session, 4)
    session.end(4)
    for old in (1, 3, 4):
        with pytest.raises(LeaseExpired):
            session.admit(old, False, 0.0)
    assert call(session, 5) == 2


def test_the_next_lease_resets_what_the_one_before_left_if_its_end_has_not_arrived_yet():
    session = opened()
    call(session, 4)
    call(session, 5)
    assert session.worker.log == ["reset"]
    session.end(4)  # late
    assert session.worker.log == ["reset"]
    with pytest.raises(LeaseExpired):
        session.admit(4, False, 0.0)
    assert call(session, 5) == 2


def test_a_lease_that_was_taken_back_before_its_first_call_runs_nothing():
    session = opened()
    session.revoke(7)
    with pytest.raises(LeaseExpired):
        session.admit(7, False, 0.0)
    assert call(session, 8) == 2


def test_revoking_resets_even_if_it_is_not_known_that_anything_ran():
    session = opened()
    session.revoke(7)
    assert session.worker.log == ["reset"]


def test_a_worker_that_belongs_to_no_pool_goes_on_without_leases():
    session = opened()
    for _ in range(3):
        assert call(session, 0) == 2
        session.end(0)
    assert session.worker.log == ["reset"] * 3


# -- the connection ---------------------------------------------------------------------------------------


def test_a_worker_that_was_never_opened_connects_at_its_first_call():
    session = WorkerSession(Scripted(), None)
    call(session, 1)
    assert session.worker.log == ["open"]


def test_opening_again_closes_what_is_open_first():
    session = opened()
    session.open(1.0)
    assert session.worker.log == ["close", "open"]


def test_a_failing_close_stops_nobody():
    session = opened()
    session.worker.broken = {"close"}
    session.open(1.0)
    assert session.connected


def test_a_worker_that_rests_connects_at_its_next_call_and_has_that_to_tell():
    session = opened()
    session.rest()
    assert (session.worker.log, session.reopened) == (["close"], False)
    call(session, 1)
    assert (session.worker.log, session.reopened) == (["close", "open"], True)


def test_an_order_to_rest_that_a_call_has_overtaken_does_not_take_the_connection_from_its_lease():
    session = opened()
    call(session, 1)
    session.rest()
    assert call(session, 1) == 2
    assert (session.worker.log, session.reopened) == ([], True)
    session.end(1)
    session.rest()
    assert session.worker.log == ["reset", "close"]


def test_a_call_on_a_lost_connection_is_not_started_until_the_pool_has_it_opened_again():
    session = opened()
    call(session, 1)
    session.lose(AWAY)
    for lease in (1, 2):
        with pytest.raises(Unavailable) as gone:
            session.admit(lease, False, 0.0)
        assert gone.value.error is AWAY
    session.open(1.0)
    assert call(session, 3) == 2


def test_a_lease_whose_connection_was_lost_never_runs_on_the_next_one_by_itself():
    session = opened()
    call(session, 1)
    session.close()
    with pytest.raises(Unavailable, match="lost earlier in this lease"):
        session.admit(1, False, 0.0)


def test_a_failing_reset_loses_the_connection():
    session = opened()
    call(session, 1)
    session.worker.broken = {"reset"}
    with pytest.raises(Unavailable):
        session.end(1)
    assert (session.connected, session.lost) == (False, AWAY)
    assert session.worker.log == ["reset", "close"]


def test_a_worker_that_has_no_reset_of_its_own_is_not_reset():
    class Plain(Worker):
        @method
        def add(self, one):
            return one

    session = WorkerSession(Plain(), None)
    session.open(0.0)
    session.admit(1, False, 0.0)
    session.run("add", (1,), None)
    session.end(1)
    assert session.connected


# -- checks -----------------------------------------------------------------------------------------------


def test_a_worker_idle_for_longer_than_the_limit_is_checked_before_a_call():
    session = opened(check_after=0.5)
    call(session, 1, now=0.5)
    assert session.worker.log == []
    session.end(1)
    call(session, 2, now=1.1)
    assert session.worker.log == ["reset", "check"]


def test_a_suspect_worker_is_checked_before_a_call_whatever_the_limit():
    session = opened()
    call(session, 1, check_first=True)
    assert session.worker.log == ["check"]


def test_a_check_that_fails_loses_the_connection_and_runs_nothing():
    session = opened()
    session.worker.broken = {"check"}
    with pytest.raises(Unavailable):
        session.admit(1, True, 0.0)
    assert session.worker.log == ["check", "close"]
    assert session.lost is AWAY


def test_an_open_that_fails_at_a_call_is_remembered():
    session = WorkerSession(Scripted(), None)
    session.worker.broken = {"open"}
    for _ in range(2):
        with pytest.raises(Unavailable):
            session.admit(1, False, 0.0)
    assert session.worker.log == ["open"]


def test_whatever_a_hook_raises_is_the_connections_end_and_no_more():
    session = opened()
    for hook in ("check", "reset"):
        session.open(0.0)
        session.dirty = True
        setattr(session.worker, hook, lambda: raises(SystemExit(3)))
        with pytest.raises(Unavailable):
            session.check(0.0) if hook == "check" else session.reset()
        assert not session.connected


def test_an_interrupt_that_breaks_into_a_hook_costs_the_connection():
    session = opened(dirty=True)
    session.worker.reset = lambda: raises(Interrupted(10))
    session._resets = True
    with pytest.raises(Interrupted):
        session.reset()
    assert not session.connected


def test_a_worker_that_cannot_tell_a_loss_has_lost_its_connection():
    session = opened()
    session.worker.is_disconnect = lambda error: raises(SystemExit(3))
    assert session.is_loss(ValueError("of the caller"))
    session.worker.needs_check = lambda: raises(KeyError("x"))
    session.admit(1, False, 0.0)
    assert session.worker.log == ["check"]


def test_a_pipe_or_a_file_of_the_callers_is_no_connection_of_the_worker():
    session = opened()
    for error in (BrokenPipeError(), EOFError()):
        assert not session.is_loss(error)
    session.worker.broken = {"check"}
    for error in (BrokenPipeError(), EOFError(), ConnectionResetError()):
        assert session.is_loss(error)


def raises(error):
    raise error
