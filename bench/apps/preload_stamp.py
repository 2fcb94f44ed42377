"""Of the applications of preload.py: what each answers, and who has come up (a line in BENCH_LOG:
its pid, and the version that it was imported with)."""

import os

with open(os.environ["BENCH_VERSION"]) as file:
    VERSION = int(file.read())


def answer():
    return {"version": VERSION, "pid": os.getpid()}


def came_up():
    with open(os.environ["BENCH_LOG"], "a") as log:
        log.write(f"{os.getpid()} {VERSION}\n")
