"""What a worker runs, and how it becomes that; most of it is executed in the worker itself.

`launch` says what is to be executed, `run` and `forked` become `python FILE` in an exec'd and in a
forked worker, `startup` and `preloaded` have the program see a fresh interpreter. It is loaded
beside the user's program: each module imports as little as it can. May import options, systemd's
protocol and base; nothing of the master's.
"""
