"""The policy of waiting without sleeping: it looks, it gives up in time, and it pauses where it does not pay."""

from __future__ import annotations

import os
import time

import pytest

from actorpool.transport import spinwait
from actorpool.transport.spinwait import Account, look


def test_what_is_found_is_returned_and_booked_as_a_saving() -> None:
    account = Account()
    assert look(lambda: b"found", 10.0, account) == b"found"
    assert account.balance in (
        0.0,
        spinwait.OPENING + spinwait.SAVED,
    )  # 0.0: this very test lost the processor meanwhile


def test_nothing_found_in_time_means_blocking() -> None:
    began = time.perf_counter()
    assert look(list, 0.001, Account()) is None
    assert time.perf_counter() - began < 1.0


def test_a_processor_taken_for_long_is_booked_as_a_loss_and_pauses_looking(monkeypatch: pytest.MonkeyPatch) -> None:
    account = Account()
    looks: list[int] = []
    monkeypatch.setattr(os, "sched_yield", lambda: time.sleep(0.002))
    assert look(lambda: looks.append(1), 1.0, account) is None
    assert len(looks) == 1
    assert account.resume > time.perf_counter()
    assert look(lambda: looks.append(1), 1.0, account) is None
    assert len(looks) == 1  # paused


def test_what_was_found_after_a_loss_is_not_lost_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_yield", lambda: time.sleep(0.002))
    assert look(lambda: b"late", 1.0, Account()) == b"late"


def test_somebody_with_work_is_left_the_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    account = Account()
    looks: list[int] = []
    monkeypatch.setattr(os, "sched_yield", lambda: time.sleep(spinwait.TAKEN))
    monkeypatch.setattr(spinwait, "LOST", 10.0)
    assert look(lambda: looks.append(1), 10.0, account) is None
    assert len(looks) == 1
    assert account.resume == 0.0


def test_savings_pay_for_a_loss_and_losses_in_a_row_pause_longer_and_longer() -> None:
    account = Account()
    account.lost(0.003, now=1.0)
    assert account.resume == 1.0 + spinwait.SHORTEST_PAUSE
    account.lost(0.003, now=2.0)
    assert account.resume == 2.0 + 4 * spinwait.SHORTEST_PAUSE
    for _ in range(20):
        account.lost(0.003, now=3.0)
    assert account.resume == 3.0 + spinwait.LONGEST_PAUSE
    for _ in range(int(spinwait.CREDIT / spinwait.SAVED) + 1):
        account.saved()
    account.lost(0.003, now=9.0)
    assert account.resume == 3.0 + spinwait.LONGEST_PAUSE  # paid for
    account.lost(0.004, now=10.0)
    assert account.resume == 10.0 + spinwait.SHORTEST_PAUSE


def test_a_look_that_just_missed_what_came_is_a_waste() -> None:
    account = Account()
    now, looks = 100.0, 0
    while account.begins(now):
        account.gave_up = now
        now += spinwait.SOON / 2
        looks += 1
    assert looks * spinwait.WASTED == pytest.approx(spinwait.OPENING, abs=2 * spinwait.WASTED)
    assert account.resume > now


def test_looking_goes_on_where_every_other_look_finds_something() -> None:
    account = Account()
    for number in range(1000):
        now = 100.0 + number * spinwait.SOON / 2
        assert account.begins(now)
        if number % 2:
            account.saved()
        else:
            account.gave_up = now


def test_looking_while_there_was_nothing_to_do_costs_nothing() -> None:
    account = Account()
    for number in range(1000):
        now = 100.0 + number * spinwait.SOON * 2
        assert account.begins(now)
        account.gave_up = now


@pytest.mark.parametrize(("enabled", "setting", "on"), [(True, None, True), (True, "0", False), (False, None, False)])
def test_it_can_be_turned_off(monkeypatch: pytest.MonkeyPatch, enabled: bool, setting: str | None, on: bool) -> None:
    monkeypatch.delenv("ACTORPOOL_SPIN", raising=False)
    if setting is not None:
        monkeypatch.setenv("ACTORPOOL_SPIN", setting)
    assert (spinwait.spin_seconds(enabled) > 0) is on


def test_a_clock_that_stands_still_does_not_keep_it_looking(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "perf_counter", lambda: 1000.0)
    looks: list[int] = []
    assert look(lambda: looks.append(1), 50e-6, Account()) is None
    assert len(looks) == spinwait.LOOKS
