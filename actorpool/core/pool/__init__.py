"""The decisions of a pool: `core.PoolCore`, a mediator over parts that do not know each other."""
