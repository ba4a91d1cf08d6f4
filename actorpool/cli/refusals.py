"""What a command says when it does not do what was asked: a text for people, or a JSON document for programs."""

from __future__ import annotations

import re
from typing import Any

import click

from actorpool.errors import ActorPoolError, InvalidConfig

FAILED = 1
WRONG_USAGE = 2
INTERRUPTED = 130  # 128 + SIGINT, as shells have it

SCHEMA = 1
"""Of every JSON document: keys and their meanings are only ever added under one number."""


class Refusal(click.ClickException):
    """The world says no.

    Args:
        message: what happened.
        code: one word for programs.
        hint: what to do, best as a command to paste.
    """

    exit_code = FAILED

    def __init__(self, message: str, code: str = "refused", hint: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.hint = hint

    def format_message(self) -> str:
        """The message, and what to do."""
        return f"{self.message} {self.hint}".rstrip()


def exit_code(error: BaseException) -> int:
    """The exit code that an error stands for."""
    if isinstance(error, click.ClickException):
        return error.exit_code
    if isinstance(error, (KeyboardInterrupt, click.Abort)):
        return INTERRUPTED
    return WRONG_USAGE if isinstance(error, InvalidConfig) else FAILED


def as_text(error: BaseException) -> str:
    """One text for people."""
    if isinstance(error, click.UsageError):
        usage = f"{error.ctx.get_usage()}\n" if error.ctx is not None else ""
        help_line = f"Try '{error.ctx.command_path} --help' for help.\n" if error.ctx is not None else ""
        return f"{usage}{help_line}\nError: {error.format_message()}"
    if isinstance(error, click.ClickException):
        return f"Error: {error.format_message()}"
    if isinstance(error, (KeyboardInterrupt, click.Abort)):
        return "Error: interrupted"
    return f"Error: {error}"


def as_document(error: BaseException) -> dict[str, Any]:
    """The same for programs: `{"schema", "error": {"code", "message", "hint"}}`, and `problems` of a bad file."""
    if isinstance(error, Refusal):
        said: dict[str, Any] = {"code": error.code, "message": error.message, "hint": error.hint or None}
    elif isinstance(error, click.ClickException):
        said = {"code": "usage", "message": error.format_message(), "hint": None}
    elif isinstance(error, ActorPoolError):
        said = {"code": _word(error), "message": str(error), "hint": None}
    else:
        said = {"code": "interrupted", "message": "interrupted", "hint": None}
    found = getattr(error, "found", None)
    if found is not None:
        keys = ("file", "line", "table", "key", "text")
        said["problems"] = [{key: getattr(problem, key) for key in keys} for problem in found]
    return {"schema": SCHEMA, "error": said}


def _word(error: BaseException) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", type(error).__name__).lower()
