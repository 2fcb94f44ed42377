"""What a service manager is told, and what it keeps.

`sdnotify` is the protocol, `store` the lanes that outlive a master, `unit` what is said when. May
import the population, whose state it tells of, and what is below it.
"""
