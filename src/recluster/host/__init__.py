"""The process that a cluster lives in, which may be anybody's program.

Its signals and its Ctrl-C, its thread, its forks, its event loop, its terminal: whatever would be
the program's business if there was no cluster. May import options and base; it knows no worker.
"""
