"""The events that are about the cluster: an address, a reload, the end."""

from __future__ import annotations

from dataclasses import field
from typing import TypedDict

from ..base.levels import ERROR, INFO, WARNING
from ..base.wording import seconds
from .event import INTERNAL, Event


class Shared(Event, level=WARNING):
    """Others listen on `address` too (so many `listeners`), and none is steered to; `unsure`:
    steering may be wrong until a restart."""

    address: str
    listeners: int
    unsure: bool

    def line(self) -> str:
        who = "1 listener" if self.listeners == 1 else f"{self.listeners} listeners"
        text = f"{who} of others on {self.address} too: nothing is steered there"
        return text + "; steering may be wrong until a restart" if self.unsure else text


class Failing(Event, level=ERROR, named=False):
    """In every slot workers of `generation` die within seconds of serving, the last one
    because of `why`. Told once."""

    generation: int
    why: str

    def line(self) -> str:
        late = "; ctl rollback cannot help any more, --bake would have" * (self.generation > 1)
        return (
            f"generation {self.generation} fails: in every slot its workers die within seconds, "
            f"again and again (last {self.worker}: {self.why}); mend the code and reload{late}"
        )


class Hold(Event):
    """No worker has listened on `address` for `seconds`, and clients wait unanswered: `held`;
    or one does again."""

    address: str
    held: bool
    seconds: float

    @property
    def level(self) -> int:
        return WARNING if self.held else INFO

    def line(self) -> str:
        where, time = self.address, seconds(self.seconds)
        if self.held:
            return f"nobody has listened on {where} for {time}: clients wait unanswered"
        return f"listening on {where} again after {time}: clients are answered"


class Unclaimed(Event):
    """No worker listens on `address`, where --bind or LISTEN_FDS has a socket, and clients are
    `refused`; or, when one does in the end, not any more."""

    address: str
    refused: bool

    @property
    def level(self) -> int:
        return WARNING if self.refused else INFO

    def line(self) -> str:
        where = self.address
        if not self.refused:
            return f"a worker listens on {where} now: clients are answered"
        clients = "nobody reads what comes" if where.startswith("udp:") else "clients are refused"
        return (
            f"no worker listens on {where}, which was there before (--bind, LISTEN_FDS): {clients} "
            "there"
        )


class Canary(Event):
    """`generation` serves on probation, and gets that `part` of new connections."""

    generation: int
    part: float
    number: int = field(default=0, repr=False, metadata=INTERNAL)

    def line(self) -> str:
        return (
            f"generation {self.generation} is a canary: it gets {self.part:.3g} "
            "of new connections until promote or rollback"
        )


class Reload(Event):
    """A reload is over. `why` it failed, where it is not `ok`; `changed`: clients have met the
    new code; `generation` is the new one; it took `seconds`; `verdicts`: slot -> text, of those
    that failed; `came` and `went`: addresses, of one that did not."""

    ok: bool
    changed: bool
    why: str | None
    generation: int
    seconds: float
    verdicts: dict[int, str]
    came: list[str] = field(default_factory=list)
    went: list[str] = field(default_factory=list)
    number: int = field(default=0, repr=False, metadata=INTERNAL)

    @property
    def level(self) -> int:
        return INFO if self.ok else ERROR

    def line(self) -> str:
        if not self.ok:
            so_what = "" if self.changed else ", nothing has changed"
            return f"reload failed{so_what}: {self.why}"
        text = f"reload: generation {self.generation} serves after {seconds(self.seconds)}"
        if self.came:
            text += f"; now also on {', '.join(self.came)}"
        if self.went:
            text += f"; no longer on {', '.join(self.went)}"
        return text


class Waited(TypedDict):
    """A worker that a shutdown waits for, and what it has open, if that is known."""

    id: int
    pid: int
    connections: int | None


WAITED_FOR_MOST = 4  # workers that one line names


class Waiting(Event):
    """A shutdown waits for these `workers`, for as many seconds as are `left`."""

    left: float
    workers: list[Waited] = field(default_factory=list)

    def line(self) -> str:
        named = []
        for one in self.workers[:WAITED_FOR_MOST]:
            count = one["connections"]
            known = count not in (None, -1)
            plural = "connection" if count == 1 else "connections"
            opened = f": {count} {plural}" if known else ""
            named.append(f"worker {one['id']} (pid {one['pid']}){opened}")
        more = len(self.workers) - len(named)
        names = ", ".join(named) + (f" and {more} more" if more else "")
        return f"waiting for {names}, {self.left:.0f} s left; Ctrl-C again: now"


class Upgraded(Event):
    """Another version of recluster has taken over in the master's process (`recluster upgrade`),
    which was between the two for so many `seconds`. The workers are the same."""

    from_version: str
    to_version: str
    seconds: float

    def line(self) -> str:
        time = f"{self.seconds * 1000:.0f} ms"
        return f"upgraded: version {self.from_version} -> {self.to_version} in {time}"


class End(Event):
    """The cluster has ended: the last event. `code` is what the command line exits with."""

    code: int

    def line(self) -> str:
        return f"ended with exit code {self.code}"


# ---- only for the log ------------------------------------------------------------------


class RestartTogether(Event, level=ERROR, public=False):
    """All workers stopped listening at once."""

    workers: int

    def line(self) -> str:
        return (
            f"all {self.workers} workers stopped listening at once though no reload was "
            "asked: an autoreloader (debug mode) of the program? Turn it off: recluster reloads"
        )


class Baking(Event, public=False):
    """The old generation is kept for a while."""

    generation: int
    seconds: float

    def line(self) -> str:
        kept = seconds(self.seconds)
        return f"generation {self.generation} serves; the old one is kept for {kept}"


class Hurried(Event, level=WARNING, public=False):
    """Too many generations drain, and the oldest has to go."""

    generation: int
    most: int

    def line(self) -> str:
        return (
            f"more than {self.most} generations drain: generation "
            f"{self.generation} gets the stop signal now"
        )


class NothingToRun(Event, level=ERROR, public=False):
    """There is no such program."""

    why: str

    def line(self) -> str:
        return f"nothing to run: {self.why}"


class GaveUp(Event, level=ERROR, public=False):
    """No worker was ever ready."""

    failures: int

    def line(self) -> str:
        return f"giving up: {self.failures} workers in a row failed to become ready"
