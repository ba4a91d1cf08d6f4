"""What an examination of `actorpool doctor` gives."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        result: `"ok"`, `"warn"` or `"fail"`.
        what: its name.
        value: what was found.
        advice: what to do about it; empty for `"ok"`.
    """

    result: str
    what: str
    value: str
    advice: str = ""
