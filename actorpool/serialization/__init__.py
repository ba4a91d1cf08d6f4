"""How user code, values and exceptions cross processes."""
