"""Reloads: a new generation takes over in one step, or nothing changes. Pure.

All at once, slot by slot (`surge`), or on probation: `bake`, where the old
generation waits, and a canary, where it serves on beside the new one.
"""

from __future__ import annotations

from .. import events
from ..base.states import State
from .commands import GiveUp
from .healing import Healing
from .lifecycle import RETIRED, Event
from .members import Member, Reload, Slot

HINT = (
    "workers that serve may be in its way: a check that its port is free, a pid file? "
    "Put WORKER_ID and RECLUSTER_GENERATION into such names, or turn the check off"
)


class Reloading(Healing):
    def reload(self, now: float, canary: float | None = None) -> int:
        """Replace all workers by a new generation, which with `canary` gets that
        part of new connections until `promote` or `rollback`. Returns the reload's
        number."""
        going = [slot for slot in self._wanted() if slot.surplus]
        why = None
        if self.closing:
            why = "the cluster is shutting down"
        elif going and canary:
            why = "slots are being taken away"
        if why:
            return self.refuse(why, now)
        self._last_reload += 1
        number = self._last_reload
        if self.reloading:
            self._abandon_reload("superseded by a newer reload", now)
        if self.baking and self.baking.canary:  # nobody has said that it is good
            self._roll_back("superseded by a newer reload", now)
        elif self.baking:
            self._baked(now)
        self._last_generation += 1
        self.reloading = Reload(self._last_generation, now, number, canary=canary)
        for slot in going:
            slot.surplus, slot.spawn_at = True, None
        for slot in self._kept():
            self._set_aside(slot, now)
            slot.spawn_at = None
            self.reloading.todo.append(slot.index)
            old = slot.serving
            self.reloading.before |= old.addresses | old.closed if old else set()
        self._next_batch(self.reloading, now)
        self._advance(now)
        return number

    def refuse(self, why: str, now: float) -> int:
        """A reload that cannot begin: told as one that failed. Returns its number."""
        self._last_reload += 1
        self._tell_reload(Reload(0, now, self._last_reload), False, why, now)
        return self._last_reload

    @property
    def size(self) -> int:
        """How many slots are wanted."""
        return len(self._kept())

    def _kept(self) -> list[Slot]:
        return [slot for slot in self._wanted() if not slot.surplus]

    def promote(self, now: float, number: int | None = None) -> str | None:
        """End the probation: the new generation gets all. Returns why not."""
        if self.baking and number in (None, self.baking.number):
            self._baked(now)
            return None
        if self.reloading and number in (None, self.reloading.number):
            return f"generation {self.reloading.generation} does not serve yet"
        return "no generation is on probation"

    def rollback(self, now: float, number: int | None = None) -> str | None:
        """End the probation, or the reload that leads to it: the old generation
        gets all. Returns why not."""
        if self.reloading and number in (None, self.reloading.number):
            self._abandon_reload("rolled back", now)
        elif self.baking and number in (None, self.baking.number):
            self._roll_back("as asked", now)
        else:
            return "no generation is on probation"
        self._advance(now)
        return None

    def _take_away(self, slots: list[Slot], now: float) -> None:
        """Of workers that share a lane none can be made to stop accepting alone:
        the socket is the others' too. So slots go at the cutover of a reload."""
        for slot in slots:
            slot.surplus, slot.spawn_at = True, None
            self._drop_coming(slot, now)
            if self.reloading:
                self.reloading.batch.discard(slot.index)
                if slot.index in self.reloading.todo:
                    self.reloading.todo.remove(slot.index)
        if slots and not self.reloading:
            self.reload(now)

    def _advance(self, now: float) -> None:
        kept = any(slot.previous for slot in self.slots.values())
        if self.baking and self.baking.canary and not kept:
            self._baked(now)  # there is nothing left to go back to
        self._heal(now)
        if self.reloading:
            self._boot_more(self.reloading, now)
            while self.reloading and self._cut_over_if_complete(self.reloading, now):
                pass
        else:
            for slot in self._wanted():
                if slot.incoming and self._fits(slot.incoming, now):
                    self._take_over([slot], now)
        if self.killing:
            self._finish_if_empty()

    def _next_batch(self, reload: Reload, now: float) -> None:
        size = self.options.surge or len(reload.todo)
        turn, reload.todo = reload.todo[:size], reload.todo[size:]
        for index in turn:
            slot = self.slots[index]
            if slot.wanted and not slot.incoming:
                reload.batch.add(index)
                reload.unborn.append(index)
        self._boot_more(reload, now)

    def _boot_more(self, reload: Reload, now: float) -> None:
        """A booting program takes the CPUs from the workers that serve, so only so
        many boot at a time; but where nobody serves, at once."""
        incoming = [self.slots[index].incoming for index in reload.batch]
        booting = sum(member is not None and member.state is State.STARTING for member in incoming)
        for index in sorted(reload.unborn, key=lambda index: not self.slots[index].dark):
            slot = self.slots[index]
            wanted = index in reload.batch and not slot.incoming
            if wanted and slot.healing and now < self._believed_until(slot.healing):
                continue  # it may serve sooner than one that is born now
            if wanted and not slot.dark and booting >= self.options.boots:
                break
            reload.unborn.remove(index)
            if wanted:
                self._spawn(slot, reload.generation, now)
                booting += 1

    def _cut_over_if_complete(self, reload: Reload, now: float) -> bool:
        """True if a batch was switched and another begun."""
        slots = [self.slots[index] for index in sorted(reload.batch)]
        for slot in slots:
            if slot.incoming is None or not self._fits(slot.incoming, now):
                return False
        for slot in slots:
            assert slot.incoming is not None
            self._switched(reload, slot, slot.incoming, now)
        reload.cut_over_at = now
        last = not reload.todo
        going = tuple(slot for slot in self._wanted() if slot.surplus and last)
        bake = 0.0 if going or reload.canary else self.options.bake
        if last:
            self.reloading = None
            if reload.canary:
                self.baking = reload  # from the first `Live` on
        self._take_over(slots, now, keep=bool(bake or reload.canary), going=going)
        if not last:
            self._next_batch(reload, now)
            return True
        self.generation = reload.generation
        if reload.canary:
            self._tell(events.Canary(reload.generation, part=reload.canary, number=reload.number))
            self._advance(now)
        elif bake:
            reload.bake_until = now + bake
            self.baking = reload
            self._tell(events.Baking(reload.generation, bake))
        else:
            self._succeeded(reload, now)
        return False

    def _succeeded(self, reload: Reload, now: float) -> None:
        came, went = reload.after - reload.before, reload.before - reload.after
        self._tell_reload(reload, True, None, now, came=sorted(came), went=sorted(went))

    def _baked(self, now: float) -> None:
        """The new generation has proved itself, or nobody waits for that."""
        reload, self.baking = self.baking, None
        assert reload is not None
        old = [slot.previous for slot in self.slots.values() if slot.previous]
        for slot in self.slots.values():
            slot.previous = None
        self._retire(old, now)
        self._succeeded(reload, now)

    def _roll_back(self, why: str, now: float) -> None:
        """The old generation, kept undrained, is live again in one step."""
        reload, self.baking = self.baking, None
        assert reload is not None
        self._rejected.add(reload.generation)
        failed = []
        for slot in self._wanted():
            if slot.previous is None:
                continue  # it has died meanwhile: better the new one than none
            self._drop_coming(slot, now)
            if slot.serving:
                failed.append(slot.serving)
            self._event(slot.previous, Event.PROMOTE, now)
            self.generation = slot.previous.generation
            slot.serving, slot.previous, slot.spawn_at = slot.previous, None, None
        for member in [one for one in self.members.values() if one.generation in self._rejected]:
            self.do(GiveUp(member.id))
        self._retire(failed, now)
        for slot in self._wanted():
            if slot.serving:
                self._settle_chain(slot)
        served = now - reload.cut_over_at
        why = f"{why}: rolled back after {served:.1f} s: the new code served meanwhile"
        self._tell_reload(reload, False, why, now, changed=True)

    def _abandon_reload(self, why: str, now: float) -> None:
        """Nothing changes for clients: the new workers go, the old stay. (What a
        rolling reload has switched so far stays switched, and is told.)"""
        reload, self.reloading = self.reloading, None
        if reload is None:
            return
        kept = []
        for slot in self._wanted():
            slot.surplus = False
            if slot.serving is None:
                self._keep_one(slot, now)
            else:
                self._drop_coming(slot, now)
            goes_on = slot.incoming is not None
            kept += [slot.index] if goes_on else []
            reload.verdicts.setdefault(
                slot.index,
                "goes on: nobody serves here" if goes_on else "stopped: the reload failed",
            )
            if not goes_on and (slot.serving is None or slot.serving.leaves):
                slot.spawn_at = now + self.options.respawn
        if reload.switched:
            numbers = ", ".join(map(str, sorted(reload.switched)))
            why += f"; slots {numbers} have generation {reload.generation} already"
        if kept:
            numbers = ", ".join(map(str, kept))
            why += f"; in slots {numbers}, where nobody serves, the boot under way goes on"
        self._tell_reload(reload, False, why, now, changed=bool(reload.switched or kept))

    def _tell_reload(
        self,
        reload: Reload,
        ok: bool,
        why: str | None,
        now: float,
        changed: bool = False,
        came: list[str] | None = None,
        went: list[str] | None = None,
    ) -> None:
        """`changed`: of one that failed, whether clients met the new code."""
        self.last_reload = {"at": now, "ok": ok, "why": why, "generation": reload.generation}
        self._tell(
            events.Reload(
                ok=ok,
                changed=ok or changed,
                why=why,
                number=reload.number,
                generation=reload.generation,
                seconds=now - reload.began,
                verdicts=dict(reload.verdicts),
                came=came or [],
                went=went or [],
            )
        )

    @staticmethod
    def _boot_verdict(
        status: int, member: Member, now: float, when: str = ", before it was ready"
    ) -> str:
        how = f"exited with code {status}" if status >= 0 else f"was ended by signal {-status}"
        why = f" ({member.error})" if member.error else ""
        return f"{how} after {now - member.born:.1f} s{when}{why}"

    def _note_end(self, slot: Slot, member: Member, status: int, before: State, now: float) -> None:
        """What `status` tells of a slot in trouble."""
        if before in RETIRED and not member.overdue:
            return
        slot.restarts += 1
        starts = before is State.STARTING or member.overdue
        if status or starts:
            when = ", before it was ready" if starts else ""
            slot.last_error = (now, self._boot_verdict(status, member, now, when))

    def _hint(self, status: int, member: Member) -> str | None:
        """What may help a worker that does not say why it cannot boot while its like serve."""
        serves = any(slot.serving for slot in self.slots.values())
        return (
            HINT if status > 0 and not member.error and member.ready_at is None and serves else None
        )

    def _overdue_verdict(self, member: Member) -> str:
        within = f"within {self.options.ready_timeout:g} s"
        wanted = self._expected(member) | member.closed
        missing = sorted(wanted - member.addresses)
        if missing and len(missing) == len(wanted):
            return f"never listened on {', '.join(missing)} {within}"
        if member.refusal:
            return f"was not ready {within}: {self.options.ready_url} was answered {member.refusal}"
        when = self.options.ready_when
        if when == "accepting" and member.addresses:
            return f"took no connection on {', '.join(sorted(member.addresses))} {within}"
        return f"was not {'ready' if when == 'ready' else 'listening'} {within}"
