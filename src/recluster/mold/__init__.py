"""One import for the workers of a generation: a process that has done it, and forks them.

`policy` decides (pure), `nursery` is the master's side; `run`, `cast`, `reseed` and `ending` are
the mold's and its workers', beside the user's program: they import `child` and themselves. The
master's side may import the population's nouns, output and what is below them.
"""
