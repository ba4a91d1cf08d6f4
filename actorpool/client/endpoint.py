"""Where a system's channel is: a directory of sockets. Picklable, so a handle works in any process of the host."""

from __future__ import annotations

from dataclasses import dataclass, field

from actorpool.transport import paths, spinwait


@dataclass(frozen=True)
class Endpoint:
    """The address of a system's channel.

    Args:
        directory: the runtime directory of its node.
        spin: whether callers look for an answer for some microseconds before they block.
    """

    directory: str
    spin: bool = True
    seconds: float = field(init=False, repr=False, compare=False, default=0.0)

    def __post_init__(self) -> None:
        object.__setattr__(self, "seconds", spinwait.spin_seconds(self.spin))

    def __reduce__(self) -> tuple[type[Endpoint], tuple[str, bool]]:
        return (Endpoint, (self.directory, self.spin))  # what the environment says about the spin is each process's own

    @property
    def manager(self) -> str:
        """The manager's socket."""
        return paths.manager(self.directory)

    def pool(self, name: str) -> str:
        """The socket of a pool: its registered name."""
        return paths.pool(self.directory, name)

    def worker(self, pid: int) -> str:
        """The socket of a worker process."""
        return paths.worker(self.directory, pid)
