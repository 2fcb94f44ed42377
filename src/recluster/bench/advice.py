"""Which policy for this server, from what was measured. Pure.

No request may fail. The tail comes first, then the spread of long-lived connections, then the
cost: among the policies whose light p99 is near the best one, those that spread well enough,
and of these the cheapest. `auto` is preferred where it is among the last, for it is the
default and chooses anew elsewhere. Policies that mean something (a client stays with its
worker, a worker has a share) are not for numbers to choose.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

MEANT = ("source_ip", "weighted")  # chosen for what they mean
NEAR = 1.5  # times the best p99
NEAR_MS = 1.0  # and so much more, which is the noise of a scheduler
EVEN = 1.3  # busiest / mean of long-lived connections
CHEAP = 1.1  # times the least CPU time: that is noise too

Merged = Mapping[str, Mapping[int, Mapping[str, Any]]]  # policy -> workers -> measurement


@dataclass(frozen=True)
class Advice:
    policy: str | None
    text: str


def value(merged: Merged, policy: str, workers: int, *keys: str) -> float | None:
    found: Any = merged.get(policy, {}).get(workers)
    for key in keys:
        if not isinstance(found, Mapping):
            return None
        found = found.get(key)
    return found if isinstance(found, (int, float)) else None


def cpu(merged: Merged, policy: str, workers: int) -> float | None:
    own = value(merged, policy, workers, "accept", "workers_us")
    master = value(merged, policy, workers, "accept", "master_us")
    return None if own is None or master is None else own + master


def _failed(row: Mapping[str, Any]) -> bool:
    """Whether requests failed while nothing was stopped or killed."""
    return any((row.get(kind) or {}).get("failed") for kind in ("short", "long", "tail"))


def _within(
    policies: list[str], of: Callable[[str], float | None], limit: Callable[[float], float]
) -> list[str]:
    """Those whose figure is at most limit(the least one); all if nobody has one."""
    known = {policy: figure for policy in policies if (figure := of(policy)) is not None}
    if not known:
        return policies
    most = limit(min(known.values()))
    return [policy for policy in policies if policy in known and known[policy] <= most]


def advise(merged: Merged, tail_workers: int, fault_workers: int) -> Advice:
    """The policy and two sentences that say why."""
    policies = [policy for policy in merged if policy not in MEANT and merged[policy]]
    if not policies:
        return Advice(None, "No policy could be measured. There is nothing to recommend.")

    def p99(policy: str) -> float | None:
        return value(merged, policy, tail_workers, "tail", "light_ms", "p99")

    def uneven(policy: str) -> float | None:
        many = value(merged, policy, tail_workers, "long", "max_over_mean")
        few = value(merged, policy, fault_workers, "long", "max_over_mean")
        known = [one for one in (many, few) if one is not None]
        if not known:
            return value(merged, policy, tail_workers, "short", "max_over_mean")
        return max(known)

    sound = [p for p in policies if not any(_failed(row) for row in merged[p].values())]
    left = _within(sound or policies, p99, lambda least: least * NEAR + NEAR_MS)
    left = _within(left, uneven, lambda least: max(EVEN, least * 1.05))
    left = _within(left, lambda policy: cpu(merged, policy, tail_workers), lambda c: c * CHEAP)
    best = "auto" if "auto" in left else left[0]
    why = _why(best, policies, p99, uneven)
    return Advice(best, f"{why} {_price(merged, best, policies, tail_workers, fault_workers)}")


def _why(
    best: str,
    policies: list[str],
    p99: Callable[[str], float | None],
    uneven: Callable[[str], float | None],
) -> str:
    """The first sentence: tail and spread, beside the policy that is worst at each."""
    parts = []
    for of, told, unit, digits in (
        (p99, "the light requests' p99 is {} ms", " ms", 1),
        (uneven, "the busiest worker has {} times the mean of the connections", "", 2),
    ):
        known = {policy: figure for policy in policies if (figure := of(policy)) is not None}
        if best not in known:
            continue
        text = told.format(f"{known[best]:.{digits}f}")
        worst = max(known, key=known.__getitem__)
        if worst != best:
            text += f" ({worst}: {known[worst]:.{digits}f}{unit})"
        parts.append(text)
    return f"Use --balance {best}: {' and '.join(parts) or 'nothing speaks against it'}."


def _price(
    merged: Merged, best: str, policies: list[str], tail_workers: int, fault_workers: int
) -> str:
    """The second sentence: what it costs, and what a fault does."""
    parts = []
    mine = cpu(merged, best, tail_workers)
    if mine is not None:
        text = f"a connection costs {mine:.0f} us of CPU"
        known = [p for p in policies if cpu(merged, p, tail_workers) is not None]
        least = min(known, key=lambda p: cpu(merged, p, tail_workers) or 0.0)
        if least != best:
            text += f" ({least}: {cpu(merged, least, tail_workers):.0f} us)"
        parts.append(text)
    served = value(merged, best, fault_workers, "stopped", "others_serve_s")
    if served is not None:
        late = value(merged, best, fault_workers, "stopped", "late") or 0
        parts.append(
            f"with one worker stopped {late:.0f} requests were late until others served all, "
            f"{served:.1f} s after"
            if late
            else "with one worker stopped no request was late"
        )
    text = " and ".join(parts)
    return text[:1].upper() + text[1:] + "." if text else "Its cost could not be measured."
