"""What an owner tells the node it starts, and what it hears from it: plain values over one pipe."""

from __future__ import annotations

from dataclasses import field

from actorpool._dataclass import dataclass
from actorpool.process import Caller
from actorpool.serialization.pickling import Pickled


@dataclass(frozen=True)
class Order:
    """Sent once by the owner, before anything else.

    Attributes:
        name: the node's name; None: one is made up.
        base: Thespian's name of the system base.
        owner: the process to end with; None: none (a daemon).
        path: the owner's `sys.path`.
        directory: the owner's working directory, if it has one.
        environment: variables to set back (None: to unset) that only served to start the interpreter.
        log_level: from which level on lines go to standard error as well.
        log_file: where the log is written; None: `node.log` in the runtime directory.
        log_format: how its lines are written, one of `actorpool._choices.LOG_FORMATS`.
        output: where what workers write goes, one of `actorpool._choices.OUTPUTS`.
        grace: seconds for an orderly end without a timeout of its own.
        secrets: what the owner hides in every text (see `actorpool._scrubbing`); the node hides it too.
        options: a dict for the manager, packed: user code in it is opened only where `path` holds.
    """

    name: str | None
    base: str
    owner: Caller | None
    path: tuple[str, ...]
    directory: str | None
    environment: dict[str, str | None]
    log_level: str = "WARNING"
    log_file: str | None = None
    log_format: str = "text"
    output: str = "inherit"
    grace: float = 10.0
    secrets: tuple[str, ...] = ()
    options: Pickled = field(default_factory=lambda: Pickled.of({}))


@dataclass(frozen=True)
class Ready:
    """From the node: it serves, under that name."""

    name: str
    directory: str


@dataclass(frozen=True)
class Failed:
    """From the node: it cannot start."""

    error: BaseException


@dataclass(frozen=True)
class Stop:
    """From the owner: end in an orderly way within `timeout` seconds."""

    timeout: float
