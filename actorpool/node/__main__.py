"""`python -m actorpool.node DESCRIPTOR`: the node's process, started by `actorpool.start()`."""

import sys

from actorpool.node.server import main

if __name__ == "__main__":
    main(int(sys.argv[1]))
