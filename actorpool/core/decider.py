"""What every decision-maker with a shell around it shares: its steps return what is to be done, in order."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, ParamSpec

from actorpool.core.effects import Emit

P = ParamSpec("P")


class Decider:
    """Collects the effects of the step that is being taken."""

    def __init__(self) -> None:
        self._effects: list[Any] = []

    def _do(self, effect: Any) -> None:
        self._effects.append(effect)

    def _emit(self, name: str, /, *, metadata: dict[str, Any] | None = None, **measurements: Any) -> None:
        self._effects.append(Emit(name, measurements, metadata or {}))

    def _flush(self) -> list[Any]:
        effects, self._effects = self._effects, []
        return effects


def decides(method: Callable[P, None]) -> Callable[P, list[Any]]:
    """A public step of a `Decider`: what it decided is returned as effects, in order."""

    @functools.wraps(method)
    def step(*args: P.args, **kwargs: P.kwargs) -> list[Any]:
        method(*args, **kwargs)
        core: Any = args[0]
        effects: list[Any] = core._flush()
        return effects

    return step
