"""The node: a fresh process with an actor system that only this user, on this host, can talk to.

`runtime` is the directory that names a node; `transport` (over `unix` and `seal`) and `base` are the hardened Thespian
base; `server` is the node's own process (`python -m actorpool.node`), `launch` is what the owner's process does.
"""
