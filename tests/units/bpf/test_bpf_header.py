"""Owns: csrc/bpf/balance.h is what `make bpf` makes of balance.bpf.c."""

import importlib.util
import shutil

import pytest

from ..conftest import CSRC


@pytest.fixture(scope="module")
def build():
    spec = importlib.util.spec_from_file_location("bpf_build", CSRC / "bpf" / "build.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not shutil.which(module.clang()):
        pytest.skip("no clang here")
    return module


def test_the_committed_header_is_the_source_compiled(build):
    committed = build.HEADER.read_text()
    made_by = committed.splitlines()[1].removeprefix(" * ")
    if build.version() != made_by:
        pytest.skip(f"the header is of {made_by}; here is {build.version()}")
    assert build.header() == committed, "run `make bpf`"


def test_any_clang_makes_programs_of_the_same_names_and_maps(build):
    """Another version may choose other instructions, not other maps."""
    made = {k: v for one in build.SOURCES for k, v in build.programs(build.compiled(one)).items()}
    assert set(made) == {"round_robin", "least_connections", "count", "flows"}
    committed = build.HEADER.read_text()
    for name, (code, marks) in made.items():
        assert f"rc_{name}_text[]" in committed and 0 < len(code) // 8 <= 1024
        for _, symbol in marks:
            assert symbol.upper() in committed
