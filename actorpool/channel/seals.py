"""Seals: what proves to a worker that a lease is one of its own. Pure.

A pool and each of its worker processes share a key that nobody else has. The pool seals the number of each lease that
it grants, and the lease's holder shows the seal with its calls. So a worker refuses a number that its pool has not
granted for this very process: one of a sister, of another pool whose worker had this pid before, or an invented one.
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
    """The seal of a lease (or of a loan) under a key: 64 bits of keyed BLAKE2b (RFC 7693)."""
    return int.from_bytes(blake2b(lease.to_bytes(8, "big"), key=key, digest_size=8).digest(), "big")
