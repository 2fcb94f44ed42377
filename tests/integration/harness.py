"""What the integration tests run servers with: a cluster, processes, and waiting.

Nothing here sleeps. A test waits on the event stream of the master, on a pidfd or
on a socket, always with a deadline.
"""

import atexit
import contextlib
import fcntl
import json
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import inherit_signals
import leash
from ports import free_port  # noqa: F401 - for those who use this harness

from recluster.control.places import likely_paths

# For what takes milliseconds: on a machine that has more to do than CPUs, so much longer.
GENEROUS = 30.0 * min(4.0, max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1)))
TERM = signal.SIGTERM

if signal.getsignal(signal.SIGQUIT) is signal.SIG_IGN:  # as a shell's `&` has it
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)

# What a test run sets for itself must not hide how programs are started.
ENVIRONMENT = {
    name: value
    for name, value in os.environ.items()
    if not name.startswith(("PYTHON", "RECLUSTER_")) and name != "WEB_CONCURRENCY"
}
# Masters of one test process are found by each other only: a name that is taken is looked at.
ENVIRONMENT["RECLUSTER_RUN_DIRECTORY"] = tempfile.mkdtemp(prefix="recluster-")
atexit.register(shutil.rmtree, ENVIRONMENT["RECLUSTER_RUN_DIRECTORY"], ignore_errors=True)

# gunicorn's control socket is one path for all of a user's, and each takes it from the others.
ENVIRONMENT["HOME"] = ENVIRONMENT["RECLUSTER_RUN_DIRECTORY"]

# For a run under tests/inherit_signals.py: pytest has undone a part of it, for itself.
HOSTILE = [sys.executable, inherit_signals.__file__] if inherit_signals.MARK in os.environ else []

STAMP = re.compile(
    r"^(\d{4}-\d\d-\d\d )?\d\d:\d\d:\d\d(\.\d{3}[+-]\d\d:\d\d)? ([A-Z]+ )?(?=recluster: )",
    re.MULTILINE,
)


def unstamped(text):
    """A log without times and levels, which most tests do not ask for."""
    return STAMP.sub("", text)


# For a run of everything in another way: TEST_OPTIONS="--door preload" pytest ...
EXTRA_OPTIONS = os.environ.get("TEST_OPTIONS", "").split()


class Pidfd:
    """A process that cannot be mistaken for another one."""

    def __init__(self, pid):
        self.pid = pid
        try:
            self.fd = os.pidfd_open(pid)
        except ProcessLookupError:
            self.fd = None

    def is_dead(self, timeout=0.0):
        """Whether it has ended, or does within so many seconds."""
        if self.fd is None:
            return True
        waiting = select.poll()
        waiting.register(self.fd, select.POLLIN)
        return bool(waiting.poll(timeout * 1000))

    def signal(self, number):
        if self.fd is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.fd, number)

    def close(self):
        if self.fd is not None:
            os.close(self.fd)
            self.fd = None


def survivors(pidfds, timeout):
    """Those of the processes that live when the time is over."""
    deadline = time.monotonic() + timeout
    return [p.pid for p in pidfds if not p.is_dead(max(0.0, deadline - time.monotonic()))]


def descendants(pid):
    """The processes below this one, as /proc has them now."""
    found = []
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for task in os.listdir(f"/proc/{pid}/task"):
            children = Path(f"/proc/{pid}/task/{task}/children").read_text().split()
            for child in map(int, children):
                found += [child, *descendants(child)]
    return found


def links(pid):
    """What the descriptors of a process lead to; some may go while this looks."""
    found = []
    for fd in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):
            found.append(os.readlink(f"/proc/{pid}/fd/{fd}"))
    return found


PROCFILE = re.compile(r"/proc/(\d+)/(fd|stat|syscall|task/\1/children)")


def kept(pid):
    """`links`, but for what a master has or has not as it happens: files in /proc of a worker,
    from the first look at each until its end (csrc/load/procfiles.c), and the two descriptors of
    one thread that reads a worker's memory (csrc/base/reader.c), while it lingers for the next."""
    found, lingers = links(pid), "anon_inode:[eventfd]"
    for _ in range(min(found.count(lingers), 2)):
        found.remove(lingers)
    return sorted(link for link in found if not PROCFILE.fullmatch(link))


def until(condition, timeout=GENEROUS):
    """For what no descriptor tells: look again until it holds."""
    deadline = time.monotonic() + timeout
    while not (found := condition()):
        assert time.monotonic() < deadline, "did not come true in time"
        os.sched_yield()
    return found


def stop(pid):
    """SIGSTOP, and wait until none of its threads runs any more."""
    os.kill(pid, signal.SIGSTOP)

    def stopped():
        tasks = Path(f"/proc/{pid}/task").glob("*/stat")
        return all(task.read_text().rpartition(")")[2].split()[0] in "TZ" for task in tasks)

    until(stopped)


def comes_to_rest(master, seconds=1.0):
    """Some whole such time passes in which that process (a Pidfd) is not woken once."""

    def switches():
        status = Path(f"/proc/{master.pid}/status").read_text().splitlines()
        return [line for line in status if "ctxt_switches" in line]

    def rested():
        before = switches()
        assert not master.is_dead(seconds)
        return switches() == before

    until(rested)


def where(pid):
    """In which call each thread of a process that is stuck stands."""
    found = []
    for thread in sorted(Path(f"/proc/{pid}/task").iterdir()):
        for name in ("comm", "wchan", "syscall", "stack"):
            with contextlib.suppress(OSError):
                found.append(f"{thread.name} {name}: {(thread / name).read_text().strip()}")
        with contextlib.suppress(OSError):
            lines = (thread / "status").read_text().splitlines()
            found += [line for line in lines if line.startswith(("Sig", "Shd", "State"))]
    return "\n".join(found)


def let_go(fifo, text=b""):
    """End the wait of the process that reads this FIFO; it may not have begun yet."""

    def opened():
        with contextlib.suppress(OSError):  # ENXIO: nobody reads
            return os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)

    writer = until(opened)
    os.write(writer, text)
    os.close(writer)


def bind_again(port):
    """Listen as a new server would; OSError if somebody still does."""
    with socket.socket() as fresh:
        fresh.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        fresh.bind(("127.0.0.1", port))
        fresh.listen()


# ---- a cluster -----------------------------------------------------------------------


class Running:
    """`python -m recluster ARGS` with its event stream; ended, whole, at exit."""

    def __init__(
        self,
        *args,
        cwd,
        env=None,
        stdout=None,
        stderr=None,
        preexec_fn=None,
        pass_fds=(),
        flags=(),
        verb=(),
        stdin=subprocess.DEVNULL,
    ):
        events, inherited = os.pipe()
        with contextlib.suppress(OSError):  # others have pipes, too
            fcntl.fcntl(events, fcntl.F_SETPIPE_SZ, 1 << 20)  # who is late to read loses nothing
        os.set_blocking(events, False)
        self._events, self._rest = events, b""
        self._untaken, self._port, self._slots = [], None, {}
        self.seen, self._pidfds = [], []
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115
        self._command = [*HOSTILE, sys.executable, *flags, "-m", "recluster", *verb]
        self._command += ["--events", str(inherited)]
        self._command += [*EXTRA_OPTIONS, *map(str, args)]
        self.process = self._popen(
            self._command,
            cwd=cwd,
            env={**ENVIRONMENT, **(env or {})},
            pass_fds=[inherited, *pass_fds],
            stdin=stdin,
            stdout=stdout,
            stderr=self._stderr if stderr is None else stderr,
            preexec_fn=preexec_fn,
        )
        leash.hold(self.process)
        os.close(inherited)
        self.pidfd = Pidfd(self.process.pid)

    def _popen(self, command, **more):
        return subprocess.Popen(command, **more)

    def __enter__(self):
        return self

    def __exit__(self, kind, *unused):
        try:
            if self.process.poll() is None:
                self.signal(signal.SIGQUIT)
                if not self.pidfd.is_dead(GENEROUS):
                    stands = where(self.process.pid)
                    self.process.kill()
                    raise AssertionError(f"the master did not end on SIGQUIT: {stands}")
            self.wait()
            left = survivors(self._pidfds, 10.0)
            assert not left, f"of the slots there are left: {left}"
        finally:
            for pidfd in self._pidfds:
                pidfd.signal(signal.SIGKILL)
                pidfd.close()
            self.pidfd.close()
            os.close(self._events)
            if kind:
                print(f"--- {self._command}\n{self.stderr()}")
                print("\n".join(map(str, self.seen[-100:])))
            self._stderr.close()

    # ---- events ----------------------------------------------------------------------

    def _read(self, timeout):
        """Take in what comes within this time; False at the end of the stream."""
        waiting = select.poll()
        waiting.register(self._events, select.POLLIN)
        waiting.poll(max(0.0, timeout) * 1000)
        try:
            data = os.read(self._events, 1 << 20)
        except BlockingIOError:
            return True
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._take(json.loads(line))
        return bool(data)

    def hears(self, timeout):
        """Wait for the next event, whichever, for so long at most."""
        return self._read(timeout)

    def _take(self, event):
        event["seen"] = time.monotonic()
        self.seen.append(event)
        self._untaken.append(event)
        if event["event"] == "online":
            slot, worker = event["slot"], (event["generation"], event["pid"])
            if worker[0] >= self._slots.get(slot, (0,))[0]:  # not one superseded already
                self._slots[slot] = worker
            self._pidfds.append(Pidfd(event["pid"]))
        elif event["event"] == "exit":
            if self._slots.get(event["slot"], (0, 0))[1] == event["pid"]:
                del self._slots[event["slot"]]
        elif (
            event["event"] == "listening"
            and self._port is None
            and not event["address"].startswith(("unix:", "udp:"))
        ):
            self._port = int(event["address"].rpartition(":")[2])

    def wait_for(self, name, timeout=GENEROUS, where=None, **match):
        """The first such event that no earlier call has returned."""
        deadline = time.monotonic() + timeout
        open_, looked_at = True, 0
        while True:
            # Each once: who looks at all of a flood at every read of it reads too slowly.
            for at in range(looked_at, len(self._untaken)):
                event = self._untaken[at]
                if (
                    event["event"] == name
                    and all(event.get(key) == value for key, value in match.items())
                    and (where is None or where(event))
                ):
                    del self._untaken[at]
                    return event
            looked_at = len(self._untaken)
            left = deadline - time.monotonic()
            assert open_ and left > 0, f"no {name!r} event with {match}; {self.stderr()}"
            open_ = self._read(left)

    def wait_each(self, name, slots, timeout=GENEROUS, **match):
        """Such an event of each slot, by slot."""
        slots = range(slots) if isinstance(slots, int) else slots
        return {slot: self.wait_for(name, timeout, slot=slot, **match) for slot in slots}

    def count(self, name, **match):
        """How many such events have come so far."""
        while self._read(0.0) and select.select([self._events], [], [], 0)[0]:
            pass
        found = [e for e in self.seen if e["event"] == name]
        return sum(all(e.get(key) == value for key, value in match.items()) for e in found)

    @property
    def port(self):
        while self._port is None:
            assert self._read(GENEROUS), f"nobody listens; {self.stderr()}"
        return self._port

    def pids(self):
        """slot -> the pid of its newest worker, if that runs."""
        self.count("online")
        return {slot: pid for slot, (_, pid) in self._slots.items()}

    def status(self):
        """What `python -m recluster.ctl PID status --json` tells."""
        paths = likely_paths(self.process.pid, ENVIRONMENT)
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(GENEROUS)
            connection.connect(next(path for path in paths if os.path.exists(path)))
            connection.sendall(b'{"cmd": "status"}\n')
            return json.loads(connection.makefile().readline())["status"]

    def states(self):
        """pid -> state of each worker that runs, now."""
        workers = [worker for slot in self.status()["slots"] for worker in slot["workers"]]
        return {worker["pid"]: worker["state"] for worker in workers if worker["pid"]}

    def lanes(self):
        """pid -> its lane, now."""
        return {lane["pid"]: lane for lane in self.status()["lanes"]}

    # ---- the process -----------------------------------------------------------------

    def signal(self, number):
        """Send it, and wait until the master has taken it: two must not become one."""
        self.process.send_signal(number)

        def taken():
            if self.pidfd.is_dead():
                return True
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                status = Path(f"/proc/{self.process.pid}/status").read_text()
                pending = [line.split()[1] for line in status.splitlines() if "Pnd:" in line]
                return not any(int(mask, 16) >> (number - 1) & 1 for mask in pending)
            return True

        until(taken)

    def reload(self, timeout=GENEROUS):
        self.signal(signal.SIGUSR2)
        return self.wait_for("reload", timeout)

    def wait(self, timeout=GENEROUS):
        """The exit code; every event has been read then."""
        deadline = time.monotonic() + timeout
        while not self.pidfd.is_dead():
            left = deadline - time.monotonic()
            assert left > 0, f"the master does not end; {self.stderr()}"
            select.select([self._events, self.pidfd.fd], [], [], left)
            if not self._read(0.0):
                assert self.pidfd.is_dead(left), f"the master does not end; {self.stderr()}"
        while self._read(0.0) and select.select([self._events], [], [], 0)[0]:
            pass
        return self.process.wait()

    def end(self, number=TERM, timeout=GENEROUS):
        self.signal(number)
        return self.wait(timeout)

    def stderr(self):
        """What master and workers have written there so far, the log without its times."""
        return unstamped(self.raw_stderr())

    def raw_stderr(self):
        size = os.fstat(self._stderr.fileno()).st_size
        return os.pread(self._stderr.fileno(), size, 0).decode(errors="replace")

    def log(self):
        """The master's own lines."""
        return [line for line in self.stderr().splitlines() if line.startswith("recluster: ")]


def edit(path, old, new):
    """Replace in one step, and younger by mtime than any cached bytecode."""
    text = path.read_text()
    assert old in text
    fresh = path.with_name(path.name + ".new")
    fresh.write_text(text.replace(old, new))
    later = path.stat().st_mtime + 10
    os.utime(fresh, (later, later))
    fresh.replace(path)


def replace(path, source):
    """Deploy another program under the same name."""
    fresh = path.with_name(path.name + ".new")
    fresh.write_text(source.read_text())
    fresh.replace(path)
