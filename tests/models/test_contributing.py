"""CONTRIBUTING.md leads somewhere: each file that it names is there, and each make target."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "CONTRIBUTING.md").read_text()
PATHS = sorted(set(re.findall(r"`((?:csrc|src|tests|docs|bench)/[\w./]*)", TEXT)))


def test_it_names_files():
    rows = [line for line in TEXT.splitlines() if re.match(r"\| \w.*`.*\.(py|c)`", line)]
    assert len(rows) >= 10
    assert len(PATHS) > 20


@pytest.mark.parametrize("path", PATHS)
def test_each_file_is_there(path):
    assert (ROOT / path).exists()


def test_each_target_is_there():
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.M))
    named = {word for line in re.findall(r"make ([a-z ]+)", TEXT) for word in line.split()}
    assert {"dev", "one"} <= named & targets
    assert {"build", "test", "lint", "format", "bpf"} <= targets
