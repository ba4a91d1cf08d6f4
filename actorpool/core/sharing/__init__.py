"""A shared pool's decisions: start with `dispatch`.

Its layers are `roster` <- `loans` <- `upkeep` <- `choosing` <- `routing` <- `dispatch`.
"""
