"""`docs/command-line.md`, made from the commands: `python -m actorpool.cli.manual > docs/command-line.md`."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from dataclasses import MISSING, fields
from typing import Any

import click

from actorpool import cli
from actorpool.configuration import ClusterSettings, DashboardSettings, SystemSettings

HEAD = """\
# The command line

This page is made from the code by `python -m actorpool.cli.manual`.

| exit code | meaning |
|---|---|
| 0 | done. Telling that a pool is degraded is done, too |
| 1 | the world says no: an unknown node or pool, a node that died, a taken name or port, `--check` and not healthy |
| 2 | wrong usage, or a bad file: every problem with its line, table and key; nothing was started |
| 130 | interrupted before it could finish |

- What was asked for goes to standard output, everything else to standard error.
- On a terminal tables fit its width and state words have a colour; in a pipe nothing is cut and nothing is coloured.
  `NO_COLOR` and `TERM=dumb` switch colour off; `FORCE_COLOR` switches it on in a pipe, if neither of them is set.
- `--json` prints one document on one line (`events -f` and `top --json` one for each event or frame), without colour.
  `"schema": 1` comes first; under that number keys are only ever added. Pools have the keys of `PoolStatus`, workers
  and leases those of `WorkerInfo` and `LeaseInfo`. What is not known is `null`. Times of events are RFC 3339 in UTC.
- With `--json` an error is a document, too: `{"schema": 1, "error": {"code", "message", "hint"}}`; a bad file's has
  `problems`, each with `file`, `line`, `table`, `key` and `text`.
- Names of nodes and pools are completed: `eval "$(actorpool completion bash)"`.
- Nodes are those of this user, in `ACTORPOOL_RUNTIME_DIR` (see [node.md](node.md)).

Where to look when something is wrong: [runbook.md](runbook.md).
"""

FILE = """\
# The file

`actorpool up FILE.toml` and `actorpool doctor FILE.toml` read it. It is checked as a whole before anything starts, and
every problem is told at once. The classes that it names are imported, with the current directory on the path, and each
worker is made once, which by contract connects to nothing.

```toml
[system]
name = "shop"
[pools.write]
worker = "actorpool.workers:PostgresWorker"
worker_args = { conninfo = "${DATABASE_URL}" }
size = 30
[pools.read]
url = "postgresql://app:${file:/run/secrets/db}@db/app"
size = "${READERS:-10}"
[shared_pools.feeds]
[supervisors.agents]
strategy = "rest_for_one"
[[supervisors.agents.children]]
id = "planner"
actor = "shop.agents:Planner"
restart = "transient"
```

In strings, once, after the file was parsed: `${NAME}` is a variable of the environment, `${NAME:-default}` has a
default for one that is unset or empty, `${file:PATH}` is the content of a file without the newline at its end, `$$` is
a dollar sign. A value that is exactly one `${...}` becomes a number, or true or false, where its field takes one: an
argument of a worker if the parameter of its `__init__` is annotated so (`timeout: float`, `port: int | None`), and
stays text without an annotation. What was put in is a secret: it is shown nowhere.

Relative paths begin where the configuration file is: those of `${file:PATH}`, of `url = "sqlite:///app.db"` and of
`log_file`. What a worker makes of its `worker_args` is its own affair; its current directory is that of `actorpool up`.

Flags of `up` count before `ACTORPOOL_NAME`, `ACTORPOOL_DRAIN`, `ACTORPOOL_LOG_LEVEL` and `ACTORPOOL_LOG_FORMAT`, these
before the file. `actorpool doctor FILE --show` prints each value in force and where it comes from.

- `[pools.NAME]` has a `worker` with `worker_args`, or a `url` (with `adapter`, as `System.start_database` has them),
  beside which keys that are none of a pool's go to the worker. The other keys are the fields of `PoolConfig`;
  `breaker`, `autoscale` and `limits` are tables. `[shared_pools.NAME]` has those of `SharedPoolConfig`.
- With a table `[cluster]` pools may have `spread = true`, and then `placement` and `most`: see
  [cluster.md](cluster.md).
- `[supervisors.NAME]` has the fields of `SupervisorSpec`, and a table for each child with those of `ChildSpec`, in the
  order of their start. A child whose `actor` is a table is a supervisor with children of its own.
- `[telemetry]` may have the tables `statsd` (`StatsdSink`) and `logging` (`LoggingSink`), and
  `function = "module:function"`.
"""


def manual() -> str:
    """The whole page."""
    return "\n".join([HEAD, *_commands(), FILE, *_tables()])


def _commands() -> Iterator[str]:
    group = cli._actorpool
    root = click.Context(group, info_name="actorpool", terminal_width=200)
    for name in cli.COMMANDS:
        command = group.get_command(root, name)
        assert command is not None
        context = click.Context(command, info_name=name, parent=root)
        yield f"## {name}\n\n```\n{context.get_usage().removeprefix('Usage: ')}\n```\n"
        yield re.sub(r"(?<!\n)\n(?!\n)", " ", _plain(command.help or "")) + "\n"
        options = [one.get_help_record(context) for one in command.params if isinstance(one, click.Option)]
        rows = [f"| `{_plain(flags)}` | {_plain(text)} |" for flags, text in filter(None, options)]
        if rows:
            yield "\n".join(["| option | |", "|---|---|", *rows]) + "\n"


def _plain(text: str) -> str:
    return inspect.cleandoc(text).replace("\b\n", "").replace("  [", " [").replace("|", "\\|")


def _tables() -> Iterator[str]:
    for table, kind in (
        ("[system]", SystemSettings),
        ("[dashboard]", DashboardSettings),
        ("[cluster]", ClusterSettings),
    ):
        rows = [f"| `{item.name}` | {_default(item.default)} |" for item in fields(kind)]
        yield "\n".join([f"## {table}", "", "| key | default |", "|---|---|", *rows]) + "\n"


def _default(value: Any) -> str:
    return "required" if value is MISSING else f"`{value!r}`"


if __name__ == "__main__":
    click.echo(manual())
