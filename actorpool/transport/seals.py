"""Seals: what proves to a worker that a lease is one of its own. Pure.

A pool and each of its worker processes share a key that no other process has. The pool seals the number of each lease
that it grants, and the lease's holder shows the seal with its calls. So a worker refuses a number that its pool has not
granted for this very process: one of a sibling, of another pool with a worker that had this pid before, or an invented
one.
"""

from __future__ import annotations

import secrets
from hashlib import blake2b

KEY = 16
"""Bytes of a key."""

POOL = 0
"""The number that no lease has. Its seal tells the worker which connection is its pool's."""


def new_key() -> bytes:
    """A key for one worker process."""
    return secrets.token_bytes(KEY)


def seal(key: bytes, lease: int) -> int:
    """The seal of a lease (or of a loan) under a key: 63 bits of keyed BLAKE2b (RFC 7693)."""
    return int.from_bytes(blake2b(lease.to_bytes(8, "big"), key=key, digest_size=8).digest(), "big") >> 1


class Granted:
    """Whether a lease, as it is shown, is one that was granted under a key. It is computed once for each lease."""

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._shown = (POOL, seal(key, POOL))

    def __call__(self, lease: int, shown: int) -> bool:
        if (lease, shown) == self._shown:
            return True
        if seal(self._key, lease) != shown:
            return False
        self._shown = lease, shown
        return True


def anything(_lease: int, _shown: int) -> bool:
    """For a worker that belongs to no pool."""
    return True
