"""Which options go together. Each says in one line why not, or nothing. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from . import Options


def a_number_has_no_group(one: Options) -> str | None:
    if one.user and one.user.group is None and not one.group:
        return f"user: {one.user.name} has no account here: give --group too"
    return None


def ready_url_asks_who_accepts(one: Options) -> str | None:
    if one.ready_url and one.ready_when != "accepting":
        return f"ready_url: it goes with ready_when accepting, not {one.ready_when}"
    return None


def bake_is_for_all_at_once(one: Options) -> str | None:
    if one.bake and one.surge:
        return (
            f"bake: {one.bake:g} goes with surge 0 only: a rolling reload has no "
            "old generation to go back to"
        )
    return None


def weights_are_for_weighted(one: Options) -> str | None:
    if one.weights and one.balance != "weighted":
        return f"weights: they go with balance weighted, not {one.balance}"
    return None


def somebody_has_weight(one: Options) -> str | None:
    if not any(one.weights.get(slot, 1) for slot in range(one.workers)):
        return "weights: all are 0: nobody would get a connection"
    return None


def shared_is_for_all_at_once(one: Options) -> str | None:
    if one.surge and one.balance == "shared":
        return (
            f"surge: {one.surge} does not go with balance shared: workers that share "
            "a socket stop accepting together"
        )
    return None


def shared_workers_are_not_replaced_alone(one: Options) -> str | None:
    for name in ("max_rss", "max_lifetime", "max_connections"):
        if one.balance == "shared" and getattr(one, name):
            return (
                f"{name}: it does not go with balance shared: workers that share a socket are "
                "replaced together"
            )
    return None


def connections_are_counted(one: Options) -> str | None:
    counted = ("auto", "round_robin", "least_connections")
    if one.max_connections and one.balance not in counted:
        others = " and ".join(counted[1:])
        return f"max_connections: nobody counts them with balance {one.balance}, but with {others}"
    return None


RULES: tuple[Callable[[Options], str | None], ...] = (
    a_number_has_no_group,
    ready_url_asks_who_accepts,
    bake_is_for_all_at_once,
    weights_are_for_weighted,
    somebody_has_weight,
    shared_is_for_all_at_once,
    shared_workers_are_not_replaced_alone,
    connections_are_counted,
)
