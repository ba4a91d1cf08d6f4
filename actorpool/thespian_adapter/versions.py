"""Whether a dependency has a version that this package is made for.

Where names are used that a package does not promise, another version may break what works, at any place and at any
time. So it is refused when it is imported.
"""

from __future__ import annotations

import os
from types import ModuleType


def require(module: ModuleType, least: str, below: str) -> None:
    """Make sure that an imported package is of a version from `least` to before `below`.

    Nothing is said of one whose version is not known (no metadata came with it).

    Raises:
        ImportError: it is not; the text says what to install.
    """
    name = module.__name__
    found = getattr(module, "__version__", None) or _installed(name, module)
    if found is not None and not _parts(least) <= _parts(found) < _parts(below):
        wanted = f"{name}>={least},<{below}"
        raise ImportError(f"actorpool works with {wanted} and has found {name} {found}: pip install '{wanted}'")


def _installed(name: str, module: ModuleType) -> str | None:
    """The version beside the package's directory; looked for there first, since `importlib.metadata` takes 20 ms."""
    start, end = f"{name}-", ".dist-info"
    try:
        entries = os.listdir(os.path.dirname(next(iter(module.__path__))))
    except OSError:  # in an archive
        entries = []
    found = [entry[len(start) : -len(end)] for entry in entries if entry.startswith(start) and entry.endswith(end)]
    if len(found) == 1:
        return found[0]
    from importlib import metadata

    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _parts(version: str) -> tuple[int, ...]:
    """The numbers of a version up to its first part that is none: (4, 1) for 4.1rc1."""
    parts: list[int] = []
    for part in version.split("."):
        digits = part[: len(part) - len(part.lstrip("0123456789"))]
        parts += [int(digits)] if digits else []
        if digits != part:
            break
    return tuple(parts)
