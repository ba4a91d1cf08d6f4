"""Signatures of messages: one that was not signed with the cookie is never unpickled, and is counted."""

from __future__ import annotations

import hashlib
import hmac
import logging
import pickle
from typing import Any

log = logging.getLogger("actorpool")

SIGNATURE = 32
"""Bytes of a signature (BLAKE2b with the cookie as its key, RFC 7693)."""


class ForgedMessageError(ValueError):
    """The signature is not the cookie's."""


class Seal:
    """Signs and verifies with one cookie; counts what it refused in this process."""

    def __init__(self, cookie: bytes) -> None:
        self._cookie = cookie
        self.refused = 0

    def close(self, value: Any) -> bytes:
        """Pickle a value and sign it."""
        data = pickle.dumps(value, 5)
        return self._signature(data) + data

    def open(self, data: bytes) -> Any:
        """Verify and unpickle.

        Raises:
            ForgedMessageError: the signature is wrong; nothing was unpickled.
            Exception: whatever unpickling a message of ours raises (a class that cannot be imported here).
        """
        return pickle.loads(self.verified(data))

    def verified(self, data: bytes) -> memoryview:
        """What was signed, without its signature."""
        body = memoryview(data)[SIGNATURE:]
        if not hmac.compare_digest(self._signature(body), data[:SIGNATURE]):
            raise ForgedMessageError
        return body

    def signed(self, data: bytes) -> bytes:
        """A signature and the data."""
        return self._signature(data) + data

    def _signature(self, data: bytes | memoryview) -> bytes:
        return hashlib.blake2b(data, key=self._cookie, digest_size=SIGNATURE).digest()

    def refuse(self, why: str) -> None:
        """Count a message that is not ours; logged at 1, 10, 100, ... so that a flood cannot fill the disk."""
        self.refused += 1
        if str(self.refused).strip("0") == "1":
            log.warning("dropped %d message(s) that were not signed with this node's cookie (%s)", self.refused, why)
