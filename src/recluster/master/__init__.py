"""What supervises: the parts of a running master, what can be asked of it, and its loop.

`supervisor` owns the parts, `starting` makes them, `wishes` is what its clients may ask. `pump`
waits for the engine's events, `handlers` tells the population, `executor` and `spawner` carry its
commands out, `publisher` tells of them, `containment` is where an exception of our own ends.
Beside them what a running cluster does by itself: questions to workers, hooks, watching, options
that are read again. May import all but the cluster, the verbs and the bench.
"""
