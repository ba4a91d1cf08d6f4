"""What clients may send: it comes back as it was, and what is damaged is refused as a whole."""

from __future__ import annotations

import pickle
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actorpool._protocol import requests
from actorpool.client._shared_calls import SharedCallRequest
from actorpool.serialization import pickling
from actorpool.transport import bodies
from actorpool.transport.bodies import BadFrame

TEXTS = st.none() | st.text(st.characters(), max_size=50)


KEYS = st.none() | st.text() | st.integers() | st.tuples(st.text(), st.integers())


@given(st.floats(0.0, 1e6), st.booleans(), TEXTS, TEXTS, st.booleans(), KEYS)
def test_a_checkout_is_read_as_it_was_made(
    timeout: float, block: bool, stack: str | None, sandbox: str | None, sticky: bool, key: object
) -> None:
    body = bodies.pack_checkout(timeout, block, stack, sandbox, sticky, bodies.pack_key(key))
    assert bodies.checkout(body) == bodies.checkout(memoryview(body)) == (timeout, block, stack, sandbox, sticky, key)


@given(st.binary(max_size=60))
def test_any_bytes_are_a_checkout_or_a_bad_frame(data: bytes) -> None:
    try:
        asked = bodies.checkout(data)
    except (BadFrame, TypeError):
        return
    assert asked.timeout >= 0.0
    assert type(asked.sandbox) in (str, type(None))


@pytest.mark.parametrize("timeout", [-1.0, float("nan"), float("inf"), 1e300])
def test_a_timeout_that_is_none_is_refused(timeout: float) -> None:
    with pytest.raises(BadFrame):
        bodies.checkout(bodies.pack_checkout(timeout, True, None, None))


def test_a_shared_call_is_read_as_it_was_made() -> None:
    work = SharedCallRequest(("a", 1), "read", (1,), {}, {"x": 2}, None)
    asked = bodies.shared_call(work.head(None) + work.payload)
    assert (asked.timeout, asked.resource, asked.method, asked.where) == (None, ("a", 1), "read", {"x": 2})
    assert pickling.loads(asked.payload) == ("read", (1,), {})


CUT = st.integers(0, 40).map(lambda length: SharedCallRequest("r", "m", (), {}, None, 1.0).head(1.0)[:length])


@given(st.binary(max_size=60) | CUT)
def test_any_bytes_are_a_shared_call_or_refused(data: bytes) -> None:
    try:
        asked = bodies.shared_call(data)
    except Exception:  # of whatever kind: the caller gets it, or is hung up on
        return
    assert asked.timeout is None or asked.timeout >= 0.0


def test_a_question_that_cannot_be_read_says_so() -> None:
    assert type(bodies.request(pickling.dumps(requests.Status()))) is requests.Status
    for body in (b"", b"\x80\x05", pickle.dumps(requests.Status())[:-5], b"\x80\x05cno_such_module\nname\n."):
        with pytest.raises(TypeError, match="cannot be read"):
            bodies.request(body)


def test_a_small_question_takes_little_memory_whatever_it_says() -> None:
    bad = b"\x80\x05Nr" + (2**27).to_bytes(4, "little") + b"."
    tracemalloc.start()
    bodies.request(bad)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1_000_000
