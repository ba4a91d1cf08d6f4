"""`Limits`: what one worker process may use of the machine."""

from __future__ import annotations

import math
import re
from contextlib import suppress
from typing import Any

from actorpool._dataclass import dataclass
from actorpool.errors import InvalidConfig

_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([KMGT]?)(?:i?B)?\Z", re.IGNORECASE)
_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
LEAST_FILES = 64
"""Descriptors that a worker process needs for itself, with some to spare for its libraries."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Resource limits of each worker process, which what it starts inherits; None is no limit.

    They keep a mistake from taking the machine along. They are no protection from hostile code.

    Args:
        memory: bytes, or a text such as `"512M"`, of private writable memory (RLIMIT_DATA), what the pool's process has
            loaded before the fork included. Beyond it a call gets `MemoryError`.
        cpu: seconds of processor time in the life of a process (RLIMIT_CPU, which counts whole ones: rounded up). Then
            it is killed: `WorkerDied`.
        files: open descriptors (RLIMIT_NOFILE), at least 64.

    Raises:
        InvalidConfig: names every unknown or bad field.
    """

    memory: int | str | None = None
    cpu: float | None = None
    files: int | None = None

    def __new__(cls, **given: Any) -> Limits:
        problems = {name: f"is unknown; known are {', '.join(_CHECKS)}" for name in given if name not in _CHECKS}
        for name, check in _CHECKS.items():
            if given.get(name) is not None and (text := check(given[name])):
                problems[name] = text
        if problems:
            raise InvalidConfig("Limits", problems)
        return super().__new__(cls)

    def __reduce__(self) -> tuple[Any, ...]:
        return (_limits, (self.memory, self.cpu, self.files))

    def apply(self) -> None:
        """Hold for this process and all that it starts, from now on. A limit that is lower already stays.

        Runs in: a worker's process, before any code of its worker.
        """
        import resource  # not at the top: the configuration is read where there is none

        wanted = {
            resource.RLIMIT_DATA: None if self.memory is None else bytes_of(self.memory),
            resource.RLIMIT_CPU: None if self.cpu is None else math.ceil(self.cpu),
            resource.RLIMIT_NOFILE: self.files,
        }
        for kind, limit in wanted.items():
            if limit is not None:
                hard = resource.getrlimit(kind)[1]
                limit = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
                with suppress(ValueError, OSError):  # a system without this one
                    resource.setrlimit(kind, (limit, limit))


def _limits(memory: Any, cpu: Any, files: Any) -> Limits:
    return Limits(memory=memory, cpu=cpu, files=files)


def explain(error: MemoryError) -> None:
    """Give an error without a text the limit that holds for this process, if one does, and what to do."""
    import resource

    limit = resource.getrlimit(resource.RLIMIT_DATA)[0]
    if not error.args and limit != resource.RLIM_INFINITY:
        error.args = (
            f"a call wanted more memory than its worker's process may have, {limit} bytes ({limit / 2**20:g} MiB): "
            "give the pool limits=Limits(memory=...) with more, or have the call work in smaller parts",
        )


def bytes_of(size: int | str) -> int:
    """A number of bytes, given as such or as a text: "512M", "1.5 GiB". Units are powers of 1024.

    Raises:
        ValueError: the text is none.
    """
    if isinstance(size, int):
        return size
    match = _SIZE.match(size.strip())
    if match is None:
        raise ValueError(f'must be bytes or a text such as "512M", not {size!r}')
    return int(float(match[1]) * _UNITS[match[2].upper()])


def _check_memory(value: Any) -> str | None:
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        return f'must be bytes or a text such as "512M", not {value!r}'
    try:
        return None if bytes_of(value) >= 2**20 else f"must be at least 1M, not {value!r}"
    except ValueError as error:
        return str(error)


def _check_cpu(value: Any) -> str | None:
    good = not isinstance(value, bool) and isinstance(value, (int, float)) and 0 < value < math.inf
    return None if good else f"must be seconds above 0, not {value!r}"


def _check_files(value: Any) -> str | None:
    good = not isinstance(value, bool) and isinstance(value, int) and value >= LEAST_FILES
    return None if good else f"must be a whole number of at least {LEAST_FILES}, not {value!r}"


_CHECKS = {"memory": _check_memory, "cpu": _check_cpu, "files": _check_files}
