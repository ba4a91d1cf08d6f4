"""A module that cannot be loaded."""


def fail() -> None:
    """Raise, so that the traceback has a line to be known by."""
    raise RuntimeError("no model here")


fail()
