"""On what it was measured: one line, for figures of two machines cannot be compared."""

from __future__ import annotations

import contextlib
import os
import platform


def machine() -> str:
    load = " ".join(f"{value:.2f}" for value in os.getloadavg())
    return (
        f"Linux {platform.release()} {platform.machine()}, {_cpu()}, "
        f"{len(os.sched_getaffinity(0))} CPUs, {platform.python_implementation()} "
        f"{platform.python_version()}, load average {load}"
    )


def _cpu() -> str:
    with contextlib.suppress(OSError), open("/proc/cpuinfo") as file:
        for line in file:
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return "unknown CPU"
