"""Run N copies of an unmodified server as one cluster, and swap its code under live traffic.

import recluster
cluster = recluster.Cluster("server.py", workers=4, timeout=30)
cluster.run()
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .checks import OptionError
    from .cluster import Cluster
    from .doors import ClusterError
    from .events import Event
    from .handle import ReloadHandle
    from .options import Options
    from .view import Worker

__version__ = "0.1.0"
__all__ = ["Cluster", "ClusterError", "Event", "OptionError", "Options", "ReloadHandle", "Worker"]

_HOMES = {
    "Cluster": "cluster",
    "ClusterError": "doors",
    "Worker": "view",
    "Event": "events",
    "ReloadHandle": "handle",
    "OptionError": "checks",
    "Options": "options",
}


def __getattr__(name: str) -> Any:
    """Import on demand: a worker that imports recluster.worker needs no master."""
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(f".{_HOMES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
