"""A master on a terminal: what the terminal's end means to it."""

import os
import pty
import signal
import sys

from harness import ENVIRONMENT, GENEROUS, Pidfd, descendants, survivors


def read_until(terminal, words, times):
    text = b""
    while text.count(words) < times:
        text += os.read(terminal, 4096)


def test_hup_of_a_closed_terminal_shuts_down(apps):
    """And not a reload: a shell that is closed takes its server with it."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(apps)
        command = [sys.executable, "-m", "recluster", "--workers", "2", "--drain-settle", "0.2"]
        os.execve(command[0], [*command, "--control", "none", "http_server.py", "0"], ENVIRONMENT)
    master = Pidfd(pid)
    pidfds = []
    try:
        read_until(terminal, b"ready after", 2)
        pidfds = [Pidfd(one) for one in descendants(pid)]
        assert len(pidfds) >= 3  # two workers and the guard
        os.close(terminal)
        assert master.is_dead(GENEROUS), "it took the hang-up for a reload"
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert survivors(pidfds, 5.0) == []
    finally:
        for one in [master, *pidfds]:
            one.signal(signal.SIGKILL)
            one.close()
