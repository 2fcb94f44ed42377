"""What should run, and what to do about it: slots, generations, reloads, respawns. Pure.

Owns the state of the cluster, one plain object (`state`), and functions of it: an event and the
time go in, `commands` come out (`slots.take`). No clock, no process, no descriptor: tests
drive it by Hypothesis. May import options, events and base, and nothing that touches the system.
"""
