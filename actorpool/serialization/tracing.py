"""A caller's span as the parent of those in the worker, by W3C Trace Context, where OpenTelemetry is in use.

What names the span travels among the keyword arguments of a call, under a name that no parameter can have.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from typing import Any

SPAN = "span of the caller"
"""Among the keyword arguments: a carrier, `{"traceparent": ...}`."""


def with_span(kwargs: Mapping[str, Any]) -> Mapping[str, Any]:
    """The keyword arguments of a call, with the caller's span if there is one; for where OpenTelemetry is imported."""
    carrier: dict[str, str] = {}
    import_module("opentelemetry.propagate").inject(carrier)
    return {**kwargs, SPAN: carrier} if carrier else kwargs


@contextmanager
def within(carrier: dict[str, str]) -> Iterator[None]:
    """Spans in the block are children of the caller's; nothing without OpenTelemetry."""
    try:
        context = import_module("opentelemetry.context")
    except ImportError:
        yield
        return
    token = context.attach(import_module("opentelemetry.propagate").extract(carrier))
    try:
        yield
    finally:
        context.detach(token)
