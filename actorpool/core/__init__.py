"""Everything that decides: plain objects without clock, randomness, process or Thespian.

A mutating method takes `now` (monotonic seconds) and, where it needs one, a random number in [0, 1);
it returns effects for a shell to carry out.

Three families, a folder each: `pool`, `supervisor` and `shared`; in each, start with `core`. Beside them is what they
share: `machine` and `effects`.
"""
