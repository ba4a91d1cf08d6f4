"""A pool's decisions: start with `core`.

Its layers are `ledger` <- `workforce`, `connecting` <- `sandboxes` <- `leasing` <- `pool`.
"""
