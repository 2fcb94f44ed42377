"""The bottom: what any part may use, and what knows no other part of recluster.

Text and numbers as people read them, the levels of the log, a worker's states, what the machine
has (CPUs, accounts), the file of a socket. Imports the standard library only, and little of it:
`worker`, which runs in the user's program, uses `text`.
"""
