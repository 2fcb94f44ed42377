"""How many CPUs this process may use: affinity, and the cgroup's quota."""

from __future__ import annotations

import math
import os
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None


def _quota_v2(folder: Path) -> float | None:
    """cpu.max is "quota period" or "max period", in microseconds."""
    try:
        quota, period = (folder / "cpu.max").read_text().split()
        return int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return None


def _quota_v1(folder: Path) -> float | None:
    quota, period = _number(folder / "cpu.cfs_quota_us"), _number(folder / "cpu.cfs_period_us")
    return quota / period if quota and period and quota > 0 else None


def _upwards(root: Path, path: str) -> list[Path]:
    """The cgroup and all above it: each may have a quota. In a container the
    path of /proc/self/cgroup may not exist below the mount; the root does."""
    folder = root / path.lstrip("/")
    return [folder, *(p for p in folder.parents if p == root or root in p.parents)]


def cgroup_quota(table: str | None = None, root: Path = CGROUPS) -> float | None:
    """The tightest CPU quota that applies, in CPUs; None without one.

    See cgroups(7); `table` is the text of /proc/self/cgroup.
    """
    if table is None:
        try:
            table = Path("/proc/self/cgroup").read_text()
        except OSError:
            return None
    quotas: list[float | None] = []
    for line in table.splitlines():
        number, controllers, path = line.split(":", 2)
        if number == "0":
            quotas += map(_quota_v2, _upwards(root, path))
            if (root / "unified").is_dir():
                quotas += map(_quota_v2, _upwards(root / "unified", path))
        elif "cpu" in controllers.split(","):
            quotas += map(_quota_v1, _upwards(root / "cpu", path))
    return min((quota for quota in quotas if quota), default=None)


def usable_cpus() -> int:
    """CPUs by affinity, limited by the cgroup's quota (rounded up); at least 1."""
    count = len(os.sched_getaffinity(0))
    quota = cgroup_quota()
    return max(1, count if quota is None else min(count, math.ceil(quota)))
