"""What a master has answered, as lines for a person. Pure."""

from __future__ import annotations

import re
from typing import Any

from ..base.text import one_line

NUMBER = re.compile(r"\d+|\d+\.\d[sKMGTP%]|\d+[KMGTP%]|\d+[dhm]\d\d[hms]")


def plain(value: object) -> str:
    """One line, whatever a worker's error may hold."""
    return one_line(str(value))


def span(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    whole = int(seconds)
    for size, unit, small, letter in (
        (86400, "d", 3600, "h"),
        (3600, "h", 60, "m"),
        (60, "m", 1, "s"),
    ):
        if whole >= size:
            return f"{whole // size}{unit}{whole % size // small:02}{letter}"
    return f"{seconds:.1f}s"


def shown(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "-" if value is None else plain(value) or "-"


def size(count: int | None) -> str:
    """Bytes, as one reads them at a glance: 18.4M."""
    if count is None:
        return "-"
    value, letters = count / 1024, "KMGTP"
    while value >= 999.5 and len(letters) > 1:
        value, letters = value / 1024, letters[1:]
    return f"{value:.{0 if value >= 99.5 else 1}f}{letters[0]}"


def table(rows: list[tuple[object, ...]]) -> list[str]:
    """Aligned; the first row is the head. Columns of numbers to the right."""
    columns = []
    for column in zip(*rows, strict=True):
        texts = [shown(value) for value in column]
        width = max(map(len, texts))
        numbers = all(text == "-" or NUMBER.fullmatch(text) for text in texts[1:])
        columns.append([text.rjust(width) if numbers else text.ljust(width) for text in texts])
    return ["  ".join(row).rstrip() for row in zip(*columns, strict=True)]


def status_lines(status: dict[str, Any]) -> list[str]:
    name = f" ({status['name']})" if status["name"] else ""
    head = f"master {status['pid']}{name}: recluster {status['version']}, "
    head += f"generation {status['generation']}, {status['door']} door, {status['balance']}"
    weights = status["weights"]
    if weights:
        told = (f"{slot}={weights[slot]:g}" for slot in sorted(weights, key=int))
        head += f" ({' '.join(told)})"
    if status["reloading"] is not None:
        head += f", reloading to generation {status['reloading']}"
    if status["canary"]:
        canary = status["canary"]
        head += f", generation {canary['generation']} on probation with {canary['part']:.3g}"
    if status["closing"]:
        head += ", shutting down"
    for mold in status["molds"]:
        head += f", mold {mold['pid']} of generation {mold['generation']}"
        head += f" {mold['state']} ({size(mold['rss'])})"
    for address in status["unclaimed"]:
        head += f", no worker listens on {plain(address)}"
    rows: list[tuple[object, ...]] = [
        (
            "slot",
            "generation",
            "pid",
            "state",
            "age",
            "ready",
            "cpu",
            "rss",
            "conns",
            "queued",
            "pressure",
            "restarts",
            "addresses",
        )
    ]
    for slot in status["slots"]:
        for worker in slot["workers"]:
            rows.append(
                (
                    slot["slot"],
                    worker["generation"],
                    worker["pid"],
                    worker["state"],
                    span(worker["age"]),
                    span(worker["ready_for"]),
                    span(worker["cpu"]) if worker["pid"] else None,
                    size(worker["rss"]),
                    worker["connections"],
                    worker["queued"],
                    worker["pressure"],
                    slot["restarts"],
                    " ".join(worker["addresses"]),
                )
            )
        if not slot["workers"]:
            pause = slot["next_try"]
            state = "empty" if pause is None else f"next try in {span(pause)}"
            state = "drained" if slot["drained"] else state
            blank = (None,) * 7
            rows.append((slot["slot"], None, None, state, *blank, slot["restarts"], None))
    trouble = [
        f"slot {slot['slot']}: {plain(slot['last_error']['what'])}, "
        f"{span(slot['last_error']['ago'])} ago"
        for slot in status["slots"]
        if slot["last_error"]
    ]
    last = status["last_reload"]
    if last and not last["ok"]:
        trouble.append(f"last reload failed {span(last['ago'])} ago: {plain(last['why'])}")
    trouble += [""] if trouble else []
    keys = ("address", "slot", "generation", "pid", "live", "queued", "backlog", "connections")
    lanes: list[tuple[object, ...]] = [("lane", *keys[1:], "pressure")]
    for lane in status["lanes"]:
        shared = {"slot": f"{lane['workers']} share it"} if lane["workers"] > 1 else {}
        lanes.append(tuple({**lane, **shared}[key] for key in (*keys, "pressure")))
    return [
        plain(head),
        "",
        *table(rows),
        "",
        *trouble,
        *(table(lanes) if lanes[1:] else ["no lanes"]),
    ]


def verdict_lines(answer: dict[str, Any]) -> list[str]:
    """One per slot, then the summary."""
    verdicts = answer["verdicts"]
    lines = [f"worker {slot}: {plain(verdicts[slot])}" for slot in sorted(verdicts, key=int)]
    if answer["ok"]:
        took = f"{answer['seconds']:.3f} s"
        return [*lines, f"reload: generation {answer['generation']} serves after {took}"]
    return [*lines, f"reload failed: {plain(answer['why'])}"]
