"""What may be said to `actorpool.start`, looked at before anything is started."""

from __future__ import annotations

import os
from typing import Any

from actorpool._choices import LOG_FORMATS, LONGEST_MESSAGE, OUTPUTS

NODE_BASES = ("multiprocTCPBase", "multiprocUDPBase")
BASES = (*NODE_BASES, "simpleSystemBase")
_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")


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
    if isinstance(max_message, bool) or not isinstance(max_message, int) or not 1024 <= max_message <= LONGEST_MESSAGE:
        problems["max_message"] = f"must be a whole number from 1024 to {LONGEST_MESSAGE}, not {max_message!r}"
    if format not in LOG_FORMATS:
        problems["log_format"] = f"must be one of {', '.join(LOG_FORMATS)}, not {format!r}"
    if output not in OUTPUTS:
        problems["output"] = f"must be one of {', '.join(OUTPUTS)}, not {output!r}"
    return problems


def _folder(file: str | os.PathLike[str]) -> str:
    return os.path.dirname(os.path.abspath(file))


def level_name(level: Any) -> Any:
    """The name of a level of logging, whichever way it was given; None if it is none."""
    if level in _LEVELS:
        return level
    import logging  # not at the top: it need not be there to begin the interpreter of a node

    name = logging.getLevelName(level) if isinstance(level, int) else level
    return name if isinstance(name, str) and isinstance(logging.getLevelName(name), int) else None
