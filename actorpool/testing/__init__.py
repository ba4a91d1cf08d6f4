"""For tests of programs that use actorpool: sandboxes, a worker that follows a script, waiting without sleeping.

Nothing is imported before it is used: the pytest plugin of this package is loaded by every run of pytest.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from actorpool.testing.polling import eventually
    from actorpool.testing.sandboxing import AsyncSandbox, Sandbox, sandbox
    from actorpool.testing.scripted import ScriptedWorker, assert_drained

_HOME = {
    "AsyncSandbox": "actorpool.testing.sandboxing",
    "Sandbox": "actorpool.testing.sandboxing",
    "ScriptedWorker": "actorpool.testing.scripted",
    "assert_drained": "actorpool.testing.scripted",
    "eventually": "actorpool.testing.polling",
    "sandbox": "actorpool.testing.sandboxing",
}

__all__ = ["AsyncSandbox", "Sandbox", "ScriptedWorker", "assert_drained", "eventually", "sandbox"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_HOME[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
