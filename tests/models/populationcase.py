"""What the stories of the population begin with: a cluster that serves, and time that passes."""

from recluster.options import Options
from recluster.population import commands as c
from recluster.population import population as p


def cluster(workers=1, **given):
    """All serve on a:1 since 3.0: a boot takes 3 s here."""
    people = p.Population(
        Options.make({"ready_when": "listening", "workers": workers, **given}, {}), lambda: 0.5
    )
    people.start(0.0)
    for key in list(people.members):
        people.listening(key, "a:1", 3.0)
    people.take()
    return people


def until(people, end):
    """Time passes, from deadline to deadline. Returns the commands."""
    commands = people.take()
    while (at := people.deadline()) is not None and at <= end:
        people.tick(at)
        commands += people.take()
    people.tick(end)
    return commands + people.take()


def of(commands, kind, name=None):
    return [one for one in commands if isinstance(one, kind) and (name is None or one.name == name)]


def spawned(people):
    return [one.worker for one in of(people.take(), c.Spawn)]


def serving(people):
    return [slot.serving.id if slot.serving else None for slot in people.slots.values()]
