"""What a process has that its forks would not have, or would share: looked at, and compared.

Owns what counts: threads, children, descriptors, signal handlers, timers. `cheap` is a few
system calls, and different whenever one of these may have changed; the rest is read only then.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from dataclasses import dataclass, field

# Threads that a library ends before a fork and starts again behind it, or does without.
HARMLESS_THREADS = {
    "numpy": "OpenBLAS ends its threads in an atfork handler and starts them when they are needed",
    "scipy": "OpenBLAS, as numpy's",
    "pandas": "jemalloc of pyarrow: its purging thread is started again in the child (atfork)",
    "pyarrow": "jemalloc: its purging thread is started again in the child (atfork)",
    "polars": "jemalloc, as pyarrow's",
}
HARMLESS_SIGNALS = frozenset({32, 33})  # glibc's own
KINDS = {
    "socket": "a socket",
    "pipe": "a pipe",
    "anon_inode:[eventpoll]": "an epoll",
    "anon_inode:[eventfd]": "an eventfd",
    "anon_inode:[io_uring]": "an io_uring",
    "anon_inode:[timerfd]": "a timerfd",
    "anon_inode:[signalfd]": "a signalfd",
    "anon_inode:inotify": "an inotify",
    "/memfd": "a memfd",
}

_LOOKED_AT = [n for n in signal.Signals if n not in (signal.SIGKILL, signal.SIGSTOP)]


def _lowest_free() -> int:
    """A descriptor that is kept takes the lowest number, and this one is another then."""
    with contextlib.suppress(OSError):
        fd = os.dup(0)
        os.close(fd)
        return fd
    return -1


def _is_parent() -> bool:
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def cheap() -> object:
    return (
        os.stat("/proc/self/task").st_nlink,
        _is_parent(),
        _lowest_free(),
        [signal.getsignal(number) for number in _LOOKED_AT],
        signal.getitimer(signal.ITIMER_REAL)[0] > 0,
    )


def signal_masks() -> tuple[int, int]:
    ignored = caught = 0
    with open("/proc/self/status", "rb") as file:
        for line in file:
            if line.startswith(b"SigIgn:"):
                ignored = int(line.split()[1], 16)
            elif line.startswith(b"SigCgt:"):
                caught = int(line.split()[1], 16)
    return ignored, caught


def children() -> set[int]:
    found: set[int] = set()
    for task in os.listdir("/proc/self/task"):
        with contextlib.suppress(OSError), open(f"/proc/self/task/{task}/children") as file:
            found.update(map(int, file.read().split()))
    return found


def _kind(fd: str, link: str) -> str | None:
    """What is shared by it, if it matters: a file that is read, or appended to, does not."""
    for prefix, name in KINDS.items():
        if link.startswith(prefix):
            return name
    if link.startswith("anon_inode"):
        return f"a descriptor ({link.partition(':')[2]})"
    if link.endswith(" (deleted)"):
        return f"a temporary file ({link[:-10]})"
    if link.startswith("/dev/"):
        return None
    with contextlib.suppress(OSError, ValueError), open(f"/proc/self/fdinfo/{fd}") as file:
        flags = next(int(line.split()[1], 8) for line in file if line.startswith("flags:"))
        if flags & os.O_ACCMODE != os.O_RDONLY and not flags & os.O_APPEND:
            return f"a file that it writes ({link})"
    return None


def _descriptors() -> dict[tuple[str, str], str]:
    """(number, link) -> what it is, of those that matter."""
    found = {}
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            link = os.readlink(f"/proc/self/fd/{fd}")
            kind = _kind(fd, link)
            if kind:
                found[fd, link] = kind
    return found


def _threads() -> set[str]:
    return set(os.listdir("/proc/self/task"))


def _settled_threads(known: set[str]) -> set[str]:
    """One that was joined has ended for its program, but not quite for the kernel."""
    for _ in range(20):
        threads = _threads()
        if threads <= known:
            break
        time.sleep(0.001)
    return threads


@dataclass
class Leavings:
    threads: set[str] = field(default_factory=_threads)
    children: set[int] = field(default_factory=children)
    descriptors: dict[tuple[str, str], str] = field(default_factory=_descriptors)
    signals: tuple[int, int] = field(default_factory=signal_masks)
    handlers: list[object] = field(
        default_factory=lambda: [signal.getsignal(number) for number in _LOOKED_AT]
    )
    timer: bool = field(default_factory=lambda: signal.getitimer(signal.ITIMER_REAL)[0] > 0)

    def added_to(self, before: Leavings, module: str) -> list[str]:
        """What the module has done since, of what matters, each as one says it."""
        found = []
        if not self.threads <= before.threads:
            self.threads = _settled_threads(before.threads)
        threads = len(self.threads - before.threads)
        if threads and module.partition(".")[0] not in HARMLESS_THREADS:
            found.append(f"starts {threads} thread{'s' * (threads > 1)}")
        if self.children - before.children:
            found.append("starts a process")
        new = [kind for key, kind in self.descriptors.items() if key not in before.descriptors]
        found += [f"opens {kind}" for kind in sorted(set(new))]
        changed = {
            n for n, a, b in zip(_LOOKED_AT, self.handlers, before.handlers, strict=True) if a != b
        }
        for mask, old in zip(self.signals, before.signals, strict=True):
            changed |= {n for n in _LOOKED_AT if (mask ^ old) >> (n - 1) & 1}
        if names := sorted(n.name for n in changed - HARMLESS_SIGNALS):
            found.append(f"handles {', '.join(names)}")
        if self.timer and not before.timer:
            found.append("sets a timer")
        return found
