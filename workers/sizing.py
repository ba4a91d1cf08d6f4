"""How many connections a pool may take of a database's limit. Pure."""

from __future__ import annotations

from actorpool.errors import InvalidConfig


def pool_size(max_connections: int = 100, reserved_connections: int = 20, nodes: int = 1) -> int:
    """The share of one node: `max((max_connections - reserved_connections) // nodes, 1)`.

    Args:
        max_connections: what the server accepts in all.
        reserved_connections: kept free for administrators and other programs.
        nodes: how many nodes share the server, each with a pool of this size.

    Raises:
        InvalidConfig: a figure is no whole number, is negative, or `nodes` is below 1.
    """
    given = {"max_connections": max_connections, "reserved_connections": reserved_connections, "nodes": nodes}
    least = {"max_connections": 0, "reserved_connections": 0, "nodes": 1}
    problems = {
        name: f"must be a whole number of at least {least[name]}, not {value!r}"
        for name, value in given.items()
        if isinstance(value, bool) or not isinstance(value, int) or value < least[name]
    }
    if problems:
        raise InvalidConfig("pool_size", problems)
    return max((max_connections - reserved_connections) // nodes, 1)
