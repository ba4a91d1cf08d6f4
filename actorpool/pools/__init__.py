"""The actors of pools: thin shells around `actorpool.core.pool` and `actorpool.core.shared`."""
