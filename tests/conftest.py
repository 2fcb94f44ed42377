"""Which tests are the core: the main job, respawn, reload, failures, the master's death.

They are what .ci/run repeats as an unprivileged user and under seccomp profiles
(`python tests/deny.py pidfd_getfd,bpf -- python -m pytest -m core`).
"""

import pytest

CORE = {"test_servers.py", "test_failures.py", "test_lanes_live.py", "test_master_death.py"}


def pytest_collection_modifyitems(items):
    for item in items:
        if item.path.name in CORE:
            item.add_marker(pytest.mark.core)
