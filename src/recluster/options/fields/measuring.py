"""What is measured, and where it is told."""

from __future__ import annotations

from ..checks import split_address
from .field import Field


def metrics_address(value: object) -> str | None:
    """HOST:PORT, [IPV6]:PORT or unix:PATH; port 0 is any that is free; None or "none": none."""
    if value is None or (isinstance(value, str) and value.lower() == "none"):
        return None
    if not isinstance(value, str):
        raise ValueError("must be HOST:PORT, [IPV6]:PORT or unix:PATH")
    free = value.endswith(":0") and not value.startswith("unix:")
    split_address(f"{value[:-1]}1" if free else value)
    return value


class Measuring:
    metrics = Field(
        metrics_address,
        None,
        "none",
        "ADDRESS",
        "HOST:PORT, [IPV6]:PORT or unix:PATH where the master answers /metrics (OpenMetrics, for "
        "Prometheus), /healthz and /readyz; whoever reaches it may read it",
    )
