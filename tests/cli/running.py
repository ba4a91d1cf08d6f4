"""Command lines as a shell runs them, and nodes that `actorpool up` runs."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

ACTORPOOL = [sys.executable, "-m", "actorpool"]
LONG_NAME = "a" + "-long-name" * 6 + "end"  # 64 characters, as long as a pool's name may be

FILE = """
[system]
name = "{name}"
[pools.echo]
worker = "actorpool.workers:EchoWorker"
size = 2
"""


def clean_environment(**more: str) -> dict[str, str]:
    """This process's environment, without what decides about colour and width."""
    environment = {**os.environ, "TERM": "xterm-256color", **more}
    for name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES", "NOTIFY_SOCKET", "WATCHDOG_USEC"):
        if name not in more:
            environment.pop(name, None)
    return environment


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `actorpool ARGUMENTS` with pipes."""
    return subprocess.run(
        [*ACTORPOOL, *arguments], capture_output=True, text=True, timeout=50, env=clean_environment(**environment)
    )


def told(*arguments: str) -> Any:
    """The JSON document that a command prints."""
    done = run(*arguments, "--json")
    assert done.stdout, done.stderr
    return json.loads(done.stdout)


def run_in_terminal(*arguments: str, columns: int = 80, lines: int = 24, **environment: str) -> tuple[int, str]:
    """Run it in a pseudo-terminal; its exit code and everything it wrote."""
    with terminal(arguments, columns, lines, environment) as (process, reader):
        text = b""
        with contextlib.suppress(OSError):  # the terminal's other end was closed
            while chunk := os.read(reader, 65536):
                text += chunk
        return process.wait(20), text.decode()


@contextlib.contextmanager
def terminal(
    arguments: tuple[str, ...], columns: int = 80, lines: int = 24, environment: Mapping[str, str] | None = None
) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """A command line in a pseudo-terminal: its process, and a descriptor of the terminal."""
    ours, theirs = pty.openpty()
    resize(theirs, lines, columns)
    process = subprocess.Popen(
        [*ACTORPOOL, *arguments],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        env=clean_environment(**(environment or {})),
    )
    os.close(theirs)
    try:
        yield process, ours
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        os.close(ours)


def resize(descriptor: int, lines: int, columns: int) -> None:
    """Change the size of a terminal."""
    fcntl.ioctl(descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))


def read_until(reader: int, wanted: str, timeout: float = 20.0, text: str = "") -> str:
    """Read a terminal until it has shown something; everything that was read."""
    deadline = time.monotonic() + timeout
    while wanted not in text:
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([reader], [], [], left)[0]:
            raise AssertionError(f"{wanted!r} did not appear within {timeout} s:\n{text}")
        text += os.read(reader, 65536).decode(errors="replace")
    return text


class Up:
    """A node that `actorpool up` runs in the foreground of a process."""

    def __init__(self, file: Path, *options: str, **environment: str) -> None:
        self.process = subprocess.Popen(
            [*ACTORPOOL, "up", str(file), *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=clean_environment(**environment),
        )
        self.said = ""

    def wait_for(self, wanted: str, timeout: float = 30.0) -> str:
        """Read its standard error until it says something."""
        assert self.process.stderr is not None
        self.said = read_until(self.process.stderr.fileno(), wanted, timeout, self.said)
        return self.said

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def end(self, timeout: float = 20.0) -> int:
        """Wait for its end; the exit code."""
        code = self.process.wait(timeout)
        assert self.process.stderr is not None
        self.said += self.process.stderr.read()
        return code


@contextlib.contextmanager
def up(file: Path, *options: str, **environment: str) -> Iterator[Up]:
    """A node in the foreground that serves; it is ended afterwards, if it has not ended."""
    node = Up(file, *options, **environment)
    try:
        yield node
    finally:
        if node.process.poll() is None:
            node.process.send_signal(signal.SIGTERM)
            try:
                node.process.wait(20)
            finally:
                node.process.kill()
        node.process.communicate()


def write(folder: Path, text: str = FILE, name: str = "shop") -> Path:
    """A configuration file."""
    file = folder / f"{name}.toml"
    file.write_text(text.format(name=name))
    return file
