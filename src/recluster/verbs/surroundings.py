"""What the system allows a master here: privileges, cgroup, limits, who else is there. Looks
only. For `recluster check`."""

from __future__ import annotations

import errno
import os
import resource
import socket
from collections.abc import Iterator
from pathlib import Path

from ..child.launch import Target
from ..control.places import default_directory
from ..options import Options
from ..options.checks import AUTO, split_address
from ..start import identity

Finding = tuple[str, str, str]

CAPABILITIES = {
    "CAP_BPF": (39, "policies in the kernel"),
    "CAP_NET_ADMIN": (12, "connections counted in the kernel"),
    "CAP_SYS_ADMIN": (21, "a door without no_new_privs: sudo and setcap programs work in workers"),
    "CAP_NET_BIND_SERVICE": (10, "ports that are privileged"),
}
DESCRIPTORS_BESIDE = 128
DESCRIPTORS_EACH = 8
COMFORTABLE_BACKLOG = 1024


def _read(path: str | Path) -> str | None:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return None


def _status() -> dict[str, str]:
    lines = (_read("/proc/self/status") or "").splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def privileges(options: Options) -> Iterator[Finding]:
    status = _status()
    mask = int(status.get("CapEff", "0"), 16)
    yield "yes", "privileges", f"uid {os.geteuid()}"
    for name, (bit, what) in CAPABILITIES.items():
        has = bool(mask >> bit & 1)
        yield "yes" if has else "note", name, what if has else f"not here: no {what}"
    if status.get("NoNewPrivs") == "1":
        yield "note", "no_new_privs", "is set: sudo and setcap programs do not work in workers"
    if status.get("Seccomp", "0") != "0":
        yield "note", "seccomp", "a filter is in force here, a container's for example"
    lacks = identity.missing(options)
    if lacks:
        yield "no", "user", f"workers of another user need {', '.join(lacks)} in the master"
    first = int(_read("/proc/sys/net/ipv4/ip_unprivileged_port_start") or 1024)
    bit = CAPABILITIES["CAP_NET_BIND_SERVICE"][0]
    for address in options.bind:
        kind, _, port = split_address(address)
        if kind == "tcp" and port < first and not mask >> bit & 1:
            yield "no", "privileges", f"{address}: ports below {first} need CAP_NET_BIND_SERVICE"
    for one in options.allow_bind:
        if one.port < first and not mask >> bit & 1:
            yield "no", "privileges", f"allow_bind {one}: it needs CAP_NET_BIND_SERVICE itself"


def cgroup(options: Options) -> Iterator[Finding]:
    table = (_read("/proc/self/cgroup") or "").splitlines()
    path = next((line[3:] for line in table if line.startswith("0::")), None)
    if path is None:
        yield "note", "cgroup", "none of version 2: connections cannot be counted in the kernel"
        return
    folder = Path("/sys/fs/cgroup") / path.lstrip("/")
    found = {name: _read(folder / name) for name in ("memory.max", "pids.max", "cpu.max")}
    told = ", ".join(f"{name} {value}" for name, value in found.items() if value)
    yield "yes", "cgroup", f"{path}: {told or 'no limits to be seen'}"
    most, now = found["pids.max"], _read(folder / "pids.current")
    if most and most.isdigit() and now and int(most) - int(now) < 2 * options.workers + 1:
        yield "no", "cgroup", f"pids.max {most}, {now} in use: a reload needs 2 x workers"


def limits(options: Options) -> Iterator[Finding]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = DESCRIPTORS_BESIDE + options.workers * (options.max_draining + 2) * DESCRIPTORS_EACH
    enough = hard == resource.RLIM_INFINITY or hard >= needed
    text = f"soft {soft}, hard {hard}; up to {needed} are needed"
    yield "yes" if enough else "no", "RLIMIT_NOFILE", text
    processes = resource.getrlimit(resource.RLIMIT_NPROC)[0]
    if processes != resource.RLIM_INFINITY and os.geteuid() != 0:
        mark = "note" if processes < 2 * options.workers + 1 else "yes"
        yield mark, "RLIMIT_NPROC", f"{processes} of this user, with threads"
    backlog = int(_read("/proc/sys/net/core/somaxconn") or 0)
    if backlog < COMFORTABLE_BACKLOG:
        yield "note", "somaxconn", f"{backlog}: queues are shorter than {COMFORTABLE_BACKLOG}"


def control(options: Options) -> Iterator[Finding]:
    path = options.control
    if path is None:
        yield "note", "control", "none: it can be asked nothing (`recluster status`, `reload`)"
        return
    directory = default_directory(os.geteuid(), os.environ)
    folder = directory if path == AUTO else os.path.dirname(os.path.abspath(path))
    there = folder if os.path.isdir(folder) or path != AUTO else os.path.dirname(folder)
    if os.access(there, os.W_OK | os.X_OK):
        yield "yes", "control", f"a socket in {folder}"
    else:
        mark = "note" if path == AUTO else "no"
        yield mark, "control", f"no socket can be made in {folder}"


# ---- overlaps --------------------------------------------------------------------------


def overlaps(options: Options, target: Target) -> Iterator[Finding]:
    """What there is twice: generations, supervisors, listeners."""
    most = options.workers + (options.surge or options.workers)
    yield "note", "reload", f"up to {most} workers at once, and what still drains"
    words = [*target.words[1:], *options.args]
    yield from _nested(words, options.workers)
    for address in options.bind:
        why = _taken(address)
        if why:
            yield "no", "bind", f"{address}: {why}"


def _nested(words: list[str], workers: int) -> Iterator[Finding]:
    for at, word in enumerate(words):
        flag, _, value = word.partition("=")
        if flag in ("--workers", "-w", "--processes"):
            count = value or (words[at + 1] if at + 1 < len(words) else "")
            if count.isdigit() and int(count) > 1:
                text = f"{flag} {count} is the program's: {workers} x {count} processes"
                yield "note", "overlap", f"{text}; leave the number to recluster"
        elif flag in ("--reload", "--autoreload"):
            yield "note", "overlap", f"{flag} has the program restart itself; leave it out"


def _taken(address: str) -> str | None:
    """Why it cannot be bound now, tried for a moment; None if it can. The path of a Unix
    socket is only looked at."""
    kind, host, port = split_address(address)
    if kind == "unix":
        return _unix_taken(host)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            trial.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        try:
            trial.bind((host, port))
        except PermissionError:
            return None  # told with the privileges
        except OSError as error:
            in_use = error.errno == errno.EADDRINUSE
            return "somebody else listens there" if in_use else (error.strerror or str(error))
    return None


def _unix_taken(path: str) -> str | None:
    with socket.socket(socket.AF_UNIX) as trial:
        trial.setblocking(False)
        try:
            trial.connect(path)
        except (FileNotFoundError, ConnectionRefusedError):
            return None
        except OSError as error:
            return error.strerror
    return "somebody else listens there"
