"""What waits for pools that are being restarted."""

from __future__ import annotations

from actorpool.supervisors.kept import Kept


def test_what_waits_is_taken_by_pool_and_in_order():
    kept = Kept()
    for number in range(3):
        kept.keep("db", number, 10.0)
    kept.keep("http", "other", 5.0)
    assert kept.pools() == ["db", "http"]
    assert kept.take("db") == [0, 1, 2]
    assert kept.take("db") == []
    assert kept.pools() == ["http"]


def test_each_waits_until_its_own_deadline_and_is_told_once():
    kept = Kept()
    kept.keep("db", "late", 20.0)
    kept.keep("db", "soon", 10.0)
    assert kept.deadline() == 10.0
    assert kept.expired(9.9) == []
    assert kept.expired(10.0) == [("db", "soon")]
    assert kept.expired(100.0) == [("db", "late")]
    assert kept.pools() == []
    assert kept.deadline() is None


def test_deadlines_of_what_was_taken_do_not_add_up():
    kept = Kept()
    for number in range(10_000):
        kept.keep("db", number, 1e9)
        kept.take("db")
    assert len(kept._deadlines) < 200
