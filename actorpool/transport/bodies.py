"""Bodies of the frames that clients send to pools and to the manager: made here, and read here in one guarded step.

A process that can connect can send anything. So no part of a body is acted on before all of it was read and checked. A
body that is not as it should be is a `BadFrame`, for which the server closes the connection, or is answered by an
error. Beyond that, only errors of our own come out of a handler.
"""

from __future__ import annotations

import functools
import io
import pickle
import struct
from collections.abc import Hashable
from typing import Any, NamedTuple

from actorpool._validation import LONGEST
from actorpool.transport import frames
from actorpool.transport.frames import BadFrame

_CHECKOUT = struct.Struct("!dBII")
"""Timeout in seconds, flags, bytes of the sandbox's name, bytes of the pickled key; these, and the stack, follow."""
_BLOCK, _STAY, _SANDBOX, _STACK = 1, 2, 4, 8
_SHORT = 1000
"""Bytes of a body that is remembered once it was read: a program has but a few different ones."""


class Checkout(NamedTuple):
    """What a `CHECKOUT` frame asks for, in the order of `PoolCore.checkout`."""

    timeout: float
    block: bool
    stack: str | None
    sandbox: str | None
    sticky: bool
    key: Hashable


@functools.lru_cache(maxsize=64)
def pack_checkout(
    timeout: float, block: bool, stack: str | None, sandbox: str | None, sticky: bool = False, key: bytes = b""
) -> bytes:
    """The body of a `CHECKOUT` frame; `key` as `pack_key` has made it."""
    flags = _BLOCK * block | _STAY * sticky | _SANDBOX * (sandbox is not None) | _STACK * (stack is not None)
    name, text = ((value or "").encode("utf-8", "surrogatepass") for value in (sandbox, stack))
    return _CHECKOUT.pack(timeout, flags, len(name), len(key)) + name + key + text


def pack_key(key: Hashable) -> bytes:
    """The key of a keyed lease as bytes, none for None. Pickled by reference: by value, no two would be equal."""
    return b"" if key is None else pickle.dumps(key, pickle.HIGHEST_PROTOCOL)


def checkout(body: bytes | memoryview) -> Checkout:
    """Read the body of a `CHECKOUT` frame.

    Raises:
        BadFrame: it is none.
        TypeError: its key cannot be one.
    """
    return _read_checkout(body) if len(body) > _CHECKOUT.size else _read_short(bytes(body))


def _read_checkout(body: bytes | memoryview) -> Checkout:
    try:
        timeout, flags, length, key_length = _CHECKOUT.unpack_from(body)
        start = _CHECKOUT.size + length
        end = start + key_length
        name = str(body[_CHECKOUT.size : start], "utf-8", "surrogatepass") if flags & _SANDBOX else None
        stack = str(body[end:], "utf-8", "surrogatepass") if flags & _STACK else None
    except (struct.error, UnicodeError) as problem:
        raise BadFrame(f"no checkout: {problem}") from None
    if not 0.0 <= timeout <= LONGEST or end > len(body):
        raise BadFrame(f"no checkout: a timeout of {timeout} s, {end} of {len(body)} bytes")
    key = _key(body[start:end]) if key_length else None
    return Checkout(timeout, bool(flags & _BLOCK), stack, name, bool(flags & _STAY), key)


_read_short = functools.lru_cache(maxsize=64)(_read_checkout)  # without a key, nearly all of a process are equal


def _key(body: bytes | memoryview) -> Hashable:
    try:
        key = _loads(body)
        usable = hash(key) == hash(key) and key == key
    except BaseException as problem:  # what rebuilds, hashes or compares a value may be any code
        raise TypeError(f"the key cannot be used in the pool's process ({type(problem).__name__}: {problem})") from None
    if not usable:
        raise TypeError(f"the key is not equal to itself, so nobody could ask for it again: {type(key).__name__}")
    return key  # type: ignore[no-any-return]


def request(body: bytes | memoryview) -> Any:
    """Read the body of an `ASK` frame, a message.

    Raises:
        TypeError: it cannot be read; says why.
    """
    try:
        return _loads(body)
    except BaseException as problem:  # what rebuilds a value may be any code
        raise TypeError(f"the request cannot be read ({type(problem).__name__}: {problem})") from None


class SharedCall(NamedTuple):
    """What a `SHARED` frame asks for."""

    timeout: float | None
    resource: Any
    method: str
    where: Any
    payload: bytes | memoryview


def shared_call(body: bytes | memoryview) -> SharedCall:
    """Read the body of a `SHARED` frame; the payload is not unpickled.

    Raises:
        BadFrame: it is none.
        Exception: a user's value cannot be rebuilt here.
    """
    try:
        timeout, routing, filtering = frames.SHARED_HEAD.unpack_from(body)
    except struct.error as problem:
        raise BadFrame(f"no shared call: {problem}") from None
    start = frames.SHARED_HEAD.size + routing
    end = start + filtering
    if not timeout >= 0.0 or end > len(body):
        raise BadFrame(f"no shared call: a timeout of {timeout} s, {end} of {len(body)} bytes")
    route = body[frames.SHARED_HEAD.size : start]
    resource, method = _route(bytes(route)) if routing <= _SHORT else _loads(route)
    where = _loads(body[start:end]) if filtering else None
    limit = None if timeout == float("inf") else min(timeout, LONGEST)
    return SharedCall(limit, resource, method, where, body[end:])


@functools.lru_cache(maxsize=256)
def _route(data: bytes) -> Any:
    return _loads(data)


def _loads(data: bytes | memoryview) -> Any:
    """Unpickle a body that any process may have sent.

    The pickle module's own C code takes memory, gigabytes of it, for any number in the place of an index of its table;
    its Python code, some 50 microseconds slower for a small message, has no such table.
    """
    return pickle._Unpickler(io.BytesIO(data)).load()


__all__ = ["BadFrame", "Checkout", "SharedCall", "checkout", "pack_checkout", "pack_key", "request", "shared_call"]
