"""Where a call goes: the caller's own host first, then others in proportion to their shares, never a suspect one."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

_GOLDEN = 0.6180339887498949
TRIES = 3
"""Hosts that are asked for an idle worker before the caller waits at one of them."""


class Choice:
    """Chooses hosts for one client process; evenly, without chance, and differently from other clients.

    Args:
        here: the id of the client's own host.
        client: names the client; where it begins depends on it.
    """

    def __init__(self, here: str, client: str) -> None:
        self.here = here
        self._turn = int.from_bytes(hashlib.blake2b(client.encode(), digest_size=4).digest(), "big") / 2**32
        self._suspects: set[str] = set()

    # -- quarantine -----------------------------------------------------------------------------------------

    def suspect(self, host: str) -> bool:
        """A call to that host was lost: no call goes there until `cleared`. Whether that is news."""
        news = host not in self._suspects
        self._suspects.add(host)
        return news

    def cleared(self, host: str) -> None:
        """The host has answered, or is no member any more."""
        self._suspects.discard(host)

    @property
    def suspects(self) -> frozenset[str]:
        """The hosts in quarantine."""
        return frozenset(self._suspects)

    def usable(self, host: str) -> bool:
        """Whether calls may go there."""
        return host not in self._suspects

    # -- choosing -------------------------------------------------------------------------------------------

    def order(self, shares: Mapping[str, int]) -> list[str]:
        """The hosts to try: the own one, one chosen by its share, then those after it.

        Args:
            shares: workers by host.
        """
        others = sorted(host for host, share in shares.items() if share and self.usable(host) and host != self.here)
        own = [self.here] if shares.get(self.here) and self.usable(self.here) else []
        if not others:
            return own
        self._turn = (self._turn + _GOLDEN) % 1.0
        place = self._turn * sum(shares[host] for host in others)
        first = 0
        while first < len(others) - 1 and place >= shares[others[first]]:
            place -= shares[others[first]]
            first += 1
        return own + others[first:] + others[:first]


def attempts(hosts: list[str], asked: bool = False) -> list[tuple[str, bool]]:
    """Which hosts are asked, and whether the caller waits there: some for an idle worker, then the first for good.

    Args:
        asked: the first has just been asked for an idle worker.
    """
    if len(hosts) < 2:
        return [(host, True) for host in hosts]
    return [(host, False) for host in hosts[asked:TRIES]] + [(hosts[0], True)]
