"""Simulations on the pure core and the pictures drawn from them; in the repository only, not in the wheel."""
