"""Nodes and pools as arguments: names that are completed, and the way to a node that runs.

Only what completion needs is imported at the top: the shell waits for it at every Tab.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from actorpool.cli import memo
from actorpool.cli.refusals import Refusal
from actorpool.errors import PoolNotFound, SystemDown
from actorpool.node import names

if TYPE_CHECKING:
    from actorpool.client.pool import Pool
    from actorpool.client.system import System

_POOL = ".pool"
_SHORTENED = re.compile(r"^.{24}-[0-9a-f]{14}$")
"""A long name's socket (`transport.paths`), of which nobody can tell the name."""


class NodeName(click.ParamType):  # type: ignore[type-arg]
    """The name of a node of this user."""

    name = "node"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        return [CompletionItem(name) for name in names.held() if name.startswith(incomplete)]


class PoolName(click.ParamType):  # type: ignore[type-arg]
    """The name of a pool of the node that the command line names before it."""

    name = "pool"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        node = ctx.params.get("name")
        return [CompletionItem(name) for name in (pools_of(node) if node else ()) if name.startswith(incomplete)]


class WorkerId(click.ParamType):  # type: ignore[type-arg]
    """The id of a worker of the pool that the command line names before it."""

    name = "worker"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        node, pool = ctx.params.get("name"), ctx.params.get("pool")
        found = workers_of(node, pool) if node and pool else ()
        return [CompletionItem(id) for id in found if id.startswith(incomplete)]

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        try:
            return int(value)
        except ValueError:
            self.fail(f"{value!r} is no worker's id: those are the numbers that `actorpool status` lists", param, ctx)


node_argument = click.argument("name", type=NodeName(), metavar="NODE")
optional_node = click.argument("name", type=NodeName(), metavar="[NODE]", required=False)
pool_argument = click.argument("pool", type=PoolName(), metavar="POOL")
json_option = click.option("--json", "as_json", is_flag=True, help="One JSON document, errors included.")


def running() -> list[str]:
    """The names of this user's nodes."""
    from actorpool.node import runtime  # not at the top: completion does without

    return runtime.running()


def pools_of(node: str) -> list[str]:
    """The names of a node's pools, by their sockets and what `up` has left: without a connection."""
    directory = os.path.join(names.top(), os.path.basename(node))
    files = os.listdir(directory) if os.path.isdir(directory) else []
    sockets = {name.removesuffix(_POOL) for name in files if name.endswith(_POOL)}
    found = {name for name in sockets if not _SHORTENED.search(name)} | set(memo.recall(directory).get("pools", ()))
    return sorted(found)


def workers_of(node: str, pool: str) -> list[str]:
    """The ids of a pool's workers, by the file that the pool leaves: without a connection."""
    directory, name = os.path.join(names.top(), os.path.basename(node)), os.path.basename(pool)
    path = os.path.join(directory, f"{name}{_POOL}.ids")
    if not os.path.exists(path):  # a long name
        from actorpool.transport import paths  # not at the top: few need it

        path = paths.ids(directory, name)
    try:
        with open(path) as file:
            return file.read().split()
    except OSError:
        return []


def connect(name: str) -> System:
    """Attach to a node.

    Raises:
        Refusal: none of that name runs.
        InvalidConfig: that is no name.
    """
    from actorpool.client.system import connect
    from actorpool.node import runtime

    try:
        return connect(name)
    except SystemDown as error:
        others = runtime.running()
        if name in others:
            raise
        known = f"Running: {', '.join(others)}." if others else "No node of yours runs."
        message = f"No node {name!r} runs (looked in {runtime.root()}). {known}"
        raise Refusal(message, "node_not_found", "Start it: actorpool up FILE.toml") from error


def find_pool(system: System, name: str) -> Pool:
    """A pool of a node.

    Raises:
        Refusal: there is none of that name.
    """
    try:
        found: Any = system.pool(name)
    except PoolNotFound as error:
        raise no_pool(system, name) from error
    return found  # type: ignore[no-any-return]


def no_pool(system: System, name: str) -> Refusal:
    """What to say of a pool that a node does not have."""
    pools = system.pools()
    if name in pools:  # a shared pool, where one that lends workers is needed
        text = f"{name!r} is a shared pool: it lends no workers, so there is nothing here to act on."
        return Refusal(text, "wrong_kind_of_pool")
    known = f"Its pools: {', '.join(pools)}." if pools else "It has no pools."
    return Refusal(f"Node {system.name!r} has no pool {name!r}. {known}", "pool_not_found")


def chosen(name: str | None) -> list[str]:
    """The node that was named, or all that run."""
    return running() if name is None else [name]
