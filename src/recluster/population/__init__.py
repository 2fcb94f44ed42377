"""What should run, and what to do about it: slots, generations, reloads, respawns. Pure.

Owns the state of the cluster and the functions (state, event, now) -> commands: `population` is
where an event arrives, `commands` is what goes out. No clock, no process, no descriptor: tests
drive it by Hypothesis. May import options, events and base, and nothing that touches the system.
"""
