"""All private messages, by direction: each is handled the same whichever way it came.

`requests` go from clients and the manager to pools, `manager` has those to the manager, `orders` go from a pool to
its workers, `reports` come back. `shared` has both for shared pools, `sandboxes` what tests ask.
"""
