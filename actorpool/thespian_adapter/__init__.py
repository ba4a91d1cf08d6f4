"""Everything that knows Thespian from the inside: the base of our actors, its transports and its system bases,
hardened.
"""
