"""Events, the sinks they go to, and the samples of each pool."""

from actorpool.telemetry.events import EVENTS, FREQUENT, Counted
from actorpool.telemetry.function import FunctionSink
from actorpool.telemetry.history import History
from actorpool.telemetry.hub import Hub
from actorpool.telemetry.samples import Samples
from actorpool.telemetry.sinks import CountingOutlet, LoggingSink, Outlet, Sink, StatsdSink, sinks_of

__all__ = [
    "EVENTS",
    "FREQUENT",
    "Counted",
    "CountingOutlet",
    "FunctionSink",
    "History",
    "Hub",
    "LoggingSink",
    "Outlet",
    "Samples",
    "Sink",
    "StatsdSink",
    "sinks_of",
]
