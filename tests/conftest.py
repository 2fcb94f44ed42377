"""Which tests are the core: the main job, respawn, reload, failures, the master's death.

They are what .ci/run repeats under seccomp profiles (`python tests/deny.py
pidfd_getfd,bpf -- python -m pytest -m core`). Those of one Python server more are
`peer`: to the engine's C code they are all the same, so its sanitizer run leaves them out.
"""

import signal

import pytest

# What nohup or a shell's background ignores would be inherited by every master.
signal.signal(signal.SIGHUP, signal.SIG_DFL)
signal.signal(signal.SIGQUIT, signal.SIG_DFL)
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

CORE = {"test_servers.py", "test_failures.py", "test_lanes_live.py", "test_master_death.py"}
PEERS = ("aiohttp", "gunicorn", "granian", "grpcio", "hypercorn", "tornado", "wsgiref")


def pytest_collection_modifyitems(items):
    for item in items:
        if item.path.name in CORE:
            item.add_marker(pytest.mark.core)
        if any(peer in item.name for peer in PEERS):
            item.add_marker(pytest.mark.peer)
