"""`actorpool stack`: where a worker is in its code at this moment."""

from __future__ import annotations

import click

from actorpool.cli import nodes
from actorpool.cli.refusals import Refusal


@click.command(short_help="Show where workers are in their code.")
@nodes.node_argument
@nodes.pool_argument
@click.argument("worker", type=nodes.WorkerId(), required=False, metavar="[WORKER]")
@nodes.json_option
def command(name: str, pool: str, worker: int | None, as_json: bool) -> None:
    """Print the Python stack of a worker, or of every worker of a pool; also of one that is stuck in C."""
    from actorpool.cli.output import document

    with nodes.connect(name) as system:
        workers = {one.id: one for one in nodes.find_pool(system, pool).workers()}
        if worker is not None and worker not in workers:
            known = ", ".join(map(str, workers)) or "none"
            raise Refusal(f"Pool {pool!r} has no worker {worker}. Its workers: {known}.", "worker_not_found")
        stacks = {id: system.stack(pool, id) for id in ([worker] if worker is not None else workers)}
    if as_json:
        told = [{"worker": id, "pid": workers[id].pid, "stack": text} for id, text in stacks.items()]
        click.echo(document(node=name, pool=pool, stacks=told))
        return
    for id, text in stacks.items():
        click.echo(f"worker {id} (pid {workers[id].pid}, {workers[id].state})\n{text.rstrip()}\n")
