"""What `recluster top` shows: two answers of a master as lines of a screen. Pure.

What does not fit into the width goes, the least wanted column first; what the narrow screen
lacks, the line about the selected slot has.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .tables import plain, size, span

Status = dict[str, Any]

# Title, and how much it is wanted. The last one takes what is left of the width.
COLUMNS = {
    "slot": 9,
    "pid": 8,
    "gen": 3,
    "state": 9,
    "age": 4,
    "cpu%": 7,
    "rss": 6,
    "conn": 5,
    "queue": 5,
    "acc/s": 4,
    "rst": 2,
    "last exit": 1,
}
LEFT = ("state", "last exit")
REST = "last exit"
REST_LEAST = 9
KEYS = "r restart  d drain  u resume  R reload  j/k slot  q quit"


@dataclass(frozen=True)
class Frame:
    """`marked`: the lines that are shown as selected."""

    lines: list[str]
    marked: frozenset[int] = frozenset()


def rate(value: float | None) -> str:
    if value is None:
        return "-"
    if value >= 9999.5:
        return f"{value / 1000:.0f}k"
    return f"{value:.0f}" if value >= 99.95 else f"{value:.1f}"


def _per_second(now: float | None, before: float | None, seconds: float) -> float | None:
    if now is None or before is None or seconds <= 0:
        return None
    return max(0.0, now - before) / seconds


def _cpu_before(before: Status | None) -> dict[int, float]:
    slots = before["slots"] if before else []
    return {one["pid"]: one["cpu"] for slot in slots for one in slot["workers"] if one["pid"]}


def _accepted_before(before: Status | None) -> dict[int, int]:
    return {slot["slot"]: slot["accepted"] for slot in (before["slots"] if before else [])}


def _last_exit(slot: dict[str, Any]) -> str:
    last = slot["last_exit"]
    return f"{plain(last['what'])} {span(last['ago'])}" if last else "-"


def _empty(slot: dict[str, Any]) -> str:
    if slot["drained"]:
        return "drained"
    pause = slot["next_try"]
    return "empty" if pause is None else f"in {span(pause)}"


def rows(now: Status, before: Status | None) -> list[tuple[int, dict[str, str]]]:
    """(slot, its cells by title), one for each worker, or one for a slot without."""
    seconds = now["at"] - before["at"] if before else 0.0
    cpus, got = _cpu_before(before), _accepted_before(before)
    found = []
    for slot in now["slots"]:
        index = slot["slot"]
        accepted = _per_second(slot["accepted"], got.get(index), seconds)
        whole = {
            "slot": str(index),
            "acc/s": rate(accepted),
            "rst": str(slot["restarts"]),
            "last exit": _last_exit(slot),
        }
        for at, one in enumerate(slot["workers"]):
            cpu = _per_second(one["cpu"], cpus.get(one["pid"]), seconds)
            cells = dict.fromkeys(COLUMNS, "") if at else dict(whole)
            cells.update(
                {
                    "pid": str(one["pid"] or "-"),
                    "gen": str(one["generation"]),
                    "state": one["state"],
                    "age": span(one["age"]),
                    "cpu%": rate(None if cpu is None else cpu * 100),
                    "rss": size(one["rss"]),
                    "conn": "-" if one["connections"] is None else str(one["connections"]),
                    "queue": str(one["queued"]),
                }
            )
            found.append((index, cells))
        if not slot["workers"]:
            found.append((index, {**dict.fromkeys(COLUMNS, "-"), **whole, "state": _empty(slot)}))
    return found


def _widths(cells: list[dict[str, str]], width: int) -> dict[str, int]:
    """Of the columns that fit."""
    widths = {title: max([len(title), *(len(row[title]) for row in cells)]) for title in COLUMNS}
    widths[REST] = REST_LEAST
    while sum(widths.values()) + len(widths) - 1 > width and len(widths) > 1:
        del widths[min(widths, key=COLUMNS.__getitem__)]
    if REST in widths:
        widths[REST] += width - (sum(widths.values()) + len(widths) - 1)
    return widths


def _line(row: dict[str, str], widths: dict[str, int]) -> str:
    cells = []
    for title, width in widths.items():
        text = row[title][:width]
        cells.append(text.ljust(width) if title in LEFT else text.rjust(width))
    return " ".join(cells).rstrip()


def _head(now: Status) -> list[str]:
    name = plain(now["name"] or "master")
    first = f"{name} (pid {now['pid']})  generation {now['generation']}  "
    first += f"{now['health']} {now['serving']} of {now['wanted']}"
    if now["closing"]:
        first += "  shutting down"
    second = plain(now["balance"])
    last, canary = now["last_reload"], now["canary"]
    if now["reloading"] is not None:
        second = f"reloading to generation {now['reloading']}; {second}"
    elif canary:
        second = f"generation {canary['generation']} on probation; {second}"
    elif last:
        how = "reload" if last["ok"] else f"reload FAILED ({plain(last['why'])})"
        second = f"{how} {span(last['ago'])} ago; {second}"
    return [first, second, _queues(now)]


def _queues(now: Status) -> str:
    queues: dict[str, list[int]] = {}
    for lane in now["lanes"]:
        sums = queues.setdefault(lane["address"], [0, 0])
        sums[0] += lane["queued"]
        sums[1] += lane["backlog"]
    told = [f"{plain(one)} {waits} of {room} wait" for one, (waits, room) in sorted(queues.items())]
    return ", ".join(told) or "no lanes"


def _about(now: Status, selected: int) -> str:
    for slot in now["slots"]:
        if slot["slot"] == selected:
            count = slot["restarts"]
            text = f"slot {selected}: {count} {'restart' if count == 1 else 'restarts'}"
            if slot["last_exit"]:
                text += f", last exit {_last_exit(slot)} ago"
            if slot["last_error"]:
                text += f", {plain(slot['last_error']['what'])}"
            return text
    return ""


def frame(
    now: Status, before: Status | None, width: int, height: int, selected: int, note: str = ""
) -> Frame:
    """`note`: instead of the line about the selected slot."""
    found = rows(now, before)
    widths = _widths([cells for _, cells in found], width)
    head = [*_head(now), "", _line({title: title for title in COLUMNS}, widths)]
    room = max(1, height - len(head) - 3)
    chosen = [at for at, (slot, _) in enumerate(found) if slot == selected]
    first = max(0, min(len(found) - room, (chosen[-1] if chosen else 0) - room + 1))
    shown = found[first : first + room]
    lines = [*head, *(_line(cells, widths) for _, cells in shown)]
    marked = {len(head) + at for at, (slot, _) in enumerate(shown) if slot == selected}
    hidden = len(found) - len(shown)
    more = f"  {hidden} more" if hidden else ""
    lines += ["", plain(note) or _about(now, selected), KEYS + more]
    # A letter is a column: what a terminal makes of others is not known.
    letters = (line.encode("ascii", "backslashreplace").decode() for line in lines)
    return Frame([line[:width].rstrip() for line in letters], frozenset(marked))
