"""No test process leaves a master behind, however it ends.

A test that is interrupted, or killed for its time, does not come to the end of its `with`. So a
small process hears of each master by a pipe that only the test process has: when that closes, it
kills those that are left, and their guards end the workers. It is nobody's child: a unit test that
runs in the same process looks whether it has any.
"""

import contextlib
import os
import signal
import subprocess
import sys

_keeper = []


def hold(process):
    """`process`, which must not outlive this one. Call it in the thread that runs the tests."""
    if not _keeper or _keeper[0][0] != os.getpid():
        keeper = subprocess.Popen(
            # Without site: an agent that a test has put there would count it.
            [sys.executable, "-I", "-S", __file__],
            stdin=subprocess.PIPE,
            start_new_session=True,
        )
        keeper.wait()
        _keeper[:] = [(os.getpid(), keeper)]
    with contextlib.suppress(BrokenPipeError):
        _keeper[0][1].stdin.write(b"%d\n" % process.pid)
        _keeper[0][1].stdin.flush()
    return process


def _keep():
    held = []
    for line in sys.stdin.buffer:
        with contextlib.suppress(ProcessLookupError):
            held.append(os.pidfd_open(int(line)))
        for descriptor in [one for one in held if _is_dead(one)]:
            held.remove(descriptor)
            os.close(descriptor)
    for descriptor in held:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)


def _is_dead(descriptor):
    try:
        signal.pidfd_send_signal(descriptor, 0)
    except ProcessLookupError:
        return True
    return False


if __name__ == "__main__" and os.fork() == 0:
    _keep()
