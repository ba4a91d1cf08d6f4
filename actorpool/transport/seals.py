"""Seals: what proves to a worker that a lease is one of its own. Pure.

A pool and each of its worker processes share a key that no other process has. The pool seals the number of each lease
that it grants, and the lease's holder shows the seal with its calls. So a worker refuses a number that its pool has not
granted for this very process: one of a sibling, of another pool with a worker that had this pid before, or an invented
one.
"""

from __future__ import annotations

import secrets
import struct
from collections.abc import Callable
from hashlib import blake2b

_number = struct.Struct("!Q")
_pack, _unpack = _number.pack, _number.unpack

KEY = 16
"""Bytes of a key."""


def new_key() -> bytes:
    """A key for one worker process."""
    return secrets.token_bytes(KEY)


def sealer(key: bytes) -> Callable[[int], int]:
    """A function that tells the seal of a lease (or of a loan) under a key: 63 bits of keyed BLAKE2b (RFC 7693)."""
    begun = blake2b(key=key, digest_size=8)

    def seal(lease: int) -> int:
        hasher = begun.copy()
        hasher.update(_pack(lease))
        return int(_unpack(hasher.digest())[0]) >> 1

    return seal


class Granted:
    """Whether a lease, as it is shown, is one that was granted under a key. It is computed once for each lease."""

    def __init__(self, key: bytes) -> None:
        self._seal = sealer(key)
        self._shown = (0, self._seal(0))  # of no lease

    def __call__(self, lease: int, shown: int) -> bool:
        if (lease, shown) == self._shown:
            return True
        if self._seal(lease) != shown:
            return False
        self._shown = lease, shown
        return True


def anything(_lease: int, _shown: int) -> bool:
    """For a worker that belongs to no pool."""
    return True
