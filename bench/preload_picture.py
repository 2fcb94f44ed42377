"""The picture of what one import for N workers saves, docs/preload.svg: python
bench/preload_picture.py [--workers 1 2 4 8 16] [--rounds 3]

Memory and the time of a reload (preload.py says how both are measured) against the number of
workers, of recluster and gunicorn, with and without an import that is shared. Medians of rounds,
in which all take turns.
"""

from __future__ import annotations

import statistics
import sys
from pathlib import Path

from common import BENCH, Late, arguments, compiled, machine
from preloaded import APPLICATIONS, SERVERS, measure

from recluster.bench.picture import Panel
from recluster.bench.svg import drawn

SHOWN = {
    "recluster": "recluster",
    "recluster --preload auto": "recluster --preload auto",
    "gunicorn": "gunicorn",
    "gunicorn --preload": "gunicorn --preload (old code)",
}


def main() -> int:
    made = arguments(__doc__)
    made.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4, 8, 16])
    made.add_argument("--requests", type=int, default=100)
    made.add_argument("--rounds", type=int, default=3)
    made.add_argument("--picture", type=Path, default=BENCH.parent / "docs" / "preload.svg")
    given = made.parse_args()
    app, program = APPLICATIONS["numpy"], compiled("load.c")
    servers = [one for one in SERVERS if one.name in SHOWN and one.runs(app)]
    memory: dict[tuple[str, int], list[float]] = {}
    reload: dict[tuple[str, int], list[float]] = {}
    for _ in range(given.rounds):
        for count in given.workers:
            for server in servers:
                try:
                    result = measure(server, app, count, given.requests, program, stalls=0)
                except (Late, RuntimeError) as error:
                    print(f"{server.name}, {count}: {error}", file=sys.stderr)
                    continue
                print(result, file=sys.stderr, flush=True)
                memory.setdefault((server.name, count), []).append(result.memory)
                reload.setdefault((server.name, count), []).append(result.reload)

    def panel(title: str, found: dict[tuple[str, int], list[float]], digits: int) -> Panel:
        def median(name: str, count: int) -> float | None:
            values = found.get((name, count))
            return statistics.median(values) if values else None

        series = tuple(
            (SHOWN[one.name], tuple(median(one.name, count) for count in given.workers))
            for one in servers
        )
        groups = tuple(f"{count} worker{'s' if count > 1 else ''}" for count in given.workers)
        return Panel(title, groups, series, digits=digits)

    caption = (
        f"{app.imports} on uvicorn; medians of {given.rounds} rounds; {given.requests} requests "
        f"for each worker. {machine()}"
    )
    panels = [
        panel("memory of all processes (PSS), MiB", memory, 0),
        panel("a reload, until all workers are new, seconds", reload, 1),
    ]
    given.picture.write_text(drawn(panels, caption))
    for one in panels:
        print(one)
    return 0


if __name__ == "__main__":
    sys.exit(main())
