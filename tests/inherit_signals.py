"""Run a command with the signals that some supervisors and shells leave behind: SIGCHLD
ignored; TERM, USR2 and HUP blocked.

    python tests/inherit_signals.py COMMAND...

A pytest that is started so hears of its own children again (conftest.py), and starts its
masters through this file (integration/harness.py).
"""

import os
import signal
import sys

BLOCKED = (signal.SIGTERM, signal.SIGUSR2, signal.SIGHUP)
MARK = "TEST_INHERIT_SIGNALS"


def spoil():
    """In a process that is about to execute something."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, BLOCKED)


if __name__ == "__main__":
    assert sys.argv[1:], __doc__
    spoil()
    os.environ[MARK] = "1"
    os.execvp(sys.argv[1], sys.argv[1:])
