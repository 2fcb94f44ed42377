"""As many slots as there may be."""

import resource

import pytest
from clients import answers
from harness import Running

SOFT = 1024  # what most systems give


def soft_limit():
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(SOFT, hard), hard))


@pytest.mark.skipif(
    0 <= resource.getrlimit(resource.RLIMIT_NOFILE)[1] < 8192, reason="the hard limit is too low"
)
def test_256_slots_under_the_usual_limit(apps):
    """They serve, are reloaded, and see the limit that was before."""
    args = ("--workers", 256, "--boots", 64, "--drain-settle", 0.1, "reports_limit.py", "0")
    with Running(*args, cwd=apps, preexec_fn=soft_limit) as running:
        running.wait_each("ready", 256, timeout=120)
        assert {answer["limit"] for answer in answers(running.port, 50)} == {SOFT}
        assert running.reload(timeout=120)["ok"]
        assert len({answer["worker"] for answer in answers(running.port, 1000)}) > 128
        assert not [line for line in running.log() if "RLIMIT" in line]
        assert running.end(timeout=120) == 0
