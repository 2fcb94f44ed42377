"""The cluster: what a program has that supervises a server.

Owns nothing but the supervisor it has made; what can be asked of that is its own API (`start`,
`dispatch`), `master/driving`, `master/wishes` and `master/callbacks`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from .master.callbacks import Callbacks
from .master.driving import Driving
from .master.settings import Settings
from .master.starting import start
from .master.supervisor import Supervisor
from .options import Options

if TYPE_CHECKING:  # not for the master: its forked workers would find them imported
    from typing import overload

    from typing_extensions import Unpack

    from .options.given import Given
    from .output.log import AnyLogger


class Cluster(Driving, Callbacks):
    """N copies of an unmodified server, supervised.

    `target` is a Python file or a command (a list of words); `module=` names a
    module as `python -m` would; `config=` is a configuration file (docs/configuration.md),
    which may name them instead, and which a reload reads anew. Options: see docs/options.md;
    each may also come from RECLUSTER_<OPTION>. Raises OptionError (a ValueError) for a
    value that cannot be, ClusterError from `start` when neither door works, or
    the control socket is another master's.

    Everything happens in `dispatch`, in the thread that calls it: drive it by
    `run()`, `wait()`, `async with`, or by any loop that polls `fileno()` for
    reading and then calls `dispatch()`; nothing else is needed, deadlines
    included. From `start` on the cluster is its thread's: a method that is called from
    another one, or in a process that the host has forked, raises RuntimeError; from there
    use the loop's own `call_soon_threadsafe` or a signal. Callbacks run inside
    `dispatch` and may call every method but those that wait.
    """

    if TYPE_CHECKING:

        @overload
        def __init__(
            self,
            target: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
            *,
            config: str | os.PathLike[str] | None = None,
            logger: AnyLogger | None = None,
            **options: Unpack[Given],
        ) -> None: ...
        @overload
        def __init__(
            self,
            *,
            module: str,
            config: str | os.PathLike[str] | None = None,
            logger: AnyLogger | None = None,
            **options: Unpack[Given],
        ) -> None: ...
        @overload
        def __init__(
            self,
            *,
            config: str | os.PathLike[str],
            logger: AnyLogger | None = None,
            **options: Unpack[Given],
        ) -> None: ...

    def __init__(
        self,
        target: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | None = None,
        *,
        module: str | None = None,
        config: str | os.PathLike[str] | None = None,
        logger: AnyLogger | None = None,
        **options: Any,
    ) -> None:
        super().__init__(Supervisor(Settings(target, module, config, options), logger))

    @property
    def options(self) -> Options:
        """As they are now: a reload may change some."""
        return self._core.options

    def start(self, *, signals: bool = False, subreaper: bool = False) -> None:
        """Spawn the workers and return; then drive `dispatch`.

        `signals`: handle the signals that `run` handles (main thread only).
        `subreaper`: adopt and reap orphans of the workers; only for a process
        that has no children of its own (prctl(2), PR_SET_CHILD_SUBREAPER).
        """
        start(self._core, signals=signals, subreaper=subreaper)

    def fileno(self) -> int:
        """Readable (epoll) whenever `dispatch` has something to do. Any thread
        may poll it."""
        return self._core.alive().fileno()

    def dispatch(self) -> None:
        """Handle what has happened, without blocking.

        Driven by `fileno()` being readable; an early call does no harm.
        """
        self._core.dispatch()

    def watch(self, fd: int, callback: Callable[[], object]) -> None:
        """Call `callback` from `dispatch` whenever `fd` is readable."""
        self._core.watch(fd, callback)

    def unwatch(self, fd: int) -> None:
        """Take a `watch` back, before closing the descriptor."""
        self._core.unwatch(fd)
