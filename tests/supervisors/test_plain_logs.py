"""In a plain ActorSystem our lines go where its logDefs say, whichever module writes them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import sys, logging
from thespian.actors import ActorSystem
from actorpool import ConnectionManager, PoolConfig, StartPool, StopPool, WithConnection
from tests.supervisors.plain_lines import Talkative

if __name__ == "__main__":
    log, base, port = sys.argv[1:]
    definitions = {
        "version": 1,
        "formatters": {"plain": {"format": "%(levelname)s %(name)s %(message)s"}},
        "handlers": {"file": {"class": "logging.FileHandler", "filename": log, "formatter": "plain"}},
        "root": {"level": "INFO", "handlers": ["file"]},
        "disable_existing_loggers": False,
    }
    system = ActorSystem(base, {"Admin Port": int(port)}, logDefs=definitions)
    try:
        manager = system.createActor(ConnectionManager)
        print(system.ask(manager, StartPool("db", PoolConfig(worker=Talkative, size=1)), 30))
        print(system.ask(manager, WithConnection("db", "speak", ()), 30))
        print(system.ask(manager, StopPool("db"), 30))
    finally:
        system.shutdown()
"""


@pytest.mark.parametrize("base", ["multiprocTCPBase", "multiprocUDPBase"])
def test_lines_of_every_module_arrive_where_the_log_definitions_say(base: str, tmp_path: Path, free_port: int) -> None:
    log = tmp_path / "log"
    command = [sys.executable, "-c", PROGRAM, str(log), base, str(free_port)]
    environment = {**os.environ, "THESPLOG_FILE": str(tmp_path / "thespian.log")}
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, env=environment)
    text = log.read_text()
    assert "INFO actorpool Started connection pool: db" in text, done.stdout + done.stderr
    assert "WARNING tests.supervisors.plain_lines a line of a user's module" in text
    assert "too quiet" not in text
