"""The loop, and what happens in a turn of it.

`pump` waits for the engine's events, `handlers` tells the population, `executor` and `spawner`
carry its commands out, `publisher` tells of them, `containment` is where an exception of our own
ends. Beside them what a running cluster does by itself: questions to workers, hooks, watching,
options that are read again. May import all but the cluster, the verbs and the bench.
"""
