"""A shared pool's decisions: start with `core`.

Its layers are `roster` <- `loans` <- `upkeep` <- `choosing` <- `routing` <- `dispatch`.
"""
