"""Run N copies of an unmodified server as one cluster, and swap its code under live traffic.

    import recluster

    cluster = recluster.Cluster("server.py", workers=4, timeout=30)
    cluster.run()

`events` has the class of each event; `worker` is the workers' side.
"""

from __future__ import annotations

TYPE_CHECKING = False  # no module typing: what is imported here may be the program's own
if TYPE_CHECKING:
    from . import events, worker
    from .cluster import Cluster
    from .events import Event
    from .events.view import Worker
    from .host.handle import ReloadHandle
    from .options import Options
    from .options.checks import OptionError
    from .start.doors import ClusterError

__version__ = "0.1.0"
__all__ = [
    "Cluster",
    "ClusterError",
    "Event",
    "OptionError",
    "Options",
    "ReloadHandle",
    "Worker",
    "events",
    "worker",
]

if not TYPE_CHECKING:  # a checker would take any name for one of ours
    _HOMES = {
        "Cluster": "cluster",
        "ClusterError": "start.doors",
        "Worker": "events.view",
        "Event": "events",
        "ReloadHandle": "host.handle",
        "OptionError": "options.checks",
        "Options": "options",
    }

    def __getattr__(name):
        """Import on demand: a worker that imports recluster.worker needs no master."""
        from importlib import import_module

        if name in _HOMES:
            return getattr(import_module(f".{_HOMES[name]}", __name__), name)
        if name in __all__:
            return import_module(f".{name}", __name__)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__():
        return sorted({*globals(), *__all__} - {"annotations", "TYPE_CHECKING"})
