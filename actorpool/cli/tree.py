"""`actorpool tree`: the supervision tree of a node."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import click

from actorpool.cli import nodes

if TYPE_CHECKING:
    from rich.text import Text
    from rich.tree import Tree

    from actorpool.status import TreeNode

MOST_ROWS = 60
"""Workers of a tree that is longer are shown as a count, on a terminal."""


@click.command(short_help="Draw the supervision tree of a node.")
@nodes.optional_node
@nodes.json_option
def command(name: str | None, as_json: bool) -> None:
    """Draw the supervision tree of a node, or of all your nodes."""
    from actorpool.cli.output import document, say, show

    trees = {}
    for node in nodes.chosen(name):
        with nodes.connect(node) as system:
            trees[node] = system.tree()
    if as_json:
        click.echo(document(nodes=[{"name": node, "tree": as_document(tree)} for node, tree in trees.items()]))
    elif trees:
        show(*(drawn(tree, node) for node, tree in trees.items()))
    else:
        say("No node of yours runs. Start one: actorpool up FILE.toml")


def as_document(node: TreeNode) -> dict[str, Any]:
    """A node and what is below it, for JSON."""
    facts: dict[str, Any] = {
        key: value for key, value in vars(node).items() if key != "children" and not key.startswith("_")
    }
    return {**facts, "children": [as_document(child) for child in node.children]}


def drawn(root: TreeNode, name: str) -> Tree:
    """The tree of a node, with its workers folded where it would be long and a person reads it."""
    import sys

    fold = sys.stdout.isatty() and _rows(root) > MOST_ROWS
    return _branch(root, fold, f"{name}  ")


def _rows(node: TreeNode) -> int:
    return 1 + sum(map(_rows, node.children))


def _branch(node: TreeNode, fold: bool, before: str = "") -> Tree:
    from rich.text import Text
    from rich.tree import Tree

    label = Text(before, style="bold")
    label.append_text(_label(node))
    tree = Tree(label)
    workers = [child for child in node.children if child.kind == "worker"]
    folded = fold and len(workers) > 1
    for child in node.children:
        if not (folded and child.kind == "worker"):
            tree.children.append(_branch(child, fold))
    if folded:
        states = Counter(worker.state for worker in workers)
        tree.add(Text(f"{len(workers)} workers: " + ", ".join(f"{count} {state}" for state, count in states.items())))
    return tree


def _label(node: TreeNode) -> Text:
    """One line: kind, id, pid, state, restarts and how many of them are tolerated, the last end."""
    import time

    from rich.text import Text

    from actorpool.cli.output import STYLES, seconds

    label = Text(f"{node.kind} ")
    label.append(node.id, "bold")
    if node.pid:
        label.append(f"  pid {node.pid}")
    label.append("  ")
    label.append(node.state, STYLES.get(node.state, ""))
    since, strategy = getattr(node, "since", None), getattr(node, "strategy", None)
    if since:
        label.append(f" for {seconds(max(0.0, time.time() - since))}")
    if strategy:
        label.append(f"  {strategy}")
    if node.restarts:
        label.append(f"  {node.restarts} restart{'s' * (node.restarts > 1)}", "yellow")
    limit, used = getattr(node, "restarts_limit", None), getattr(node, "restarts_used", None)
    if limit is not None and used:
        label.append(f"  {used} of {limit} in {seconds(node.restarts_period)}", "yellow")
    if getattr(node, "last_end", None):
        label.append(f"  last: {node.last_end}", "yellow")
    return label
