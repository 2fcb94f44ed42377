"""Is a history right? Knows nothing of recluster: it checks other tools as well."""

import json
from dataclasses import dataclass, field


@dataclass
class Deeds:
    """What was done to the servers. `taken`: (client port, when), connections that a worker
    had accepted when it was killed; `floors`: (when, version), from then on no new connection
    may get less."""

    taken: list[tuple[int, float]] = field(default_factory=list)
    floors: list[tuple[float, int]] = field(default_factory=list)
    broken: set[int] = field(default_factory=set)  # versions that must never answer

    def excuses(self, line):
        return any(
            port == line.get("port") and line["began"] <= when <= line["over"] + 1
            for port, when in self.taken
        )

    def floor(self, when):
        return max((floor for floor in self.floors if floor[0] <= when), default=(0, 0))[1]


def wrong(lines, deeds):
    """What is wrong with these lines of history, a sentence each."""
    found = []
    for line in lines:
        for asked, answered, version in line["answers"]:
            if asked != answered:
                found.append(f"asked for {asked}, answered {answered}: {line}")
            if version in deeds.broken:
                found.append(f"code that was deployed broken has answered: {line}")
            if version < deeds.floor(line["began"]):
                found.append(f"old code, not {deeds.floor(line['began'])}, answered: {line}")
        if line.get("error") and not deeds.excuses(line):
            found.append(f"lost at {line['where']}: {line}")
    return found


def read(path):
    with open(path) as log:
        return [json.loads(line) for line in log if line.endswith("\n")]
