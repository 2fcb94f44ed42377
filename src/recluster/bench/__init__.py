"""`python -m recluster.bench`: a server under each policy of `balance`, measured.

    cli        what is asked for, and the order of things
    plan       how much of everything, `--quick` or not
    servers    the built-in servers and how a chosen one is started
    running    a cluster under one policy: its address, its workers, its end
    load       the load generator, a process of its own
    identify   which worker took a connection, for servers that do not say it
    measure    spread, tail latency, accept cost, a stopped and a killed worker
    figures    statistics                                             (pure)
    advice     the recommendation                                     (pure)
    table, picture, svg, png                                          (telling)

Nothing here runs in a master or a worker. May import the verbs' way to read a command line, and
how a master is asked.
"""
