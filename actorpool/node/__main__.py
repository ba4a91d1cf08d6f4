"""`python -m actorpool.node DESCRIPTOR`: the node's process, started by `actorpool.start()`."""

import gc
import sys

gc.disable()  # until everything is loaded, see `server.main`: what is imported stays
from actorpool.node.server import main  # noqa: E402

if __name__ == "__main__":
    main(int(sys.argv[1]))
