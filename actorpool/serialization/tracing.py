"""A caller's span as the parent of those in the worker, by W3C Trace Context, where OpenTelemetry is in use.

What names the span travels among the keyword arguments of a call, under a name that no parameter can have.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from sys import modules
from typing import Any

SPAN = "span of the caller"
"""Among the keyword arguments: a carrier, `{"traceparent": ...}`."""


def with_span(kwargs: Mapping[str, Any]) -> Mapping[str, Any]:
    """The keyword arguments of a call, with the caller's span if there is one; for where OpenTelemetry is imported."""
    carrier: dict[str, str] = {}
    import_module("opentelemetry.propagate").inject(carrier)
    return {**kwargs, SPAN: carrier} if carrier else kwargs


def carried(kwargs: Mapping[str, Any]) -> Mapping[str, Any]:
    """The same wherever a call is made: without OpenTelemetry they are returned as they are."""
    return with_span(kwargs) if "opentelemetry.trace" in modules else kwargs


def run(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Call a function as its caller wanted it, in the caller's span if one came with the arguments."""
    if SPAN not in kwargs:
        return function(*args, **kwargs)
    kwargs = dict(kwargs)
    with within(kwargs.pop(SPAN)):
        return function(*args, **kwargs)


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
