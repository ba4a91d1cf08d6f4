"""`python -m actorpool.dashboard NODE SOCKET LINE [HOST...]`: the server that a node's keeper starts."""

from __future__ import annotations

import os
import socket
import sys

from actorpool import process


def main(node: str, descriptor: str, line: str, *hosts: str) -> None:
    """Serve on the socket of that descriptor; tell the keeper by a byte on the line that it does."""
    process.link_to_parent()
    from actorpool.dashboard.server import serve  # not at the top: nothing may be missed before this process is linked

    serve(node, socket.socket(fileno=int(descriptor)), hosts, lambda: _tell(int(line)))


def _tell(line: int) -> None:
    os.set_inheritable(line, False)
    os.write(line, b".")  # and it stays open: its end tells of the end of this process


if __name__ == "__main__":
    main(*sys.argv[1:])
