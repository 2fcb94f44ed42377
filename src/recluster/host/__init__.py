"""The process that a cluster lives in, which may be anybody's program.

Its signals and its Ctrl-C, its thread, its forks, its event loop, its terminal: whatever would be
the program's business if there was no cluster; and what who is there may ask (`asked`). May import
events, options and base.
"""
