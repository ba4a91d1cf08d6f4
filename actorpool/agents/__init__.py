"""Tools and sessions of agents in supervised worker processes. Importing this imports no agent framework.

A tool of any framework is a plain function. What `Tools` and `Sessions` give is a function with the same name,
signature, docstring and annotations, which runs in a worker: see docs/agents.md.
"""

from actorpool.agents.conversations import conversation
from actorpool.agents.explaining import explain
from actorpool.agents.mcp_worker import McpWorker
from actorpool.agents.python_worker import Output, PythonWorker
from actorpool.agents.sessions import Sessions
from actorpool.agents.tools import Tools

__all__ = ["McpWorker", "Output", "PythonWorker", "Sessions", "Tools", "conversation", "explain"]
