"""What may be said to `actorpool.start`, looked at before anything is started."""

from __future__ import annotations

import logging
import os
from typing import Any

from actorpool import _output
from actorpool.node import log_lines
from actorpool.transport import frames

NODE_BASES = ("multiprocTCPBase", "multiprocUDPBase")
BASES = (*NODE_BASES, "simpleSystemBase")


def problems_of(
    base: Any, interval: Any, level: Any, file: Any, format: Any, spin: Any, max_message: Any, output: Any
) -> dict[str, str]:
    """What is wrong, by option."""
    problems = {}
    if base not in BASES:
        problems["base"] = f"must be one of {', '.join(BASES)}, not {base!r}"
    if isinstance(interval, bool) or not isinstance(interval, (int, float)) or not interval > 0:
        problems["metrics_interval"] = f"must be a number above 0, not {interval!r}"
    if level_name(level) is None:
        problems["log_level"] = f"must be a level of logging such as 'INFO', not {level!r}"
    if file is not None and not (isinstance(file, (str, os.PathLike)) and os.path.isdir(_folder(file))):
        problems["log_file"] = f"must be a file in a directory that exists, or None, not {file!r}"
    if not isinstance(spin, bool):
        problems["spin"] = f"must be True or False, not {spin!r}"
    if isinstance(max_message, bool) or not isinstance(max_message, int) or not 1024 <= max_message <= frames.LONGEST:
        problems["max_message"] = f"must be a whole number from 1024 to {frames.LONGEST}, not {max_message!r}"
    if format not in log_lines.FORMATS:
        problems["log_format"] = f"must be one of {', '.join(log_lines.FORMATS)}, not {format!r}"
    if output not in _output.CHOICES:
        problems["output"] = f"must be one of {', '.join(_output.CHOICES)}, not {output!r}"
    return problems


def _folder(file: str | os.PathLike[str]) -> str:
    return os.path.dirname(os.path.abspath(file))


def level_name(level: Any) -> Any:
    """The name of a level of logging, whichever way it was given; None if it is none."""
    name = logging.getLevelName(level) if isinstance(level, int) else level
    return name if isinstance(name, str) and isinstance(logging.getLevelName(name), int) else None
