"""What the parts of a pool's actor need of it. Each is given the actor, and none of them knows its class."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:  # a pool of one kind does not load the core of the other
    from collections.abc import Callable, Iterable

    from actorpool.config import PoolConfig, SharedPoolConfig
    from actorpool.core.effects import Granted
    from actorpool.core.pool.core import PoolCore
    from actorpool.core.shared.core import SharedPoolCore
    from actorpool.pools.last_words import LastEnds
    from actorpool.pools.worker_handles import WorkerHandles
    from actorpool.telemetry import Hub, Samples
    from actorpool.transport.usage_counters import UsagePages


class StackQueries(Protocol):
    """Questions for stacks, see `pools.stacks`."""

    def ask(self, worker: int | None, asker: Any) -> None:
        """Have that worker write its stack; `asker` gets it, or an error."""


class Telemetry(Protocol):
    """What a pool tells of itself, see `pools.telemetry`."""

    hub: Hub
    samples: Samples

    def dropped(self) -> dict[str, int]:
        """How many events each sink has not taken."""

    def event(self, name: str, measurements: dict[str, Any], metadata: dict[str, Any]) -> None:
        """Tell an event to its listeners."""

    def listen(self, subscriptions: Iterable[tuple[str, Any]]) -> None:
        """From now on send events to these actors and to no other."""


class BasePoolShell(Protocol):
    """The actor of a pool of either kind.

    Attributes:
        name: the pool's name.
        config: its settings.
        core: decides.
        directory: where its socket and its workers' are; None: messages only.
        spin: seconds to look again before blocking on the channel.
        max_message: bytes a frame may have.
        worker_handles: its worker processes.
        ends: why its workers have ended last.
        myAddress: its address.
        parent: the supervisor's address.
    """

    name: str
    config: Any
    core: Any
    directory: str | None
    spin: float
    max_message: int
    worker_handles: WorkerHandles
    ends: LastEnds
    parent: Any

    @property
    def myAddress(self) -> Any: ...  # noqa: N802

    @property
    def telemetry(self) -> Telemetry:
        """What it tells of itself."""

    @property
    def stacks(self) -> StackQueries:
        """What it asks its workers for their stacks."""

    @property
    def is_process(self) -> bool:
        """Whether it has a process of its own."""

    def send(self, address: Any, message: Any) -> None:
        """Send a message to another actor."""

    def set_timer(self, seconds: float, payload: Any = None) -> None:
        """Have `on_timer` called with `payload` after `seconds`."""

    def carry_out(self, decided: list[Any]) -> None:
        """Do what the core decided, in order."""

    def remember(self, **args: Any) -> None:
        """Have a successor begin with these."""

    def remember_also(self, **args: Any) -> None:
        """Have a successor begin with these too, beside what it was told before."""

    def started(self) -> None:
        """Tell the supervisor that the pool has started."""

    def start_failed(self, error: BaseException) -> None:
        """Tell the supervisor that it has not."""

    def stop(self, reason: Any = ...) -> None:
        """End with that reason."""


class Queries(Protocol):
    """Questions to all workers, see `pools.worker_queries`."""

    sessions: int | None

    def begin(self, method: str, timeout: float, asker: Any, now: float) -> None:
        """Ask every worker."""

    def ask_sessions(self, idle: Iterable[int], now: float) -> None:
        """Ask one unused worker for the server's session count."""


class PoolShell(BasePoolShell, Protocol):
    """The actor of a pool that lends workers."""

    config: PoolConfig
    core: PoolCore
    pages: UsagePages

    @property
    def worker_queries(self) -> Queries:
        """What it asks all its workers."""

    def once_sent(self, then: Callable[[], None]) -> None:
        """Call `then` when the messages sent so far have arrived."""

    def run(self, holder: Any, grant: Granted) -> None:
        """Send a call of the message way to its worker."""

    def again(self, holder: Any) -> None:
        """Take a call that was not started to another worker."""

    def done(self, holder: Any) -> None:
        """Forget a holder of the message way that holds nothing more."""


class SharedPoolShell(BasePoolShell, Protocol):
    """The actor of a shared pool.

    Attributes:
        refused: by worker that has closed its end: the first call that was to be sent to it after that.
        began: monotonic seconds of its start.
    """

    core: SharedPoolCore
    refused: dict[int, int]
    began: float
    config: SharedPoolConfig

    def observe(self, asker: Any = None) -> None:
        """Have the core speak of every call only while there are listeners."""
