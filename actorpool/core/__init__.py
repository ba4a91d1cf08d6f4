"""Everything that decides: plain objects without clock, randomness, process or Thespian.

A mutating method takes `now` (monotonic seconds) and, where it needs one, a random number in [0, 1);
it returns effects for a shell to carry out.

Three families, a folder each: `pooling` (start with `pool`), `supervising` (start with `supervision`) and `sharing`
(start with `dispatch`). Beside them is what they share: `decider`, `effects`, `agenda`, `backoff`, `intensity`,
`meters`.
"""
