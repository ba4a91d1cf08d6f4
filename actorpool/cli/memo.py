"""What `up` leaves in a node's directory for other commands: how long to drain, and the names of its pools."""

from __future__ import annotations

import json
import os
from typing import Any

_FILE = "up.json"


def remember(directory: str, **facts: Any) -> None:
    """Leave facts; they are gone when the node ends."""
    from actorpool.node.runtime import private_file  # not at the top: completion does without

    with open(private_file(os.path.join(directory, _FILE), os.O_CREAT | os.O_WRONLY | os.O_TRUNC), "w") as file:
        json.dump(facts, file)


def recall(directory: str) -> dict[str, Any]:
    """The facts; none of a node that `up` has not started."""
    try:
        with open(os.path.join(directory, _FILE)) as file:
            found = json.load(file)
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
