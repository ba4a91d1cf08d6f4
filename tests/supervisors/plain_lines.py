"""A worker of a module that has its logger since it was imported."""

import logging

from actorpool.workers import Worker, method

log = logging.getLogger(__name__)


class Talkative(Worker):
    """Writes lines."""

    def open(self) -> None:
        """Nothing to connect to."""

    @method
    def speak(self) -> str:
        """Write one."""
        log.warning("a line of a user's module")
        log.debug("too quiet")
        return "done"
