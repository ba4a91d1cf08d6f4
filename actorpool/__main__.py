"""`python -m actorpool`: the command line."""

import sys

from actorpool.cli import main

if __name__ == "__main__":
    sys.exit(main())
