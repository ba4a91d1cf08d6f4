"""Where tests put what needs a short path that every user may pass through: sockets, and servers that have sockets.

The path of a unix socket has at most 107 bytes (103 on macOS), and TMPDIR may be long, or closed to other users.
"""

SHORT = "/tmp"
