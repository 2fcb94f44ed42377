"""Numbers as one reads them at a glance. Pure."""

from __future__ import annotations

import signal


def signal_name(number: int) -> str:
    """SIGKILL; those without a name by their number."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def seconds(value: float) -> str:
    """312 ms, 4.2 s."""
    return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.1f} s"


def size_text(size: float) -> str:
    """512 MiB, 1.5 GiB: what one reads at a glance."""
    for unit in ("bytes", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.4g} {unit}"
        size /= 1024
    return f"{size:.3g} GiB"
