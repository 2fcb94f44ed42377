"""A population at rest, as plain values, and made of them again: for the master that takes this
one's place. Pure.

Owns what of it is handed on, and when it is at rest: each wanted slot is served, and nothing is
under way. What is derived (who is live) and what is asked for anew (whom to measure, who hangs)
is not handed on. Times are those of a clock that goes on.

Invariant: what is read has exactly the fields that this version knows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from ..base.states import State
from .backoff import Backoff
from .commands import Refuse
from .members import Member, Slot
from .state import Population

VALUES = (
    "generation", "last_reload", "proven", "nothing", "last_id", "last_generation", "reloads",
    "failures", "dies_of_stop", "longest_boot", "told_failing", "daemons", "suspects",
)  # fmt: skip
SETS = ("rejected", "offered", "unclaimed")
SLOT_VALUES = ("index", "wanted", "drained", "early", "restarts", "last_error")
MEMBER_SETS = frozenset({"addresses", "closed", "unseen"})
AFRESH = frozenset({"state", "hung_since", "deadline"})
"""Of a member that serves: what the first looks of the next master tell it."""
MEMBER = tuple(one.name for one in fields(Member) if one.name not in AFRESH)


class Unknown(ValueError):
    """What was handed on is not as this version knows it; the message says what."""


def unrest(people: Population) -> str | None:
    """What is under way, and has to be over first."""
    if people.reloading:
        return "a reload is under way"
    if people.baking:
        return "a generation is on probation"
    for slot in people.slots.values():
        if slot.wanted and slot.serving is None:
            return f"slot {slot.index} has no worker that serves"
        if slot.coming() or slot.previous or slot.chain or slot.surplus:
            return f"a worker of slot {slot.index} begins or ends"
        if slot.spawn_at is not None or (slot.serving and slot.serving.leaves):
            return f"the worker of slot {slot.index} is about to be replaced"
    serving = {slot.serving.id for slot in people.slots.values() if slot.serving}
    if people.members.keys() - serving:
        return "a worker ends"
    return "something has just happened" if people.commands else None


# ---- written -----------------------------------------------------------------------------


def _member(member: Member) -> dict[str, Any]:
    values = {name: getattr(member, name) for name in MEMBER}
    return {name: sorted(v) if name in MEMBER_SETS else v for name, v in values.items()}


def _slot(slot: Slot) -> dict[str, Any]:
    return {
        **{name: getattr(slot, name) for name in SLOT_VALUES},
        "serving": slot.serving.id if slot.serving else None,
        "served": sorted(slot.served),
        "delay": slot.backoff.delay,
    }


def carried(people: Population) -> dict[str, Any]:
    """Of one that is at rest; JSON can say it."""
    return {
        **{name: getattr(people, name) for name in VALUES},
        **{name: sorted(getattr(people, name)) for name in SETS},
        "weights": sorted(people.weights.items()),
        "shared": sorted(people.shared),
        "members": [_member(member) for member in people.members.values()],
        "slots": [_slot(slot) for slot in people.slots.values()],
    }


# ---- read --------------------------------------------------------------------------------


def _known(values: Mapping[str, Any], names: set[str], what: str) -> Mapping[str, Any]:
    """Raises Unknown where it has others."""
    if not isinstance(values, Mapping):
        raise Unknown(what)
    odd = sorted(values.keys() ^ names)
    if odd:
        raise Unknown(f"{what}: {', '.join(odd)}")
    return values


def _member_of(values: Mapping[str, Any]) -> Member:
    known = _known(values, set(MEMBER), "workers")
    made: dict[str, Any] = {name: set(v) if name in MEMBER_SETS else v for name, v in known.items()}
    return Member(**made, state=State.SERVING)


def resume(people: Population, before: Mapping[str, Any]) -> None:
    """Into one that has not been started. Raises Unknown."""
    more = {"weights", "shared", "members", "slots"}
    values = _known(before, {*VALUES, *SETS, *more}, "the state of the cluster")
    for name in VALUES:
        setattr(people, name, values[name])
    for name in SETS:
        setattr(people, name, set(values[name]))
    people.weights = dict(values["weights"])
    people.shared = {(address, count, unsure) for address, count, unsure in values["shared"]}
    people.members = {member.id: member for member in map(_member_of, values["members"])}
    names = {*SLOT_VALUES, "serving", "served", "delay"}
    for one in values["slots"]:
        found = _known(one, names, "slots")
        slot = Slot(found["index"], Backoff(people.options.respawn, people.options.backoff))
        slot.wanted, slot.drained = found["wanted"], found["drained"]
        slot.early, slot.restarts = list(found["early"]), found["restarts"]
        slot.last_error = tuple(found["last_error"]) if found["last_error"] else None
        slot.backoff.delay, slot.served = found["delay"], set(found["served"])
        if found["serving"] is not None:
            slot.serving = people.members[found["serving"]]
        people.slots[slot.index] = slot
    for address in sorted(people.unclaimed):  # who connects there is refused by this master now
        people.do(Refuse(address, True))
