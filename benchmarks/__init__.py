"""Measurements and simulations: what the figures in the documentation come from."""
