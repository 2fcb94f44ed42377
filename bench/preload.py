"""One import for N workers, beside those who import N times, or serve old code:
python bench/preload.py [--workers 16] [--app numpy] [--requests 200]

Of each server, one after another: from its start until all N workers have come up (lifespan),
the same from the trigger of a reload with new code, CPU time of both (the old workers' end
included), how long it takes until a killed worker has a successor, and the memory (PSS) of
all its processes after that many requests for each worker. Of recluster --preload, in other
reloads: the longest time in which no client got an answer, and the p99.9 just before (load.c,
16 clients, a connection for each request; medians of --stalls). Wall-clock times want a machine
that has nothing else to do; CPU times and memory do not. `--write` puts the table into
docs/measured.md.

Needs uvicorn, gunicorn, uvicorn-worker and granian (those that are there take part), and what
is to be imported. Exit code 1 if with recluster --preload a reload takes more CPU than 1.1 imports
and the application's share for each worker, a stall is longer than twice the p99.9, or `auto`
has more memory than gunicorn --preload.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys

from common import BENCH, Late, arguments, compiled
from preloaded import APPLICATIONS, OURS, SERVERS, Application, Result, import_cpu, measure

DOC = BENCH.parent / "docs" / "measured.md"
STALL_BOUND = 2.0
AUTO, THEIRS = f"{OURS} auto", "gunicorn --preload"


def table(results: list[Result], one: float, app: Application, given: argparse.Namespace) -> str:
    lines = [
        f"{given.workers} workers, `{app.imports}` on uvicorn; one import is {one:.2f} s of "
        f"CPU; one-minute load {os.getloadavg()[0]:.1f} on {os.cpu_count()} CPUs, Python "
        f"{sys.version.split()[0]}; PSS after {given.requests} requests for each worker.",
        "",
        "| server | start, s / CPU s | reload, s / CPU s | code | stall / steady p99.9, ms "
        "| killed worker is back, ms | PSS, MiB |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for r in results:
        back = "it ends" if r.respawn is None else f"{r.respawn * 1000:.0f}"
        stall = "" if r.stall is None else f"{r.stall:.0f} / {r.steady:.0f}"
        lines.append(
            f"| {r.name} | {r.start:.1f} / {r.start_cpu:.1f} | {r.reload:.1f} / {r.reload_cpu:.1f} "
            f"| {r.code} | {stall} | {back} "
            f"| {r.memory:.0f} |"
        )
    return "\n".join(lines)


def broken(results: list[Result], one: float, app: Application, workers: int) -> list[str]:
    """The bounds that do not hold."""
    said = []
    most = 1.1 * one + app.each * workers
    memory = {r.name: r.memory for r in results}
    for r in results:
        if not r.name.startswith(OURS):
            continue
        if r.reload_cpu > most:
            said.append(f"{r.name}: a reload takes {r.reload_cpu:.2f} s of CPU, not {most:.2f}")
        if r.stall and r.steady and r.stall > STALL_BOUND * r.steady:
            said.append(f"{r.name}: a stall of {r.stall:.0f} ms, steady p99.9 {r.steady:.0f} ms")
    if memory.get(AUTO, 0) > memory.get(THEIRS, memory.get(AUTO, 0)):
        said.append(f"{AUTO}: more memory than {THEIRS}")
    return said


def write(text: str, name: str) -> None:
    mark = f"<!-- bench/preload.py --app {name} -->"
    before, _, rest = DOC.read_text().partition(mark)
    _, _, after = rest.partition(mark)
    DOC.write_text(f"{before}{mark}\n{text}\n{mark}{after}")


def main() -> int:
    made = arguments(__doc__)
    made.add_argument("--workers", type=int, default=16)
    made.add_argument("--app", choices=[*APPLICATIONS], default="numpy")
    made.add_argument("--imports", help="others than that application's (of numpy)")
    made.add_argument("--requests", type=int, default=200)
    made.add_argument("--stalls", type=int, default=3, help="reloads under load")
    made.add_argument("--only", default="", help="names of servers, with ; between them")
    made.add_argument("--write", action="store_true")
    given = made.parse_args()
    app = APPLICATIONS[given.app]
    if given.imports:
        app = dataclasses.replace(app, imports=given.imports)
    one, program = import_cpu(app), compiled("load.c")
    results = []
    wanted = given.only.split(";") if given.only else None
    for server in SERVERS:
        if not server.runs(app) or (wanted and server.name not in wanted):
            continue
        try:
            stalls = given.stalls if server.name.startswith(OURS) else 0
            result = measure(server, app, given.workers, given.requests, program, stalls)
        except (Late, RuntimeError) as error:
            print(f"{server.name}: {error}", file=sys.stderr)
            continue
        print(result, file=sys.stderr, flush=True)
        results.append(result)
    text = table(results, one, app, given)
    print(text)
    if given.write:
        write(text, given.app)
    said = broken(results, one, app, given.workers)
    for line in said:
        print(line, file=sys.stderr)
    return int(bool(said))


if __name__ == "__main__":
    sys.exit(main())
