"""A caller's span as the parent of those in the worker, by W3C Trace Context, where OpenTelemetry is in use."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module


def carried() -> dict[str, str] | None:
    """What names the caller's span (`traceparent`); None: it does not use OpenTelemetry, or is in no span."""
    if "opentelemetry.trace" not in sys.modules:
        return None
    carrier: dict[str, str] = {}
    import_module("opentelemetry.propagate").inject(carrier)
    return carrier or None


@contextmanager
def within(carrier: dict[str, str] | None) -> Iterator[None]:
    """Spans in the block are children of the caller's; nothing without one, or without OpenTelemetry."""
    try:
        context = import_module("opentelemetry.context") if carrier else None
    except ImportError:
        context = None
    if context is None:
        yield
        return
    token = context.attach(import_module("opentelemetry.propagate").extract(carrier))
    try:
        yield
    finally:
        context.detach(token)
