"""The functions that the contenders have called. A worker imports this module at its first call, so it imports none."""

import os


def add(_connection: object, left: int, right: int) -> int:
    """As little as possible."""
    return left + right


def pid(_connection: object) -> int:
    """The worker's process."""
    return os.getpid()
