"""Everything that decides: plain objects without clock, randomness, process or Thespian.

A mutating method takes `now` (monotonic seconds) and, where it needs one, a random number in [0, 1);
it returns effects for a shell to carry out.

Three families and what they share. A pool: `pool` <- `leasing` <- `sandboxes` <- `connecting`, `workforce` <-
`ledger`, with `fleet`, `waiting`, `breaker`, `autoscale`, `agenda`. A supervisor: `supervision` with `nursery`, `administration`,
`plans`, `children`, `signals`. A shared pool: `dispatch` <- `routing` <- `upkeep` <- `loans` <- `roster`, `connections`.
Shared: `decider`, `effects`, `backoff`, `intensity`, `meters`.
"""
