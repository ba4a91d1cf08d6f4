"""How a number is divided among hosts, and which host a key belongs to: the same for all who see the same hosts.

Neither needs a leader or an agreement: both are functions of the set of hosts and of names.
"""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Iterable
from numbers import Number
from typing import Any


def shares(total: int, hosts: Iterable[str], pool: str, most: int | None = None) -> dict[str, int]:
    """How many of `total` each host gets: `total // hosts`, and one more for the first few by hash.

    Args:
        total: to be divided.
        hosts: their ids.
        pool: its name; the rest of another pool goes to other hosts.
        most: no host gets more than this, even if the sum is then less than `total`; None: no limit.
    """
    ranked = _ranked(hosts, pool)
    if not ranked:
        return {}
    each, rest = divmod(total, len(ranked))
    share = {host: each + (place < rest) for place, host in enumerate(ranked)}
    return share if most is None else {host: min(number, most) for host, number in share.items()}


def overflow_shares(total: int, hosts: Iterable[str], pool: str) -> dict[str, int]:
    """As `shares`, with the rest at the other end: a host that has one worker less may start one more."""
    ranked = _ranked(hosts, pool)
    if not ranked:
        return {}
    each, rest = divmod(total, len(ranked))
    return {host: each + (place < rest) for place, host in enumerate(reversed(ranked))}


def host_of_key(key: Hashable, hosts: Iterable[str]) -> str:
    """The host that a key belongs to, by rendezvous hashing (Thaler and Ravishankar, 1996).

    A key moves only if its host goes, or if a host comes that the key prefers to all others.

    Raises:
        ValueError: there is no host.
    """
    data = canonical(key)
    return max(hosts, key=lambda host: (_score(host.encode(), data), host))


def canonical(key: Any) -> bytes:
    """Bytes that are equal for equal keys, in every process.

    Python's own `hash` differs from process to process for strings, and a pickle tells whether two parts of a key are
    one object. Numbers that are equal are one key, as in a dict.
    """
    if isinstance(key, Number):
        return b"n%d" % hash(key)  # the same in every process, for numbers alone
    if isinstance(key, str):
        return _tagged(b"s", key.encode("utf-8", "surrogatepass"))
    if isinstance(key, bytes):
        return _tagged(b"b", key)
    if isinstance(key, tuple):
        return _tagged(b"t", b"".join(_tagged(b"", canonical(part)) for part in key))
    if isinstance(key, frozenset):
        return _tagged(b"f", b"".join(sorted(_tagged(b"", canonical(part)) for part in key)))
    return _tagged(b"o", f"{type(key).__module__}.{type(key).__qualname__} {key!r}".encode("utf-8", "surrogatepass"))


def _tagged(tag: bytes, data: bytes) -> bytes:
    return b"%s%d:%s" % (tag, len(data), data)


def _ranked(hosts: Iterable[str], pool: str) -> list[str]:
    name = pool.encode()
    return sorted(hosts, key=lambda host: (_score(host.encode(), name), host))


def _score(host: bytes, data: bytes) -> bytes:
    return hashlib.blake2b(data, key=hashlib.blake2b(host, digest_size=32).digest(), digest_size=8).digest()
