"""What a pool loads once for its workers."""

import os

loaded_by = os.getpid()
data = bytearray(b"x" * 30_000_000)
