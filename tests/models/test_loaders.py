"""Owns: which programs the preload library may be put into."""

import os
import shutil
import subprocess
import sys

import pytest

from recluster.child.loaders import loader_of, loads_as_we


@pytest.fixture
def program(tmp_path):
    """Writes one, and says where."""

    def write(data):
        path = tmp_path / "program"
        path.write_bytes(data)
        return str(path)

    return write


def test_what_has_our_loader_loads_as_we():
    said = loader_of(sys.executable)
    assert said and os.path.exists(said)
    assert loads_as_we(sys.executable)
    if tool := shutil.which("readelf"):
        words = subprocess.run([tool, "-lW", sys.executable], stdout=subprocess.PIPE, check=True)
        assert b"interpreter: " + said + b"]" in words.stdout


def test_what_has_another_loader_does_not(program):
    ours = loader_of(sys.executable)
    with open(sys.executable, "rb") as file:
        data = file.read()
    other = b"/lib/ld-musl-x86_64.so.1".ljust(len(ours), b"x")[: len(ours)]
    path = program(data.replace(ours, other, 1))
    assert loader_of(path) == other
    assert not loads_as_we(path)


@pytest.mark.parametrize(
    ("first", "same"),
    [
        (f"#!{sys.executable} -x\n", True),
        (f"#! {sys.executable}\n", True),
        ("#!/usr/bin/env python3\n", True),  # what env is, not what it will run
        ("#!/nowhere/python\n", False),
        ("#!\n", False),
        ("", False),
        ("print(1)\n", False),
    ],
)
def test_of_a_script_it_is_the_interpreter_s(program, first, same):
    assert loads_as_we(program(first.encode())) is same


def test_a_fifo_holds_up_nobody(tmp_path):
    os.mkfifo(tmp_path / "program", 0o755)
    assert not loads_as_we(str(tmp_path / "program"))


def test_a_broken_or_foreign_program_does_not(program):
    with open(sys.executable, "rb") as file:
        head = file.read(4096)
    assert not loads_as_we(program(head[:63]))
    assert not loads_as_we(program(head[:64]))  # its table is not there
    assert not loads_as_we(program(head[:4] + b"\1" + head[5:]))  # of 32 bits
    assert not loads_as_we(program(head[:32] + b"\xff" * 8 + head[40:]))  # nowhere
    assert not loads_as_we("/nowhere") and not loads_as_we("/")
