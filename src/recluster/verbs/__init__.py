"""The command line: a server to run, and what one can do with masters that run.

`entry` takes the first word, `cli` runs a server, and the verbs are one file per family. They
print, and end with a code. May import all but the bench; a verb that asks a master imports no
more than `control`, for a probe (`health`) has 20 ms.
"""

VERBS = {
    "check": "check",
    "init": "init",
    "ls": "look",
    "status": "look",
    "top": "top",
    "logs": "logs",
    "health": "health",
    "reload": "reload",
    "promote": "reload",
    "rollback": "reload",
    "weights": "reload",
    "scale": "slots",
    "restart": "slots",
    "drain": "slots",
    "resume": "slots",
    "upgrade": "upgrade",
    "stop": "stop",
}
"""Verb -> the module of its family, whose `main` takes the verb and the words behind it."""
