"""The programs of bench/ that are made of the engine's files: that they build and run."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from harness import GENEROUS

BENCH = Path(__file__).parent.parent.parent / "bench"


@pytest.mark.skipif(not shutil.which("cc"), reason="no C compiler here")
def test_steering_is_measured():
    """Not how it fares: that is for a quiet machine."""
    # Without the sanitizers' library: it is not for the compiler.
    environ = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
    words = [sys.executable, BENCH / "steering.py", "--lanes", "2", "--rounds", "1"]
    done = subprocess.run(
        [*words, "--connections", "50"],
        capture_output=True,
        text=True,
        timeout=4 * GENEROUS,
        env=environ,
        check=False,
    )
    assert re.search(r"^worst ratio \d", done.stdout, re.MULTILINE), done.stderr
