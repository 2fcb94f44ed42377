"""What the stories of the population begin with: a cluster that serves, and time that passes."""

from recluster.options import Options
from recluster.population import commands as c
from recluster.population import population, slots
from recluster.population import state as p


def cluster(workers=1, **given):
    """All serve on a:1 since 3.0: a boot takes 3 s here."""
    people = p.Population(
        Options.make({"ready_when": "listening", "workers": workers, **given}, {}), lambda: 0.5
    )
    population.start(people, 0.0)
    for key in list(people.members):
        population.listening(people, key, "a:1", 3.0)
    slots.take(people)
    return people


def until(people, end):
    """Time passes, from deadline to deadline. Returns the commands."""
    commands = slots.take(people)
    while (at := population.deadline(people)) is not None and at <= end:
        population.tick(people, at)
        commands += slots.take(people)
    population.tick(people, end)
    return commands + slots.take(people)


def of(commands, kind, name=None):
    return [one for one in commands if isinstance(one, kind) and (name is None or one.name == name)]


def spawned(people):
    return [one.worker for one in of(slots.take(people), c.Spawn)]


def serving(people):
    return [slot.serving.id if slot.serving else None for slot in people.slots.values()]
