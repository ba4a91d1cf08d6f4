"""What may be chosen for a node, said once: for those who check it, without what carries it out. Imports nothing."""

OUTPUTS = ("inherit", "log", "stderr")
"""Where what workers write goes, see `_output`."""
LOG_FORMATS = ("text", "json")
"""How lines of a log are written, see `node.log_lines`."""
MAX_MESSAGE = 2**30
"""Bytes a body of the channel may have unless a system is told otherwise (`start(max_message=...)`)."""
LONGEST_MESSAGE = 2**32 - 1
"""Bytes it can have: what the length field holds. Callers check no more, for the limit is their system's."""
