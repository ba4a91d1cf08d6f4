"""A pool's decisions: start with `pool`.

Its layers are `ledger` <- `workforce`, `connecting` <- `sandboxes` <- `leasing` <- `pool`.
"""
