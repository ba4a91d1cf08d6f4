"""A module that should not be preloaded: it starts a thread."""

import threading

thread = threading.Thread(target=threading.Event().wait, name="left-running", daemon=True)
thread.start()
