"""The memory in which workers count their uses: what one process writes, the other reads."""

from __future__ import annotations

import os

from actorpool.channel import tally


def test_a_use_is_begun_and_then_ended():
    pages = tally.Pages()
    slot = tally.Slot(pages, 3)
    slot.begin(10.0)
    assert slot.read() == (1, 0, 10.0, 0.0)
    slot.end(10.5)
    assert slot.read() == (1, 1, 10.0, 10.5)
    assert slot.holds(5) == [0.5]


def test_slots_are_apart():
    pages = tally.Pages()
    first, second = tally.Slot(pages, 0), tally.Slot(pages, 1)
    first.begin(1.0)
    assert second.read() == (0, 0, 0.0, 0.0)


def test_the_last_hold_times_are_remembered():
    slot = tally.Slot(tally.Pages(), 0)
    for number in range(100):
        slot.begin(0.0)
        slot.end(float(number))
    assert slot.holds(3) == [97.0, 98.0, 99.0]
    assert slot.holds(1000) == [float(number) for number in range(100 - tally.HOLDS, 100)]


def test_another_process_reads_what_a_worker_wrote_also_after_its_death():
    pages = tally.found()
    number = pages.take(7)
    pid = os.fork()
    if pid == 0:
        slot = tally.inherited(number)
        slot.begin(1.0)
        slot.end(2.0)
        os._exit(0)
    os.waitpid(pid, 0)
    pages.counts(7)
    assert pages.slot(7).read() == (1, 1, 1.0, 2.0)


def test_only_a_child_of_the_pool_finds_its_slot():
    tally.found()
    assert tally.inherited(0) is None
    assert tally.inherited(None) is None


def test_a_worker_that_does_not_count_has_no_slot():
    pages = tally.Pages()
    pages.take(7)
    assert pages.slot(7) is None
    assert pages.slot(8) is None


def test_a_slot_is_used_again_and_begins_at_nothing():
    pages = tally.Pages()
    numbers = [pages.take(worker) for worker in range(tally.SLOTS)]
    assert len(set(numbers)) == tally.SLOTS
    assert pages.take(5000) is None
    pages.counts(3)
    slot = pages.slot(3)
    assert slot is not None
    slot.begin(1.0)
    pages.give(3)
    assert pages.take(5000) == numbers[3]
    pages.counts(5000)
    assert pages.slot(5000).read() == (0, 0, 0.0, 0.0)
